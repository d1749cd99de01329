"""How far the bridge is with a backlog is told in lines of the log."""

import asyncio
import logging

import pytest

from bridge import backlog
from tests.waiting import wait_until


async def test_a_backlog_is_told_while_it_is_worked_off_and_when_it_is_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlog, "EVERY", 0.01)
    caplog.set_level(logging.INFO, "a4co.bridge")
    status = {"lag_in": 1_000_000, "lag_out": 20}

    def worked() -> dict[str, int]:
        status["lag_in"] = max(0, status["lag_in"] - 200_000)
        return status

    telling = asyncio.create_task(backlog.tell(worked))
    await wait_until(lambda: "bridge: the backlog is worked off" in caplog.messages)
    telling.cancel()
    assert caplog.messages[0].startswith("bridge: 600,000 to read and 20 to publish: ")
    assert caplog.messages[0].endswith(" s left")
    assert len(caplog.messages) == 4


async def test_what_waits_for_a_moment_is_not_worth_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlog, "EVERY", 0.0)
    caplog.set_level(logging.INFO, "a4co.bridge")
    asked = 0

    def busy() -> dict[str, int]:
        nonlocal asked
        asked += 1
        return {"lag_in": 500, "lag_out": 500}

    telling = asyncio.create_task(backlog.tell(busy))
    await wait_until(lambda: asked > 20)
    telling.cancel()
    assert caplog.messages == []
