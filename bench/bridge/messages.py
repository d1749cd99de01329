"""The messages of a run as data: real ones of the marketplace, with ids that tell number, order and topic."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FIXTURES = Path(__file__).parents[2] / "app" / "asyncapi" / "samples" / "dialect-a.jsonl"

IN = (
    ("order.created", "orders"),
    ("inventory.stock.reserved", "stock"),
    ("payment.failed", "payments"),
    ("payment.succeeded", "payments"),
    ("order.confirmed", "orders"),
    ("notification.email.sent", "notifications"),
)
"""What is said of an order, in this order, and the topic that it belongs into."""

OUT = ("inventory.stock.reserved", "order.confirmed", "notification.email.sent")
"""What we say of an order."""

UNDER_WAY = 1_000
"""Orders that are spoken of at the same time."""
PRODUCTS = 997

SAMPLE_ORDER, SAMPLE_PRODUCT = "order_1795527351031_wueeee5lg", "product_aceite_picual"


class Spoken(NamedTuple):
    """One message. `key` is what the record that mirrors it is to have."""

    subject: str
    key: str
    event_id: str
    payload: bytes


class Told(NamedTuple):
    """What a number stands for."""

    subject: str
    topic: str
    key: str


def _place(number: int, steps: int) -> tuple[int, int]:
    """Order and step of a message: `UNDER_WAY` orders take their steps side by side."""
    block, rest = divmod(number, UNDER_WAY * steps)
    step, order = divmod(rest, UNDER_WAY)
    return block * UNDER_WAY + order, step


def told_in(number: int) -> Told:
    """What is to become of the message with this number in the topics."""
    order, step = _place(number, len(IN))
    subject, topic = IN[step]
    return Told(subject, topic, product_of(order) if topic == "stock" else order_id(order))


def told_out(number: int) -> Told:
    """Whose record of `outbound` has this number."""
    order, step = _place(number, len(OUT))
    return Told(OUT[step], "outbound", order_id(order))


def order_id(order: int) -> str:
    """As the marketplace makes them."""
    return f"order_1795527351031_{order:09}"


def product_of(order: int) -> str:
    """The product that is ordered."""
    return f"product_{order % PRODUCTS:06}"


def event_id(number: int, seed: int) -> str:
    """A UUID that ends in the number."""
    return f"{seed:08x}-c4f3-4a57-9e6d-{number:012x}"


def number_of(event_id: bytes | str) -> int:
    """The opposite of `event_id`."""
    return int(event_id[-12:], 16)


def number_in(payload: bytes) -> int:
    """The number of the message with this payload."""
    at = payload.index(b'"eventId":"') + len(b'"eventId":"')
    return number_of(payload[at : at + 36])


def spoken_in(count: int, seed: int) -> Iterator[Spoken]:
    """The first `count` messages that services publish."""
    templates = _templates()
    for number in range(count):
        order, _ = _place(number, len(IN))
        subject, _topic, key = told_in(number)
        yield _said(templates[subject], subject, key, event_id(number, seed), order)


def spoken_out(count: int, seed: int) -> Iterator[Spoken]:
    """The first `count` messages that we publish."""
    templates = _templates()
    for number in range(count):
        order, _ = _place(number, len(OUT))
        subject, _topic, key = told_out(number)
        yield _said(templates[subject], subject, key, event_id(number, seed), order)


def _said(template: str, subject: str, key: str, event: str, order: int) -> Spoken:
    text = template.replace("{event}", event).replace("{order}", order_id(order))
    return Spoken(subject, key, event, text.replace("{product}", product_of(order)).encode())


def _templates() -> dict[str, str]:
    """A sample of each subject, with places for its ids."""
    samples: dict[str, str] = {}
    for line in FIXTURES.read_text("utf-8").splitlines():
        sample = json.loads(line)
        payload = sample["payload"]
        event, order = json.loads(payload)["eventId"], _order_of(json.loads(payload))
        for own, place in ((event, "{event}"), (order, "{order}"), (SAMPLE_PRODUCT, "{product}")):
            payload = payload.replace(own, place)
        samples.setdefault(sample["subject"], payload)
    return samples


def _order_of(event: dict[str, dict[str, dict[str, str]]]) -> str:
    data = event["eventData"]
    found = data.get("orderId") or data.get("variables", {}).get("orderId") or event["aggregateId"]
    return str(found)
