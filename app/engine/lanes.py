"""What runs reducers and effects: a batch of records in, one transaction out.

A lane reads, folds the pure rule over the records, commits offsets + outputs + changelog together, and only then shows
the rows. It decides nothing about the marketplace.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog

from app.engine.cancelling import unbroken
from app.engine.errors import CommitAborted, LogFailed, StoreDamaged
from app.engine.reader import Reader
from app.engine.records import Headers, Record, Send, TopicPartition
from app.engine.tables import Change, Table, TablePartition, TableSpec

Row = TypeVar("Row")

logger = structlog.get_logger("a4co.engine")

SLICE = 50
"""Records that are worked off between two turns of the loop, in which views are answered; more if they are quick."""
TURN = 0.001
"""Seconds between two turns, about, if more than SLICE records are worked off meanwhile."""
ROWS = 200
"""Rows that are staged or written between two turns."""

UNREAD: Any = object()
"""In the place of a row that was not read yet."""

SKIPPED = "skipped"
"""What became of a record that says nothing to its reader (its message is None)."""

ABORTS, AGAIN = 20, 0.5
"""Transactions that may be refused one after the other, and seconds between two of them."""

COLLECTED = 20_000
"""Records that a lane collects for one commit at most."""

POLL = 0.1
"""Seconds between two looks at the deadlines when nothing arrives."""


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
class Topic:
    """A topic's declaration. `decode` gives the message of a record, or None when it says nothing to its readers.

    A plain tuple is several messages, each about another row: all of them are applied, or none is.
    """

    name: str
    decode: Callable[[Record], Any | None] = lambda record: record
    compacted: bool = False


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


@dataclass
class Hooks:
    """What the lanes tell the application.

    `reject(record, reason, error)` gives the messages that dead-letter it. `processed(lane, records, outcomes,
    seconds)` is called for each batch once it is committed, with a word for each record. While `is_behind()` no
    deadline is told: what would have prevented it may be on its way.
    """

    reject: Callable[[Record, str, str], list[Send]]
    processed: Callable[[str, Sequence[Record], Sequence[str], float], None] = lambda *_batch: None
    row_changed: Callable[[str, Any | None, Any | None], None] = lambda _table, _old, _new: None
    is_behind: Callable[[], bool] = lambda: False


class Lane:
    """Takes records, hands them to `_work`, and commits when there is enough or it is time. Stops at any exception."""

    breaks_off = True

    def __init__(self, name: str, reader: Reader, hooks: Hooks) -> None:
        self.name = name
        self.reader = reader
        self.batch = reader.batch
        self.collects = 0.0
        self._hooks = hooks
        self._partitions = 0
        self._since: float | None = None
        self._aborts = 0
        self._awaited = False
        self._torn = False
        self._records: list[Record] = []
        self._outcomes: list[str] = []
        self._spent = 0.0

    @property
    def ready(self) -> bool:
        """Whether it has partitions, and can work on all of them."""
        return self._partitions > 0

    def lag(self) -> int:
        """Records that wait; at least 1 while what is committed is not shown yet."""
        return self.reader.lag() or int(self._since is not None)

    async def run(self) -> None:
        """Work until cancelled. Every exception that leaves here stops the worker."""
        while True:
            await self.step()

    async def step(self) -> None:
        """Take and work off one batch, and commit if it is time."""
        self._before()
        records = await self.reader.take(self.batch, self._patience())
        start, size = 0, SLICE
        while start < len(records):
            if start:
                await asyncio.sleep(0)
            piece = records[start : start + size]
            started = time.perf_counter()
            if self._since is None:
                self._since = started
            self._torn = True  # until all of the piece is done: half of it must never be committed
            outcomes = await self._work(piece)
            self._torn = False
            self._awaited = self._awaited or (not self.collects and outcomes.count(SKIPPED) < len(outcomes))
            self._outcomes += outcomes
            self._records += piece
            took = max(time.perf_counter() - started, 1e-6)  # a coarse clock may say 0
            self._spent += took
            start += size
            size = max(SLICE, min(2 * size, int(size * TURN / took)))
        # Nothing more has come: who waits for what is done is not kept waiting for others.
        if self._since is not None and (self._due() or (self._awaited and not records)):
            await self._commit_or_roll_back()
            await asyncio.sleep(0)

    def _patience(self) -> float:
        """Seconds to wait for records. What was skipped only moves offsets, and nobody waits for that."""
        if self._since is None:
            return POLL
        patience = self.collects or self.reader.commit_seconds
        return 0.0 if self._awaited else max(0.0, self._since + patience - time.perf_counter())

    async def _commit_or_roll_back(self) -> None:
        try:
            await unbroken(self.commit())
        except CommitAborted as error:
            self._aborts += 1
            if self._aborts == ABORTS:
                raise LogFailed(f"{self.name}: {ABORTS} transactions in a row were refused: {error}") from error
            logger.warning("commit aborted, the records are taken again", lane=self.name, cause=str(error))
            await self.reader.rollback()
            self._forget()
            if self._aborts > 1:  # a cause that lasts; one alone is what a rebalance does
                await asyncio.sleep(AGAIN)
        else:
            self._aborts = 0

    def _due(self) -> bool:
        """Whether the transaction is full, or has waited long enough."""
        since = self._since if self._since is not None else time.perf_counter()
        late = time.perf_counter() - since >= (self.collects or self.reader.commit_seconds)
        return late or len(self._records) >= (COLLECTED if self.collects else self.reader.commit_records)

    async def commit(self) -> None:
        """Commit what is under way: offsets, outputs and changed rows; then show the rows."""
        if self._since is None:
            return
        records, outcomes, spent = self._records, self._outcomes, self._spent
        newest = {(record.topic, record.partition): record.offset for record in records}
        offsets = {TopicPartition(*place): offset + 1 for place, offset in newest.items()}
        started = time.perf_counter()
        self._torn = True  # what fails from here on is not committed once more
        self.reader.closing(offsets)
        await self._stage()
        ends = await self.reader.commit(offsets)
        await self._show(ends)
        self._forget()
        if records:
            self._hooks.processed(self.name, records, outcomes, spent + time.perf_counter() - started)

    def _forget(self) -> None:
        self._since, self._awaited, self._torn = None, False, False
        self._records, self._outcomes, self._spent = [], [], 0.0

    async def given(self, partitions: Collection[int]) -> None:
        """Nothing has to be prepared."""
        self._partitions += len(partitions)

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        """What is under way is committed, or forgotten when it is too late, or was broken off in the midst."""
        self._partitions -= len(partitions)
        if lost or self._torn:
            self._forget()
            await self.reader.rollback()
        else:
            await self._commit_or_roll_back()

    def _before(self) -> None:
        """What is to be done before each batch."""

    async def _work(self, records: list[Record]) -> list[str]:
        """Work off the records; a word for each."""
        raise NotImplementedError

    async def _stage(self) -> None:
        """Stage what belongs to the commit beside what was staged already."""

    async def _show(self, ends: Mapping[TopicPartition, int]) -> None:
        """The commit is done."""


class ReducerLane(Lane, Generic[Row]):
    """Runs one reducer over every partition that this process owns."""

    def __init__(
        self,
        reducer: Reducer[Row],
        reader: Reader,
        table: Table[Row],
        hooks: Hooks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(reducer.name, reader, hooks)
        self.table = table
        self.collects = reducer.collects
        self._reducer = reducer
        self._clock = clock
        self._decode = {topic.name: topic.decode for topic in reducer.reads}
        self._behind = True
        self._told: list[tuple[TablePartition[Row], str, float]] = []
        self._units: dict[int, _Unit[Row]] = {}
        self._changes: dict[int, list[Change[Row]]] = {}

    @property
    def ready(self) -> bool:
        """Whether it can work on its partitions; also when all are with others, whom the views are asked of."""
        return super().ready or self.table.owners.others_have(self.table.total)

    async def given(self, partitions: Collection[int]) -> None:
        """Bring the partitions' rows up to date."""
        await self.table.open(partitions)
        await super().given(partitions)
        self._behind = True

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        """Finish, and close the partitions' rows."""
        await super().taken(partitions, lost=lost)
        self.table.close(partitions)

    def _before(self) -> None:
        """Stage a timer message for each row that is due, some of them at a time."""
        if self._hooks.is_behind():
            self._behind = True
        elif self._behind:
            self._behind = self.lag() > 0
        if self._reducer.timer is None or self._behind:
            return
        now = self._clock()
        for part in self.table.partitions.values():
            due = part.due(now, SLICE)
            if due:
                self.reader.stage([self._reducer.timer(key, deadline, now) for key, deadline in due])
                self._told += [(part, key, deadline) for key, deadline in due]
                self._since = self._since or time.perf_counter()
                self._awaited = True

    async def _work(self, records: list[Record]) -> list[str]:
        """Fold the records, one after the other. Whatever goes wrong with one goes to the dead letters, alone."""
        outcomes = []
        units, decode = self._units, self._decode
        for record in records:
            unit = units.get(record.partition) or self._unit(record.partition)
            try:
                message = decode[record.topic](record)
                outcomes.append(SKIPPED if message is None else unit.fold(message, record))
            except StoreDamaged:
                raise
            except Exception as error:  # noqa: BLE001 - any failure of a record is that record's
                unit.sends += _reject(self._hooks, record, error)
                outcomes.append("dead-lettered")
        for unit in units.values():
            self.reader.stage(unit.sends)
            unit.sends = []
        return outcomes

    def _unit(self, partition: int) -> "_Unit[Row]":
        unit = self._units[partition] = _Unit(self.table.partitions[partition], self._reducer)
        return unit

    async def _stage(self) -> None:
        """One changelog record for each changed row."""
        changelog = self._reducer.table.changelog
        for partition, unit in self._units.items():
            changes = self._changes[partition] = []
            for piece in unit.changes(ROWS):
                changes += piece
                self.reader.stage([Send(changelog, it.key.encode(), it.packed, (), None, partition) for it in piece])
                await asyncio.sleep(0)
            if unit.tally is not None:
                self.reader.stage(unit.tally.sends())

    async def _show(self, ends: Mapping[TopicPartition, int]) -> None:
        self._told = []
        changelog = self._reducer.table.changelog
        for partition, changes in self._changes.items():
            part = self.table.partitions[partition]
            for start in range(0, len(changes), ROWS):
                piece = changes[start : start + ROWS]
                # Rows ahead of their mark are right: after a crash they are replayed onto themselves.
                done = start + ROWS >= len(changes)
                part.write(piece, ends[TopicPartition(changelog, partition)] if done else part.store.offset)
                for it in piece:
                    self._hooks.row_changed(self.table.name, it.old, it.row)
                await asyncio.sleep(0)

    def _forget(self) -> None:
        super()._forget()
        for part, key, deadline in self._told:
            part.remind(key, deadline)
        self._told, self._units, self._changes = [], {}, {}


