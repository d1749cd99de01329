"""Whether a table's store holds what its changelog says: the store as it is, against one that is rebuilt from nothing.

It looks on from outside and changes nothing: a worker may have the store, and go on with it meanwhile.
"""

import hashlib
import heapq
import itertools
import operator
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from app.engine.changes import Summary
from app.engine.declarations import TableSpec
from app.engine.reader import Changelogs
from app.engine.recovery import Recovery
from app.engine.store import Store
from app.engine.tables import TablePartition

SHOWN = 5
"""Keys that differ are named up to this number."""

Rows = Iterator[tuple[bytes, bytes]]


class Verdict(NamedTuple):
    """What came of one partition. Rows that the changelog has newer than the store are not compared: `newer` of them.

    `live` and `rebuilt` are hashes over the keys and rows that were compared, in order of the keys. `ahead`: how far
    the store stands behind the changelog's end, which it never does by itself.
    """

    partition: int
    rows: int
    live: str
    rebuilt: str
    newer: int
    wrong: int
    keys: tuple[str, ...]
    sums_differ: bool
    ahead: int = 0

    @property
    def equal(self) -> bool:
        """Whether everything that was compared is the same."""
        return self.live == self.rebuilt and not self.sums_differ and not self.ahead


def verify(
    spec: TableSpec[Any],
    partition: int,
    folder: Path,
    changelogs: Changelogs,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verdict:
    """Compare the partition's store under `folder` with its changelog. `progress(done, total)` hears of the rebuilding.

    Needs as much room in the temporary folder (TMPDIR) as the store has.

    Raises:
        EngineError: the store or the changelog can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="a4co-verify-") as temporary:
        identity = changelogs.identity(spec.changelog)
        live = Store(folder, identity, looking_from=Path(temporary) / "look")
        cold = TablePartition(spec, partition, Store(Path(temporary) / "cold", identity))
        try:
            recovery = Recovery(cold, changelogs, progress)
            recovery.measure()
            recovery.run()
            ahead = max(0, live.offset - changelogs.span(spec.changelog, partition)[1])
            # From behind its end, Kafka would read the changelog from its begin.
            changes = () if ahead else changelogs.changes(spec.changelog, partition, live.offset)
            newer = {key for rows, _ in changes for key, _ in rows}
            return _compared(partition, live, cold, newer)._replace(ahead=ahead)
        finally:
            live.close()
            cold.close()


def _compared(partition: int, live: Store, cold: TablePartition[Any], newer: set[bytes]) -> Verdict:
    hashes = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
    rows, wrong, keys = 0, 0, list[str]()
    for key, ours, theirs in _beside(live.items(), cold.store.items()):
        if key in newer:
            continue
        rows += ours is not None
        for digest, row in zip(hashes, (ours, theirs), strict=True):
            if row is not None:
                digest.update(b"%d %s %d " % (len(key), key, len(row)))
                digest.update(row)
        if ours != theirs:
            wrong += 1
            if len(keys) < SHOWN:
                keys.append(key.decode(errors="replace"))
    of_ours, of_theirs = (digest.hexdigest() for digest in hashes)
    sums_differ = not newer and not wrong and _summed_up_otherwise(live.note, cold)
    return Verdict(partition, rows, of_ours, of_theirs, len(newer), wrong, tuple(keys), sums_differ)


def _beside(ours: Rows, theirs: Rows) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Key, our row and their row, for every key that either has, in order."""
    tagged = heapq.merge(((key, 0, row) for key, row in ours), ((key, 1, row) for key, row in theirs))
    for key, found in itertools.groupby(tagged, key=operator.itemgetter(0)):
        rows: list[bytes | None] = [None, None]
        for _, whose, row in found:
            rows[whose] = row
        yield key, rows[0], rows[1]


def _summed_up_otherwise(note: bytes, cold: TablePartition[Any]) -> bool:
    """Whether the store's sums are others than those of its rows. One without sums is summed up when it is opened."""
    if not note:
        return False
    known = msgspec.json.decode(note, type=Summary)
    sums = {name: number for name, number in known.sums.items() if number}
    return known.version == cold.spec.version and (
        known.rows != cold.count or sums != {name: number for name, number in cold.sums.items() if number}
    )
