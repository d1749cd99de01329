"""What we publish, word for word: a few short stories go through the real rules, and all that these say is collected.

So the examples are what a subscriber hears, and the schemas are theirs. It decides nothing about orders.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import orjson
from msgspec.structs import replace

from app.domain.envelopes import encode
from app.domain.messages import (
    Announce,
    Commit,
    Line,
    MailDelivered,
    Message,
    OrderCancelled,
    OrderCreated,
    PaymentFailed,
    PaymentSucceeded,
    Release,
    Reserve,
    Return,
    SendMail,
    StockImported,
    StockMoved,
)
from app.domain.order_saga import advance
from app.domain.policy import Policy
from app.domain.rows import OrderSaga, Stock
from app.domain.stock import apply

AT = 1_795_527_351.031
ORDER, PRODUCT, PAYMENT = "order_1795527351031", "product_aceite_picual", "payment_1795527353035"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Schema = dict[str, Any]


@cache
def said(dialect: str) -> dict[str, list[dict[str, Any]]]:
    """Subject -> payloads that we publish on it about an order in this dialect ("a", "b", "c"), no two alike."""
    found: dict[str, list[dict[str, Any]]] = {}
    for facts, policy in _stories(dialect):
        for subject, payload in _told(facts, policy):
            payloads = found.setdefault(subject, [])
            if payload not in payloads:
                payloads.append(payload)
    return found


def _stories(dialect: str) -> Iterator[tuple[tuple[Message, ...], Policy]]:
    order = OrderCreated(
        event_id="da4d9b5d-4322-4ec5-a0fe-64e93a1dba4d",
        key=ORDER,
        at=AT,
        dialect=dialect,
        customer_id="customer_123",
        customer_email="cliente@jaen.com",
        lines=(Line(PRODUCT, 2, 12.5, "Aceite Picual de Úbeda", "artisan_olivares_ubeda"),),
        total=25.0,
    )
    shelf = StockImported(
        event_id="import", key=PRODUCT, at=AT - 60, on_hand=50, threshold=49, name="Aceite Picual de Úbeda",
        category="aceites", artisan_id="artisan_olivares_ubeda",
    )  # fmt: skip
    more = StockMoved(event_id="more", key=PRODUCT, at=AT - 30, kind="replenished", change=1)
    about: dict[str, Any] = {"key": ORDER, "at": AT + 2, "dialect": dialect}
    paid = PaymentSucceeded(
        event_id="5779d949-96d1-4355-b352-679b5410e2e8", payment_id=PAYMENT, transaction_id="txn_1795527353035",
        amount=25.0, **about,
    )  # fmt: skip
    declined = PaymentFailed(
        event_id="872dbacb-596b-4a1b-beb6-c04c559747f4", payment_id=PAYMENT, error_code="CARD_DECLINED",
        error_message="Tarjeta rechazada por el banco", retryable=False, **about,
    )  # fmt: skip
    regret = OrderCancelled(event_id="regret", reason="Ya no lo quiero", cancelled_by="customer", **about)
    late = replace(paid, event_id="late", payment_id=f"{PAYMENT}_2", at=AT + 900)
    yield (shelf, order, paid), Policy()
    yield (shelf, more, order, paid), Policy(payment_request="order.payment.requested")
    yield (shelf, order, declined, late), Policy()
    yield (shelf, order, paid, regret), Policy()
    yield (order,), Policy()
    yield (paid, order), Policy()


def _told(facts: Iterable[Message], policy: Policy) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each fact in turn, with all that follows from it before the next one."""
    saga: OrderSaga | None = None
    shelves: dict[str, Stock | None] = {}
    waiting = deque(facts)
    while waiting:
        message = waiting.popleft()
        outputs: tuple[Message, ...]
        match message:
            case Announce():
                for outgoing in encode(message):
                    yield outgoing.subject, orjson.loads(outgoing.payload)
                continue
            case SendMail():
                sent = {"template": message.template, "message_id": f"<{message.template}.{ORDER}@a4co>"}
                outputs = (MailDelivered(event_id=f"{message.event_id}-sent", key=message.key, at=message.at, **sent),)
            case Reserve() | Release() | Commit() | Return() | StockImported() | StockMoved():
                shelves[message.key], outputs, _ = apply(shelves.get(message.key), message)
            case _:
                saga, outputs, _ = advance(saga, message, policy)
        waiting.extendleft(reversed(outputs))


def shape(values: list[Any]) -> Schema:
    """The schema of what all of these are like: what each of them has is required."""
    first = values[0]
    if isinstance(first, dict):
        names = dict.fromkeys(name for value in values for name in value)
        return {
            "type": "object",
            "properties": {name: shape([value[name] for value in values if name in value]) for name in names},
            "required": [name for name in names if all(name in value for value in values)],
        }
    if isinstance(first, list):
        items = [item for value in values for item in value]
        return {"type": "array", **({"items": shape(items)} if items else {})}
    if isinstance(first, bool):
        return {"type": "boolean"}
    if isinstance(first, int | float):
        return {"type": "integer" if all(isinstance(value, int) for value in values) else "number"}
    dated = all(TIME.fullmatch(value) for value in values)
    return {"type": "string", **({"format": "date-time"} if dated else {})}
