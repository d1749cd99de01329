"""What runs reducers and effects: a batch of records in, one transaction out.

A lane reads, folds the pure rule over the records, commits offsets + outputs + changelog together, and only then shows
the rows. It decides nothing about the marketplace.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from app.engine.embedded_log import EmbeddedLog
from app.engine.records import Record, Send, TopicPartition
from app.engine.tables import Table, TablePartition, TableSpec

Row = TypeVar("Row")

BATCH = 400
"""Records a round at most: the loop is held for one round (400 x ~30 µs), and views are answered between rounds."""

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


@dataclass(frozen=True)
class Topic:
    """A topic's declaration. `decode` gives the message of a record, or None when it says nothing to its readers."""

    name: str
    decode: Callable[[Record], Any | None] = lambda record: record
    compacted: bool = False


@dataclass(frozen=True)
class Reducer(Generic[Row]):
    """An agent that owns a table: `rule(row, message)` is pure and decides; the lane does the rest.

    `encode` turns one output of the rule into messages for topics. `timer(key, deadline, now)` is the message that
    says a row is due; None: the table has no deadlines.
    """

    name: str
    reads: tuple[Topic, ...]
    table: TableSpec[Row]
    rule: Callable[[Row | None, Any], Any]
    encode: Callable[[Any], Sequence[Send]]
    timer: Callable[[str, float, float], Send] | None = None


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
    row_loaded: Callable[[str, Any], None] = lambda _table, _row: None
    is_behind: Callable[[], bool] = lambda: False


class Reading:
    """The positions of one consumer group in some topics; it reads whatever is new in them, partition by partition."""

    def __init__(self, log: EmbeddedLog, group: str, topics: Sequence[Topic]) -> None:
        self._log = log
        self._group = group
        self._positions: dict[int, dict[str, int]] = {}
        for topic in topics:
            for partition in range(log.partitions(topic.name)):
                start = log.committed(group, topic.name, partition) or 0
                self._positions.setdefault(partition, {})[topic.name] = start

    def take(self, partition: int, limit: int) -> list[Record]:
        """New records of the partition, topic by topic, at most `limit`; the position does not move yet.

        Each time another topic is the first, so that a flood in one does not keep the others waiting.
        """
        found: list[Record] = []
        positions = self._positions[partition]
        for topic, position in positions.items():
            if len(found) >= limit:
                break
            found += self._log.read(topic, partition, position, limit - len(found))
        if found:
            first = next(iter(positions))
            positions[first] = positions.pop(first)
        return found

    def offsets_after(self, records: Sequence[Record]) -> dict[TopicPartition, int]:
        """The positions once the records are done."""
        return {TopicPartition(record.topic, record.partition): record.offset + 1 for record in records}

    def advance(self, offsets: dict[TopicPartition, int]) -> None:
        """Move on: the offsets are committed."""
        for (topic, partition), following in offsets.items():
            self._positions[partition][topic] = following

    def partitions(self) -> list[int]:
        """Every partition number."""
        return list(self._positions)

    def lag(self) -> int:
        """Records that are there and not yet done."""
        return sum(
            self._log.end(topic, partition) - position
            for partition, topics in self._positions.items()
            for topic, position in topics.items()
        )


