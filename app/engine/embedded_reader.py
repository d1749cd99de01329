"""A lane's reader over the embedded log: one process, so every partition is its own from the start."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.engine.cancelling import set_within
from app.engine.owners import Alone
from app.engine.reader import Owner
from app.engine.records import Record, Send, TopicPartition

if TYPE_CHECKING:
    from app.engine.embedded_log import EmbeddedLog


def next_records(
    log: "EmbeddedLog", places: list[TopicPartition], positions: dict[TopicPartition, int], limit: int
) -> list[Record]:
    """At most `limit` records from the positions on, which move; the place that came first comes last the next time."""
    found: list[Record] = []
    for place in places:
        position = positions[place]
        if position >= log.end(*place):
            continue
        records = log.read(*place, position, limit - len(found))
        positions[place] = records[-1].offset + 1 if records else log.end(*place)
        found += records
        if len(found) >= limit:
            break
    if places:
        places.append(places.pop(0))
    return found


class EmbeddedReader:
    """Reads `topics` as `group`. `durable`: takes only what is on disk, for those whose deeds can't be taken back."""

    batch = 400
    commit_records = 1
    commit_seconds = 0.0
    ending = False

    def __init__(self, log: "EmbeddedLog", group: str, topics: Sequence[str], *, durable: bool = False) -> None:
        self._log = log
        self._group = group
        self._durable = durable
        self._places = [TopicPartition(topic, p) for topic in topics for p in range(log.partitions(topic))]
        self._positions = {place: log.committed(group, *place) or 0 for place in self._places}
        self._committed = dict(self._positions)
        self._staged: list[Send] = []
        self._wakeup = log.watch(topics)

    def owners(self) -> Alone:
        """One process has everything."""
        return Alone()

    async def start(self, owner: Owner) -> None:
        """Everything is given at once."""
        await owner.given(sorted({partition for _, partition in self._places}))

    async def take(self, limit: int, wait: float) -> list[Record]:
        """The next records, place after place; the place that came first comes last the next time."""
        self._wakeup.clear()
        found = next_records(self._log, self._places, self._positions, limit)
        if not found and wait > 0:
            await set_within(self._wakeup, wait)
            found = next_records(self._log, self._places, self._positions, limit)
        if found and self._durable:
            await self._log.synced()
        return found

    def stage(self, sends: Sequence[Send]) -> None:
        """Keep the messages for the commit."""
        self._staged += sends

    def closing(self, offsets: Mapping[TopicPartition, int]) -> None:
        """There is nothing that could be done yet."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """One transaction of the log."""
        staged, self._staged = self._staged, []
        await self._log.commit(staged, group=self._group, offsets=offsets)
        self._committed.update(offsets)
        places = {TopicPartition(send.topic, send.partition) for send in staged if send.partition is not None}
        return {place: self._log.end(*place) for place in places}

    async def rollback(self) -> None:
        """Back to what is committed."""
        self._staged = []
        self._positions = dict(self._committed)

    def lag(self) -> int:
        """Records that are there and not yet committed."""
        return sum(self._log.end(*place) - position for place, position in self._committed.items())

    async def stop(self) -> None:
        """Nothing is held."""
