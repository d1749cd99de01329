"""What a NATS message says: recognises the dialect, checks the shape, and gives the canonical message.

It decides what can be understood and which row a message belongs to, never what follows from it. How we answer is in
envelopes.py. None means: understood, and nothing for the rules. That is so for what other services say of their own
holds (inventory.stock.reserved/released/warning/low, dialect C's inventory.*), since the reserve step is ours; for
mails without an order; for user.*; and for `.dlq`.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import orjson
from msgspec import ValidationError, convert

from app.domain.causes import caused
from app.domain.envelopes import Outgoing, encode
from app.domain.events import (
    MAX_ID,
    MAX_TEXT,
    DomainEvent,
    EmailSentData,
    OrderCancelledData,
    OrderConfirmedData,
    OrderCreatedData,
    OrderDeliveredData,
    PaymentFailedData,
    PaymentSucceededData,
    RefundProcessedData,
    SharedEvent,
    StockMovedData,
)
from app.domain.glances import MAX_DEPTH, Identity, glance_at
from app.domain.messages import (
    EmailSent,
    Line,
    Noted,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderDelivered,
    OrderFact,
    PaymentFailed,
    PaymentSucceeded,
    RefundProcessed,
    StockMoved,
)

__all__ = [
    "Identity",
    "Outgoing",
    "Undecodable",
    "decode",
    "encode",
    "identifier",
    "identify",
    "key_of",
    "load_object",
    "unwrapped",
]

VERSIONS = ("", "1")
"""Of subjects: none, and `.v1`."""
Canonical: TypeAlias = OrderFact | StockMoved | Noted | None
Body: TypeAlias = dict[str, Any]


class Undecodable(Exception):
    """These bytes say nothing that we understand.

    `reason`: not-json, not-an-object, too-deep, unknown-subject, unknown-dialect, unknown-version,
    missing-event-id, missing-order-id, missing-product-id, missing-user-id, missing-payment-id, missing-field,
    wrong-type. `detail`: which field, and how.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Spoken(NamedTuple):
    """A message whose dialect is known. `name` is the subject without `.v1`; nothing inside is checked yet."""

    subject: str
    name: str
    dialect: str
    envelope: Body
    data: Body
    flat: bool = False  # dialect C without an envelope, so without an eventId


def decode(subject: str, payload: bytes, *, at: float, ours: bool = False, trace: str = "") -> Canonical:
    """The canonical message, or None when there is nothing in it for the rules.

    `at`: the time of the log's record, seconds since the epoch. `trace`: the traceparent that it came with. Raises
    Undecodable and nothing else, whatever the bytes are.
    """
    if subject.endswith(".dlq"):
        return None
    spoken = _recognise(subject, payload)
    key = _key(spoken)
    try:
        event_id = _event_id(spoken)
        common: Body = {"event_id": event_id, "key": key, "at": at, "source": subject}
        family = _family(spoken.name)
        if family == "inventory":
            return _stock_moved(spoken, common, ours=ours)
        if family == "user" or (family == "notification" and _order_of_mail(spoken.data) is None):
            return None
        read = _READERS.get(spoken.name)
        common |= {"dialect": spoken.dialect, "ours": ours}
        if read is _order_created:
            common["trace"] = trace
        return Noted(kind=spoken.name, **common) if read is None else read(spoken, common)
    except ValidationError as error:
        raise _undecodable(error) from None


def identify(subject: str, payload: bytes) -> Identity:
    """The identity of a message; `key` is the same as decode's where that gives a message.

    The key is the order's id for order, payment, shipment and notification subjects (a mail without an order: the
    mail's), the product's for inventory, the user's for users. Raises Undecodable.
    """
    return identifier(subject)(payload)


@lru_cache(maxsize=256)
def identifier(subject: str) -> Callable[[bytes], Identity]:
    """`identify` for the messages on one subject."""
    name, version = _versioned(subject)
    glance = glance_at(_family(name)) if version in VERSIONS else None

    def identity(payload: bytes) -> Identity:
        return (glance and glance(payload)) or look(subject, payload)

    return identity


def look(subject: str, payload: bytes) -> Identity:
    """`identify` by all that a message says, where a glance doesn't tell. Raises Undecodable."""
    spoken = _recognise(subject, payload)
    event_id = "" if spoken.flat else spoken.envelope.get("eventId")
    return Identity(_key(spoken), event_id if isinstance(event_id, str) else None, orjson.dumps(spoken.data))


def key_of(subject: str, payload: bytes) -> str:
    """The key of the record that mirrors this message. Raises Undecodable."""
    return identify(subject, payload).key


# ---- which dialect --------------------------------------------------------------------------------------


