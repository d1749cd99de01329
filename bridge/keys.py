"""Key expressions: what a route says about the key of its messages. They read; they decide nothing.

`aggregateId | eventData.artisanId | subject.2` is the first of these that is there: a path into the envelope (which
NestJS's client wraps), the whole subject, or its so-many-th token, counted from 1.
"""

import re
from collections.abc import Callable
from typing import Any

from app.domain.dialects import Undecodable
from app.domain.events import MAX_ID

PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
DEFAULT = "aggregateId | eventId | subject"

KeyOf = Callable[[str, dict[str, Any]], str]


def key_expression(text: str) -> KeyOf:
    """The function of a subject and an envelope that gives the key; it raises Undecodable when nothing is there.

    Raises:
        ValueError: this is no expression; the text says which part is wrong.
    """
    parts = [part.strip() for part in text.split("|")]
    for part in parts:
        if not PART.fullmatch(part):
            raise ValueError(f"{part!r} in the key {text!r} is neither a path like eventData.artisanId nor subject[.n]")
    read = [_reader(part) for part in parts]

    def key(subject: str, envelope: dict[str, Any]) -> str:
        for one in read:
            value = one(subject, envelope)
            if isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            if isinstance(value, str) and 0 < len(value) <= MAX_ID:
                return value
        raise Undecodable("missing-key", f"{text}: nothing of 1 to {MAX_ID} characters is there")

    return key


def _reader(part: str) -> Callable[[str, dict[str, Any]], Any]:
    names = part.split(".")
    if names[0] == "subject" and len(names) == 1:
        return lambda subject, _envelope: subject
    if names[0] == "subject" and len(names) == 2 and names[1].isdigit() and names[1] != "0":
        position = int(names[1]) - 1
        return lambda subject, _envelope: next(iter(subject.split(".")[position : position + 1]), None)

    def follow(_subject: str, envelope: dict[str, Any]) -> Any:
        value: Any = envelope
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    return follow
