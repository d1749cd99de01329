from collections.abc import Iterator
from itertools import count

import pytest

from tests.waiting import need_live, wait_until


def ripening() -> Iterator[int]:
    """Answers 0, 1, 2, ..., one a probe."""
    return count()


async def test_waiting_ends_with_the_first_true_answer() -> None:
    olives = ripening()
    assert await wait_until(lambda: next(olives)) == 1


async def test_a_coroutine_can_be_probed_and_its_failed_assert_is_not_yet() -> None:
    olives = ripening()

    async def picked() -> str:
        assert next(olives) == 2
        return "picked"

    assert await wait_until(picked) == "picked"


async def test_when_the_time_is_up_the_failure_says_what_was_awaited_and_seen() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.02 s: the oil is pressed; last seen: 0"):
        await wait_until(lambda: 0, within=0.02, what="the oil is pressed")


def test_a_missing_server_skips_here_and_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_LIVE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no nats-server"):
        need_live("no nats-server")
    monkeypatch.setenv("REQUIRE_LIVE", "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_LIVE=1, and no nats-server"):
        need_live("no nats-server")
