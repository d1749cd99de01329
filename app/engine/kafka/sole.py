"""The log of what only one process at a time may do on Kafka.

Its transactions have one transactional id for all processes, so that whoever opens it fences those who had it before,
whatever they believe. Who may open it is decided by the lease.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, LogAway, LogFailed
from app.engine.kafka.cluster import Cluster, failed
from app.engine.kafka.log import NOTES, KafkaLog
from app.engine.kafka.read_ahead import SETTINGS, ReadAhead
from app.engine.kafka.transactions import Transactions
from app.engine.records import Record, Send, TopicPartition

OPENS = 30.0
"""Seconds in which the topic is read, from the committed offsets on, to its end or as far as memory is meant for it."""

UNCERTAIN = 0.05
"""Seconds to the next look at whether the lease is certain."""

READS, WRITES = "reads", "writes"
WAYS = (READS, WRITES)
"""Commits with offsets and commits without are two rows of transactions: neither waits for the other."""


class SoleLog:
    """The log of the lease's holder: it appends, keeps notes, and reads one topic from the committed offsets on.

    `certain` tells whether nobody else can have the lease just now.
    """

    def __init__(
        self, log: KafkaLog, name: str, topic: str, group: str, certain: Callable[[], bool] = lambda: True
    ) -> None:
        self.commit_seconds = log.cluster.options.commit_seconds
        self._log = log
        self._cluster: Cluster = log.cluster
        self._topic = topic
        self._group = group
        self._certain = certain
        self._writers = {way: Transactions(log.cluster, f"{name}.{way}", silent=True) for way in WAYS}
        self._membership: object = None
        self._notes: dict[str, bytes] = {}
        self._offsets: list[int] = []
        self._ahead: ReadAhead | None = None
        self._committing = {way: asyncio.Lock() for way in WAYS}
        self._watchers: list[asyncio.Event] = []
        self.on_failure: Callable[[Exception], None] = lambda _error: None

    async def open(self) -> None:
        """Fence whoever had the lease before, and learn notes and offsets. Raises LogFailed; then it is closed."""
        await asyncio.gather(*(self._cluster.call(writer.open) for writer in self._writers.values()))
        self._notes = await self._cluster.call(self._log.notes)
        consumer = await self._cluster.call(self._consumer)
        self._ahead = ReadAhead(self._cluster, consumer, self._topic, self._offsets, self._arrived, self._failed)
        try:
            async with asyncio.timeout(OPENS):
                await self._ahead.ready.wait()
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise LogAway(f"Kafka: {self._topic} is not read after {OPENS:g} s") from None
            raise

    def _consumer(self) -> Consumer:
        """A consumer that has nothing to read yet; and where it is to begin, by what is committed."""
        settings = {"group.id": self._cluster.outer(self._group), **SETTINGS}
        consumer = Consumer(self._cluster.consumer(**settings))
        there = self._cluster.known([self._topic])  # just after a broker's return it may not be
        if self._topic not in there:
            consumer.close()
            raise LogAway(f"Kafka: {self._topic} is not there")
        partitions = range(there[self._topic])
        try:
            places = self._cluster.committed(
                consumer, [Place(self._cluster.outer(self._topic), partition) for partition in partitions]
            )
        except KafkaException as error:
            consumer.close()
            raise failed(f"{self._group} does not tell where it stands", error) from error
        noted = [int(self._notes.get(self._place(partition), b"0")) for partition in partitions]
        self._offsets = [max(place.offset, offset) for place, offset in zip(places, noted, strict=True)]
        # Asked once: calls of one consumer from two threads wait for each other. It is no member, so this stays true.
        self._membership = consumer.consumer_group_metadata()
        return consumer

    def _place(self, partition: int) -> str:
        """The note of a partition's offset. Kafka forgets those of a group without members a week after the commit."""
        return f"{self._group}:{self._topic}-{partition}"

    def _arrived(self) -> None:
        for event in self._watchers:
            event.set()

    def _failed(self, error: Exception) -> None:
        self.on_failure(error)

    async def close(self) -> None:
        """Stop reading."""
        if self._ahead is not None:
            await self._ahead.close()

    # ---- the log -----------------------------------------------------------------------------------------

    def partitions(self, topic: str) -> int:
        """Partitions of the topic that is read."""
        assert topic == self._topic
        return len(self._offsets)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on, as far as they have arrived."""
        del topic
        assert self._ahead is not None
        return self._ahead.read(partition, offset, limit)

    def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record that has arrived."""
        del topic
        assert self._ahead is not None
        return self._ahead.ends[partition]

    def committed(self, group: str, topic: str, partition: int) -> int | None:
        """The next offset of the group."""
        del group, topic
        return self._offsets[partition]

    def note(self, name: str) -> bytes | None:
        """A named value that was committed with the records."""
        return self._notes.get(name)

    def watch(self, topics: Iterable[str]) -> asyncio.Event:
        """An event that is set when something of the topic that is read arrives."""
        del topics
        event = asyncio.Event()
        self._watchers.append(event)
        return event

    async def commit(
        self,
        sends: Iterable[Send],
        *,
        group: str = "",
        offsets: Mapping[TopicPartition, int] | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> int:
        """Append, set offsets and notes: one transaction. Raises LogFailed, also when another worker has the lease."""
        del group
        notes = dict(notes or {})
        notes |= {self._place(partition): b"%d" % offset for (_, partition), offset in (offsets or {}).items()}
        noted = [Send(NOTES, name.encode(), value, (), None, 0) for name, value in notes.items()]
        way = READS if offsets else WRITES
        async with self._committing[way]:
            await self._cluster.call(self._commit, self._writers[way], [*sends, *noted], dict(offsets or {}))
        self._notes.update(notes)
        for (_, partition), offset in (offsets or {}).items():
            self._offsets[partition] = offset
            assert self._ahead is not None
            self._ahead.done(partition, offset)
        return 0

    def _commit(self, writer: Transactions, sends: Sequence[Send], offsets: Mapping[TopicPartition, int]) -> None:
        outer = self._cluster.outer
        places = [Place(outer(topic), partition, offset) for (topic, partition), offset in offsets.items()]
        writer.stage(sends)
        try:
            writer.offer(places, lambda: self._membership)
            writer.commit()
        except CommitAborted as error:
            with contextlib.suppress(LogFailed):
                writer.abort()
            raise LogFailed(f"Kafka: the transaction of {writer.name} failed: {error}") from error

    async def synced(self, commit: int | None = None) -> None:
        """What is committed may leave the process: when it is certain that nobody else says the same."""
        del commit
        while not self._certain():  # noqa: ASYNC110 - time alone makes it uncertain
            await asyncio.sleep(UNCERTAIN)
