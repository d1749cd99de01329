"""What live tests share: a real nats-server, a bridge's site on it, and one real Kafka broker."""

from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest_asyncio
from nats.aio.client import Client

from tests.live.bridge_site import TOPICS, CrashingLog, Site
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


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[CrashingLog]:
    log = CrashingLog(tmp_path / "log.db")
    log.open()
    for topic in TOPICS:
        log.declare(topic, 4)
    yield log
    log.close()


@pytest_asyncio.fixture
async def site(log: CrashingLog, nats_server: NatsServer) -> AsyncIterator[Site]:
    site = Site(log, nats_server)
    yield site
    for bridge in site.bridges:
        await bridge.stop()


@pytest_asyncio.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A service of the marketplace, which reconnects at once."""

    async def quiet(_error: Exception) -> None: ...

    client = await nats.connect(
        nats_server.url,
        error_cb=quiet,
        reconnect_time_wait=0.02,
        max_reconnect_attempts=-1,
    )
    yield client
    await client.close()
