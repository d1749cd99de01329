"""What most messages say of themselves, read at a glance: whose row it is, and what tells them from others.

It is for the plain ones: dialect A or B, as `JSON.stringify` writes it, without an escape. Of those `dialects.identify`
would find the same in twice the time, since it makes objects of everything that is said. Of any other message a glance
tells nothing, and never that something is wrong with it. One thing it does not see: a number that no double holds
(1e400), which whoever reads the message refuses.
"""

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import msgspec

from app.domain.events import MAX_ID

MAX_DEPTH = 64
"""Levels of objects and lists in a message."""

OPENED = ord("{")
_NO_MARKS = bytes(set(range(256)) - set(b"{[\\"))
"""One look for all three marks takes half the time of one for each."""


class Identity(msgspec.Struct, gc=False):
    """Which row a message belongs to, and what tells it from others: who says the same again has all of it equal.

    `event_id` is "" where the dialect has none (C, flat: `said` is all of it), None where one is missing. `said` is the
    data as compact JSON.
    """

    key: str
    event_id: str | None
    said: bytes


Glance: TypeAlias = Callable[[bytes], Identity | None]
"""Of a payload what it says of itself; None where that takes a closer look."""

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]


class _Metadata(msgspec.Struct, gc=False):
    version: Literal["1.0"] = "1.0"


class _Envelope(msgspec.Struct, rename="camel", gc=False):
    event_id: Annotated[str, msgspec.Meta(min_length=1)]
    event_data: msgspec.Raw
    aggregate_id: _Id | None = None
    event_version: Literal[1] = 1
    metadata: _Metadata | None = None


class _OfOrder(msgspec.Struct, rename="camel", gc=False):
    order_id: _Id | None = None


class _OfMail(_OfOrder, rename="camel", gc=False):
    variables: _OfOrder | None = None


_envelope = msgspec.json.Decoder(_Envelope).decode
_of_order = msgspec.json.Decoder(_OfOrder).decode
_of_mail = msgspec.json.Decoder(_OfMail).decode


def glance_at(family: str) -> Glance | None:
    """The glance for the subjects whose first token `family` is; None: there is none."""
    return _GLANCES.get(family)


def _glance(key_in: Callable[[bytes], str | None] | None) -> Glance:
    """The key is in the data where `key_in` finds it, else it is the aggregate's id."""

    def glance(payload: bytes) -> Identity | None:
        try:
            # msgspec checks what it skips by its grammar only, and takes half a pair of surrogates, if it is escaped.
            if not payload.isascii():
                payload.decode()
            marks = payload.translate(None, _NO_MARKS)
            # Whoever puts no blank behind the first name puts none behind others: the data stands as compact JSON.
            at = payload.find(b'":') + 2
            if len(marks) > MAX_DEPTH or b"\\" in marks or payload[at : at + 1] <= b" ":
                return None
            found = _envelope(payload)
            said = bytes(found.event_data)
            key = found.aggregate_id if key_in is None else key_in(said)
        except ValueError:  # the errors of msgspec and of UTF-8 are such
            return None
        return None if key is None or said[0] != OPENED else Identity(key, found.event_id, said)

    return glance


def _order_id(said: bytes) -> str | None:
    return _of_order(said).order_id


def _order_of_mail(said: bytes) -> str | None:
    data = _of_mail(said)
    return data.order_id or (data.variables.order_id if data.variables else None)


_GLANCES = {
    "order": _glance(None),
    "inventory": _glance(None),
    "user": _glance(None),
    "payment": _glance(_order_id),
    "shipment": _glance(_order_id),
    "notification": _glance(_order_of_mail),
}
