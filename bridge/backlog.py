"""Says how far the bridge is while it works off a backlog. It reads the bridge's status and decides nothing."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger("a4co.bridge")

EVERY = 5.0
"""Seconds between two lines."""

WORTH = 5_000
"""Messages that have to wait for a line to be worth it: some tenths of a second's work."""


async def tell(status: Callable[[], Mapping[str, Any]]) -> None:
    """A line every so often while much waits, and one when it is done; until cancelled."""
    told, since, before = False, time.monotonic(), waiting(status())
    while True:
        await asyncio.sleep(EVERY)
        now, left = time.monotonic(), waiting(status())
        if sum(left) >= WORTH:
            told = True
            rate = (sum(before) - sum(left)) / (now - since)
            logger.info("bridge: %s to read and %s to publish%s", *(f"{lag:,}" for lag in left), in_words(rate, left))
        elif told:
            told = False
            logger.info("bridge: the backlog is worked off")
        since, before = now, left


def waiting(status: Mapping[str, Any]) -> tuple[int, int]:
    """Messages that wait to be read and to be published."""
    return status["lag_in"], status["lag_out"]


def in_words(rate: float, left: tuple[int, int]) -> str:
    """How fast it becomes less (messages/s), and how long it will take; "" while it becomes more."""
    return f": {rate:,.0f} fewer each second, {sum(left) / rate:.0f} s left" if rate > 0 else ""
