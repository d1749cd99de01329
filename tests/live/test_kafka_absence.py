"""Kafka is away for half a minute and comes back: the worker stays, says so, and goes on where it was."""

import asyncio
import json
from pathlib import Path
from typing import Any

import nats
import pytest

from app.bridging import APP_ID
from app.engine.kafka.log import KafkaLog
from app.main import Marketplace
from app.settings import Settings
from tests.live.kafka_broker import KafkaBroker
from tests.live.nats_server import NatsServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(240)]

AWAY = 30.0
"""Seconds after which librdkafka's calls have been seen to hang for ever when the broker was back."""


async def test_an_order_of_an_absence_is_answered_after_it(nats_server: NatsServer, tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "broker")
    settings = Settings(data_dir=tmp_path / "data", nats_url=nats_server.url, kafka_url=broker.url, worker_name="one")
    assert settings.kafka is not None
    application = Marketplace(settings, KafkaLog(settings.kafka, APP_ID))
    failures: list[BaseException] = []
    await application.start(failures.append)
    client = await nats.connect(nats_server.url)
    answered: list[str] = []

    async def hear(message: Any) -> None:
        answered.append(json.loads(message.data)["aggregateId"])

    async def order(name: str) -> None:
        items = [{"productId": "UNICORNIO", "quantity": 1, "unitPrice": 1}]
        data = {"customerId": "ANA", "totalAmount": 1, "items": items}
        event = {"eventId": name, "eventType": "OrderCreatedEvent", "aggregateId": name, "eventData": data}
        await client.publish("order.created", json.dumps(event).encode())
        await client.flush()

    await client.subscribe("order.cancelled", cb=hear)
    try:
        await wait_until(lambda: application.ready()[0], within=60)
        await order("before")
        await wait_until(lambda: answered == ["before"], within=30)
        broker.stop()
        await order("meanwhile")
        await wait_until(lambda: "kafka" in application.ready()[1], within=20)
        await asyncio.sleep(AWAY)
        broker.start()
        await wait_until(lambda: answered == ["before", "meanwhile"], within=90)
        await wait_until(lambda: application.ready()[0], within=60)
        assert failures == []
    finally:
        await application.stop()
        await client.close()
        broker.stop()
