"""Waiting for what a test expects, and asking for what it needs. Import it as `tests.waiting`."""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")


async def wait_until(
    probe: Callable[[], T | Awaitable[T]], *, within: float = 5.0, every: float = 0.01, what: str = ""
) -> T:
    """Ask the probe until its answer is true, and return that answer. After `within` seconds the test fails.

    `what` says in the failure what was awaited. An AssertionError of the probe counts as "not yet", and is the
    failure's cause when the time is up.
    """
    deadline = time.monotonic() + within
    while True:
        last: object
        try:
            found = probe()
            answer: T = await found if inspect.isawaitable(found) else found
            if answer:
                return answer
            last = answer
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or probe}; last seen: {last!r}")
        await asyncio.sleep(every)


def need_live(reason: str) -> NoReturn:
    """End a test whose server or program is missing: skipped on a developer's machine, failed with REQUIRE_LIVE=1."""
    if os.environ.get("REQUIRE_LIVE") == "1":
        pytest.fail(f"REQUIRE_LIVE=1, and {reason}")
    pytest.skip(reason)
