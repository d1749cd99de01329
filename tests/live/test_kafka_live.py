"""The live feed on Kafka: any worker tells of all partitions, and a client goes on at another one."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.live.kafka_broker import KafkaBroker
from tests.live.live_listener import Listener
from tests.live.marketplace import MailServer, Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import demand, plan_orders
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(240)]

ORDERS = 40


@pytest.fixture
def broker(kafka_broker: KafkaBroker) -> KafkaBroker:
    return kafka_broker


@pytest_asyncio.fixture
async def workers(nats_server: NatsServer, broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Workers]:
    prefix, mail = f"live-{uuid.uuid4().hex[:8]}.", MailServer()
    smtp_url = await mail.start()
    workers = Workers(
        [
            WorkerProcess(
                tmp_path / name, NATS_URL=nats_server.url, KAFKA_URL=broker.url, TOPIC_PREFIX=prefix,
                WORKER_NAME=name, PARTITIONS="2", LOG_LEVEL="warning", PAYMENT_RETRY_DELAY="0.5",
                SMTP_URL=smtp_url, MAIL_RETRY_DELAY="0.5", MAIL_MAX_ATTEMPTS="20",
            )
            for name in ("picual", "arbequina")
        ]
    )  # fmt: skip
    workers.start()
    await workers.ready()
    await workers.until(workers.connected, what="nobody runs the bridge")
    yield workers
    await workers.close()
    mail.close()


async def test_a_client_of_a_killed_worker_goes_on_at_another_and_misses_no_final_state(
    workers: Workers, nats_server: NatsServer
) -> None:
    first, second = workers.all
    orders = plan_orders(ORDERS, seed=12)
    market, moves, stays = Marketplace(orders), Listener(), Listener()
    async with market.connected(nats_server.url), stays.at(second):
        async with moves.at(first):
            await market.fill(workers, demand(orders))
            for order in orders[::2]:
                await market.order(order)
            await wait_until(lambda: len(moves.heard) > 20, within=30)
            first.kill()
        for order in orders[1::2]:
            await market.order(order)
        async with moves.at(second):

            async def ended() -> bool:
                states = await workers.states()
                return states["completed"] + states["closed"] == ORDERS and await workers.idle()

            await second.until(ended, within=90, what="not every order has ended")
            await moves.has_all(workers)
            await stays.has_all(workers)
            first.start()
            await first.ready()
        async with moves.at(first):
            await asyncio.sleep(1)
            await moves.has_all(workers)
    assert [each.data["resumed"] for each in moves.heard if each.event == "hello"] == [False, True, True]
    assert not [each for each in moves.heard + stays.heard if each.event in ("restart", "dropped")]


class TestWhileKafkaIsAway:
    @pytest.fixture
    def broker(self, tmp_path: Path) -> KafkaBroker:
        return KafkaBroker(tmp_path / "broker")

    async def test_streams_stay_and_new_ones_are_told_to_come_later(
        self, workers: Workers, broker: KafkaBroker, nats_server: NatsServer
    ) -> None:
        [worker, other] = workers.all
        listener, market = Listener(), Marketplace([])
        async with market.connected(nats_server.url), listener.at(worker):
            await market.fill(workers, {"before": 1})
            await wait_until(lambda: "before" in listener.latest(), within=20)
            broker.kill()
            began = time.monotonic()
            async with httpx.AsyncClient(base_url=other.web, timeout=30) as client:
                answer = await client.get("/api/live")
            assert time.monotonic() - began < 15
            assert answer.status_code == 503
            assert "log" in answer.json()["reasons"]
            assert int(answer.headers["retry-after"]) > 0
            await asyncio.sleep(3)
            assert listener.connections == 1
            broker.start()
            await workers.ready()
            await market.say("inventory.stock.updated", "StockUpdatedEvent", "meanwhile", {"newStock": 1})
            await wait_until(lambda: "meanwhile" in listener.latest(), within=60)
            assert listener.connections == 1
            broker.kill()
            began = time.monotonic()
            other.stop()  # the one that nobody listens to
            worker.stop()
            assert time.monotonic() - began < 60
