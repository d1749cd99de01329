"""The whole application in this process, between a real NATS and a real embedded log, with a customer who listens."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.domain.rows import OrderSaga
from app.engine.embedded_log import EmbeddedLog
from app.engine.records import Record
from app.main import Marketplace
from app.settings import Settings
from app.web.stock_lines import StockLine
from tests.waiting import wait_until

HEARD = ("order.>", "payment.>", "inventory.>", "notification.>", "user.>", "shipment.>")
PICUAL = "product_aceite_picual"


def order_created(order: str, **changes: Any) -> dict[str, Any]:
    """A good order.created in dialect A, of one bottle."""
    data = {
        "customerId": "customer-1",
        "items": [{"productId": PICUAL, "quantity": 1, "unitPrice": 12.5}],
        "totalAmount": 12.5,
        "currency": "EUR",
    }
    envelope = {
        "eventId": f"created-{order}",
        "eventType": "OrderCreatedEvent",
        "aggregateId": order,
        "eventVersion": 1,
        "occurredOn": "2026-11-24T13:35:51.032Z",
        "eventData": data,
        "metadata": {"version": "1.0"},
    }
    return envelope | changes


def payment_succeeded(order: str, payment: str = "payment-1") -> dict[str, Any]:
    """A good payment.succeeded in dialect A."""
    data = {"orderId": order, "transactionId": f"txn-{payment}", "amount": 12.5, "currency": "EUR"}
    kind = {"eventType": "PaymentSucceededEvent", "eventId": f"paid-{order}", "eventData": data}
    return order_created(payment, **kind)


class MarketSite:
    """One running application; what goes in goes over NATS, what is asked is what is in its log and tables."""

    def __init__(self, application: Marketplace, log: EmbeddedLog, client: Client) -> None:
        self.application = application
        self.client = client
        self.heard: list[Msg] = []
        self.failures: list[BaseException] = []
        self._log = log

    async def publish(
        self, subject: str, payload: bytes | dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        """A message of another service."""
        value = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self.client.publish(subject, value, headers=dict(headers) if headers else None)

    async def hear(self, message: Msg) -> None:
        self.heard.append(message)

    def ours(self, about: str = "") -> dict[str, Msg]:
        """What the application said about an order, by subject."""
        return {
            message.subject: message
            for message in self.heard
            if "A4co-Origin" in (message.headers or {}) and about.encode() in message.data
        }

    async def answer(self, subject: str, about: str) -> Msg:
        """What the application says on the subject about an order."""
        await wait_until(lambda: subject in self.ours(about), within=10, what=f"{subject} about {about}")
        return self.ours(about)[subject]

    def saga(self, order: str) -> OrderSaga | None:
        row: OrderSaga | None = self.application.views.order_sagas.get(order)
        return row

    def records(self, topic: str) -> list[Record]:
        """All that is in a topic."""
        return [
            record
            for partition in range(self._log.partitions(topic))
            for record in self._log.read(topic, partition, 0, 1_000_000)
        ]

    async def stock(self, *products: str) -> None:
        """Plenty of each."""
        lines = [
            StockLine(product_id=product, name=product, category="", artisan_id="a", on_hand=100_000, threshold=0)
            for product in products
        ]
        await self.application.import_stock(lines)

    async def idle(self, within: float = 20) -> None:
        """Return when nothing waits anywhere, which a message published before it is part of."""
        await self.client.flush()
        last = (await self.client.jetstream().stream_info("A4CO_EVENTS")).state.last_seq

        def quiet() -> bool:
            bridge = self.application.bridge.status()
            done = bridge["position"] >= last and not bridge["lag_in"] and not bridge["lag_out"]
            return bool(self.failures) or (done and self.application.engine.idle())

        await wait_until(quiet, within=within, what="the application to be idle")
        assert not self.failures, self.failures


@asynccontextmanager
async def market_site(url: str, folder: Path, **settings: Any) -> AsyncIterator[MarketSite]:
    """The application on a new log in the folder, ready, with bottles on the shelf."""
    chosen = Settings(**{"data_dir": folder, "nats_url": url, **settings})
    chosen.data_dir.mkdir(exist_ok=True)
    log = EmbeddedLog(chosen.log_path)
    log.open()
    application = Marketplace(chosen, log)
    client = await nats.connect(url)
    site = MarketSite(application, log, client)
    for subject in HEARD:
        await client.subscribe(subject, cb=site.hear)
    await client.flush()
    await application.start(site.failures.append)
    try:
        await wait_until(lambda: application.ready()[0], within=10, what="the application to be ready")
        await site.stock(PICUAL)
        yield site
    finally:
        await application.stop()
        await client.close()
