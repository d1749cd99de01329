"""Tables: rows by key, in partitions, each backed by a changelog topic and a local store.

A table is read by anybody and written by its one lane. It decides nothing about what a row means.
"""

import functools
import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from app.engine.cancelling import together
from app.engine.changes import Change, Summary
from app.engine.claims import Claims
from app.engine.declarations import TableSpec, never, nothing
from app.engine.errors import PartitionElsewhere
from app.engine.owners import Alone, Owners
from app.engine.reader import Changelogs
from app.engine.recovery import TURNS, Recovery, on_thread
from app.engine.store import Store

Row = TypeVar("Row")

CACHED_ROWS = 20_000
"""Decoded rows kept a partition; above it the oldest quarter goes."""

DEADLINES_KEPT = 10_000
"""Deadlines that are not true any more are forgotten when they are more than those that are, and than this."""

logger = structlog.get_logger("a4co.engine")


class TablePartition(Generic[Row]):
    """The rows of one partition, with the keys that are due next."""

    def __init__(self, spec: TableSpec[Row], partition: int, store: Store) -> None:
        self.spec = spec
        self.partition = partition
        self.store = store
        self._decode = msgspec.json.Decoder(spec.row_type).decode
        self.encode = msgspec.json.Encoder().encode
        self._cache: dict[str, Row] = {}
        self._due: list[tuple[float, str]] = []
        self._deadlines: dict[str, float] = {}
        self._rows = 0
        self.sums: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._rows

    def get(self, key: str) -> Row | None:
        """The row of the key."""
        row = self._cache.get(key)
        if row is None:
            stored = self.store.get(key.encode())
            if stored is None:
                return None
            row = self._decode(stored)
            self._remember(key, row)
        return row

    def _remember(self, key: str, row: Row) -> None:
        cache = self._cache
        if len(cache) >= CACHED_ROWS:
            for oldest in list(cache)[: CACHED_ROWS // 4]:
                del cache[oldest]
        cache[key] = row

    def write(self, changes: Iterable[Change[Row]], offset: int) -> None:
        """Take over committed changes up to the changelog's `offset`."""
        rows: list[tuple[bytes, bytes | None]] = []
        due: list[tuple[bytes, float | None]] = []
        for change in changes:
            key, row = change.key, change.row
            rows.append((key.encode(), change.packed))
            if row is None:
                self._cache.pop(key, None)
            else:
                self._remember(key, row)
            self._changed(key, change.old, row, due)
        self.store.write(rows, offset, self.note(), due)

    def follow(self, rows: Iterable[tuple[bytes, bytes | None]], position: int) -> None:
        """Take over a few records: each row that they replace is looked up."""
        due: list[tuple[bytes, float | None]] = []
        newest = dict(rows)
        for key, packed in newest.items():
            stored = self.store.get(key)
            old = None if stored is None else self._decode(stored)
            self._changed(key.decode(), old, None if packed is None else self._decode(packed), due)
        self.store.write(newest.items(), position, self.note(), due)

    # ---- what is kept of the rows ------------------------------------------------------------------------

    def note(self) -> bytes:
        """What the store is to say of its rows."""
        return msgspec.json.encode(Summary(self.spec.version, self._rows, dict(self.sums)))

    def known(self) -> Summary | None:
        """What the store says of its rows; None: they have to be gone through."""
        if not self.store.offset:
            return Summary(self.spec.version)
        known = msgspec.json.decode(self.store.note, type=Summary) if self.store.note else None
        return known if known is not None and known.version == self.spec.version else None

    def take_up(self, rows: int, sums: Mapping[str, int], deadlines: dict[str, float]) -> None:
        """The store's rows are so many, and amount to this."""
        self._rows, self.sums, self._deadlines = rows, Counter(sums), deadlines
        self._order_deadlines()

    def _changed(self, key: str, old: Any, new: Any, due: list[tuple[bytes, float | None]]) -> None:
        """Keep count, sums and deadlines; what changes of the deadlines is added to `due`."""
        self._rows += (new is not None) - (old is not None)
        if (sums_of := self.spec.sums) is not nothing:
            if old is not None:
                for name, number in sums_of(old).items():
                    self.sums[name] -= number
            if new is not None:
                for name, number in sums_of(new).items():
                    self.sums[name] += number
        if (deadline_of := self.spec.deadline) is not never:
            before = None if old is None else deadline_of(old)
            after = None if new is None else deadline_of(new)
            if before != after:
                due.append((key.encode(), after))
            self._due_at(key, after)

    def _due_at(self, key: str, deadline: float | None) -> None:
        if deadline is None:
            self._deadlines.pop(key, None)
        elif self._deadlines.get(key) != deadline:
            self._deadlines[key] = deadline
            heapq.heappush(self._due, (deadline, key))
            if len(self._due) > 2 * len(self._deadlines) + DEADLINES_KEPT:
                self._order_deadlines()

    def _order_deadlines(self) -> None:
        """Only those that stand: one that was changed stays in the order until then."""
        self._due = [(deadline, key) for key, deadline in self._deadlines.items()]
        heapq.heapify(self._due)

    def due(self, now: float, limit: int) -> list[tuple[str, float]]:
        """Keys (with their deadlines) that are due at `now`, at most `limit`; each is given once for each deadline."""
        found: list[tuple[str, float]] = []
        while self._due and self._due[0][0] <= now and len(found) < limit:
            deadline, key = heapq.heappop(self._due)
            if self._deadlines.get(key) == deadline:
                del self._deadlines[key]
                found.append((key, deadline))
        return found

    def remind(self, key: str, deadline: float) -> None:
        """The deadline is to be given again."""
        if key not in self._deadlines:
            self._deadlines[key] = deadline
            heapq.heappush(self._due, (deadline, key))

    def next_due(self) -> float | None:
        """The earliest deadline, which may have been cancelled since."""
        return self._due[0][0] if self._due else None

    @property
    def timers(self) -> int:
        """Rows that wait for a deadline."""
        return len(self._deadlines)

    def overdue(self, now: float) -> int:
        """How many of them have passed it."""
        return sum(deadline <= now for deadline in self._deadlines.values())

    def upcoming(self, limit: int) -> list[tuple[float, str]]:
        """The soonest deadlines and their keys, at most `limit`."""
        return heapq.nsmallest(limit, ((deadline, key) for key, deadline in self._deadlines.items()))

    def items(self, after: str | None = None, *, backwards: bool = False) -> Iterator[tuple[str, Row]]:
        """Rows in key order (or the reverse of it), from behind the key `after` on."""
        for key, packed in self.store.items(None if after is None else after.encode(), backwards=backwards):
            yield key.decode(), self._decode(packed)

    def close(self) -> None:
        """Give the store's files back."""
        self.store.close()


class Table(Generic[Row]):
    """The partitions of a table that this process owns. Reads give committed rows only.

    `total` is the number of partitions over all workers. `progress(partition, done, total)` hears of a recovery.
    """

    def __init__(
        self,
        spec: TableSpec[Row],
        changelogs: Changelogs,
        directory: Path,
        total: int,
        progress: Callable[[int, int, int], None] = lambda _partition, _done, _total: None,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.total = total
        self.owners: Owners = Alone()
        self.claims = Claims()
        self.partitions: dict[int, TablePartition[Row]] = {}
        self._changelogs = changelogs
        self._directory = directory / spec.name
        self._progress = progress

    async def open(self, partitions: Collection[int]) -> None:
        """Open the partitions' stores and bring them up to date, some at a time on threads."""
        abandoned, begun = threading.Event(), list[Recovery]()
        for number in partitions:
            self.claims.want(number)
        try:
            # In two steps, so that what there is to do in all is known before any of it is done.
            measure = [functools.partial(self._measured, number, abandoned, begun) for number in partitions]
            await together(on_thread(work, abandoned) for work in measure)
            await together(on_thread(functools.partial(self._recovered, recovery), abandoned) for recovery in begun)
        except BaseException:
            for recovery in begun:
                recovery.part.close()
            for number in partitions:
                self.claims.give_back(number)
            raise
        self.partitions |= {recovery.part.partition: recovery.part for recovery in begun}

    def _measured(self, partition: int, abandoned: threading.Event, begun: list[Recovery]) -> None:
        self.claims.wait(partition)
        progress = functools.partial(self._progress, partition)
        recovery = Recovery(self._stored(partition), self._changelogs, progress, abandoned.is_set, TURNS)
        begun.append(recovery)
        recovery.measure()

    def _stored(self, partition: int) -> TablePartition[Row]:
        store = Store(self._directory / str(partition), self._changelogs.identity(self.spec.changelog))
        return TablePartition(self.spec, partition, store)

    def follow(self, partition: int, abandoned: Callable[[], bool]) -> TablePartition[Row]:
        """A partition to stand by for, up to date. On a thread, by whoever has a claim on it. Raises Abandoned."""
        part = self._stored(partition)
        recovery = Recovery(part, self._changelogs, abandoned=abandoned)
        try:
            recovery.measure()
            read = recovery.run()
        except BaseException:
            part.close()
            raise
        logger.info("standing by", table=self.name, partition=partition, records=read)
        return part

    def _recovered(self, recovery: Recovery) -> None:
        started = time.perf_counter()
        read, part = recovery.run(), recovery.part
        if part.store.rebuilt_because:
            reason = part.store.rebuilt_because
            logger.warning("store rebuilt", table=self.name, partition=part.partition, reason=reason)
        if read:
            seconds = round(time.perf_counter() - started, 3)
            logger.info("recovered", table=self.name, partition=part.partition, records=read, seconds=seconds)

    def get(self, key: str) -> Row | None:
        """The committed row of the key.

        Raises:
            PartitionElsewhere: the key's partition is not here, not ready, or perhaps another worker's by now.
        """
        partition = self.spec.partition(key, self.total)
        part = self.partitions.get(partition)
        if part is None or not self.owners.held(partition):
            raise PartitionElsewhere(self.name, partition)
        return part.get(key)

    def here(self) -> set[int]:
        """The partitions that `get` answers for now."""
        return {partition for partition in self.partitions if self.owners.held(partition)}

    def items(
        self, after: str | None = None, partitions: Collection[int] | None = None, *, backwards: bool = False
    ) -> Iterator[tuple[str, Row]]:
        """Rows in key order (or the reverse of it), from behind the key `after` on; of the partitions given, or of all.

        All of them as of the moment at which the first row is taken.
        """
        rows = (part.items(after, backwards=backwards) for part in self._parts(partitions))
        return heapq.merge(*rows, key=lambda item: item[0], reverse=backwards)

    def count(self) -> int:
        """How many rows are here."""
        return sum(part.count for part in self.partitions.values())

    def sums(self, partitions: Collection[int] | None = None) -> Mapping[str, int]:
        """What the rows (of the partitions given) amount to, as the table's declaration sums them up."""
        total: Counter[str] = Counter()
        for part in self._parts(partitions):
            total.update(part.sums)
        return total

    def timers(self, partitions: Collection[int] | None = None) -> int:
        """How many rows (of the partitions given) wait for a deadline."""
        return sum(part.timers for part in self._parts(partitions))

    def due(self, now: float, partitions: Collection[int] | None = None) -> int:
        """How many of them have passed it."""
        return sum(part.overdue(now) for part in self._parts(partitions))

    def upcoming(self, limit: int, partitions: Collection[int] | None = None) -> list[tuple[float, str]]:
        """The soonest deadlines and their keys, at most `limit`."""
        return heapq.nsmallest(limit, (due for part in self._parts(partitions) for due in part.upcoming(limit)))

    def _parts(self, partitions: Collection[int] | None) -> list[TablePartition[Row]]:
        """Those of the partitions (None: of all) that are here."""
        return [part for number, part in self.partitions.items() if partitions is None or number in partitions]

    def close(self, partitions: Collection[int] | None = None) -> None:
        """Give the stores' files back, of the partitions given or of all."""
        for partition in list(self.partitions if partitions is None else partitions):
            part = self.partitions.pop(partition, None)
            if part is not None:
                part.close()
                self.claims.give_back(partition)
