"""Tables: rows by key, in partitions, each backed by a changelog topic and a local store.

A table is read by anybody and written by its one lane. It decides nothing about what a row means.
"""

import asyncio
import functools
import heapq
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec
import structlog

from app.engine.errors import PartitionElsewhere
from app.engine.owners import Alone, Owners
from app.engine.partitioner import partition_for
from app.engine.reader import Changelogs
from app.engine.store import Store

Row = TypeVar("Row")

CACHED_ROWS = 20_000
"""Decoded rows kept a partition; above it the oldest quarter goes."""

LOADED_AT_ONCE = 2_000
"""Rows that are gone through between two turns of the loop."""

logger = structlog.get_logger("a4co.engine")


@dataclass(frozen=True)
class TableSpec(Generic[Row]):
    """The declaration of a table: its name, the type of its rows (msgspec), and when a row is next due."""

    name: str
    row_type: type[Row]
    deadline: Callable[[Row], float | None] = lambda _row: None

    @property
    def changelog(self) -> str:
        """The compacted topic that holds the newest row of every key."""
        return f"{self.name}-changelog"


class Change(NamedTuple, Generic[Row]):
    """A changed row: None when it is deleted, and whether the key had none before."""

    key: str
    row: Row | None
    packed: bytes | None
    new: bool


class TablePartition(Generic[Row]):
    """The rows of one partition, with the keys that are due next."""

    def __init__(self, spec: TableSpec[Row], partition: int, store: Store) -> None:
        self.partition = partition
        self.store = store
        self.count = 0
        self._deadline_of = spec.deadline
        self._decode = msgspec.json.Decoder(spec.row_type).decode
        self.encode = msgspec.json.Encoder().encode
        self._cache: dict[str, Row] = {}
        self._due: list[tuple[float, str]] = []
        self._deadlines: dict[str, float] = {}

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
        rows = []
        for key, row, packed, new in changes:
            rows.append((key.encode(), packed))
            if row is None:
                self._cache.pop(key, None)
                self._deadlines.pop(key, None)
                self.count -= 1
                continue
            self.count += new
            self._remember(key, row)
            self._watch(key, row)
        self.store.write(rows, offset)

    def _watch(self, key: str, row: Row) -> None:
        deadline = self._deadline_of(row)
        if deadline is None:
            self._deadlines.pop(key, None)
        elif self._deadlines.get(key) != deadline:
            self._deadlines[key] = deadline
            heapq.heappush(self._due, (deadline, key))

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

    def items(self, after: str | None = None) -> Iterator[tuple[str, Row]]:
        """Rows in key order, from behind the key `after` on."""
        for key, packed in self.store.items(None if after is None else after.encode()):
            yield key.decode(), self._decode(packed)

    def recover(self, changelogs: Changelogs, topic: str, progress: Callable[[int, int], None]) -> int:
        """Bring the store to the changelog's end, with `progress(done, total)`. Returns how many records were read."""
        begin, end = changelogs.span(topic, self.partition)
        if self.store.offset > end:
            self.store.wipe(f"it stands at {self.store.offset}, ahead of the changelog's end {end}")
        elif 0 < self.store.offset < begin:
            self.store.wipe(f"it stands at {self.store.offset}, before the changelog's begin {begin}")
        start, position, read = self.store.offset, self.store.offset, 0
        for records in changelogs.replay(topic, self.partition, start):
            rows = {record.key or b"": record.value for record in records}
            position = records[-1].offset + 1
            self.store.write(rows.items(), position)
            read += len(records)
            progress(position - start, end - start)
        if position < end:  # what is left are marks of transactions, not records
            self.store.write((), end)
        return read

    async def load(self, seen: Callable[[Row], None]) -> None:
        """Go through the rows once: count them, learn their deadlines, and show each to `seen`."""
        self.count = 0
        for key, row in self.items():
            self.count += 1
            self._watch(key, row)
            seen(row)
            if self.count % LOADED_AT_ONCE == 0:
                await asyncio.sleep(0)

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
        progress: Callable[[int, int, int], None] = lambda *_: None,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.total = total
        self.owners: Owners = Alone()
        self.partitions: dict[int, TablePartition[Row]] = {}
        self._changelogs = changelogs
        self._directory = directory / spec.name
        self._progress = progress

    async def open(self, partitions: Collection[int], seen: Callable[[Row], None]) -> None:
        """Open the partitions' stores, bring them up to date, and show every row to `seen`."""
        for partition in partitions:
            started = time.perf_counter()
            store = Store(self._directory / str(partition), self._changelogs.identity)
            part = TablePartition(self.spec, partition, store)
            progress = functools.partial(self._progress, partition)
            recover = functools.partial(part.recover, self._changelogs, self.spec.changelog, progress)
            read = await asyncio.to_thread(recover) if self._changelogs.off_loop else recover()
            await part.load(seen)
            self.partitions[partition] = part
            if store.rebuilt_because:
                logger.warning("store rebuilt", table=self.name, partition=partition, reason=store.rebuilt_because)
            if read:
                seconds = round(time.perf_counter() - started, 3)
                logger.info("recovered", table=self.name, partition=partition, records=read, seconds=seconds)

    def get(self, key: str) -> Row | None:
        """The committed row of the key.

        Raises:
            PartitionElsewhere: the key's partition is not here, not ready, or perhaps another worker's by now.
        """
        partition = partition_for(key.encode(), self.total)
        part = self.partitions.get(partition)
        if part is None or not self.owners.held(partition):
            raise PartitionElsewhere(self.name, partition)
        return part.get(key)

    def here(self) -> set[int]:
        """The partitions that `get` answers for now."""
        return {partition for partition in self.partitions if self.owners.held(partition)}

    def items(self, after: str | None = None, partitions: Collection[int] | None = None) -> Iterator[tuple[str, Row]]:
        """Rows in key order, from behind the key `after` on; of the partitions given, or of all that are here.

        All of them as of the moment at which the first row is taken.
        """
        parts = [part for number, part in self.partitions.items() if partitions is None or number in partitions]
        return heapq.merge(*(part.items(after) for part in parts), key=lambda item: item[0])

    def count(self) -> int:
        """How many rows are here."""
        return sum(part.count for part in self.partitions.values())

    def timers(self) -> int:
        """How many rows here wait for a deadline."""
        return sum(part.timers for part in self.partitions.values())

    def close(self, partitions: Collection[int] | None = None, gone: Callable[[Row], None] | None = None) -> None:
        """Give the stores' files back, of the partitions given or of all, and show every row to `gone`."""
        for partition in list(self.partitions if partitions is None else partitions):
            part = self.partitions.pop(partition, None)
            if part is not None:
                if gone is not None:
                    for item in part.items():
                        gone(item[1])
                part.close()
