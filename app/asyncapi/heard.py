"""What we understand of what others publish: the schema of each subject's payload by dialect, and real samples of it.

The data's types are those that the dialects are read with; a test holds the two together. Unknown fields are allowed.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from app.domain.events import (
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
    Wire,
)

DATA: dict[str, type[Wire]] = {
    "order.created": OrderCreatedData,
    "order.confirmed": OrderConfirmedData,
    "order.cancelled": OrderCancelledData,
    "order.delivered": OrderDeliveredData,
    "payment.succeeded": PaymentSucceededData,
    "payment.failed": PaymentFailedData,
    "payment.refund.processed": RefundProcessedData,
    "notification.email.sent": EmailSentData,
    "inventory.stock.updated": StockMovedData,
    "inventory.stock.replenished": StockMovedData,
    "inventory.stock.depleted": StockMovedData,
    "order.failed": OrderCancelledData,
    "payment.confirmed": PaymentSucceededData,
    "shipment.delivered": OrderDeliveredData,
}
"""Subject without `.v1` -> what its data must be like. Of the others only the ids are looked at."""

IN_DATA = {"payment": "orderId", "shipment": "orderId"}
"""The first word of a subject -> the field of its data that tells whose it is, where the envelope doesn't."""

TYPES: tuple[type[Any], ...] = (DomainEvent, SharedEvent, *dict.fromkeys(DATA.values()))

Schema = dict[str, Any]


def payload(subject: str, dialect: str) -> Schema:
    """The schema of a payload on the subject in the dialect: "a", "b", "c"; "" is any JSON object."""
    name = subject.removesuffix(".v1")
    if not dialect:
        return {"type": "object"}
    data = _data(name)
    if dialect != "c":
        return _enveloped("DomainEvent", "eventData", data) | {"description": "The domain event's envelope."}
    shared = _enveloped("SharedEvent", "data", data)
    wrapped = {
        "type": "object",
        "properties": {"pattern": {"type": "string"}, "data": shared},
        "required": ["pattern", "data"],
        "description": "As NestJS's client wraps it.",
    }
    return {
        "anyOf": [wrapped, shared | {"description": "The envelope alone."}, {"description": "Flat.", "allOf": [data]}]
    }


def _data(name: str) -> Schema:
    parts: list[Schema] = [{"$ref": f"#/components/schemas/{DATA[name].__name__}"}] if name in DATA else []
    own = IN_DATA.get(name.split(".", 1)[0])
    if own:
        parts.append({"type": "object", "properties": {own: {"type": "string"}}, "required": [own]})
    return {"allOf": parts} if len(parts) > 1 else parts[0] if parts else {"type": "object"}


def _enveloped(envelope: str, field: str, data: Schema) -> Schema:
    return {
        "allOf": [
            {"$ref": f"#/components/schemas/{envelope}"},
            {"type": "object", "properties": {field: data}, "required": [field]},
        ]
    }


@cache
def samples(dialect: str) -> dict[str, list[dict[str, Any]]]:
    """Subject -> payloads as the marketplace's services published them."""
    found: dict[str, list[dict[str, Any]]] = {}
    file = files("app.asyncapi") / "samples" / f"dialect-{dialect}.jsonl"
    if file.is_file():
        for line in file.read_text("utf-8").splitlines():
            said = json.loads(line)
            found.setdefault(said["subject"], []).append(json.loads(said["payload"]))
    return found
