"""Tables as of one moment, read from outside: a worker may have the stores, and goes on with them meanwhile.

The stores are opened first and the log is looked at then: what its changelogs have beyond each store, up to that look,
is laid over it. On the embedded log that is one moment for all tables, on Kafka one for each partition. Nothing is
changed.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from app.engine.changes import Summary
from app.engine.declarations import TableSpec
from app.engine.errors import EngineError
from app.engine.reader import Changelogs
from app.engine.recovery import Recovery
from app.engine.store import Store
from app.engine.tables import TablePartition

FAR = 200_000
"""Records that are laid over a store at most: they are held in memory. One that is further behind is nobody's."""


class Part(NamedTuple):
    """One partition: a store, and what was newer in the changelog (None: deleted)."""

    partition: int
    store: Store
    newer: dict[bytes, bytes | None]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its row. Raises StoreDamaged."""
        for key, row in self.store.items():
            if key not in self.newer:
                yield key, row
        for key, value in self.newer.items():
            if value is not None:
                yield key, value

    @property
    def about(self) -> int:
        """About how many rows there are: by what the store says of itself."""
        known = msgspec.json.decode(self.store.note, type=Summary).rows if self.store.note else 0
        return max(known, len(self.newer))


class Snapshot(NamedTuple):
    """The partitions that there are, and those that are missing, by the table's name."""

    parts: Mapping[str, Sequence[Part]]
    missing: Mapping[str, Sequence[int]]

    def rows(self, spec: TableSpec[Any]) -> Iterator[tuple[int, str, Any]]:
        """Partition, key and row of everything that is there."""
        decode = msgspec.json.Decoder(spec.row_type).decode
        for part in self.parts[spec.name]:
            for key, packed in part.items():
                yield part.partition, key.decode(), decode(packed)

    def about(self, spec: TableSpec[Any]) -> int:
        """About how many rows that are."""
        return sum(part.about for part in self.parts[spec.name])


@contextlib.contextmanager
def taken(
    specs: Sequence[TableSpec[Any]], folder: Path, look: Callable[[], Changelogs], partitions: int
) -> Iterator[Snapshot]:
    """A snapshot of the stores under `folder`. `look` opens the log as it is now.

    Raises:
        EngineError: a store or the log can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="a4co-snapshot-") as temporary, contextlib.ExitStack() as opened:
        log = look()
        stores: dict[tuple[str, int], Store] = {}
        for spec in specs:
            for partition in range(partitions):
                place = folder / spec.name / str(partition)
                if place.is_dir():
                    looking_from = Path(temporary) / f"{spec.name}-{partition}"
                    store = Store(place, log.identity(spec.changelog), looking_from=looking_from)
                    opened.callback(store.close)
                    stores[spec.name, partition] = store
        log = look()
        parts: dict[str, list[Part]] = {spec.name: [] for spec in specs}
        missing: dict[str, list[int]] = {spec.name: [] for spec in specs}
        for spec in specs:
            for partition in range(partitions):
                part = _part(spec, partition, stores.get((spec.name, partition)), log)
                if part is None:
                    missing[spec.name].append(partition)
                else:
                    parts[spec.name].append(part)
        yield Snapshot(parts, missing)


def _part(spec: TableSpec[Any], partition: int, store: Store | None, log: Changelogs) -> Part | None:
    begin, end = log.span(spec.changelog, partition)
    if store is None or end - store.offset > FAR:
        return None if end > begin else Part(partition, _Nothing(), {})
    if store.offset > end:
        raise EngineError(f"{spec.name}-{partition} stands at {store.offset}, ahead of its changelog's end {end}")
    newer: dict[bytes, bytes | None] = {}
    for records in log.replay(spec.changelog, partition, store.offset):
        newer.update((record.key or b"", record.value) for record in records if record.offset < end)
    return Part(partition, store, newer)


@contextlib.contextmanager
def rebuilt(
    specs: Sequence[TableSpec[Any]],
    log: Changelogs,
    partitions: int,
    progress: Callable[[str, int, int, int], None] = lambda *_: None,
) -> Iterator[Snapshot]:
    """A snapshot that is built from the changelogs alone, every partition of it, in a temporary folder (TMPDIR).

    Raises:
        EngineError: the log can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="a4co-snapshot-") as temporary, contextlib.ExitStack() as opened:
        parts: dict[str, list[Part]] = {spec.name: [] for spec in specs}
        for spec in specs:
            for partition in range(partitions):
                store = Store(Path(temporary) / spec.name / str(partition), log.identity(spec.changelog))
                opened.callback(store.close)
                recovery = Recovery(
                    TablePartition(spec, partition, store),
                    log,
                    lambda done, total, spec=spec, partition=partition: progress(spec.name, partition, done, total),  # type: ignore[misc]
                )
                recovery.measure()
                recovery.run()
                parts[spec.name].append(Part(partition, store, {}))
        yield Snapshot(parts, {spec.name: [] for spec in specs})


class _Nothing(Store):
    """The store of a partition of which nothing was ever said."""

    def __init__(self) -> None:
        self.offset, self.note = 0, b""

    def items(self, after: bytes | None = None, *, backwards: bool = False) -> Iterator[tuple[bytes, bytes]]:
        del after, backwards
        return iter(())

    def close(self) -> None:
        """Nothing is open."""
