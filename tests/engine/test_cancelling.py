"""What is begun is waited for to its end."""

import asyncio

import pytest

from app.engine.cancelling import unbroken


async def test_a_commit_is_waited_for_however_often_its_task_is_cancelled() -> None:
    may_end = asyncio.Event()
    commits = []

    async def commit() -> None:
        await may_end.wait()
        commits.append("whole")

    task = asyncio.create_task(unbroken(commit()))
    for _ in range(3):
        await asyncio.wait({task}, timeout=0.02)
        task.cancel()
    await asyncio.wait({task}, timeout=0.02)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert commits == ["whole"]
