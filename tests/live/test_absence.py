"""The application comes back after longer than any deadline: what arrived meanwhile is heard before time acts."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from app.engine.embedded_log import EmbeddedLog
from app.main import Marketplace
from app.settings import Settings
from tests.live.nats_server import NatsServer
from tests.waiting import wait_until

pytestmark = pytest.mark.live

HOUR = 3600.0


@asynccontextmanager
async def running(directory: Path, url: str, later: float = 0.0) -> AsyncIterator[Marketplace]:
    """The application, `later` seconds from now."""
    settings = Settings(data_dir=directory, nats_url=url)
    log = EmbeddedLog(settings.log_path, clock=lambda: time.time() + later)
    log.open()
    application = Marketplace(settings, log, clock=lambda: time.time() + later)
    await application.start(lambda _error: None)
    yield application
    await application.stop()


async def say(client: Client, subject: str, key: str, data: dict[str, Any]) -> None:
    event = {"eventId": f"{subject}:{key}", "eventType": "Event", "aggregateId": key, "eventData": data, "metadata": {}}
    await client.publish(subject, json.dumps(event).encode())
    await client.flush()


async def order(client: Client, name: str) -> None:
    items = [{"productId": "MIEL", "quantity": 1, "unitPrice": 5}]
    await say(client, "order.created", name, {"customerId": "ANA", "totalAmount": 5, "items": items})


async def test_what_was_paid_or_ordered_during_a_long_absence_is_not_cancelled(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    client = await nats.connect(nats_server.url)
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    for family in ("order.>", "payment.>", "inventory.>"):
        await client.subscribe(family, cb=hear)
    await client.flush()
    async with running(tmp_path, nats_server.url) as application:
        await wait_until(lambda: application.ready()[0], what="the bridge to be there")
        await say(client, "inventory.stock.updated", "MIEL", {"newStock": 10})
        await wait_until(lambda: application.engine.tables["inventory"].get("MIEL"), what="the honey on the shelf")
        await order(client, "PAID")
        await order(client, "UNPAID")
        await wait_until(lambda: heard.count("payment.initiated") == 2, what="the payments to be asked for")

    await say(client, "payment.succeeded", "PAY-1", {"orderId": "PAID", "amount": 5, "transactionId": "TXN-1"})
    await order(client, "LATE")
    async with running(tmp_path, nats_server.url, later=HOUR) as application:
        orders = application.engine.tables["order_sagas"]
        await wait_until(lambda: heard.count("order.cancelled") == 1, what="the unpaid order to expire")
        await wait_until(lambda: heard.count("payment.initiated") == 3, what="the late order's payment to be asked for")
        await wait_until(application.engine.idle, what="the agents to be done")
        states = {name: row.state.value for name, row in orders.items()}
    assert states == {"PAID": "completed", "UNPAID": "closed", "LATE": "awaiting_payment"}
    assert "payment.refund.initiated" not in heard
    await client.close()
