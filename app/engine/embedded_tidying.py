"""Keeps the embedded log small: drops what a newer record of its key replaces, and what is old and done with.

It decides what goes. When to look is the engine's to say, and who is done with what the log's.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from app.engine.embedded_file import OFFSET_BITS, LogFile

if TYPE_CHECKING:
    from app.engine.embedded_log import EmbeddedLog

COMPACT_ABOVE = 20_000
"""A compacted partition is compacted when it has grown by this many records, and by as many as it has rows."""

SLICE = 2_000
"""Records that are looked at, or dropped, between two turns of the loop."""

logger = structlog.get_logger("a4co.engine")


class Tidying:
    """Of one log. It works in slices that leave the loop free."""

    def __init__(self, log: "EmbeddedLog", file: LogFile) -> None:
        self._log = log
        self._file = file
        self._compacted_at: dict[tuple[str, int], int] = {}

    async def compact_grown(self, rows: Mapping[str, Mapping[int, int]]) -> None:
        """Compact the partitions (topic -> partition -> rows) that have grown far beyond their rows."""
        for topic, partitions in rows.items():
            for partition, count in partitions.items():
                end = self._log.end(topic, partition)
                grown = end - self._compacted_at.get((topic, partition), 0)
                if grown > max(COMPACT_ABOVE, count):
                    dropped = await self.compact(topic, partition)
                    self._compacted_at[topic, partition] = end
                    logger.info("topic compacted", topic=topic, partition=partition, dropped=dropped)

    async def trim_old(self, topics: Sequence[str], before: float) -> None:
        """Drop the topics' records that are older than `before` and that every group is done with."""
        for topic in topics:
            for partition in range(self._log.partitions(topic)):
                dropped = await self.trim(topic, partition, before)
                if dropped:
                    logger.info("topic trimmed", topic=topic, partition=partition, dropped=dropped)

    async def compact(self, topic: str, partition: int, slice_size: int = SLICE) -> int:
        """Drop every record that a newer one of the same key replaces; the newest record always stays.

        A newest record without a value (a tombstone) is dropped too, unless it is the partition's last record.
        Returns how many were dropped.
        """
        low = self._log.place(topic, partition) << OFFSET_BITS
        end = low + self._log.end(topic, partition)
        newest: dict[bytes | None, int] = {}
        tombs: set[int] = set()
        async for row_id, key, dead in self._scan(low, end, slice_size):
            newest[key] = row_id
            if dead:
                tombs.add(row_id)
        kept = {row_id for row_id in newest.values() if row_id not in tombs} | {end - 1}
        dropped = 0
        doomed: list[tuple[int]] = []
        async for row_id, _key, _dead in self._scan(low, end, slice_size):
            if row_id not in kept:
                doomed.append((row_id,))
            if len(doomed) >= slice_size:
                dropped += self._log.drop(doomed)
                doomed = []
        return dropped + self._log.drop(doomed)

    async def trim(self, topic: str, partition: int, before: float, slice_size: int = SLICE) -> int:
        """Drop the partition's records that are older than `before` and that every group is done with.

        The newest record always stays. Returns how many were dropped.
        """
        low = self._log.place(topic, partition) << OFFSET_BITS
        done = low + min(self._log.done(topic, partition), self._log.end(topic, partition) - 1)
        dropped = 0
        while True:
            found = self._file.db.execute(
                "SELECT id, ts FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (low, done, slice_size)
            ).fetchall()
            doomed = [(row_id,) for row_id, _ in itertools.takewhile(lambda row: row[1] < before, found)]
            dropped += self._log.drop(doomed)
            if len(doomed) < slice_size:
                return dropped
            await asyncio.sleep(0)

    async def _scan(self, position: int, end: int, slice_size: int) -> AsyncIterator[tuple[int, bytes | None, bool]]:
        """Row id, key and whether it is a tombstone, of every record from the row `position` to before `end`."""
        while position < end:
            found = self._file.db.execute(
                "SELECT id, key, value IS NULL FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (position, end, slice_size),
            ).fetchall()
            for row_id, key, dead in found:
                yield row_id, key, bool(dead)
            if not found:
                return
            position = found[-1][0] + 1
            await asyncio.sleep(0)
