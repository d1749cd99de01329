"""What a rule gives back: the new row, what to say, and one word for what happened."""

from typing import Any, Generic, NamedTuple, TypeVar

Row = TypeVar("Row")


class Transition(NamedTuple, Generic[Row]):
    """The result of a pure rule.

    `row` is the whole new row (None: there is none yet and none is made). `outputs` are messages of the
    domain (commands, replies, announcements, mails), in the order they are to be sent. `outcome` is a
    word for logs and metrics: applied, duplicate, ignored, parked, contradiction, shadow (decided, not said).
    """

    row: Row | None
    outputs: tuple[Any, ...] = ()
    outcome: str = "applied"
