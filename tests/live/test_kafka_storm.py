"""kill -9 of the bridge, nats-server and Kafka under load, both ways: the short form of `make chaos-bridge`."""

from pathlib import Path

import pytest

from bench.chaos_bridge import Storm
from tests.live.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.mark.timeout(400)
async def test_bridges_nats_server_and_kafka_killed_at_work_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka")
    try:
        storm = Storm(tmp_path, kills=4, nats_kills=2, kafka_kills=2, broker=broker, rate=1_000, seed=6, tell=print)
        verdict = await storm.run()
    finally:
        broker.stop()
    assert verdict.differences == []
    assert (verdict.lost, verdict.duplicates, verdict.disorder) == (0, 0, 0)
    assert min(verdict.published.values()) > 0, "all that may happen has to happen"
