"""The marketplace of the flow tests: the real application over a real log, spoken to in the words of the saga.

Facts go into the mirror topics exactly as the bridge puts them there; answers are read from `outbound`. The clock is
the test's. Mails go to a real SMTP server on loopback.
"""

import asyncio
import itertools
import json
from collections.abc import Sequence
from email.header import decode_header, make_header
from email.message import Message as Mail
from pathlib import Path
from typing import Any, cast

from aiosmtpd.handlers import Message as MailHandler
from aiosmtpd.smtp import SMTP

from app import topics
from app.domain.dialects import key_of
from app.domain.messages import Message
from app.domain.rows import OrderSaga, Stock
from app.engine.embedded_reader import EmbeddedReader
from app.engine.lanes import Lane
from app.engine.partitioner import partition_for
from app.engine.records import Headers, Record, Send
from app.main import Marketplace
from app.settings import Settings
from app.web.stock_lines import StockLine
from bridge.routes import ROUTES
from tests.flows.market_log import MarketLog
from tests.waiting import wait_until

NOW = 1_800_000_000.0
IDS = itertools.count(1)
STOCK, MAILS = "apply_stock_commands", "send_mails"
"""The lanes that a test can send away, to look at an order before they have answered."""


class MailBox(MailHandler):
    """Keeps what the application's mails say; refuses everything while `refusing` is an SMTP answer.

    `refusing_only` refuses some addresses, each by its answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Mail] = []
        self.refusing = ""
        self.refusing_only: dict[str, str] = {}

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if refused := self.refusing or self.refusing_only.get(address, ""):
            return refused
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def handle_message(self, message: Mail) -> None:
        self.mails.append(message)

    def subjects(self) -> list[str]:
        """The subject of each mail."""
        return [str(make_header(decode_header(mail["Subject"]))) for mail in self.mails]

    def texts(self) -> list[str]:
        """The plain text of each mail."""
        plain = [part for mail in self.mails for part in mail.walk() if part.get_content_type() == "text/plain"]
        return [bytes(part.get_payload(decode=True)).decode() for part in plain]


class Market:
    """One running application. What says something waits until the application, if it runs, has dealt with it."""

    def __init__(self, directory: Path, log: MarketLog, **settings: Any) -> None:
        self.now = NOW
        self.directory = directory
        self.log = log
        self.log.clock = lambda: self.now
        self.box = MailBox()
        self.failures: list[BaseException] = []
        self.running = False
        self.suffix = ""
        self.headers: Headers = ()
        """What comes with each message beside its subject."""
        self.expects_dead_letters = False
        self.away: dict[str, Lane] = {}
        self._smtp: asyncio.Server | None = None
        self._smtp_port = 0
        self._settings = settings

    # ---- running ---------------------------------------------------------------------------------------

    async def start(self, *, without: Sequence[str] = ()) -> None:
        """Start it all, or all but some lanes: what those would do waits until `answers` is called for it."""
        if self._smtp is None:
            await self.mail_server_comes_up()
        smtp_url = f"smtp://127.0.0.1:{self._smtp_port}"
        given = {
            "data_dir": self.directory,
            "smtp_url": smtp_url,
            "partitions": 2,
            "analytics_delay": 0.001,
            **self._settings,
        }
        settings = Settings(**given)
        self.directory.mkdir(exist_ok=True)
        log = await self.log.open(self.directory)
        self.application = Marketplace(settings, log, clock=lambda: self.now)
        self.engine = self.application.engine
        self.engine.on_failure = self.failures.append
        self.engine.application.hooks.is_behind = lambda: False  # the test is the bridge
        await self.engine.open()
        self.away = {lane.name: lane for lane in self.engine.lanes if lane.name in without}
        self.engine.lanes = [lane for lane in self.engine.lanes if lane.name not in without]
        for lane in self.away.values():
            await self.log.send_away(lane, settings.partitions)
        await self.engine.start()
        self.running = True

    async def stop(self) -> None:
        await self.falls_silent()
        await self.log.close()

    async def falls_silent(self) -> None:
        """The engine stops. What is said then waits in the log."""
        self.running = False
        await self.application.views.live.stop()
        await self.engine.stop()

    async def is_back(self) -> None:
        """After `falls_silent`: what waits is dealt with when it returns."""
        await self.log.close()
        await self.start()
        await self.settle()

    async def restart(self, *, without: Sequence[str] = ()) -> None:
        """Stop and start again; what waits is dealt with when it returns."""
        await self.stop()
        await self.start(without=without)
        await self.settle()

    async def answers(self, lane: str, key: str) -> None:
        """A lane that is away deals with the next one record of the key's partition (on the embedded log only)."""
        partition = partition_for(key.encode(), self.engine.application.partitions)
        away = self.away[lane]
        reader = cast(EmbeddedReader, away.reader)
        everywhere, done, away.batch = reader._places, sum(reader._committed.values()), 1
        reader._places = [place for place in everywhere if place.partition == partition]
        await away.step()
        assert sum(reader._committed.values()) == done + 1, f"nothing waits for {lane}"
        reader._places = everywhere
        await self.settle()

    async def mail_server_comes_up(self) -> None:
        """Where it was before, if it was up before."""
        loop = asyncio.get_running_loop()
        self._smtp = await loop.create_server(lambda: SMTP(self.box), "127.0.0.1", self._smtp_port)
        self._smtp_port = self._smtp.sockets[0].getsockname()[1]

    def mail_server_goes_down(self) -> None:
        """Connections are refused."""
        self.close()

    def close(self) -> None:
        if self._smtp is not None:
            self._smtp.close()

    async def settle(self) -> None:
        async def settled() -> bool:
            return not self.running or bool(self.failures) or await self.log.idle(self.engine)

        await wait_until(settled, within=15, every=0.002, what="the application to be idle")
        assert not self.failures, self.failures

    async def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.log.wake(self.engine)
        await self.settle()

    # ---- saying ----------------------------------------------------------------------------------------

    async def hear(
        self, subject: str, payload: bytes | dict[str, Any], key: str = "", *headers: tuple[str, bytes]
    ) -> None:
        """A message arrives on NATS and is mirrored, by the key that the bridge finds in it."""
        value = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        key = key or key_of(subject, value)
        topic = ROUTES[subject].topic
        headers = (*self.headers, ("a4co-subject", subject.encode()), *headers)
        await self.log.append([Send(topic, key.encode(), value, headers)])
        await self.settle()

    async def tell(self, *messages: Message) -> None:
        """Messages of our own agents arrive, in one go."""
        await self.log.append([send for message in messages for send in topics.sends_of(message)])
        await self.settle()

    async def again(self, topic: str, record: Record) -> None:
        """A record is in a topic once more."""
        await self.log.append([Send(topic, record.key, record.value, record.headers)])
        await self.settle()

    async def say(
        self, subject: str, event_type: str, order: str, data: dict[str, Any], *, key: str = "", event_id: str = ""
    ) -> str:
        """A fact in dialect A (in B with the suffix ".v1"). Returns its event id."""
        event_id = event_id or f"event-{next(IDS)}"
        envelope = {
            "eventId": event_id,
            "eventType": event_type,
            "aggregateId": order,
            "eventVersion": 1,
            "occurredOn": "2027-01-15T08:00:00.000Z",
            "eventData": data,
            "metadata": {"eventId": event_id, "correlationId": f"c-{event_id}", "version": "1.0", "source": "test"},
        }
        await self.hear(subject + self.suffix, envelope, key or order)
        return event_id

    async def stock_is(self, **products: int) -> None:
        """The shelf as it is, with a low-stock threshold of 0."""
        await self.shelves([(product, on_hand, 0) for product, on_hand in products.items()])

    async def shelves(self, products: list[tuple[str, int, int]]) -> None:
        """(product, on hand, threshold) of each product."""
        lines = [
            StockLine(
                product_id=product,
                name=product.title(),
                category="despensa",
                artisan_id="artisan-1",
                on_hand=on_hand,
                threshold=threshold,
            )
            for product, on_hand, threshold in products
        ]
        await self.application.import_stock(lines)
        await self.settle()

    async def order(
        self,
        order: str,
        *lines: tuple[str, int],
        total: float = 25.0,
        email: str = "cliente@jaen.example",
        event_id: str = "",
    ) -> str:
        """A customer orders (product, quantity) lines."""
        items = [
            {
                "productId": product,
                "productName": product.title(),
                "quantity": quantity,
                "unitPrice": 12.5,
                "artisanId": "artisan-1",
                "totalPrice": 12.5 * quantity,
            }
            for product, quantity in lines
        ]
        data = {
            "customerId": "customer-1", "customerEmail": email, "items": items, "totalAmount": total,
            "currency": "EUR", "createdAt": "2027-01-15T08:00:00.000Z",
            "deliveryAddress": {"street": "Calle Real 1", "city": "Jaén", "state": "Andalucía",
                                "postalCode": "23001", "country": "España"},
        }  # fmt: skip
        return await self.say("order.created", "OrderCreatedEvent", order, data, event_id=event_id)

    async def paid(
        self, order: str, payment: str = "pay-1", amount: float = 25.0, currency: str = "EUR", event_id: str = ""
    ) -> str:
        """The payment service charged the customer."""
        data = {
            "orderId": order, "transactionId": f"txn-{payment}", "amount": amount, "currency": currency, "fees": 0.5,
            "netAmount": amount - 0.5, "processedAt": "2027-01-15T08:00:01.000Z", "paymentGateway": "stripe",
        }  # fmt: skip
        return await self.say("payment.succeeded", "PaymentSucceededEvent", payment, data, key=order, event_id=event_id)

    async def payment_fails(self, order: str, payment: str = "pay-1", *, retryable: bool, event_id: str = "") -> str:
        """The payment service could not charge the customer."""
        data = {
            "orderId": order, "errorCode": "CARD_DECLINED", "errorMessage": "Tarjeta rechazada por el banco",
            "retryable": retryable, "failedAt": "2027-01-15T08:00:01.000Z", "paymentGateway": "stripe",
            "failureReason": "Insufficient funds", "customerNotified": False,
        }  # fmt: skip
        return await self.say("payment.failed", "PaymentFailedEvent", payment, data, key=order, event_id=event_id)

    async def customer_cancels(self, order: str, event_id: str = "") -> str:
        """The order service tells that the customer does not want it any more."""
        data = {
            "reason": "Ya no lo quiero", "cancelledAt": "2027-01-15T08:00:01.000Z", "cancelledBy": "customer",
            "refundRequired": False, "notificationSent": False,
        }  # fmt: skip
        return await self.say("order.cancelled", "OrderCancelledEvent", order, data, event_id=event_id)

    async def confirmed_elsewhere(self, order: str, event_id: str = "") -> str:
        """Another service confirmed the order."""
        data = {
            "confirmedAt": "2027-01-15T08:00:02.000Z", "estimatedDelivery": "2027-01-18T08:00:02.000Z",
            "paymentReference": "txn-elsewhere", "artisanNotified": True, "trackingNumber": "TRK1",
        }  # fmt: skip
        return await self.say("order.confirmed", "OrderConfirmedEvent", order, data, event_id=event_id)

    async def mailed_elsewhere(self, order: str, template: str = "order-confirmation") -> str:
        """Another service sent the customer a mail."""
        data = {
            "recipientEmail": "cliente@jaen.example", "subject": "Su pedido", "template": template,
            "variables": {"orderId": order}, "sentAt": "2027-01-15T08:00:03.000Z", "provider": "sendgrid",
            "messageId": "msg_1",
        }  # fmt: skip
        return await self.say("notification.email.sent", "EmailSentEvent", f"email_{order}", data, key=order)

    async def delivered(self, order: str, event_id: str = "") -> str:
        """The goods arrived."""
        data = {"deliveredAt": "2027-01-16T08:00:00.000Z", "deliveryConfirmation": "D-1", "recipientName": "Ana"}
        return await self.say("order.delivered", "OrderDeliveredEvent", order, data, event_id=event_id)

    async def updated(self, order: str, event_id: str = "") -> str:
        """A fact of the order that nobody here acts on."""
        return await self.say("order.updated", "OrderUpdatedEvent", order, {"note": "llamar antes"}, event_id=event_id)

    async def refunded(self, order: str, payment: str = "pay-1", event_id: str = "") -> str:
        """The payment service gave the money back."""
        data = {"originalPaymentId": payment, "orderId": order, "amount": 25.0, "currency": "EUR"}
        return await self.say(
            "payment.refund.processed", "RefundProcessedEvent", f"refund-{payment}", data, key=order, event_id=event_id
        )

    async def stock_moves(self, kind: str, product: str, *, event_id: str = "", **data: Any) -> str:
        """Another service tells of the shelf: `kind` is updated, replenished or depleted."""
        event_type = f"Stock{kind.title()}Event"
        return await self.say(f"inventory.stock.{kind}", event_type, product, data, event_id=event_id)

    # ---- looking ---------------------------------------------------------------------------------------

    def row(self, table: str, key: str) -> Any:
        """The row as it is here, also where Kafka has not confirmed yet that it is the newest one."""
        found = self.engine.tables[table]
        return found.partitions[found.spec.partition(key, found.total)].get(key)

    def saga(self, order: str) -> OrderSaga:
        row = self.row("order_sagas", order)
        assert row is not None, f"no saga of {order}"
        return row  # type: ignore[no-any-return]

    def stock(self, product: str) -> Stock:
        row = self.row("inventory", product)
        assert row is not None, f"no product {product}"
        return row  # type: ignore[no-any-return]

    def shelf(self, product: str) -> tuple[int, int, int]:
        """(on hand, reserved, available)."""
        row = self.stock(product)
        return row.on_hand, row.reserved, row.available

    def records(self, topic: str) -> list[Record]:
        """Everything in a topic, partition by partition."""
        return self.log.records(topic)

    def said(self, subject: str = "", *, about: str = "") -> list[tuple[str, dict[str, Any]]]:
        """(subject, payload) of what was said on NATS: all, or on one subject, or about one order or product."""
        said = []
        for record in self.records("outbound"):
            name = (topics.header(record.headers, "a4co-subject") or b"").decode()
            if subject in ("", name) and about.encode() in (b"", record.key):
                said.append((name, json.loads(record.value or b"null")))
        return said

    def subjects(self, about: str = "") -> list[str]:
        """What was said, partition by partition: about one order or product, in the order it was said."""
        return [subject for subject, _ in self.said(about=about)]

    def only(self, subject: str) -> Any:
        """The payload of the one message on the subject."""
        [(_, payload)] = self.said(subject)
        return payload

    def facts(self, subject: str) -> list[dict[str, Any]]:
        """The eventData of each message on the subject, in dialect A's envelope."""
        return [payload["eventData"] for _, payload in self.said(subject)]

    def dead_letters(self) -> list[dict[str, str]]:
        """What the headers of each dead letter say."""
        return [{name: value.decode() for name, value in record.headers} for record in self.records("dead-letters")]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every row of every table."""
        return {name: dict(table.items()) for name, table in self.engine.tables.items()}

    def changelog(self, table: str) -> dict[str, bytes]:
        """The newest row of each key as the table's changelog has it."""
        return {(record.key or b"").decode(): record.value or b"" for record in self.records(f"{table}-changelog")}
