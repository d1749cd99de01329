"""What the live feed says of a changed row: the same as an item of its list, and what it can be filtered by."""

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from app.domain.dead_letters import Letter
from app.domain.rows import OrderSaga, Stock
from app.engine.records import Record
from app.web.answers import Answer
from app.web.dead_letters import letter_summary
from app.web.inventory import product_summary
from app.web.orders import order_summary
from tables.dead_letters import DEAD_LETTERS
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS

_encode = msgspec.json.Encoder().encode


class Kind(StrEnum):
    """What changed."""

    ORDER = "order"
    STOCK = "stock"
    DEAD_LETTER = "dead-letter"


class Hello(Answer, frozen=True, kw_only=True):
    """The feed begins. resumed: where the client had been."""

    as_of: str
    resumed: bool


class Restart(Answer, frozen=True, kw_only=True):
    """What changed since is not known: load again what you show. The feed goes on from now."""

    reason: str


class Dropped(Answer, frozen=True, kw_only=True):
    """The client did not read; it may come back with its last id. behind: events that it lacks."""

    reason: str
    behind: int


class LiveEvent(NamedTuple):
    """One changed row, ready to be sent. `at` is its place among all partitions, `offset` its record's there.

    `kind` is None where it is for everybody. `orders` and `products` are the ids that it is about.
    """

    text: bytes
    at: int = 0
    offset: int = 0
    kind: Kind | None = None
    state: str = ""
    customer: str = ""
    orders: Collection[str] = ()
    products: Collection[str] = ()


def said(event: str, data: Answer, place: bytes = b"") -> bytes:
    """An event as it goes over the wire; with a place, the client knows where to go on."""
    return b"%bevent: %b\ndata: %b\n\n" % (place, event.encode(), _encode(data))


def _of_order(saga: OrderSaga) -> dict[str, Any]:
    return {
        "state": saga.state.value,
        "customer": saga.customer_id,
        "orders": (saga.order_id,),
        "products": [line.product_id for line in saga.lines],
    }


def _of_stock(stock: Stock) -> dict[str, Any]:
    return {"products": (stock.product_id,)}


def _of_letter(letter: Letter) -> dict[str, Any]:
    return {"state": letter.state.value, "orders": (letter.of,), "products": (letter.of,)}


class _Shown(NamedTuple):
    kind: Kind
    decode: Callable[[bytes], Any]
    summary: Callable[[Any], Answer]
    about: Callable[[Any], dict[str, Any]]


_SHOWN = {
    ORDER_SAGAS.changelog: _Shown(Kind.ORDER, msgspec.json.Decoder(OrderSaga).decode, order_summary, _of_order),
    INVENTORY.changelog: _Shown(Kind.STOCK, msgspec.json.Decoder(Stock).decode, product_summary, _of_stock),
    DEAD_LETTERS.changelog: _Shown(Kind.DEAD_LETTER, msgspec.json.Decoder(Letter).decode, letter_summary, _of_letter),
}

TOPICS = tuple(_SHOWN)
"""The changelogs that are told of."""


def event_of(record: Record, at: int, place: bytes) -> LiveEvent | None:
    """What to say of a record of TOPICS; None of a row that is no longer. `place` is the one behind it."""
    if record.value is None:
        return None
    shown = _SHOWN[record.topic]
    row = shown.decode(record.value)
    text = said(shown.kind, shown.summary(row), place)
    return LiveEvent(text, at, record.offset, shown.kind, **shown.about(row))
