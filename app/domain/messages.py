"""The messages of the domain: facts that arrive, commands and replies between rows, and what we announce.

This is the canonical form: whatever dialect a fact came in, the rules see these types only. Times are
seconds since the epoch, UTC. Money is a number in the order's currency, as the publisher gave it.
"""

from typing import Any

import msgspec

Money = int | float

Counts = dict[str, dict[str, int]]
"""Measure -> name -> how many."""


class Line(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """One line of an order. The same product may stand on two lines."""

    product_id: str
    quantity: int
    unit_price: Money
    product_name: str | None = None
    artisan_id: str | None = None


class Message(msgspec.Struct, gc=False, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Every message: its id (deduplication), its row's key, and when it was recorded in the log.

    `at` is the time of the log's record (the server's clock), never the publisher's claim: deadlines are
    counted from it. `source` is the subject or the agent that it came from, for the timeline.
    """

    event_id: str
    key: str
    at: float
    source: str = ""


# ---- facts about an order; key = order id --------------------------------------------------------------


class OrderFact(Message, frozen=True, kw_only=True):
    """A fact of an order. `dialect` is "a", "b" or "c": whoever asks in a dialect is answered in it.

    `ours` is true when the bridge recognised the fact as one that this application published itself.
    """

    dialect: str = "a"
    ours: bool = False


class OrderCreated(OrderFact, frozen=True, kw_only=True, tag=True):
    """A customer ordered. `total`: what is to be paid, as the publisher says; `trace`: its traceparent, if any."""

    customer_id: str
    lines: tuple[Line, ...]
    total: Money
    currency: str = "EUR"
    customer_email: str | None = None
    correlation_id: str | None = None
    trace: str = ""


class OrderConfirmed(OrderFact, frozen=True, kw_only=True, tag=True):
    """Another service confirmed the order."""

    payment_reference: str | None = None


class OrderCancelled(OrderFact, frozen=True, kw_only=True, tag=True):
    """Another service, or the customer through it, cancelled the order."""

    reason: str
    cancelled_by: str  # customer | artisan | system | admin


class OrderDelivered(OrderFact, frozen=True, kw_only=True, tag=True):
    """The order arrived."""

    recipient: str | None = None


class PaymentSucceeded(OrderFact, frozen=True, kw_only=True, tag=True):
    """Money was taken. Payments are told apart by `payment_id`."""

    payment_id: str
    transaction_id: str
    amount: Money
    currency: str = "EUR"


class PaymentFailed(OrderFact, frozen=True, kw_only=True, tag=True):
    """A payment was refused. `retryable`: the same request may succeed later."""

    payment_id: str
    error_code: str
    error_message: str
    retryable: bool


class RefundProcessed(OrderFact, frozen=True, kw_only=True, tag=True):
    """Money went back."""

    payment_id: str
    amount: Money


class EmailSent(OrderFact, frozen=True, kw_only=True, tag=True):
    """A mail about an order went out: ours or another service's. `template` tells which."""

    template: str
    recipient: str


class Noted(OrderFact, frozen=True, kw_only=True, tag=True):
    """Any other fact of an order (order.updated, payment.initiated, ...): kept in the timeline, changes nothing."""

    kind: str


class DeadlineReached(Message, frozen=True, kw_only=True, tag=True):
    """The clock passed the row's deadline. The rule checks that it is still due (`due` = the deadline seen)."""

    due: float


# ---- commands to stock and facts about it; key = product id ---------------------------------------------


class Reserve(Message, frozen=True, kw_only=True, tag=True):
    """Hold the units for the order, all of them or none."""

    order_id: str
    quantity: int  # all lines of the product, summed
    expires_at: float
    artisan_id: str | None = None


class Release(Message, frozen=True, kw_only=True, tag=True):
    """End the order's hold and give its units back. `announce`: the hold was announced, so its end is too."""

    order_id: str
    reason: str  # order-cancelled | reservation-expired | payment-failed | manual-release
    announce: bool
    dialect: str = "a"
    correlation_id: str | None = None  # the order's


class Commit(Message, frozen=True, kw_only=True, tag=True):
    """The order is confirmed: its held units leave on_hand for good."""

    order_id: str


class Return(Message, frozen=True, kw_only=True, tag=True):
    """A confirmed order was cancelled: its units come back to on_hand."""

    order_id: str
    quantity: int
    reason: str
    dialect: str = "a"
    correlation_id: str | None = None  # the order's


class StockMoved(Message, frozen=True, kw_only=True, tag=True):
    """inventory.stock.updated/replenished/depleted from another service: by `change`, else to `new_stock`."""

    kind: str
    change: int | None = None
    new_stock: int | None = None
    artisan_id: str | None = None
    product_name: str | None = None
    category: str | None = None
    threshold: int | None = None
    ours: bool = False


class StockImported(Message, frozen=True, kw_only=True, tag=True):
    """One line of `a4co stock import`: the product as it is to be from now on."""

    on_hand: int
    threshold: int
    name: str
    category: str
    artisan_id: str


# ---- stock's replies to the saga; key = order id --------------------------------------------------------


class Reserved(Message, frozen=True, kw_only=True, tag=True):
    """The units are held."""

    product_id: str
    quantity: int
    remaining: int  # available after the reservation
    artisan_id: str | None = None
    product_name: str | None = None


class Refused(Message, frozen=True, kw_only=True, tag=True):
    """There are not enough units, or no such product; nothing is held."""

    product_id: str
    requested: int
    available: int
    known: bool  # false: there is no such product


class MailDelivered(Message, frozen=True, kw_only=True, tag=True):
    """A mail of ours was handed to the mail server."""

    template: str
    message_id: str


class MailFailed(Message, frozen=True, kw_only=True, tag=True):
    """A mail of ours was not taken. `permanent`: it never will be."""

    template: str
    attempt: int
    error: str
    permanent: bool


# ---- what we ask of the outside -------------------------------------------------------------------------


class SendMail(Message, frozen=True, kw_only=True, tag=True):
    """key = order id. `variables` fill the template; `attempt` counts from 1."""

    template: str  # order-confirmation | order-cancellation
    recipient: str
    variables: dict[str, Any]
    attempt: int = 1
    dialect: str = "a"


class Announce(Message, frozen=True, kw_only=True, tag=True):
    """Something to say on NATS. `kind` is dialect A's subject ("order.confirmed"); `data` is dialect A's
    eventData for it, `aggregate_id` its aggregateId. `dialects.encode` puts it into the order's dialect.
    """

    kind: str
    aggregate_id: str
    data: dict[str, Any]
    dialect: str = "a"
    correlation_id: str | None = None
    causation_id: str | None = None


# ---- what is counted of orders ----------------------------------------------------------------------------


class OrdersCounted(msgspec.Struct, frozen=True, tag=True, tag_field="type"):
    """What one commit of the orders' agent counts for: minute (since the epoch) -> counts."""

    minutes: dict[int, Counts]


class BucketOutdated(Message, frozen=True, kw_only=True, tag=True):
    """The clock passed the time until which a bucket is kept. key = the bucket's."""
