"""Bursts of core publishers, who wait for nobody: all of it is mirrored, also when the stream is slower than they."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio

from app.engine.embedded_log import EmbeddedLog
from tests.live.bridge_site import TOPICS, CrashingLog, Site, header
from tests.live.nats_server import NatsServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

KEYS = 1_000


async def burst(url: str, messages: int) -> float:
    """Publish them as fast as it goes. Returns seconds."""
    client = await nats.connect(url, pending_size=64 * 1024 * 1024)
    began = time.monotonic()
    for number in range(messages):
        event = b'{"eventId":"%d","aggregateId":"user-%d","eventData":{"number":%d}}' % (number, number % KEYS, number)
        await client.publish("user.verified", event)
    await client.flush()
    await client.close()
    return time.monotonic() - began


def mirrored(log: EmbeddedLog) -> int:
    return sum(log.end("users", partition) for partition in range(log.partitions("users")))


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[CrashingLog]:
    log = CrashingLog(tmp_path / "log.db")
    log.open()
    await log.prepare(dict.fromkeys(TOPICS, False), 4)
    yield log
    await log.disconnect()


async def test_a_burst_of_200_000_is_mirrored_whole_and_in_the_order_of_its_keys(
    log: CrashingLog, tmp_path: Path
) -> None:
    """With JetStream's own sync_interval: it takes the burst in two seconds, and we have it some seconds later."""
    server = NatsServer(tmp_path / "nats", sync="2m")
    await server.start()
    site = Site(log, server)
    try:
        bridge = await site.start()
        published = await burst(server.url, 200_000)
        await wait_until(lambda: mirrored(log) >= 200_000, within=60, every=0.1)
        for partition in range(4):
            last: dict[bytes, int] = {}
            for record in log.read("users", partition, 0, 200_000):
                number = int((record.value or b"").rpartition(b":")[2].rstrip(b"}"))
                assert record.key is not None
                assert number == last.get(record.key, int(record.key.rpartition(b"-")[2]) - KEYS) + KEYS
                last[record.key] = number
        assert mirrored(log) == 200_000
        [own] = bridge.ledger()
        assert (own["routes"]["user.verified"]["mirrored"], own["unaccounted"]) == (200_000, 0)
        print(f"published within {published:.1f} s")
    finally:
        for bridge in site.bridges:
            await bridge.stop()
        server.stop()


async def test_a_stream_that_is_behind_is_waited_for_while_the_rest_goes_on(log: CrashingLog, tmp_path: Path) -> None:
    """It syncs each message, which takes long; our own words wait behind the burst, and are no reason to start over."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    site = Site(log, server)
    try:
        await (await site.start()).stop()  # which has made the stream
        await burst(server.url, 12_000)
        bridge = await site.start()
        await wait_until(lambda: mirrored(log) == 12_000, within=60, every=0.1)
        assert bridge.counters.sessions == 1
        assert header(log.read("users", 0, 0, 1)[0], "a4co-seq") is not None
    finally:
        for bridge in site.bridges:
            await bridge.stop()
        server.stop()
