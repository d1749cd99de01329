"""Waiting and ending for sure: a commit is waited for to its end, and a task is cancelled until it has ended."""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

Result = TypeVar("Result")

AGAIN = 0.1
"""Seconds to the next cancel of a task that goes on."""


async def unbroken(work: Awaitable[Result]) -> Result:
    """Run it to its end. Without this, a cancelled task could read its old position while its commit still goes on."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():  # also when it is cancelled again
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # asyncio complains of errors that nobody looked at
        raise


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once. If one fails, the others are cancelled and waited for."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await end(tasks)


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel until all have ended: nats-py's flush, and `wait_for` before Python 3.12, may swallow a cancel."""
    while going := [task for task in tasks if not task.done()]:
        for task in going:
            task.cancel()
        await asyncio.wait(going, timeout=AGAIN)


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
