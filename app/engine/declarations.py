"""What an application declares: its topics, its tables, and the agents that run over them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from app.engine.partitioner import partition_for
from app.engine.records import Headers, Record, Send

Row = TypeVar("Row")


@dataclass(frozen=True)
class Topic:
    """A topic's declaration. `decode` gives the message of a record, or None when it says nothing to its readers.

    A plain tuple is several messages, each about another row: all of them are applied, or none is.
    """

    name: str
    decode: Callable[[Record], Any | None] = lambda record: record
    compacted: bool = False


def never(_row: Any) -> None:
    """The deadline of a row that is never due."""


def nothing(_row: Any) -> Mapping[str, int]:
    """The sums where nothing is summed up."""
    return {}


@dataclass(frozen=True)
class TableSpec(Generic[Row]):
    """The declaration of a table: its name, the type of its rows (msgspec), when a row is next due, and its sums.

    `sums(row)` is what a row adds to the table's sums (a name -> a number): they are kept with the rows and are right
    as soon as the table is there, however many rows it has. `glance` is a type with only those fields of a row that
    `deadline` and `sums` look at: going through a million rows takes a third of the time with it. Whoever changes what
    `deadline` or `sums` say raises `version`, and every store is gone through once. `partition(key, total)` is where a
    key's row is: the same as that of the records which its lane reads of it.
    """

    name: str
    row_type: type[Row]
    deadline: Callable[[Any], float | None] = never
    sums: Callable[[Any], Mapping[str, int]] = nothing
    glance: type[Any] | None = None
    version: int = 1
    partition: Callable[[str, int], int] = lambda key, total: partition_for(key.encode(), total)

    @property
    def changelog(self) -> str:
        """The compacted topic that holds the newest row of every key."""
        return f"{self.name}-changelog"


class Transition(Protocol):
    """What a rule returns: the new row (None: none), the messages to send, and a word for what happened."""

    @property
    def row(self) -> Any | None: ...
    @property
    def outputs(self) -> tuple[Any, ...]: ...
    @property
    def outcome(self) -> str: ...


class Tally(Protocol):
    """What is counted of a batch's changes in one partition, and said with their commit, once.

    `add` hears of each changed row, message after message, with the time of the message's record; if it raises, the
    message is a dead letter, and nothing of it may have been counted.
    """

    def add(self, before: Any | None, after: Any | None, at: float) -> None: ...
    def sends(self) -> Sequence[Send]: ...


@dataclass(frozen=True)
class Reducer(Generic[Row]):
    """An agent that owns a table: `rule(row, message)` is pure and decides; the lane does the rest.

    `encode` turns one output of the rule into messages for topics; they have the headers that it is given, which are
    `carries(record, row)`: what the outputs of a record carry on of its headers, or of the row as it is now.
    `timer(key, deadline, now)` is the message that says a row is due; None: the table has no deadlines.
    `tally(partition)` makes what counts the changes of one batch; None: nothing is counted.
    `collects`: seconds that records are collected for one commit, where nobody waits for the rows; 0: as the log does.
    """

    name: str
    reads: tuple[Topic, ...]
    table: TableSpec[Row]
    rule: Callable[[Row | None, Any], Any]
    encode: Callable[[Any, Headers], Sequence[Send]]
    timer: Callable[[str, float, float], Send] | None = None
    carries: Callable[[Record, Row | None], Headers] = lambda _record, _row: ()
    tally: Callable[[int], Tally] | None = None
    collects: float = 0.0


@dataclass(frozen=True)
class Effect:
    """An agent that does I/O for each message (a mail): `perform` gets messages that are on disk, says what to send.

    It may run again for the same messages after a crash: give what it does a stable id. What it raises stops the
    worker.
    """

    name: str
    reads: Topic
    perform: Callable[[list[Any]], Awaitable[list[Send]]]
    batch: int = 64
