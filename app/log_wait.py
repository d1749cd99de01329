"""Waits for a log that is not there yet, for as long as it takes. Decides when that is said, and what happens then."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import LogAway
from app.engine.kafka.log import KafkaLog

TRY = 3.0
"""Seconds that one try takes at most, so that whoever is told to stop meanwhile stops soon."""
LONGEST_WAIT = 10.0
"""Seconds between two tries: 1, then twice as many each time, up to this."""

logger = structlog.get_logger("a4co.main")


class LogWait:
    """Reaches the log, then does `begin`. `problem` says what it waits for; "" when it does not.

    A file is opened at once or never; Kafka may come minutes later, and what is refused (a password) ends it at once.
    """

    def __init__(self, log: EmbeddedLog | KafkaLog, begin: Callable[[], Awaitable[None]]) -> None:
        self.problem = ""
        self._log = log
        self._begin = begin
        self._task: asyncio.Task[None] | None = None

    async def start(self, on_failure: Callable[[Exception], None]) -> None:
        """Begin, or begin to wait.

        Raises:
            EngineError: the embedded log can't be opened; of Kafka, `on_failure` hears.
        """
        if isinstance(self._log, EmbeddedLog):
            await self._log.connect()
            await self._begin()
        else:
            self.problem = f"connecting to {self._log.where}"
            self._task = asyncio.create_task(self._run(self._log, on_failure), name="log")

    async def _run(self, log: KafkaLog, on_failure: Callable[[Exception], None]) -> None:
        wait, said = 1.0, ""
        try:
            while self.problem:
                try:
                    await log.connect(TRY)
                    self.problem = ""
                except LogAway as error:
                    self.problem = str(error)
                    if self.problem != said:
                        logger.warning("not ready, trying again", cause=self.problem)
                        said = self.problem
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
            await self._begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must not go on without its log
            on_failure(error)

    async def stop(self) -> None:
        """Give up waiting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
