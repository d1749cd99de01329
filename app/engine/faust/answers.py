"""What Faust asks a consumer for and our transports do by themselves, or not at all: seeks, commits, recovery.

Each round is committed when it is done and never before; tables are recovered before Faust learns of a partition.
"""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from faust.transport import base
from faust.types import TP, ConsumerMessage, Message

from app.engine.faust.messages import message_of
from app.engine.faust.producer import Producer
from app.engine.records import Record

if TYPE_CHECKING:
    from app.engine.faust.transport import LogTransport


class Answers(base.Consumer):
    """A consumer that has its answers ready."""

    transport: "LogTransport"

    @property
    def producer(self) -> Producer:
        """The producer whose messages a round commits."""
        return cast(Producer, self.app.producer)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Nothing: each round is committed when it is done, and not before."""
        del topics, start_new_transaction
        return False

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        del offsets
        return False

    async def wait_empty(self) -> None:
        """Nothing: partitions go between rounds, and a round that is not done when the worker stops is forgotten."""

    async def _drain_messages(self, fetcher: Any) -> None:
        """Faust's fetcher has nothing to do."""
        await fetcher._stopped.wait()  # noqa: SLF001 - mode's own event

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """The reader is there."""
        return {}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Faust's recovery, which has nothing to read."""

    async def _seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError(f"no seek of {partition} to {offset}: a partition is read from its committed offset")

    async def position(self, tp: TP) -> int | None:
        """Not told."""
        del tp
        return None

    def highwater(self, tp: TP) -> int:
        """0: there is nothing to recover, for it is done before Faust learns of a partition."""
        del tp
        return 0

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """As `highwater`."""
        return dict.fromkeys(partitions, 0)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """As `highwater`."""
        return dict.fromkeys(partitions, 0)

    async def create_topic(self, topic: str, partitions: int, replication: int, **options: Any) -> None:
        """Make the topic, if it isn't there."""
        await self.producer.create_topic(topic, partitions, replication, **options)

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions the topic has; None when it isn't there."""
        return self.transport.topics().get(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """The partition given, or the key's."""
        if partition is not None or key is None:
            return partition
        return self.producer.key_partition(topic, key).partition

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def _to_message(self, tp: TP, record: Record) -> ConsumerMessage:
        del tp
        return message_of(record, self.app.consumer_generation_id)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:  # noqa: ASYNC109
        raise NotImplementedError("the consumer delivers by itself")

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109
        """The consumer delivers by itself."""
        for tp, records in (await self._getmany(None, timeout)).items():
            for record in records:
                yield tp, record

    def close(self) -> None:
        """Nothing is held."""
