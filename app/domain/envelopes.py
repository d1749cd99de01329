"""How an announcement is put into words that the marketplace's services read: one envelope for each dialect.

It decides subjects, envelopes and dialect C's field shapes; what is said and when is decided by the rules.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from app.domain.causes import caused, iso
from app.domain.messages import Announce

Data = dict[str, Any]


class Outgoing(NamedTuple):
    """One NATS message. `payload` is UTF-8 JSON, `event_id` its eventId (and Nats-Msg-Id)."""

    subject: str
    payload: bytes
    event_id: str


EVENT_TYPES = {
    "order.confirmed": "OrderConfirmedEvent",
    "order.cancelled": "OrderCancelledEvent",
    "order.payment.requested": "OrderPaymentRequestedEvent",
    "inventory.stock.reserved": "StockReservedEvent",
    "inventory.stock.released": "StockReleasedEvent",
    "inventory.stock.warning": "LowStockWarningEvent",
    "payment.initiated": "PaymentInitiatedEvent",
    "payment.refund.initiated": "RefundInitiatedEvent",
    "notification.email.sent": "EmailSentEvent",
}

SHARED_SUBJECTS = {
    "inventory.stock.reserved": "inventory.reserved.v1",
    "inventory.stock.released": "inventory.released.v1",
    "payment.initiated": "payment.requested.v1",
    "order.payment.requested": "payment.requested.v1",
}

ONLY_SHARED = {"inventory.out_of_stock"}  # dialects A and B have no subject for it
ALWAYS_A = {"inventory.stock.warning"}  # about a product, not about anybody's order


def encode(announce: Announce) -> list[Outgoing]:
    """Put an announcement into its dialect: no, one or several messages, always the same for the same announcement."""
    kind = announce.kind
    if announce.dialect == "c" and kind not in ALWAYS_A:
        return [_shared(announce)]
    if kind in ONLY_SHARED:
        return []
    suffix = ".v1" if announce.dialect == "b" and kind not in ALWAYS_A else ""
    if kind == "inventory.stock.reserved" and "items" in announce.data:
        return [_reserved_item(announce, item, suffix) for item in announce.data["items"]]
    return [_domain_event(announce, announce.event_id, announce.aggregate_id, announce.data, suffix)]


@lru_cache(maxsize=256)
def _source(kind: str) -> str:
    return f"{kind.split('.', 1)[0]}-service"


# ---- dialects A and B -----------------------------------------------------------------------------------


def _reserved_item(announce: Announce, item: Data, suffix: str) -> Outgoing:
    """A says per product what the rule said once for the order."""
    product = item["productId"]
    whole = announce.data
    data = {
        "orderId": whole["orderId"],
        "quantityReserved": item["quantityReserved"],
        "remainingStock": item["remainingStock"],
        "reservationExpiry": whole["reservationExpiry"],
        "reservedAt": whole["reservedAt"],
        "artisanId": item["artisanId"],
    }
    return _domain_event(announce, caused(announce.event_id, "item", product), product, data, suffix)


def _domain_event(announce: Announce, event_id: str, aggregate_id: str, data: Data, suffix: str) -> Outgoing:
    at = iso(announce.at)
    metadata = {
        "eventId": event_id,
        "correlationId": announce.correlation_id or announce.key,
        "publishedAt": at,
        "version": "1.0",
        "source": _source(announce.kind),
    }
    if announce.causation_id is not None:
        metadata["causationId"] = announce.causation_id
    envelope = {
        "eventId": event_id,
        "eventType": EVENT_TYPES.get(announce.kind, announce.kind),
        "aggregateId": aggregate_id,
        "eventVersion": 1,
        "occurredOn": at,
        "eventData": data,
        "metadata": metadata,
    }
    return Outgoing(announce.kind + suffix, orjson.dumps(envelope), event_id)


# ---- dialect C ------------------------------------------------------------------------------------------


def _shared(announce: Announce) -> Outgoing:
    """Wrapped, and with the data twice: the one form that every reader of the dialect accepts."""
    subject = SHARED_SUBJECTS.get(announce.kind, f"{announce.kind}.v1")
    data = _SHAPES.get(announce.kind, _as_it_is)(announce)
    metadata = {"source": _source(announce.kind)}
    if announce.causation_id is not None:
        metadata["causationId"] = announce.causation_id
    envelope = {
        "eventId": announce.event_id,
        "eventType": subject,
        "correlationId": announce.correlation_id or announce.key,
        "timestamp": iso(announce.at),
        "data": data,
        "payload": data,
        "metadata": metadata,
    }
    return Outgoing(subject, orjson.dumps({"pattern": subject, "data": envelope}), announce.event_id)


def _as_it_is(announce: Announce) -> Data:
    return announce.data


def _reservation(order_id: str) -> str:
    return f"res-{caused(order_id, 'reservation')}"


def _reserved(announce: Announce) -> Data:
    whole = announce.data
    reservation = _reservation(whole["orderId"])
    items = [
        {
            "reservationId": reservation,
            "productId": item["productId"],
            "quantity": item["quantityReserved"],
            "reserved": item["quantityReserved"],
        }
        for item in whole["items"]
    ]
    return {
        "reservationId": reservation,
        "orderId": whole["orderId"],
        "items": items,
        "expiresAt": whole["reservationExpiry"],
        "reservedAt": whole["reservedAt"],
    }


def _released(announce: Announce) -> Data:
    data = announce.data
    return {
        "reservationId": _reservation(data["orderId"]),
        "orderId": data["orderId"],
        "items": [{"productId": announce.aggregate_id, "quantity": data["quantityReleased"]}],
        "reason": data["reason"],
        "releasedAt": data["releasedAt"],
    }


def _payment_requested(announce: Announce) -> Data:
    data = {name: value for name, value in announce.data.items() if name != "initiatedAt"}
    return data | {"requestedAt": announce.data["initiatedAt"]}


_SHAPES: dict[str, Callable[[Announce], Data]] = {
    "inventory.stock.reserved": _reserved,
    "inventory.stock.released": _released,
    "payment.initiated": _payment_requested,
    "order.payment.requested": _payment_requested,
}
