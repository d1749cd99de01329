"""What existing services publish, as it was captured, goes in raw; what a plain NATS subscriber hears is compared field
by field with the wire's contract, in each of the three dialects.
"""

import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.live.marketplace import SUBJECTS, MailServer
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.live

FIXTURES = Path(__file__).parents[2] / "app" / "asyncapi" / "samples"
PICUAL, QUESO, JAMON = "product_aceite_picual", "product_queso_cabra", "product_jamon_iberico"
OLIVARES = "artisan_olivares_ubeda"
BOUGHT, DECLINED, TOO_MANY = (
    "order_1795527351031_wueeee5lg",
    "order_1795527354034_1ueeee6gt",
    "order_1795527357036_l5p4x2ka9",
)


class Like:
    """Equal to every text of this form: what the application chooses itself."""

    def __init__(self, name: str, pattern: str) -> None:
        self._name = name
        self._pattern = re.compile(pattern)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._pattern.fullmatch(other) is not None

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._name}>"


TIME = Like("ISO time with ms and Z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID = Like("uuid", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TRACKING = Like("TRK and 13 digits", r"TRK\d{13}")
MAIL_ID = Like("email_ and an id", r"email_\S+")
MESSAGE_ID = Like("Message-ID", r"<\S+@\S+>")
RESERVATION = Like("reservation", r"res-\S+")


def fixture(name: str) -> list[dict[str, Any]]:
    """The captured messages: {subject, headers, payload}."""
    return [json.loads(line) for line in (FIXTURES / name).read_text("utf-8").splitlines()]


class Site:
    """A worker between a real NATS and a real mail server, one product line of each kind, and somebody who listens."""

    def __init__(self, worker: WorkerProcess, client: Client) -> None:
        self.worker = worker
        self.client = client
        self.heard: list[tuple[str, Any]] = []
        self._published: set[bytes] = set()

    async def hear(self, message: Msg) -> None:
        if message.data not in self._published:
            self.heard.append((message.subject, json.loads(message.data)))

    async def publish(self, subject: str, payload: str) -> None:
        self._published.add(payload.encode())
        await self.client.publish(subject, payload.encode())

    async def stock(self, *lines: tuple[str, int, int]) -> None:
        """(product, on hand, threshold) of each product."""
        listed = [
            {"productId": product, "name": product.title(), "category": "despensa", "artisanId": OLIVARES,
             "onHand": on_hand, "threshold": threshold}
            for product, on_hand, threshold in lines
        ]  # fmt: skip
        async with httpx.AsyncClient(base_url=self.worker.web) as web:
            answer = await web.post("/api/stock/import", json=listed)
        assert answer.status_code == 200, answer.text

        async def filled() -> bool:
            return len(await self.worker.pages("/api/inventory")) == len(lines)

        await wait_until(filled)

    async def answers(self, *subjects: str) -> list[Any]:
        """The next answers, once there is one on each of these subjects; fails when there are others."""
        await wait_until(lambda: sorted(subject for subject, _ in self.heard) == sorted(subjects), within=10)
        by_subject = dict(self.heard)
        self.heard.clear()
        return [by_subject[subject] for subject in subjects]


@pytest_asyncio.fixture
async def site(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Site]:
    mail = MailServer()
    worker = WorkerProcess(
        tmp_path / "worker", NATS_URL=nats_server.url, SMTP_URL=await mail.start(), PAYMENT_MAX_ATTEMPTS="1"
    )
    client = await nats.connect(nats_server.url)
    site = Site(worker, client)
    for subject in SUBJECTS:
        await client.subscribe(subject, cb=site.hear)
    await client.flush()
    worker.start()
    await worker.ready()
    yield site
    worker.stop()
    await worker.close()
    await client.close()
    mail.close()


def domain_event(event_type: str, aggregate: object, data: dict[str, Any]) -> dict[str, Any]:
    """Dialect A's envelope, every field of it and no other."""
    metadata = {
        "eventId": UUID,
        "correlationId": Like("a correlation", ".+"),
        "causationId": UUID,
        "publishedAt": TIME,
        "version": "1.0",
        "source": Like("a service", "(order|inventory|payment|notification)-service"),
    }
    return {
        "eventId": UUID,
        "eventType": event_type,
        "aggregateId": aggregate,
        "eventVersion": 1,
        "occurredOn": TIME,
        "eventData": data,
        "metadata": metadata,
    }


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


# ---- dialect A, and B: the same on .v1 --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".v1"], ids=["dialect A", "dialect B"])
async def test_the_captured_services_are_answered_in_the_words_of_the_services_that_are_replaced(
    site: Site, suffix: str
) -> None:
    await site.stock((PICUAL, 50, 48), (QUESO, 25, 0), (JAMON, 15, 0))
    sent = {(m["subject"], json.loads(m["payload"])["aggregateId"]): m["payload"] for m in fixture("dialect-a.jsonl")}

    def on(*subjects: str) -> list[str]:
        return [subject + suffix for subject in subjects]

    await site.publish("order.created" + suffix, sent["order.created", BOUGHT])
    warning, reserved, asked = await site.answers(
        "inventory.stock.warning", *on("inventory.stock.reserved", "payment.initiated")
    )
    assert reserved == domain_event("StockReservedEvent", PICUAL, {
        "orderId": BOUGHT, "quantityReserved": 2, "remainingStock": 48, "reservationExpiry": TIME, "reservedAt": TIME,
        "artisanId": OLIVARES,
    })  # fmt: skip
    assert seconds_between(reserved["eventData"]["reservedAt"], reserved["eventData"]["reservationExpiry"]) == 1800
    assert warning == domain_event("LowStockWarningEvent", PICUAL, {
        "currentStock": 48, "threshold": 48, "artisanId": OLIVARES, "productName": PICUAL.title(),
        "category": "despensa", "urgencyLevel": "medium", "lastRestocked": TIME,
    })  # fmt: skip
    assert asked == domain_event("PaymentInitiatedEvent", UUID, {
        "orderId": BOUGHT, "customerId": "customer_123", "amount": 25, "currency": "EUR", "paymentMethod": "card",
        "paymentGateway": "stripe", "initiatedAt": TIME, "attempt": 1, "paymentId": asked["aggregateId"],
    })  # fmt: skip

    await site.publish("payment.succeeded" + suffix, sent["payment.succeeded", "payment_1795527353035"])
    confirmed, mailed = await site.answers(*on("order.confirmed", "notification.email.sent"))
    assert confirmed == domain_event("OrderConfirmedEvent", BOUGHT, {
        "confirmedAt": TIME, "estimatedDelivery": TIME, "paymentReference": "txn_1795527353035",
        "artisanNotified": True, "trackingNumber": TRACKING,
    })  # fmt: skip
    assert mailed == domain_event("EmailSentEvent", MAIL_ID, {
        "recipientEmail": "cliente@jaen.com", "subject": f"Confirmación de pedido #{BOUGHT}",
        "template": "order-confirmation", "sentAt": TIME, "provider": "smtp", "messageId": MESSAGE_ID,
        "variables": {
            "orderId": BOUGHT, "trackingNumber": confirmed["eventData"]["trackingNumber"], "estimatedDelivery": TIME,
        },
    })  # fmt: skip

    await site.publish("order.created" + suffix, sent["order.created", DECLINED])
    await site.answers(*on("inventory.stock.reserved", "payment.initiated"))
    await site.publish("payment.failed" + suffix, sent["payment.failed", "payment_1795527356038"])
    cancelled, released, mailed = await site.answers(
        *on("order.cancelled", "inventory.stock.released", "notification.email.sent")
    )
    reason = "Pago fallido: Tarjeta rechazada por el banco"
    assert cancelled == domain_event("OrderCancelledEvent", DECLINED, {
        "reason": reason, "cancelledAt": TIME, "cancelledBy": "system", "refundRequired": False,
        "notificationSent": True,
    })  # fmt: skip
    assert released == domain_event("StockReleasedEvent", QUESO, {
        "orderId": DECLINED, "quantityReleased": 1, "reason": "payment-failed", "newStock": 25, "releasedAt": TIME,
        "artisanId": OLIVARES,
    })  # fmt: skip
    assert mailed["eventData"] == {
        "recipientEmail": "cliente@jaen.com", "subject": f"Orden #{DECLINED} cancelada",
        "template": "order-cancellation", "sentAt": TIME, "provider": "smtp", "messageId": MESSAGE_ID,
        "variables": {"orderId": DECLINED, "reason": reason, "refundRequired": False},
    }  # fmt: skip

    await site.publish("order.created" + suffix, sent["order.created", TOO_MANY])
    cancelled, mailed = await site.answers(*on("order.cancelled", "notification.email.sent"))
    captured = json.loads(sent["order.cancelled", TOO_MANY])["eventData"]
    assert cancelled == domain_event("OrderCancelledEvent", TOO_MANY, captured | {"cancelledAt": TIME})
    shelf = await site.worker.get(f"/api/inventory/check/{PICUAL}")
    assert shelf["available"] == 48


async def test_every_answer_has_the_fields_that_the_captured_one_has(site: Site) -> None:
    """The captured answers of the services that are replaced are the pattern: subject by subject, type by type."""
    await site.stock((PICUAL, 50, 0), (QUESO, 25, 0), (JAMON, 15, 0))
    captured = fixture("dialect-a.jsonl")
    asked = ("order.created", "payment.succeeded", "payment.failed")
    for message in sorted((m for m in captured if m["subject"] in asked), key=lambda m: m["subject"]):
        if message["subject"].startswith("payment."):
            await wait_until(lambda: [subject for subject, _ in site.heard].count("payment.initiated") == 2)
        await site.publish(message["subject"], message["payload"])
    patterns = [(m["subject"], json.loads(m["payload"])) for m in captured if m["subject"] not in asked]
    await wait_until(lambda: [subject for subject, _ in site.heard].count("notification.email.sent") == 3)
    # recipientName is optional, and nobody told us the name; causationId is optional, and we know it.
    for subject, pattern in patterns:
        [answer, *_] = [event for heard, event in site.heard if heard == subject and _same_order(event, pattern)]
        assert _shape(answer, {"causationId"}) == _shape(pattern, {"recipientName"})


def _same_order(event: dict[str, Any], pattern: dict[str, Any]) -> bool:
    return _order(event) == _order(pattern)


def _order(event: dict[str, Any]) -> str:
    data = event["eventData"]
    return str(data.get("orderId") or data.get("variables", {}).get("orderId") or event["aggregateId"])


def _shape(value: Any, without: set[str]) -> Any:
    """The names and the JSON types; times and numbers are types of their own."""
    if isinstance(value, dict):
        return {name: _shape(inner, without) for name, inner in sorted(value.items()) if name not in without}
    if isinstance(value, str) and value == TIME:
        return "time"
    return type(value).__name__


# ---- dialect C --------------------------------------------------------------------------------------------

CORRELATION = "620115a4-7b8e-4772-ac52-205f9e6ab4d4"
"""Of the captured order.created.v1."""


def shared_event(subject: str, data: dict[str, Any]) -> dict[str, Any]:
    """Dialect C as Nest wraps it, with the data where each of its readers looks for it."""
    source = Like("a service", "(order|inventory|payment)-service")
    envelope = {"eventId": UUID, "eventType": subject, "correlationId": CORRELATION, "timestamp": TIME, "data": data,
                "payload": data, "metadata": {"source": source, "causationId": UUID}}  # fmt: skip
    return {"pattern": subject, "data": envelope}


def shared(subject: str) -> str:
    return next(str(m["payload"]) for m in fixture("dialect-c.jsonl") if m["subject"] == subject)


async def reserve_in_c(site: Site) -> str:
    """The captured order in dialect C, up to the request for its payment. Returns the payment's id."""
    await site.stock(("p1", 10, 0))
    await site.publish("order.created.v1", shared("order.created.v1"))
    reserved, asked = await site.answers("inventory.reserved.v1", "payment.requested.v1")
    item = {"reservationId": RESERVATION, "productId": "p1", "quantity": 2, "reserved": 2}
    assert reserved == shared_event("inventory.reserved.v1", {
        "reservationId": item["reservationId"], "orderId": "order-1", "items": [item], "expiresAt": TIME,
        "reservedAt": TIME,
    })  # fmt: skip
    data = reserved["data"]["data"]
    assert {item["reservationId"] for item in data["items"]} == {data["reservationId"]}
    assert seconds_between(data["reservedAt"], data["expiresAt"]) == 1800
    payment = asked["data"]["data"]["paymentId"]
    assert payment == UUID
    assert asked == shared_event("payment.requested.v1", {
        "orderId": "order-1", "customerId": "c1", "amount": 25, "currency": "EUR", "paymentMethod": "card",
        "paymentGateway": "stripe", "requestedAt": TIME, "attempt": 1, "paymentId": payment,
    })  # fmt: skip
    return str(payment)


async def test_an_order_of_dialect_c_is_confirmed_in_dialect_c(site: Site) -> None:
    await reserve_in_c(site)
    await site.publish("payment.confirmed.v1", shared("payment.confirmed.v1"))
    [confirmed] = await site.answers("order.confirmed.v1")
    assert confirmed == shared_event("order.confirmed.v1", {
        "orderId": "order-1", "customerId": "c1", "paymentId": "pay-1", "totalAmount": 25, "currency": "EUR",
        "paymentReference": "pi_1", "confirmedAt": TIME, "estimatedDelivery": TIME, "artisanNotified": True,
        "trackingNumber": TRACKING,
    })  # fmt: skip


async def test_an_order_of_dialect_c_that_is_not_paid_is_cancelled_and_released_in_dialect_c(site: Site) -> None:
    await reserve_in_c(site)
    await site.publish("payment.failed.v1", shared("payment.failed.v1"))
    cancelled, released = await site.answers("order.cancelled.v1", "inventory.released.v1")
    assert cancelled == shared_event("order.cancelled.v1", {
        "orderId": "order-1", "customerId": "c1", "reason": "Pago fallido: card_declined", "cancelledBy": "system",
        "cancelledAt": TIME, "refundRequired": False, "notificationSent": False,
    })  # fmt: skip
    assert released == shared_event("inventory.released.v1", {
        "reservationId": RESERVATION, "orderId": "order-1", "items": [{"productId": "p1", "quantity": 2}],
        "reason": "payment-failed", "releasedAt": TIME,
    })  # fmt: skip


async def test_an_order_of_dialect_c_that_there_is_not_enough_for_is_refused_in_dialect_c(site: Site) -> None:
    await site.stock(("p1", 1, 0))
    await site.publish("order.created.v1", shared("order.created.v1"))
    missing, cancelled = await site.answers("inventory.out_of_stock.v1", "order.cancelled.v1")
    reason = "Stock insuficiente para producto p1"
    assert missing == shared_event("inventory.out_of_stock.v1", {
        "orderId": "order-1", "reason": reason, "failedAt": TIME,
        "unavailableItems": [{"productId": "p1", "requestedQuantity": 2, "availableQuantity": 1}],
    })  # fmt: skip
    assert cancelled["data"]["data"]["reason"] == reason