class ReducerLane(Generic[Row]):
    """Runs one reducer over every partition that this process owns."""

    def __init__(
        self,
        reducer: Reducer[Row],
        log: EmbeddedLog,
        table: Table[Row],
        group: str,
        hooks: Hooks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = reducer.name
        self.table = table
        self._reducer = reducer
        self._log = log
        self._group = group
        self._hooks = hooks
        self._clock = clock
        self._decode = {topic.name: topic.decode for topic in reducer.reads}
        self._reading = Reading(log, group, reducer.reads)
        self._wakeup = log.watch([topic.name for topic in reducer.reads])
        self._behind = True

    def lag(self) -> int:
        """Records that wait."""
        return self._reading.lag()

    async def run(self) -> None:
        """Work until cancelled. Every exception that leaves here stops the worker."""
        while True:
            self._wakeup.clear()
            worked = await self.send_due()
            for partition in self._reading.partitions():
                done = await self.round(partition)
                worked += done
                if done:
                    await asyncio.sleep(0)  # a commit does not leave the loop to anybody
            if not worked:
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(POLL):
                await self._wakeup.wait()
        except TimeoutError:
            return

    async def send_due(self) -> int:
        """Send a timer message for each row that is due, some of them at a time. Returns how many."""
        if self._hooks.is_behind():
            self._behind = True
        elif self._behind:
            self._behind = self.lag() > 0
        if self._reducer.timer is None or self._behind:
            return 0
        now = self._clock()
        sends = [
            self._reducer.timer(key, deadline, now)
            for part in self.table.partitions
            for key, deadline in part.due(now, BATCH)
        ]
        if sends:
            await self._log.commit(sends)
        return len(sends)

    async def round(self, partition: int, limit: int = BATCH) -> int:
        """Process one batch of the partition as one unit of work. Returns how many records it had."""
        records = self._reading.take(partition, limit)
        if not records:
            return 0
        started = time.perf_counter()
        part = self.table.partitions[partition]
        unit = _Unit(part, self._reducer)
        outcomes = [self._apply(unit, record) for record in records]
        changes = unit.changes()
        changelog = self._reducer.table.changelog
        sends = unit.sends
        sends += [Send(changelog, key.encode(), packed, (), None, partition) for key, _, packed, _ in changes]
        offsets = self._reading.offsets_after(records)
        await self._log.commit(sends, group=self._group, offsets=offsets)
        # From here on it is done: show it.
        self._reading.advance(offsets)
        if changes:
            part.write(changes, self._log.end(changelog, partition))
            for key, row, _packed, _new in changes:
                self._hooks.row_changed(self.table.name, unit.before[key], row)
        self._hooks.processed(self.name, records, outcomes, time.perf_counter() - started)
        return len(records)

    def _apply(self, unit: "_Unit[Row]", record: Record) -> str:
        """Fold one record into the unit. Whatever goes wrong with it goes to the dead letters, alone."""
        try:
            message = self._decode[record.topic](record)
            if message is None:
                return "skipped"
            return unit.fold(message)
        except Exception as error:  # noqa: BLE001 - any failure of a record is that record's
            unit.sends += _reject(self._hooks, record, error)
            return "dead-lettered"


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

    def fold(self, message: Any) -> str:
        key = message.key
        if key in self._rows:
            row = self._rows[key]
        else:
            row = self.before[key] = self._part.get(key)
        transition: Transition = self._rule(row, message)
        sends: list[Send] = []
        for output in transition.outputs:
            sends.extend(self._encode(output))
        # Nothing of a message is kept unless all of it could be computed.
        self.sends += sends
        self._rows[key] = transition.row
        return transition.outcome

    def changes(self) -> list[tuple[str, Row | None, bytes | None, bool]]:
        """(key, row, its bytes, whether it is new) of every row that is another than before."""
        encode = self._part.encode
        return [
            (key, row, None if row is None else encode(row), self.before[key] is None)
            for key, row in self._rows.items()
            if row is not self.before[key]
        ]


class EffectLane:
    """Runs one effect, partition by partition, over what is on disk."""

    def __init__(self, effect: Effect, log: EmbeddedLog, group: str, hooks: Hooks) -> None:
        self.name = effect.name
        self._effect = effect
        self._log = log
        self._group = group
        self._hooks = hooks
        self._reading = Reading(log, group, [effect.reads])
        self._wakeup = log.watch([effect.reads.name])

    def lag(self) -> int:
        """Records that wait."""
        return self._reading.lag()

    async def run(self) -> None:
        """Work until cancelled. Every exception that leaves here stops the worker."""
        while True:
            self._wakeup.clear()
            worked = 0
            for partition in self._reading.partitions():
                worked += await self.round(partition)
            if not worked:
                await self._wakeup.wait()

    async def round(self, partition: int) -> int:
        """Perform one batch. Returns how many records it had."""
        records = self._reading.take(partition, self._effect.batch)
        if not records:
            return 0
        await self._log.synced()
        started = time.perf_counter()
        messages: list[Any] = []
        rejected: list[Send] = []
        outcomes = [self._decoded(record, messages, rejected) for record in records]
        sends = await self._effect.perform(messages) if messages else []
        offsets = self._reading.offsets_after(records)
        await self._log.commit([*rejected, *sends], group=self._group, offsets=offsets)
        self._reading.advance(offsets)
        self._hooks.processed(self.name, records, outcomes, time.perf_counter() - started)
        return len(records)

    def _decoded(self, record: Record, messages: list[Any], rejected: list[Send]) -> str:
        try:
            message = self._effect.reads.decode(record)
        except Exception as error:  # noqa: BLE001 - any failure of a record is that record's
            rejected += _reject(self._hooks, record, error)
            return "dead-lettered"
        if message is None:
            return "skipped"
        messages.append(message)
        return "performed"
