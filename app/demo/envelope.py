"""Dialect A as the marketplace's own services write it: the domain-event envelope, in JSON, without NATS headers."""

import json
import secrets
import time
import uuid
from typing import Any

from app.domain.causes import iso


def now() -> str:
    """This moment as the services write it."""
    return iso(time.time())


def new_id(prefix: str) -> str:
    """An id as the services make them: `order_1795527351031_1f0c9a2b7`."""
    return f"{prefix}_{int(time.time() * 1000)}_{secrets.token_hex(5)[:9]}"


def event(event_type: str, aggregate_id: str, data: dict[str, Any], source: str) -> dict[str, Any]:
    """An event with a new eventId and, as the originals have it, a new correlationId."""
    event_id, at = str(uuid.uuid4()), now()
    return {
        "eventId": event_id,
        "eventType": event_type,
        "aggregateId": aggregate_id,
        "eventVersion": 1,
        "occurredOn": at,
        "eventData": data,
        "metadata": {
            "eventId": event_id,
            "correlationId": new_id(source).replace("_", "-"),
            "publishedAt": at,
            "version": "1.0",
            "source": source,
        },
    }


def repeated(published: dict[str, Any]) -> dict[str, Any]:
    """The same event as the services' bus publishes it again: the same eventId, one retry more."""
    again: dict[str, Any] = published["metadata"] | {"retryCount": 1}
    return published | {"metadata": again}


def encode(published: dict[str, Any]) -> bytes:
    """The bytes on NATS, as JSON.stringify makes them."""
    return json.dumps(published, ensure_ascii=False, separators=(",", ":")).encode()
