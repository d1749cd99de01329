"""Tables: rows by key, in partitions, each backed by a changelog topic and a local store.

A table is read by anybody and written by its one lane. It decides nothing about what a row means.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from app.engine.embedded_log import EmbeddedLog
from app.engine.partitioner import partition_for
from app.engine.store import Store

Row = TypeVar("Row")

CACHED_ROWS = 20_000
"""Decoded rows kept a partition; above it the oldest quarter goes."""

RECOVERY_BATCH = 2_000


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

    def write(self, changes: Iterable[tuple[str, Row | None, bytes | None, bool]], offset: int) -> None:
        """Take over committed changes (key, row, its bytes, whether the key is new) up to the changelog's `offset`."""
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

    def recover(self, log: EmbeddedLog, changelog: str, progress: Callable[[int, int], None]) -> int:
        """Bring the store to the changelog's end, with `progress(done, total)`. Returns how many records were read."""
        end = log.end(changelog, self.partition)
        if self.store.offset > end:
            self.store.wipe(f"it stands at {self.store.offset}, ahead of the changelog's end {end}")
        start = position = self.store.offset
        while position < end:
            records = log.read(changelog, self.partition, position, RECOVERY_BATCH)
            if not records:
                position = end
                self.store.write((), end)
                break
            rows = {record.key or b"": record.value for record in records}
            position = records[-1].offset + 1
            self.store.write(rows.items(), position)
            progress(position - start, end - start)
        return position - start

    def load(self, seen: Callable[[Row], None]) -> None:
        """Go through the rows once: count them, learn their deadlines, and show each to `seen`."""
        self.count = 0
        for key, row in self.items():
            self.count += 1
            self._watch(key, row)
            seen(row)

    def close(self) -> None:
        """Give the store's files back."""
        self.store.close()


class Table(Generic[Row]):
    """The partitions of a table that this process owns. Reads give committed rows only."""

    def __init__(self, spec: TableSpec[Row]) -> None:
        self.spec = spec
        self.name = spec.name
        self.partitions: list[TablePartition[Row]] = []

    def open(self, log: EmbeddedLog, directory: Path, partitions: int, progress: Callable[[int, int], None]) -> int:
        """Open every partition's store and bring it up to date. Returns the changelog records that were replayed."""
        replayed = 0
        for partition in range(partitions):
            store = Store(directory / self.name / str(partition), log.identity)
            part = TablePartition(self.spec, partition, store)
            self.partitions.append(part)
            replayed += part.recover(log, self.spec.changelog, progress)
        return replayed

    def get(self, key: str) -> Row | None:
        """The committed row of the key."""
        return self.partitions[partition_for(key.encode(), len(self.partitions))].get(key)

    def items(self, after: str | None = None) -> Iterator[tuple[str, Row]]:
        """Every row in key order, from behind the key `after` on; each partition as of when its turn began."""
        return heapq.merge(*(part.items(after) for part in self.partitions), key=lambda item: item[0])

    def count(self) -> int:
        """How many rows there are."""
        return sum(part.count for part in self.partitions)

    def timers(self) -> int:
        """How many rows wait for a deadline."""
        return sum(part.timers for part in self.partitions)

    def close(self) -> None:
        """Give the stores' files back."""
        for part in self.partitions:
            part.close()
        self.partitions = []
