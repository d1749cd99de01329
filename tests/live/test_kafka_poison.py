"""The poison set into a worker on Kafka: the same becomes of it as on the embedded log, and the worker goes on."""

import json
from collections import Counter
from pathlib import Path

import httpx
import nats
import pytest

from tests.live.kafka_broker import KafkaBroker
from tests.live.market_site import PICUAL, order_created
from tests.live.nats_server import NatsServer
from tests.live.poison import KEPT, MEBIBYTE, POISON, Applied
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]


async def test_poison_of_any_size_goes_through_kafka_and_stops_nobody(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    server = NatsServer(tmp_path / "nats", max_payload=16 * MEBIBYTE)
    await server.start()
    worker = WorkerProcess(
        tmp_path / "worker", NATS_URL=server.url, KAFKA_URL=kafka_broker.url, TOPIC_PREFIX="poison.", WORKER_NAME="one"
    )
    worker.start()
    client = await nats.connect(server.url)
    try:
        await worker.ready()
        await wait_until(worker.connected, within=20)
        line = {"productId": PICUAL, "name": "p", "category": "x", "artisanId": "a", "onHand": 99_999, "threshold": 0}
        async with httpx.AsyncClient(base_url=worker.web) as web:
            assert (await web.post("/api/stock/import", json=[line])).status_code == 200
        for number, poison in enumerate(POISON):
            await client.publish("order.created", json.dumps(order_created(f"neighbour-{number}")).encode())
            await client.publish(poison.subject, poison.payload, headers=dict(poison.headers) or None)
        await client.flush()
        dead = Counter(p.becomes for p in POISON if not isinstance(p.becomes, Applied) and p.becomes != KEPT)
        valid = {p.becomes.order for p in POISON if isinstance(p.becomes, Applied)}
        neighbours = {f"neighbour-{number}" for number in range(len(POISON))}

        async def all_done() -> bool:
            letters = Counter(letter["reason"] for letter in await worker.pages("/api/dead-letters"))
            orders = {order["orderId"]: order["state"] for order in await worker.pages("/api/orders")}
            assert letters == dead
            assert orders.keys() == valid | neighbours
            return all(orders[order] == "awaiting_payment" for order in neighbours)

        await wait_until(all_done, within=60, every=0.5, what="each row's end")
        await worker.ready()
        worker.stop()
    finally:
        await client.close()
        await worker.close()
        server.stop()