def _recognise(subject: str, payload: bytes) -> Spoken:
    body = load_object(payload)
    name, version = _versioned(subject)
    if version not in VERSIONS:
        raise Undecodable("unknown-version", f"subject {subject}")
    envelope = unwrapped(body) if "pattern" in body else body
    if "eventData" in envelope:
        data = envelope["eventData"]
        if not isinstance(data, dict):
            raise Undecodable("wrong-type", "eventData: not an object")
        _check_version(envelope)
        return Spoken(subject, name, "b" if version else "a", envelope, data)
    if not version:
        raise Undecodable("unknown-dialect", "no eventData, and the subject is not a .v1")
    _check_version(envelope)
    for field in ("data", "payload"):
        if isinstance(envelope.get(field), dict):
            return Spoken(subject, name, "c", envelope, envelope[field])
    if "data" in envelope or "payload" in envelope:
        raise Undecodable("wrong-type", "data: not an object")
    return Spoken(subject, name, "c", envelope, envelope, flat="eventId" not in envelope)


@lru_cache(maxsize=256)
def _versioned(subject: str) -> tuple[str, str]:
    """A subject without its version, and that."""
    name, _, version = subject.rpartition(".v")
    return (name, version) if re.fullmatch(r"\d+", version) else (subject, "")


@lru_cache(maxsize=256)
def _family(name: str) -> str:
    """The first token of a subject."""
    return name.split(".", 1)[0]


def unwrapped(body: Body) -> Body:
    """The envelope in what NestJS's client wraps; the body itself where it does not."""
    inner = body.get("data")
    return inner if "pattern" in body and "eventId" not in body and isinstance(inner, dict) else body


