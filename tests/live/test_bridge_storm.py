"""kill -9 of the bridge and of nats-server under load, both ways; the long form is `make chaos-bridge LOG=embedded`."""

from pathlib import Path

import pytest

from bench.chaos_bridge import Storm
from tests.live.nats_server import executable

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.mark.timeout(300)
async def test_bridge_and_nats_server_killed_at_work_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    executable()
    verdict = await Storm(tmp_path, kills=4, nats_kills=2, rate=1_000, seed=5, tell=print).run()
    assert verdict.differences == []
    assert (verdict.lost, verdict.duplicates, verdict.disorder) == (0, 0, 0)
    assert min(verdict.published.values()) > 0, "all that may happen has to happen"
