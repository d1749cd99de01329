"""What runs reducers and effects: a batch of records in, one transaction out.

A lane reads, folds the pure rule over the records, commits offsets + outputs + changelog together, and only then shows
the rows. It decides nothing about the marketplace.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from app.engine.cancelling import unbroken
from app.engine.changes import Change
from app.engine.declarations import Effect, Reducer
from app.engine.errors import CommitAborted, LogFailed, StoreDamaged
from app.engine.reader import Reader
from app.engine.records import Record, Send, TopicPartition
from app.engine.tables import Table, TablePartition
from app.engine.unit import Unit

Row = TypeVar("Row")

logger = structlog.get_logger("a4co.engine")

SLICE = 50
"""Records that are worked off between two turns of the loop, in which views are answered; more if they are quick."""
TURN = 0.001
"""Seconds between two turns, about, if more than SLICE records are worked off meanwhile."""
ROWS = 200
"""Rows that are staged or written between two turns."""

SKIPPED = "skipped"
"""What became of a record that says nothing to its reader (its message is None)."""

ABORTS, AGAIN = 20, 0.5
"""Transactions that may be refused one after the other, and seconds between two of them."""

COLLECTED = 20_000
"""Records that a lane collects for one commit at most."""

POLL = 0.1
"""Seconds between two looks at the deadlines when nothing arrives."""


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
        self._units: dict[int, Unit[Row]] = {}
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

    def _unit(self, partition: int) -> Unit[Row]:
        unit = self._units[partition] = Unit(self.table.partitions[partition], self._reducer)
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
