"""`a4co bridge` processes beside a worker without one: one crosses messages, and the next one soon after its death."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.live.kafka_broker import KafkaBroker
from tests.live.marketplace import Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import Order
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

TAKEOVER = 8.0
"""Seconds that a takeover may have here, with an order's way to its answer, on a busy machine: 5 s are promised, and
`make bench-takeover` measures 3."""

ORDERS = [Order(f"order-{number}", (("aceite", 1),), ("paid",), False, False, "", 0) for number in range(3)]


class Site:
    """Two bridges and a worker, not started."""

    def __init__(self, folder: Path, nats_url: str, kafka_url: str) -> None:
        prefix = f"bridges-{uuid.uuid4().hex[:8]}."

        def process(name: str, command: str) -> WorkerProcess:
            return WorkerProcess(
                folder / name, command=command, NATS_URL=nats_url, KAFKA_URL=kafka_url, TOPIC_PREFIX=prefix,
                WORKER_NAME=name,
            )  # fmt: skip

        self.bridges = Workers([process("bridge-1", "bridge"), process("bridge-2", "bridge")])
        self.worker = process("worker", "worker --without-bridge")

    async def active(self) -> WorkerProcess:
        """Whichever crosses messages."""
        await self.worker.until(self.bridges.connected, what="nobody runs the bridge")
        [active] = [bridge for bridge in self.bridges.running if await bridge.connected()]
        return active


@pytest_asyncio.fixture
async def site(nats_server: NatsServer, kafka_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, nats_server.url, kafka_broker.url)
    yield site
    await site.bridges.close()
    await site.worker.close()


async def test_bridges_alone_carry_the_marketplace_and_one_takes_over_when_another_is_killed(
    site: Site, nats_server: NatsServer
) -> None:
    site.bridges.start()
    site.worker.start()
    await site.bridges.ready()
    await site.worker.ready()
    async with Marketplace(ORDERS).connected(nats_server.url) as market:
        active = await site.active()
        await market.fill(site.worker, {"aceite": 10})
        await market.order(ORDERS[0])
        await wait_until(lambda: "order.confirmed" in {said.subject for said in market.heard}, within=20)
        metrics = await active.answer("/metrics")
        assert metrics is not None
        assert 'bridge_mirrored_total{topic="orders"}' in metrics.text
        told = [await process.answer("/metrics") for process in (*site.bridges.all, site.worker)]
        assert [answer is not None and "\nbridge_active 1" in answer.text for answer in told].count(True) == 1

        active.kill()
        killed = time.monotonic()
        heard = len(market.heard)
        await market.order(ORDERS[1])
        await wait_until(lambda: len(market.heard) > heard, within=TAKEOVER + 5)
        assert time.monotonic() - killed < TAKEOVER
        other = await site.active()
        assert other is not active
        active.start()
        await active.ready()
        assert (await active.get("/health"))["checks"]["nats"]["holder"] == other.settings["WORKER_NAME"]

        heard = len(market.heard)
        await asyncio.to_thread(other.stop)  # which ends with 0
        stopped = time.monotonic()
        await market.order(ORDERS[2])
        await wait_until(lambda: len(market.heard) > heard, within=TAKEOVER)
        assert time.monotonic() - stopped < TAKEOVER


async def test_a_worker_without_a_bridge_waits_for_one(site: Site) -> None:
    site.worker.start()

    async def says_why() -> bool:
        answer = await site.worker.answer("/ready")
        return answer is not None and "no process runs the bridge" in answer.text

    await site.worker.until(says_why, what="it does not say that it waits for a bridge")
    site.bridges.all[0].start()
    await site.worker.ready()
    assert not await site.worker.connected()
    assert (await site.worker.get("/health"))["checks"]["nats"]["holder"] == "bridge-1"


async def test_whoever_is_started_before_kafka_waits_for_it_says_so_and_begins_then(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    broker = KafkaBroker(tmp_path / "broker")
    broker.stop()
    site = Site(tmp_path, nats_server.url, broker.url)
    try:
        site.bridges.start()
        site.worker.start()
        for process in (site.worker, *site.bridges.running):

            async def waits(process: WorkerProcess = process) -> bool:
                answer = await process.answer("/ready")
                return answer is not None and answer.status_code == 503 and "no Kafka at" in answer.text

            await process.until(waits, what="/ready does not tell what it waits for")
        answer = await site.worker.answer("/api/inventory/check/aceite")
        assert answer is not None
        assert answer.status_code == 503
        broker.start()
        await site.worker.ready()
        await site.bridges.ready()
        assert site.worker.output(20_000).count("not ready, trying again") <= 2  # said once for each cause
    finally:
        await site.bridges.close()
        await site.worker.close()
        broker.stop()


async def test_whoever_waits_for_kafka_stops_at_once_when_told_to(nats_server: NatsServer, tmp_path: Path) -> None:
    site = Site(tmp_path, nats_server.url, "kafka://127.0.0.1:1")
    site.worker.start()

    async def waits() -> bool:
        answer = await site.worker.answer("/ready")
        return answer is not None and "no Kafka at" in answer.text

    await site.worker.until(waits)
    began = time.monotonic()
    site.worker.stop()
    assert time.monotonic() - began < TAKEOVER
    await site.worker.close()