def _reject(hooks: Hooks, record: Record, error: Exception) -> list[Send]:
    reason = getattr(error, "reason", "") or type(error).__name__
    return hooks.reject(record, reason, f"{type(error).__name__}: {error}")


class _Unit(Generic[Row]):
    """What one batch has done so far: rows read and changed, messages to send."""

    def __init__(self, part: TablePartition[Row], reducer: Reducer[Row]) -> None:
        self.sends: list[Send] = []
        self.before: dict[str, Row | None] = {}
        self._rows: dict[str, Row | None] = {}
        self._part = part
        self._rule = reducer.rule
        self._encode = reducer.encode
        self._carries = reducer.carries
        self.tally = reducer.tally(part.partition) if reducer.tally is not None else None

    def fold(self, message: Any, record: Record) -> str:
        if type(message) is tuple:  # a message may be a named one
            return self._fold_all(message, record)
        key = message.key
        row = self._rows.get(key, UNREAD)
        if row is UNREAD:
            row = self.before[key] = self._part.get(key)
        transition: Transition = self._rule(row, message)
        after, outputs = transition.row, transition.outputs
        # Nothing of a message is kept unless all of it could be computed.
        sends = self._sends(outputs, record, after) if outputs else ()
        if self.tally is not None and after is not row:
            self.tally.add(row, after, record.timestamp)
        self.sends += sends
        self._rows[key] = after
        return transition.outcome

    def _sends(self, outputs: tuple[Any, ...], record: Record, row: Row | None) -> Sequence[Send]:
        carried = self._carries(record, row)
        if len(outputs) == 1:
            return self._encode(outputs[0], carried)
        return [send for output in outputs for send in self._encode(output, carried)]

    def _fold_all(self, messages: tuple[Any, ...], record: Record) -> str:
        """Fold each into the row of its own; they are not told to a tally."""
        sends, rows, outcomes = list[Send](), dict[str, Row | None](), set[str]()
        for message in messages:
            key = message.key
            if key not in self._rows:
                self._rows[key] = self.before[key] = self._part.get(key)
            transition: Transition = self._rule(self._rows[key], message)
            sends += self._sends(transition.outputs, record, transition.row) if transition.outputs else ()
            rows[key] = transition.row
            outcomes.add(transition.outcome)
        self.sends += sends
        self._rows |= rows
        return outcomes.pop() if len(outcomes) == 1 else "applied"

    def changes(self, at_once: int) -> Iterator[list[Change[Row]]]:
        """Every row that is another than before, so many at once."""
        encode, before = self._part.encode, self.before
        changed = [(key, row) for key, row in self._rows.items() if row is not before[key]]
        for start in range(0, len(changed), at_once):
            yield [
                Change(key, row, None if row is None else encode(row), before[key])
                for key, row in changed[start : start + at_once]
            ]


class EffectLane(Lane):
    """Runs one effect over what is on disk."""

    def __init__(self, effect: Effect, reader: Reader, hooks: Hooks) -> None:
        super().__init__(effect.name, reader, hooks)
        self.batch = min(effect.batch, reader.batch)
        self._effect = effect

    @property
    def ready(self) -> bool:
        """Always: nobody is answered from what it does."""
        return True

    def _due(self) -> bool:
        """Always: what was done outside can't be taken back, so it is committed as soon as it is done."""
        return True

    async def _work(self, records: list[Record]) -> list[str]:
        messages: list[Any] = []
        rejected: list[Send] = []
        outcomes = [self._decoded(record, messages, rejected) for record in records]
        self.reader.stage(rejected)
        if messages:
            self.reader.stage(await self._effect.perform(messages))
        return outcomes

    def _decoded(self, record: Record, messages: list[Any], rejected: list[Send]) -> str:
        try:
            message = self._effect.reads.decode(record)
        except Exception as error:  # noqa: BLE001 - any failure of a record is that record's
            rejected += _reject(self._hooks, record, error)
            return "dead-lettered"
        if message is None:
            return SKIPPED
        messages.append(message)
        return "performed"
