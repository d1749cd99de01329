"""Looks on at the embedded log, on the event loop: what is new comes from memory, what is older from the file."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.engine.cancelling import set_within
from app.engine.embedded_reader import next_records
from app.engine.records import Record, TopicPartition

if TYPE_CHECKING:
    from app.engine.embedded_log import EmbeddedLog


class EmbeddedOnlooker:
    """An Onlooker of one log."""

    def __init__(self, log: "EmbeddedLog", topics: Sequence[str]) -> None:
        self.positions: dict[TopicPartition, int] = {}
        self._log = log
        self._topics = topics
        self._places: list[TopicPartition] = []
        self._wakeup = asyncio.Event()

    async def spans(self) -> dict[TopicPartition, tuple[int, int]]:
        """Compaction drops only what a newer record stands for: nothing is lost before any offset."""
        return {
            TopicPartition(topic, partition): (0, self._log.end(topic, partition))
            for topic in self._topics
            for partition in range(self._log.partitions(topic))
        }

    async def begin(self, places: Mapping[TopicPartition, int]) -> None:
        """From now on the log keeps what comes in memory, too."""
        self.positions, self._places = dict(places), list(places)
        self._wakeup = self._log.watch(self._topics)

    async def take(self, limit: int, wait: float) -> list[Record]:
        """The next records, place after place."""
        self._wakeup.clear()
        found = next_records(self._log, self._places, self.positions, limit)
        if found or wait <= 0:
            return found
        await set_within(self._wakeup, wait)
        return next_records(self._log, self._places, self.positions, limit)

    async def close(self) -> None:
        """The log need not keep anything for us any more."""
        self._log.unwatch(self._topics, self._wakeup)
