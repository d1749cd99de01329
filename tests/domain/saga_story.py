"""The saga's own words for tests: a story is an order, what happens to it, and what it is expected to do."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from app.domain.messages import (
    Announce,
    DeadlineReached,
    EmailSent,
    Line,
    MailDelivered,
    MailFailed,
    Message,
    Noted,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderDelivered,
    PaymentFailed,
    PaymentSucceeded,
    RefundProcessed,
    Refused,
    Reserved,
)
from app.domain.order_saga import advance
from app.domain.policy import Policy
from app.domain.rows import OrderSaga

ORDER = "ORDER-OF-ANA"
NOON = 1_795_521_600.0
CONFIRMATION, CANCELLATION = "order-confirmation", "order-cancellation"
PRICES = {"CHEESE": 10.0, "HONEY": 6.0}

_ids: Mapping[str, Any] = {"event_id": "", "key": ORDER, "at": 0.0}


def ordered(
    *lines: tuple[str, int], total: float | None = None, email: str | None = "ana@jaen.example", dialect: str = "a"
) -> OrderCreated:
    lines = lines or (("CHEESE", 2), ("HONEY", 1))
    items = tuple(Line(product, quantity, PRICES[product], product.title(), "MARIA") for product, quantity in lines)
    price = sum(line.quantity * line.unit_price for line in items) if total is None else total
    return OrderCreated(
        **_ids,
        customer_id="ANA",
        lines=items,
        total=price,
        customer_email=email,
        dialect=dialect,
        correlation_id="CORR",
    )


def held(product: str, quantity: int = 1, remaining: int = 7) -> Reserved:
    return Reserved(**_ids, product_id=product, quantity=quantity, remaining=remaining)


def refused(product: str) -> Refused:
    return Refused(**_ids, product_id=product, requested=2, available=1, known=True)


def paid(payment: str = "PAY-1", amount: float = 26.0, transaction: str = "TXN-1", currency: str = "EUR") -> Message:
    return PaymentSucceeded(
        **_ids,
        payment_id=payment,
        transaction_id=transaction,
        amount=amount,
        currency=currency,
        source="payment.succeeded",
    )


def payment_failed(*, retryable: bool = True) -> Message:
    return PaymentFailed(
        **_ids, payment_id="PAY-1", error_code="DECLINED", error_message="Tarjeta rechazada", retryable=retryable
    )


def confirmed_by_others() -> Message:
    return OrderConfirmed(**_ids, payment_reference="TXN-OF-OTHERS")


def cancelled_by(who: str = "customer", reason: str = "Ya no lo quiero") -> Message:
    return OrderCancelled(**_ids, reason=reason, cancelled_by=who)


def delivered() -> Message:
    return OrderDelivered(**_ids, recipient="Ana")


def refund_processed() -> Message:
    return RefundProcessed(**_ids, payment_id="PAY-1", amount=26.0)


def noted(kind: str = "order.updated") -> Message:
    return Noted(**_ids, kind=kind)


def mail_sent_by_others(template: str = CONFIRMATION) -> Message:
    return EmailSent(**_ids, template=template, recipient="ana@jaen.example")


def mail_delivered(template: str = CONFIRMATION) -> Message:
    return MailDelivered(**_ids, template=template, message_id="<MAIL-1@a4co>")


def mail_failed(attempt: int = 1, *, permanent: bool = False, template: str = CONFIRMATION) -> Message:
    return MailFailed(**_ids, template=template, attempt=attempt, error="no such mailbox", permanent=permanent)


def deadline() -> Message:
    return DeadlineReached(**_ids, due=0.0)


class Story:
    """One order from its first message on. Events get an id and a time (a second later) unless they bring their own."""

    def __init__(self, policy: Policy | None = None, row: OrderSaga | None = None) -> None:
        self.policy = policy or Policy()
        self.row = row
        self.now = NOON
        self.outputs: tuple[Any, ...] = ()
        self.outcome = ""
        self.history: list[Any] = []
        self._count = 0

    @property
    def saga(self) -> OrderSaga:
        assert self.row is not None, "there is no row"
        return self.row

    def when(self, *messages: Message, after: float = 1.0) -> "Story":
        """The messages arrive, the first `after` seconds later and the others a second apart."""
        self.outputs = ()
        for message in messages:
            self.now += after
            after = 1.0
            self._count += 1
            identified = replace(message, event_id=message.event_id or f"EVENT-{self._count}", at=self.now)
            self.row, outputs, self.outcome = advance(self.row, identified, self.policy)
            self.outputs += outputs
        self.history += self.outputs
        return self

    def deadline_passes(self) -> "Story":
        """The clock reaches the row's deadline."""
        due = self.saga.deadline
        assert due is not None, "there is no deadline"
        return self.when(deadline(), after=due - self.now)

    def expect(self, state: str | None, *words: str, outcome: str = "applied") -> "Story":
        """The state, and everything said and commanded by the last `when`, in order."""
        assert (self.row and self.row.state.value) == state
        assert self.said() == list(words)
        assert self.outcome == outcome
        return self

    def expect_nothing_new(self, *messages: Message, outcome: str) -> "Story":
        """The messages arrive and change nothing: the same row object, nothing said."""
        before = self.row
        self.when(*messages)
        assert self.row is before
        assert self.outputs == ()
        assert self.outcome == outcome
        return self

    def said(self) -> list[str]:
        return [word(output) for output in self.outputs]

    def only(self, wanted: str) -> Any:
        """The one output of that name."""
        (found,) = [output for output in self.outputs if word(output).split(" ")[0] == wanted]
        return found


def word(output: Message) -> str:
    """ "order.confirmed" for an announcement, "Reserve CHEESE" for a command, "SendMail order-confirmation"."""
    if isinstance(output, Announce):
        return output.kind
    name = type(output).__name__
    return f"{name} {output.template}" if name == "SendMail" else f"{name} {output.key}"  # type: ignore[attr-defined]


def an_order(*lines: tuple[str, int], policy: Policy | None = None, **details: Any) -> Story:
    return Story(policy).when(ordered(*lines, **details))


def a_held_order(policy: Policy | None = None, **details: Any) -> Story:
    return an_order(policy=policy, **details).when(held("CHEESE", 2), held("HONEY"))


def a_confirmed_order(policy: Policy | None = None, **details: Any) -> Story:
    return a_held_order(policy, **details).when(paid())


def a_completed_order(policy: Policy | None = None) -> Story:
    return a_confirmed_order(policy).when(mail_delivered())


def a_cancelled_order(policy: Policy | None = None, **details: Any) -> Story:
    return a_held_order(policy, **details).when(payment_failed(retryable=False))


def a_closed_order(policy: Policy | None = None) -> Story:
    return a_cancelled_order(policy).when(mail_delivered(CANCELLATION))
