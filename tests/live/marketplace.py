"""The marketplace around the application: customers, order service and payment service, on NATS in dialect A only.

They do what their plan says and know nothing of the application but what they hear. One connection hears everything
from the first moment on, as a subscriber without JetStream does.
"""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from email.message import Message as Mail
from typing import Any, NamedTuple

import nats
from aiosmtpd.handlers import Message as MailHandler
from aiosmtpd.smtp import SMTP
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.live.order_model import PRICE, Order
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers

SUBJECTS = ("order.>", "payment.>", "inventory.>", "notification.>")
BUSY = 7
"""Every so many recipients the mail server says that it is busy."""


class Heard(NamedTuple):
    """A message of the application. `identity` is its Nats-Msg-Id without the seal behind it."""

    subject: str
    identity: str
    event: dict[str, Any]

    @property
    def family(self) -> str:
        return self.subject.partition(".")[0]


def is_answer(message: Msg) -> bool:
    """Whether the application published it."""
    return "A4co-Origin" in (message.headers or {})


def heard(message: Msg) -> Heard:
    """The message, read."""
    sealed = (message.headers or {}).get("Nats-Msg-Id", "")
    return Heard(message.subject, sealed.rpartition(":")[0], json.loads(message.data))


class MailServer(MailHandler):
    """A real SMTP server that keeps what it took, and is busy now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: Counter[str] = Counter()
        """Message-ID -> how often."""
        self._asked = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Returns its URL."""
        self._server = await asyncio.get_running_loop().create_server(lambda: SMTP(self), "127.0.0.1", 0)
        return f"smtp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self._asked += 1
        if self._asked % BUSY == 0:
            return "451 busy, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def handle_message(self, message: Mail) -> None:
        self.taken[str(message["Message-ID"])] += 1


class Marketplace:
    """Publishes what customers and services say, answers requests for payment, and keeps what it hears of us."""

    def __init__(self, orders: Iterable[Order]) -> None:
        self.orders = {order.id: order for order in orders}
        self.heard: list[Heard] = []
        self.arrived = asyncio.Event()
        self._speaking: Client
        self._hearing: Client

    @asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator["Marketplace"]:
        """Listening from here on."""
        self._speaking = await nats.connect(url)
        self._hearing = await nats.connect(url)
        try:
            for subject in SUBJECTS:
                await self._hearing.subscribe(subject, cb=self._hear)
            await self._hearing.flush()
            yield self
        finally:
            await self._speaking.close()
            await self._hearing.close()

    @property
    def client(self) -> Client:
        return self._speaking

    async def say(
        self, subject: str, event_type: str, aggregate: str, data: dict[str, Any], event_id: str = ""
    ) -> None:
        """One event in dialect A's envelope, without headers."""
        event_id = event_id or str(uuid.uuid4())
        now = "2026-11-24T13:35:51.032Z"
        event = {
            "eventId": event_id,
            "eventType": event_type,
            "aggregateId": aggregate,
            "eventVersion": 1,
            "occurredOn": now,
            "eventData": data,
            "metadata": {
                "eventId": event_id, "correlationId": str(uuid.uuid4()), "publishedAt": now, "version": "1.0",
                "source": "marketplace",
            },
        }  # fmt: skip
        await self._speaking.publish(subject, json.dumps(event).encode())

    # ---- what the services say -------------------------------------------------------------------------

    async def fill(self, worker: WorkerProcess | Workers, shelves: Mapping[str, int]) -> None:
        """The first stock, as the services that count it tell it; returns when the application has taken it."""
        for product, units in shelves.items():
            data = {"newStock": units, "changeAmount": units, "updateReason": "initial", "artisanId": "artisan-1"}
            await self.say("inventory.stock.updated", "StockUpdatedEvent", product, data)

        async def filled() -> bool:
            return len(await worker.pages("/api/inventory")) == len(shelves)

        await worker.until(filled, what="not every product is there")

    async def order(self, order: Order) -> None:
        """The customer orders; a service that was unsure publishes it again."""
        if order.paid_early:
            await self._pay(order, f"{order.id}-early")
        items = [
            {"productId": product, "productName": product, "quantity": quantity, "unitPrice": PRICE,
             "artisanId": "artisan-1", "totalPrice": PRICE * quantity}
            for product, quantity in order.lines
        ]  # fmt: skip
        data = {
            "customerId": "customer-1",
            "customerEmail": "cliente@jaen.example",
            "items": items,
            "totalAmount": order.total,
            "currency": "EUR",
            "createdAt": "2026-11-24T13:35:51.031Z",
        }
        for _ in range(1 + order.repeats):
            await self.say("order.created", "OrderCreatedEvent", order.id, data, f"{order.id}-created")
        if order.cancels == "at once":
            await self._cancel(order)

    async def _cancel(self, order: Order) -> None:
        order.cancelled = True
        data = {"reason": "Ya no lo quiero", "cancelledBy": "customer", "cancelledAt": "2026-11-24T13:36:00.000Z",
                "refundRequired": False, "notificationSent": False}  # fmt: skip
        await self.say("order.cancelled", "OrderCancelledEvent", order.id, data)

    async def _pay(self, order: Order, payment: str) -> None:
        """Charged, said twice; and where the plan says so, charged once more."""
        for identity in (payment, *([f"{payment}-again"] if order.charged_twice else [])):
            order.paid.add(identity)
            data = {"orderId": order.id, "transactionId": f"txn-{identity}", "amount": order.total, "currency": "EUR"}
            for _ in range(2):
                await self.say("payment.succeeded", "PaymentSucceededEvent", identity, data, f"{identity}-succeeded")

    async def _refuse(self, order: Order, payment: str, *, retryable: bool) -> None:
        data = {"orderId": order.id, "errorCode": "CARD_DECLINED", "errorMessage": "Tarjeta rechazada por el banco",
                "retryable": retryable, "failedAt": "2026-11-24T13:36:00.000Z"}  # fmt: skip
        await self.say("payment.failed", "PaymentFailedEvent", payment, data)

    # ---- what they do when they hear something ---------------------------------------------------------

    async def _hear(self, message: Msg) -> None:
        if not is_answer(message):
            return
        answer = heard(message)
        self.heard.append(answer)
        self.arrived.set()
        if answer.subject == "payment.initiated":
            await self._asked_to_charge(answer.event)
        elif answer.subject == "order.confirmed":
            order = self.orders[answer.event["aggregateId"]]
            if order.cancels == "when confirmed":
                await self._cancel(order)

    async def _asked_to_charge(self, event: dict[str, Any]) -> None:
        data = event["eventData"]
        order = self.orders[data["orderId"]]
        attempt = data["attempt"]
        if order.cancels == "when asked to pay" and attempt == 1:
            await self._cancel(order)
        if order.paid_early:
            return
        if order.answers[attempt - 1] == "paid":
            await self._pay(order, event["aggregateId"])
        else:
            await self._refuse(order, event["aggregateId"], retryable=order.answers[attempt - 1] == "retryable")