def load_object(payload: bytes) -> Body:
    """The JSON object in these bytes, at most `MAX_DEPTH` levels deep. Raises Undecodable."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Undecodable("too-deep" if "depth limit" in str(error) else "not-json", str(error)) from None
    opened = payload.count(b"{") + (payload.count(b"[") if b"[" in payload else 0)
    if opened > MAX_DEPTH and _deeper_than(body, MAX_DEPTH):
        raise Undecodable("too-deep", f"more than {MAX_DEPTH} levels")
    if not isinstance(body, dict):
        raise Undecodable("not-an-object", type(body).__name__)
    return body


def _deeper_than(body: Any, levels: int) -> bool:
    level = [body]
    for _ in range(levels + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return False
        level = [child for each in containers for child in (each.values() if isinstance(each, dict) else each)]
    return True


def _check_version(envelope: Body) -> None:
    version = envelope.get("eventVersion", 1)
    if version != 1 or isinstance(version, bool):
        raise Undecodable("unknown-version", f"eventVersion {version!r}"[:MAX_TEXT])
    metadata = envelope.get("metadata")
    if isinstance(metadata, dict) and metadata.get("version", "1.0") != "1.0":
        major = str(metadata["version"]).split(".", 1)[0]
        if major != "1":
            raise Undecodable("unknown-version", f"metadata.version {metadata['version']!r}"[:MAX_TEXT])


# ---- whose it is ----------------------------------------------------------------------------------------


def _key(spoken: Spoken) -> str:
    data, aggregate = spoken.data, spoken.envelope.get("aggregateId")
    match _family(spoken.name):
        case "order":
            own = data.get("orderId")
            key = _first(own, aggregate) if spoken.dialect == "c" else _first(aggregate, own)
            return _id(key, "order")
        case "payment" | "shipment":
            return _id(data.get("orderId"), "order")
        case "notification":
            order = _order_of_mail(data)
            return order if order is not None else _id(_first(aggregate, spoken.envelope.get("eventId")), "order")
        case "inventory":
            own = _first(data.get("productId"), _first_product(data))
            key = _first(own, aggregate) if spoken.dialect == "c" else _first(aggregate, own)
            return _id(key, "product")
        case "user":
            return _id(_first(aggregate, data.get("userId")), "user")
    raise Undecodable("unknown-subject", spoken.subject[:MAX_TEXT])


def _first(*values: Any) -> Any:
    for value in values:
        if value is not None:
            return value
    return None


def _first_product(data: Body) -> Any:
    items = data.get("items", data.get("unavailableItems"))
    first = items[0] if isinstance(items, list) and items else None
    return first.get("productId") if isinstance(first, dict) else None


def _order_of_mail(data: Body) -> str | None:
    variables = data.get("variables")
    own = data.get("orderId")
    order = own if own is not None else variables.get("orderId") if isinstance(variables, dict) else None
    return order if isinstance(order, str) and 0 < len(order) <= MAX_ID else None


def _id(value: Any, of: str) -> str:
    if value is None or value == "":
        raise Undecodable(f"missing-{of}-id")
    if not isinstance(value, str) or len(value) > MAX_ID:
        raise Undecodable("wrong-type", f"{of} id: not a string of 1 to {MAX_ID} characters")
    return value


def _event_id(spoken: Spoken) -> str:
    if spoken.flat:
        content = orjson.dumps(spoken.data, option=orjson.OPT_SORT_KEYS).decode()
        return caused(spoken.subject, "flat", content)
    if spoken.envelope.get("eventId") in (None, ""):
        raise Undecodable("missing-event-id")
    shape: type[SharedEvent] = SharedEvent if spoken.dialect == "c" else DomainEvent
    return convert(spoken.envelope, shape).event_id


def _undecodable(error: ValidationError) -> Undecodable:
    text = str(error)
    return Undecodable("missing-field" if "missing required field" in text else "wrong-type", text)


def _kept(text: str | None) -> str | None:
    return text and text[:MAX_TEXT]


# ---- what it says ---------------------------------------------------------------------------------------


def _order_created(spoken: Spoken, common: Body) -> OrderCreated:
    data = convert(spoken.data, OrderCreatedData)
    lines = tuple(
        Line(item.product_id, item.quantity, item.unit_price, _kept(item.product_name), _kept(item.artisan_id))
        for item in data.items
    )
    return OrderCreated(
        customer_id=data.customer_id,
        customer_email=_kept(data.customer_email) or None,
        lines=lines,
        total=data.total_amount,
        currency=data.currency or "EUR",
        correlation_id=_correlation(spoken),
        **common,
    )


def _correlation(spoken: Spoken) -> str | None:
    metadata = spoken.envelope.get("metadata")
    value = spoken.envelope.get("correlationId")
    if value is None and isinstance(metadata, dict):
        value = metadata.get("correlationId")
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID else None


def _order_confirmed(spoken: Spoken, common: Body) -> OrderConfirmed:
    data = convert(spoken.data, OrderConfirmedData)
    return OrderConfirmed(payment_reference=_kept(data.payment_reference or data.payment_id), **common)


def _order_cancelled(spoken: Spoken, common: Body) -> OrderCancelled:
    data = convert(spoken.data, OrderCancelledData)
    return OrderCancelled(
        reason=data.reason[:MAX_TEXT], cancelled_by=(data.cancelled_by or "system")[:MAX_ID], **common
    )


def _order_delivered(spoken: Spoken, common: Body) -> OrderDelivered:
    return OrderDelivered(recipient=_kept(convert(spoken.data, OrderDeliveredData).recipient_name), **common)


def _payment_id(spoken: Spoken, named: str | None) -> str:
    aggregate = spoken.envelope.get("aggregateId")
    return _id(_first(named, aggregate) if spoken.dialect == "c" else _first(aggregate, named), "payment")


def _payment_succeeded(spoken: Spoken, common: Body) -> PaymentSucceeded:
    data = convert(spoken.data, PaymentSucceededData)
    payment_id = _payment_id(spoken, data.payment_id)
    return PaymentSucceeded(
        payment_id=payment_id,
        transaction_id=data.transaction_id or data.payment_intent_id or payment_id,
        amount=data.amount,
        currency=data.currency or "EUR",
        **common,
    )


def _payment_failed(spoken: Spoken, common: Body) -> PaymentFailed:
    data = convert(spoken.data, PaymentFailedData)
    code = data.error_code or "UNKNOWN"
    message = data.error_message or data.reason or data.failure_reason or code
    return PaymentFailed(
        payment_id=_payment_id(spoken, data.payment_id),
        error_code=code[:MAX_ID],
        error_message=message[:MAX_TEXT],
        retryable=data.retryable or False,
        **common,
    )


def _refund_processed(spoken: Spoken, common: Body) -> RefundProcessed:
    data = convert(spoken.data, RefundProcessedData)
    payment_id = data.original_payment_id or _payment_id(spoken, data.payment_id)
    return RefundProcessed(payment_id=payment_id, amount=data.amount, **common)


def _email_sent(spoken: Spoken, common: Body) -> EmailSent:
    data = convert(spoken.data, EmailSentData)
    return EmailSent(template=data.template[:MAX_ID], recipient=data.recipient_email[:MAX_TEXT], **common)


def _stock_moved(spoken: Spoken, common: Body, *, ours: bool) -> StockMoved | None:
    kind = spoken.name.removeprefix("inventory.stock.")
    if kind not in ("updated", "replenished", "depleted"):
        return None
    data = convert(spoken.data, StockMovedData)
    change = data.change_amount if data.change_amount is not None else data.quantity_added
    new_stock = data.new_stock if data.new_stock is not None else data.current_stock
    if change is None and new_stock is None:
        if kind != "depleted":
            raise Undecodable("missing-field", "newStock, changeAmount: one of them is needed")
        new_stock = 0
    return StockMoved(
        kind=kind,
        change=change,
        new_stock=new_stock,
        artisan_id=_kept(data.artisan_id),
        product_name=_kept(data.product_name),
        category=_kept(data.category),
        threshold=data.threshold,
        ours=ours,
        **common,
    )


_READERS: dict[str, Callable[[Spoken, Body], OrderFact]] = {
    "order.created": _order_created,
    "order.confirmed": _order_confirmed,
    "order.cancelled": _order_cancelled,
    "order.delivered": _order_delivered,
    "payment.succeeded": _payment_succeeded,
    "payment.failed": _payment_failed,
    "payment.refund.processed": _refund_processed,
    "notification.email.sent": _email_sent,
    # Dialect C's names for them.
    "order.failed": _order_cancelled,
    "payment.confirmed": _payment_succeeded,
    "shipment.delivered": _order_delivered,
}
