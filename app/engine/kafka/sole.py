"""The log of what only one process at a time may do on Kafka.

Its transactions have one transactional id for all processes, so that whoever opens it fences those who had it before,
whatever they believe. Who may open it is decided by the lease.
"""

import asyncio
import bisect
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, LogFailed
from app.engine.kafka.cluster import REQUEST, Cluster, why
from app.engine.kafka.log import NOTES, KafkaLog
from app.engine.kafka.transactions import Transactions
from app.engine.records import Record, Send, TopicPartition

AHEAD = 5_000
"""Records of a partition that are kept at most, read and not yet committed."""

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
        self._writers = {way: Transactions(log.cluster, f"{name}.{way}") for way in WAYS}
        self._consumer: Consumer | None = None
        self._membership: object = None
        self._notes: dict[str, bytes] = {}
        self._offsets: list[int] = []
        self._records: list[list[Record]] = []
        self._ends: list[int] = []
        self._caught_up: set[int] = set()
        self._full: set[int] = set()
        self._ready = asyncio.Event()
        self._committing = {way: asyncio.Lock() for way in WAYS}
        self._watchers: list[asyncio.Event] = []
        self._stop = threading.Event()
        self._thread: asyncio.Future[None] | None = None
        self.on_failure: Callable[[Exception], None] = lambda _error: None

    async def open(self) -> None:
        """Fence whoever had the lease before, and learn notes and offsets. Raises LogFailed."""
        await asyncio.gather(*(self._cluster.call(writer.open) for writer in self._writers.values()))
        self._notes = await self._cluster.call(self._log.notes)
        await self._cluster.call(self._begin_reading)
        self._thread = asyncio.ensure_future(self._cluster.call(self._read_on, asyncio.get_running_loop()))
        await self._ready.wait()

    def _begin_reading(self) -> None:
        consumer = Consumer(self._cluster.consumer(**{"group.id": self._cluster.outer(self._group)}))
        partitions = range(self._cluster.partitions()[self._topic])
        places = self._cluster.committed(
            consumer, [Place(self._cluster.outer(self._topic), partition) for partition in partitions]
        )
        noted = [int(self._notes.get(self._place(partition), b"0")) for partition in partitions]
        self._offsets = [max(place.offset, offset) for place, offset in zip(places, noted, strict=True)]
        self._ends = list(self._offsets)
        self._records = [[] for _ in partitions]
        # Without its partitions' leaders, it would begin to read a second later.
        consumer.list_topics(self._cluster.outer(self._topic), timeout=REQUEST)
        consumer.assign(
            [Place(self._cluster.outer(self._topic), partition, self._offsets[partition]) for partition in partitions]
        )
        # Asked once: calls of one consumer from two threads wait for each other. It is no member, so this stays true.
        self._membership = consumer.consumer_group_metadata()
        self._consumer = consumer

    def _place(self, partition: int) -> str:
        """The note of a partition's offset. Kafka forgets those of a group without members a week after the commit."""
        return f"{self._group}:{self._topic}-{partition}"

    def _read_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread: what arrives is handed to the loop."""
        consumer = self._consumer
        assert consumer is not None
        try:
            while not self._stop.is_set():
                self._pause_the_full(consumer)
                records: list[Record] = []
                first = consumer.poll(0.05)  # `consume` would wait for more, although something has come
                for message in (first, *consumer.consume(1_000, timeout=0)) if first is not None else ():
                    error = message.error()
                    if error is None:
                        records.append(self._cluster.record(message))
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
                        self._caught_up.add(message.partition() or 0)
                if records or not self._ready.is_set():
                    loop.call_soon_threadsafe(self._arrived, records)
        except KafkaException as error:
            failure = LogFailed(f"Kafka: {self._topic} can't be read: {why(error).str()}")
            loop.call_soon_threadsafe(self.on_failure, failure)
        finally:
            consumer.close()

    def _pause_the_full(self, consumer: Consumer) -> None:
        """So that of no partition more than `AHEAD` records wait here, and none keeps the others from being read."""
        full = {
            partition
            for partition, records in enumerate(self._records)
            if len(records) > (AHEAD // 2 if partition in self._full else AHEAD)
        }
        if full != self._full:
            topic = self._cluster.outer(self._topic)
            consumer.pause([Place(topic, partition) for partition in full - self._full])
            consumer.resume([Place(topic, partition) for partition in self._full - full])
            self._full = full

    def _arrived(self, records: list[Record]) -> None:
        for record in records:
            self._records[record.partition].append(record)
            self._ends[record.partition] = record.offset + 1
        for event in self._watchers:
            event.set()
        if len(self._caught_up | self._full) == len(self._records):
            self._ready.set()

    async def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.gather(self._thread, return_exceptions=True)

    # ---- the log -----------------------------------------------------------------------------------------

    def partitions(self, topic: str) -> int:
        """Partitions of the topic that is read."""
        assert topic == self._topic
        return len(self._records)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on, as far as they have arrived."""
        del topic
        records = self._records[partition]
        start = bisect.bisect_left(records, offset, key=lambda record: record.offset)
        return records[start : start + limit]

    def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record that has arrived."""
        del topic
        return self._ends[partition]

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
            records = self._records[partition]
            del records[: bisect.bisect_left(records, offset, key=lambda record: record.offset)]
        return 0

    def _commit(self, writer: Transactions, sends: Sequence[Send], offsets: Mapping[TopicPartition, int]) -> None:
        outer = self._cluster.outer
        places = [Place(outer(topic), partition, offset) for (topic, partition), offset in offsets.items()]
        writer.stage(sends)
        try:
            writer.commit(places, self._membership)
        except CommitAborted as error:
            with contextlib.suppress(LogFailed):
                writer.abort()
            raise LogFailed(f"Kafka: the transaction of {writer.name} failed: {error}") from error

    async def synced(self, commit: int | None = None) -> None:
        """What is committed may leave the process: when it is certain that nobody else says the same."""
        del commit
        while not self._certain():  # noqa: ASYNC110 - time alone makes it uncertain
            await asyncio.sleep(UNCERTAIN)
