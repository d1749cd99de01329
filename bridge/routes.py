"""The routes: which NATS subjects cross, into which topic, by which key, and which of them we publish too.

The table below is the marketplace's; a file can change it (routes_file.py). Subjects are exact or patterns with a first
token of their own, so nothing of `$JS` and `_INBOX` can slip in; a pattern never takes a `.dlq`.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import orjson

from app import topics
from app.domain.dialects import Identity, Undecodable, identifier, load_object, unwrapped
from app.engine.declarations import Topic
from bridge.keys import KeyOf, key_expression

ORDERS, PAYMENTS, STOCK = topics.ORDERS.name, topics.PAYMENTS.name, topics.STOCK.name
NOTIFICATIONS, USERS = topics.NOTIFICATIONS.name, topics.USERS.name

FAMILIES = {
    "order": (ORDERS, "order id"),
    "shipment": (ORDERS, "order id"),
    "payment": (PAYMENTS, "order id"),
    "inventory": (STOCK, "product id"),
    "notification": (NOTIFICATIONS, "order id"),
    "user": (USERS, "user id"),
}
"""First token of a subject -> topic and key of what the application itself reads: its tables rely on them."""

DLQ = ".dlq"
REMEMBERED = 10_000
"""Subjects whose pattern is looked up once only."""


class Direction(StrEnum):
    """IN: others publish it, we mirror it. OUT: we publish it. BOTH: both, and our own is mirrored like anybody's."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


IN, BOTH = Direction.IN, Direction.BOTH


@dataclass(frozen=True)
class Route:
    """One subject, or all that a pattern covers (`*` is one token, `>` at the end all that follow).

    `dialects` are the letters it may be spoken in; "" is any JSON object. `key` is in words where the domain decides
    it, else an expression (keys.py). A route that is off stays in the stream unread, and is not published.
    """

    subject: str
    topic: str
    direction: Direction
    dialects: str = ""
    key: str = ""
    on: bool = True

    @property
    def mirrored(self) -> bool:
        """Whether messages on it are mirrored."""
        return self.on and self.direction is not Direction.OUT

    @property
    def published(self) -> bool:
        """Whether we may publish on it."""
        return self.on and self.direction is not Direction.IN

    @property
    def is_pattern(self) -> bool:
        """Whether it covers more than one subject."""
        return "*" in self.subject or ">" in self.subject

    @cached_property
    def _key_of(self) -> KeyOf:
        return key_expression(self.key)

    def identifier(self, subject: str) -> Callable[[bytes], Identity]:
        """For the payloads on one of its subjects, key, eventId and data. Raises Undecodable."""
        if self.dialects:
            return identifier(subject)
        key_of = self._key_of

        def identify(payload: bytes) -> Identity:
            envelope = unwrapped(load_object(payload))
            event_id = envelope.get("eventId")
            key = key_of(subject, envelope)
            return Identity(key, event_id if isinstance(event_id, str) else None, orjson.dumps(envelope))

        return identify

    def identify(self, subject: str, payload: bytes) -> Identity:
        """Key, eventId and data of a message on it. Raises Undecodable."""
        return self.identifier(subject)(payload)


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


class Routes:
    """All routes, by subject. Iterates in the order of the table."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {route.subject: route for route in routes}
        # The pattern with the most tokens of its own decides.
        self._patterns = sorted(
            (route for route in self if route.is_pattern),
            key=lambda route: -sum(token not in ("*", ">") for token in route.subject.split(".")),
        )
        self._found: dict[str, Route | None] = {route.subject: route for route in self if not route.is_pattern}

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def of(self, subject: str) -> Route | None:
        """The route of a subject; None when it doesn't cross."""
        try:
            return self._found[subject]
        except KeyError:
            pass
        if len(self._found) > REMEMBERED:
            self._found = {route.subject: route for route in self if not route.is_pattern}
        own = () if subject.endswith(DLQ) else self._patterns
        found = self._found[subject] = next((route for route in own if covers(route.subject, subject)), None)
        return found

    def __getitem__(self, subject: str) -> Route:
        """The route of a subject that crosses. Raises KeyError when it doesn't."""
        route = self.of(subject)
        if route is None:
            raise KeyError(subject)
        return route

    def more_topics(self) -> list[Topic]:
        """The topics that the application itself doesn't have: nobody here reads them."""
        known = {topic.name for topic in topics.ALL}
        return [Topic(name) for name in dict.fromkeys(route.topic for route in self) if name not in known]

    def all_topics(self) -> list[Topic]:
        """The application's topics, and these."""
        return [*topics.ALL, *self.more_topics()]

    def nearest(self, subject: str) -> list[str]:
        """Subjects that are written almost like this one."""
        return difflib.get_close_matches(subject.removesuffix(DLQ), self._routes, n=3)


def covers(pattern: str, subject: str) -> bool:
    """Whether a pattern (`*` one token, `>` one or more at the end) covers a subject or another pattern."""
    if pattern == subject:
        return True
    wanted, given = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(given) > position
        if position >= len(given) or given[position] == ">" or part not in ("*", given[position]):
            return False
    return len(wanted) == len(given)


def overlap(one: str, other: str) -> bool:
    """Whether there is a subject that both patterns cover."""
    ours, theirs = one.split("."), other.split(".")
    for mine, its in zip(ours, theirs, strict=False):
        if ">" in (mine, its):
            return True
        if mine != its and "*" not in (mine, its):
            return False
    return len(ours) == len(theirs)


def _marketplace() -> Iterator[Route]:
    spoken = [(subject, topic, direction, "a") for subject, topic, direction in BASE]
    spoken += [(subject + ".v1", topic, direction, "b") for subject, topic, direction in BASE]
    spoken += [(subject, topic, direction, "c") for subject, topic, direction in SHARED_EVENTS]
    dialects: dict[str, str] = {}
    for subject, _, _, dialect in spoken:
        dialects[subject] = dialects.get(subject, "") + dialect
    for subject, topic, direction, _ in spoken:
        yield Route(subject, topic, direction, dialects[subject], FAMILIES[subject.split(".", 1)[0]][1])


ROUTES = Routes(_marketplace())


def explain(subject: str, payload: bytes | None = None, routes: Routes = ROUTES) -> list[str]:
    """What would happen to a message, a line a step; with a payload also its key, or why it would be dead-lettered."""
    route = routes.of(subject)
    if route is None:
        near = routes.nearest(subject)
        return [f"{subject}: no route, the bridge does not read it", *([f"nearest: {', '.join(near)}"] if near else [])]
    spoken = f"dialect {' or '.join(route.dialects.upper())}" if route.dialects else "any JSON object"
    lines = [
        f"{subject}: route {route.subject}, {spoken}, {_CROSSES[route.direction]}",
        f"topic {route.topic}, by {route.key}",
    ]
    if not route.on:
        return [*lines, "switched off: kept in the stream, not mirrored, not published"]
    if payload is None or not route.mirrored:
        return lines
    try:
        found = route.identify(subject, payload)
    except Undecodable as error:
        return [*lines, f"dead letter: {error.reason}: {error.detail}", f"told to {subject}.dlq"]
    known = {"": "what it says tells it from others", None: "no eventId: never taken for a repetition"}
    return [*lines, known.get(found.event_id, f"eventId {found.event_id}"), f"key {found.key}"]


_CROSSES = {
    Direction.IN: "mirrored from NATS",
    Direction.OUT: "published by us",
    Direction.BOTH: "mirrored from NATS, and published by us",
}
