"""The rows that the tables hold. Data only: what they mean is decided in order_saga.py and stock.py."""

from enum import StrEnum
from typing import Any

import msgspec

from app.domain.messages import Counts, Line, Money


class SagaState(StrEnum):
    """Where an order stands. COMPLETED and CLOSED are the two ends."""

    PARKED = "parked"  # facts came before order.created
    RESERVING = "reserving"  # asked stock for every product
    AWAITING_PAYMENT = "awaiting_payment"  # all held, payment asked for
    PAYMENT_RETRY = "payment_retry"  # payment failed retryably, asked again at the deadline
    CONFIRMING = "confirming"  # paid; another service is to confirm it
    CONFIRMED = "confirmed"  # paid; the confirmation mail is on its way
    CANCELLING = "cancelling"  # given up and released; another service is to cancel it
    CANCELLED = "cancelled"  # cancelled; the cancellation mail is on its way
    COMPLETED = "completed"  # confirmed and the customer told
    CLOSED = "closed"  # cancelled and the customer told


class Held(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """What the saga knows of one product. status: asked | held | refused | released | committed | returned."""

    quantity: int
    status: str
    remaining: int | None = None
    artisan_id: str | None = None
    product_name: str | None = None


class Step(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """One entry of an order's timeline. direction: in | out."""

    at: float
    what: str  # subject or command, e.g. "payment.failed", "Reserve"
    direction: str
    detail: str = ""
    event_id: str = ""


class OrderSaga(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One order. Key: order id. `deadline` (seconds since the epoch): the next moment to act, None: there is none."""

    order_id: str
    state: SagaState
    dialect: str = "a"
    customer_id: str = ""
    customer_email: str | None = None
    lines: tuple[Line, ...] = ()
    total: Money = 0
    currency: str = "EUR"
    created_at: float = 0.0
    updated_at: float = 0.0
    correlation_id: str | None = None
    trace: str = ""  # the traceparent of its order.created; "": the trace begins with its id (traces.begun)
    products: dict[str, Held] = {}
    reserved_until: float | None = None
    attempt: int = 0  # times payment was asked for
    deadline: float | None = None
    payment_reference: str | None = None
    paid: dict[str, Money] = {}  # payment id -> amount
    refunds: tuple[str, ...] = ()  # payment ids whose refund was asked
    cancel_reason: str | None = None
    cancelled_by: str | None = None
    confirmed_at: float | None = None
    confirmed_early: bool = False  # another service confirmed it before its stock was held
    mail_attempt: int = 0
    told: tuple[str, ...] = ()  # templates of the mails that went out, ours or another service's
    attention: str | None = None  # why a person should look at it
    parked: tuple[dict[str, Any], ...] = ()  # facts that wait for order.created, as builtins
    seen: tuple[str, ...] = ()  # ids of the facts applied, newest last, bounded
    timeline: tuple[Step, ...] = ()  # bounded


class Hold(msgspec.Struct, gc=False, frozen=True):
    """Units of a product that are promised to one order. `expires_at`: the order's saga releases it then."""

    quantity: int
    expires_at: float


class Stock(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One product. Key: product id. available = on_hand - sum of the holds, never below 0."""

    product_id: str
    on_hand: int = 0
    holds: dict[str, Hold] = {}  # order id -> hold
    threshold: int = 0
    name: str = ""
    category: str = ""
    artisan_id: str = ""
    low: bool = False  # available is at or below the threshold (or nothing is left), and was announced
    depleted: bool = False  # nothing is left, and was announced
    last_restocked: float | None = None
    updated_at: float = 0.0
    ended: dict[str, str] = {}  # order id -> committed | released | refused | returned, newest last, bounded
    seen: tuple[str, ...] = ()  # ids of the facts applied, newest last, bounded
    held: int | None = None  # running sum of the holds, kept by the rules (None: not counted yet)

    @property
    def reserved(self) -> int:
        return sum(hold.quantity for hold in self.holds.values()) if self.held is None else self.held

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved


class Bucket(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """What is counted of one partition in one minute, hour or day. Key: `analytics.key_of`.

    `offset` and `at` are the newest record's in it, which tell when the same one comes again. `outdated`: when it goes.
    """

    counts: Counts
    offset: int
    at: float
    outdated: float | None = None
