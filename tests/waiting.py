"""Waiting for what a test expects, and asking for what it needs. Import it as `tests.waiting`."""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar, overload

import pytest

T = TypeVar("T")


@overload
async def wait_until(
    probe: Callable[[], Awaitable[T]], *, within: float = ..., every: float = ..., what: str = ...
) -> T: ...
@overload
async def wait_until(probe: Callable[[], T], *, within: float = ..., every: float = ..., what: str = ...) -> T: ...
async def wait_until(
    probe: Callable[[], Any], *, within: float = 5.0, every: float = 0.01, what: str = "it did not come true"
) -> Any:
    """Ask the probe, a function or a coroutine function, until its answer is true, and return that answer.

    After `within` seconds the test fails, with `what` and the last answer. An AssertionError of the probe is "not yet".
    """
    deadline = time.monotonic() + within
    while True:
        try:
            answer = probe()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
        except AssertionError as error:
            answer = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}; last seen: {answer!r}")
        await asyncio.sleep(every)


def need_live(reason: str) -> NoReturn:
    """End a test whose server or program is missing: skipped on a developer's machine, failed with REQUIRE_LIVE=1."""
    if os.environ.get("REQUIRE_LIVE") == "1":
        pytest.fail(f"REQUIRE_LIVE=1, and {reason}")
    pytest.skip(reason)
