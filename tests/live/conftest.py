"""What live tests share: a real nats-server, and one real Kafka broker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.live.kafka_broker import kafka_broker
from tests.live.nats_server import NatsServer

__all__ = ["kafka_broker"]


@pytest_asyncio.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of the test's own, running."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    server.stop()
