"""The routes: which NATS subjects cross, into which topic, and which of them we publish too.

Exact subjects only, so nothing of `$JS`, `_INBOX` or a `.dlq` can slip in. It decides no keys: `key_of` does.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from app import topics
from app.domain.dialects import Undecodable, key_of

ORDERS, PAYMENTS, STOCK = topics.ORDERS.name, topics.PAYMENTS.name, topics.STOCK.name
NOTIFICATIONS, USERS = topics.NOTIFICATIONS.name, topics.USERS.name

KEYS = {ORDERS: "order id", PAYMENTS: "order id", STOCK: "product id", NOTIFICATIONS: "order id", USERS: "user id"}


class Direction(StrEnum):
    """IN: others publish it, we mirror it. BOTH: we publish it too, and mirror that like anybody's."""

    IN = "in"
    BOTH = "both"


IN, BOTH = Direction.IN, Direction.BOTH


@dataclass(frozen=True)
class Route:
    """One subject. `dialects` are the letters it may be spoken in; a route that is off stays in the stream unread."""

    subject: str
    topic: str
    direction: Direction
    dialects: str
    on: bool = True


# Dialect A speaks these, dialect B the same with `.v1` behind.
BASE: tuple[tuple[str, str, Direction], ...] = (
    ("order.created", ORDERS, IN),
    ("order.confirmed", ORDERS, BOTH),
    ("order.cancelled", ORDERS, BOTH),
    ("order.delivered", ORDERS, IN),
    ("order.updated", ORDERS, IN),
    ("order.payment.requested", ORDERS, BOTH),
    ("payment.initiated", PAYMENTS, BOTH),
    ("payment.succeeded", PAYMENTS, IN),
    ("payment.failed", PAYMENTS, IN),
    ("payment.cancelled", PAYMENTS, IN),
    ("payment.refund.initiated", PAYMENTS, BOTH),
    ("payment.refund.processed", PAYMENTS, IN),
    ("payment.refund.failed", PAYMENTS, IN),
    ("inventory.stock.reserved", STOCK, BOTH),
    ("inventory.stock.released", STOCK, BOTH),
    ("inventory.stock.updated", STOCK, BOTH),
    ("inventory.stock.depleted", STOCK, BOTH),
    ("inventory.stock.replenished", STOCK, BOTH),
    ("inventory.stock.warning", STOCK, BOTH),
    ("inventory.stock.low", STOCK, IN),  # the document's name for inventory.stock.warning
    ("user.registered", USERS, IN),
    ("user.verified", USERS, IN),
    ("user.profile.updated", USERS, IN),
    ("user.preferences.changed", USERS, IN),
    ("notification.email.sent", NOTIFICATIONS, BOTH),
    ("notification.email.delivered", NOTIFICATIONS, IN),
    ("notification.email.failed", NOTIFICATIONS, BOTH),
    ("notification.sms.sent", NOTIFICATIONS, IN),
    ("notification.push.sent", NOTIFICATIONS, IN),
)

# Dialect C. Where B has the same subject, the payload tells which of the two it is.
SHARED_EVENTS: tuple[tuple[str, str, Direction], ...] = (
    ("order.created.v1", ORDERS, IN),
    ("order.confirmed.v1", ORDERS, BOTH),
    ("order.cancelled.v1", ORDERS, BOTH),
    ("order.failed.v1", ORDERS, BOTH),
    ("payment.requested.v1", PAYMENTS, BOTH),
    ("payment.confirmed.v1", PAYMENTS, IN),
    ("payment.failed.v1", PAYMENTS, IN),
    ("payment.processing.v1", PAYMENTS, IN),
    ("inventory.reserved.v1", STOCK, BOTH),
    ("inventory.released.v1", STOCK, BOTH),
    ("inventory.out_of_stock.v1", STOCK, BOTH),
    ("shipment.delivered.v1", ORDERS, IN),
)


def _all_routes() -> dict[str, Route]:
    spoken = [(subject, topic, direction, "a") for subject, topic, direction in BASE]
    spoken += [(subject + ".v1", topic, direction, "b") for subject, topic, direction in BASE]
    spoken += [(subject, topic, direction, "c") for subject, topic, direction in SHARED_EVENTS]
    routes: dict[str, Route] = {}
    for subject, topic, direction, dialect in spoken:
        known = routes.get(subject)
        dialects = known.dialects + dialect if known else dialect
        routes[subject] = Route(subject, topic, direction, dialects)
    return routes


ROUTES: Mapping[str, Route] = _all_routes()


def route_for(subject: str) -> Route | None:
    """The route of exactly this subject; None when it doesn't cross."""
    return ROUTES.get(subject)


def without(off: Iterable[str], routes: Mapping[str, Route] = ROUTES) -> dict[str, Route]:
    """The routes with these subjects off. Raises ValueError for a subject that has no route."""
    changed = dict(routes)
    for subject in off:
        if subject not in changed:
            raise ValueError(f"no route has the subject {subject!r}; nearest: {', '.join(_nearest(subject)) or 'none'}")
        changed[subject] = replace(changed[subject], on=False)
    return changed


def explain(subject: str, payload: bytes | None = None, routes: Mapping[str, Route] = ROUTES) -> list[str]:
    """What would happen to a message, a line a step; with a payload also its key, or why it would be dead-lettered."""
    route = routes.get(subject)
    if route is None:
        near = _nearest(subject)
        return [f"{subject}: no route, the bridge does not read it", *([f"nearest: {', '.join(near)}"] if near else [])]
    lines = [
        f"{subject}: route of dialect {' or '.join(route.dialects.upper())}, {_CROSSES[route.direction]}",
        f"topic {route.topic}, by {KEYS[route.topic]}",
    ]
    if not route.on:
        return [*lines, "switched off: kept in the stream, not mirrored"]
    if payload is None:
        return lines
    try:
        return [*lines, f"key {key_of(subject, payload)}"]
    except Undecodable as error:
        return [*lines, f"dead letter: {error.reason}: {error.detail}", f"told to {subject}.dlq"]


_CROSSES = {IN: "mirrored from NATS", BOTH: "mirrored from NATS, and published by us"}


def _nearest(subject: str) -> list[str]:
    return difflib.get_close_matches(subject.removesuffix(".dlq"), ROUTES, n=3)
