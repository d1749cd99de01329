"""What becomes of a dead letter: it is open until somebody replays or discards it, and that happens once.

A letter's row points to its record in the topic, where its bytes stay. This decides no place and no key: a command to
replay brings the message that is to go out again.
"""

import re
from enum import StrEnum
from typing import NamedTuple

import msgspec

from app.domain.causes import caused
from app.domain.messages import Message
from app.domain.outcome import Transition

Headers = tuple[tuple[str, bytes], ...]

LONGEST_TEXT = 200
"""Characters of an error or a payload that a row keeps; the record has all of it."""

DIGITS = "0123456789abcdefghijklmnopqrstuv"
"""Base 32 in the order of ASCII: ids sort as what they are made of."""

LETTER_ID = re.compile(f"[{DIGITS}]{{18}}")


class LetterState(StrEnum):
    """OPEN: somebody has to look at it. The two others are ends."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class Act(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """What was done with a letter. `by` is who says so; `detail` the reason of a discard, or what was edited."""

    at: float
    what: str
    by: str
    detail: str = ""


class Letter(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One dead letter. Key: its id. `place` is partition and offset in `topic`, if it had come so far.

    `former` is the letter whose replay this one was, `latter` the one that this one's replay became.
    """

    letter_id: str
    at: float
    reason: str
    topic: str
    state: LetterState = LetterState.OPEN
    error: str = ""
    place: str = ""
    subject: str = ""
    of: str = ""  # the message's own key
    size: int = 0  # bytes of the payload
    excerpt: str = ""
    former: str = ""
    latter: str = ""
    acts: tuple[Act, ...] = ()


# ---- ids ------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a letter's record is in the topic of dead letters."""

    partition: int
    offset: int


def letter_id(at: float, partition: int, offset: int) -> str:
    """18 digits that sort by time (ms), then by place: 9 of the time, 2 of the partition, 7 of the offset."""
    return _digits(max(0, int(at * 1000)), 9) + _digits(partition, 2) + _digits(offset, 7)


def first_id(at: float) -> str:
    """What sorts before every id of that time or later, and behind every one before it."""
    return _digits(max(0, int(at * 1000)), 9)


def place_of(letter: str) -> Place:
    """Where the letter of this id is. Raises ValueError: it is no id."""
    if not LETTER_ID.fullmatch(letter):
        raise ValueError(f"{letter!r} is not the id of a dead letter")
    return Place(int(letter[9:11], 32), int(letter[11:], 32))


def _digits(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits = DIGITS[digit] + digits
    return digits


# ---- messages; key = the letter's id --------------------------------------------------------------------


class LetterKept(Message, frozen=True, kw_only=True, tag=True):
    """A message became a dead letter. The fields are Letter's."""

    reason: str
    error: str
    topic: str
    place: str
    subject: str
    of: str
    size: int
    excerpt: str
    former: str


class ReplayLetter(Message, frozen=True, kw_only=True, tag=True):
    """Somebody wants it to go again: `payload` with `of` as its key and `headers` to `topic`.

    `edited` tells in a word or two what was changed of the payload; "": nothing.
    """

    by: str
    topic: str
    of: bytes | None
    payload: bytes | None
    headers: Headers
    edited: str = ""


class DiscardLetter(Message, frozen=True, kw_only=True, tag=True):
    """Somebody says that it is not needed, and why."""

    by: str
    reason: str


class LetterCameBack(Message, frozen=True, kw_only=True, tag=True):
    """What was replayed became another letter."""

    letter: str
    reason: str


class Resend(Message, frozen=True, kw_only=True, tag=True):
    """The message of a letter, to go where it was to go."""

    topic: str
    of: bytes | None
    payload: bytes | None
    headers: Headers


LetterCommand = ReplayLetter | DiscardLetter | LetterCameBack

# ---- the rule -------------------------------------------------------------------------------------------


def keep(letter: Letter | None, message: Message) -> Transition[Letter]:
    """The letter after the message. What is said of a letter that is not open, or not there, changes nothing."""
    match message:
        case LetterKept():
            if letter is not None:
                return Transition(letter, (), "duplicate")
            return Transition(_opened(message), _back_to_the_former(message))
        case LetterCameBack() if letter is not None:
            act = Act(message.at, "came back", message.source, f"{message.reason}: {message.letter}")
            changed = msgspec.structs.replace(letter, latter=message.letter, acts=(*letter.acts, act))
            return Transition(changed if not letter.latter else letter)
        case ReplayLetter() if letter is not None and letter.state is LetterState.OPEN:
            act = Act(message.at, "replayed", message.by, message.edited)
            again = Resend(
                event_id=caused(letter.letter_id, "Resend"),
                key=letter.letter_id,
                at=message.at,
                topic=message.topic,
                of=message.of,
                payload=message.payload,
                headers=message.headers,
            )
            return Transition(_ended(letter, LetterState.REPLAYED, act), (again,))
        case DiscardLetter() if letter is not None and letter.state is LetterState.OPEN:
            act = Act(message.at, "discarded", message.by, message.reason)
            return Transition(_ended(letter, LetterState.DISCARDED, act))
    return Transition(letter, (), "ignored")


def _opened(kept: LetterKept) -> Letter:
    return Letter(
        letter_id=kept.key,
        at=kept.at,
        reason=kept.reason,
        topic=kept.topic,
        error=kept.error,
        place=kept.place,
        subject=kept.subject,
        of=kept.of,
        size=kept.size,
        excerpt=kept.excerpt,
        former=kept.former,
    )


def _back_to_the_former(kept: LetterKept) -> tuple[LetterCameBack, ...]:
    if not kept.former:
        return ()
    back = LetterCameBack(
        event_id=caused(kept.key, "LetterCameBack"),
        key=kept.former,
        at=kept.at,
        source=kept.topic,
        letter=kept.key,
        reason=kept.reason,
    )
    return (back,)


def _ended(letter: Letter, state: LetterState, act: Act) -> Letter:
    return msgspec.structs.replace(letter, state=state, acts=(*letter.acts, act))
