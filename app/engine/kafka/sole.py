"""What only one worker at a time may do on Kafka: a lease, and a log for whoever has it.

The lease is the one partition of a topic in a consumer group: it goes to another worker when its holder stops or dies.
The holder's transactions have one transactional id for all workers, so that a former holder is fenced whatever it
believes.
"""

import asyncio
import bisect
import contextlib
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, LogFailed
from app.engine.kafka.cluster import Cluster, why
from app.engine.kafka.log import NOTES, KafkaLog
from app.engine.kafka.reader import KafkaReader
from app.engine.kafka.transactions import Transactions
from app.engine.records import Record, Send, TopicPartition

AHEAD = 5_000
"""Records of a partition that are kept at most, read and not yet committed."""

READS, WRITES = "reads", "writes"
WAYS = (READS, WRITES)
"""Commits with offsets and commits without are two rows of transactions: neither waits for the other."""

logger = structlog.get_logger("a4co.engine.kafka")


class SoleLog:
    """The log of the lease's holder: it appends, keeps notes, and reads one topic from the committed offsets on."""

    def __init__(self, log: KafkaLog, name: str, topic: str, group: str) -> None:
        self.commit_seconds = log.cluster.options.commit_seconds
        self._log = log
        self._cluster: Cluster = log.cluster
        self._topic = topic
        self._group = group
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
        self._notes = await self._cluster.call(self._read_notes)
        await self._cluster.call(self._begin_reading)
        self._thread = asyncio.ensure_future(self._cluster.call(self._read_on, asyncio.get_running_loop()))
        await self._ready.wait()

    def _read_notes(self) -> dict[str, bytes]:
        notes: dict[str, bytes] = {}
        for rows, _ in self._log.changes(NOTES, 0, 0):
            notes.update({name.decode(): value or b"" for name, value in rows})
        return notes

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
        """A committed transaction is as durable as the cluster is."""


class Lease:
    """Runs `work` while this worker has the lease: `begin` gets a fresh log, `end` is awaited before it goes on."""

    breaks_off = False

    def __init__(
        self,
        log: KafkaLog,
        reader: KafkaReader,
        begin: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self._log = log
        self._reader = reader
        self._begin = begin
        self._end = end
        self.held = False

    async def run(self) -> None:
        """Take part until cancelled."""
        await self._reader.start(self)
        try:
            while True:
                await self._reader.take(100, 0.5)
        finally:
            if self.held:
                self.held = False
                await self._end()
            await self._reader.stop()

    async def given(self, partitions: Collection[int]) -> None:
        """The lease is ours."""
        del partitions
        logger.info("this worker runs the bridge")
        await self._begin()
        self.held = True

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        """The lease goes to another worker."""
        del partitions, lost
        if self.held:
            self.held = False
            logger.info("another worker runs the bridge")
            await self._end()
