"""Asks Kafka until it answers, for work that has to be done before anything else can be."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from app.engine.errors import LogAway

AGAIN = 0.5
"""Seconds to the next try while no broker answers."""

Asked = TypeVar("Asked")

logger = structlog.get_logger("a4co.engine.kafka")


class Patience:
    """That of one member of `group`. `ending`: Kafka that does not answer is not waited for any more."""

    def __init__(self, group: str) -> None:
        self.ending = False
        self._group = group

    async def until_answered(self, what: str, ask: Callable[[], Awaitable[Asked]]) -> Asked:
        """The answer. `what` it is for says the log. Raises LogAway only when it is ending."""
        waited = False
        while True:
            try:
                answer = await ask()
            except LogAway as error:
                if self.ending:
                    raise
                if not waited:
                    logger.warning("waiting for Kafka", work=what, group=self._group, cause=str(error))
                waited = True
                await asyncio.sleep(AGAIN)
            else:
                if waited:
                    logger.info("Kafka answers again", work=what, group=self._group)
                return answer
