"""The log on Kafka, as the application sees it: topics, readers for lanes, changelogs, and commits outside of lanes."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, LogFailed
from app.engine.kafka.begun import Begun
from app.engine.kafka.cluster import REQUEST, Cluster, failed, passing
from app.engine.kafka.follower import KafkaFollower
from app.engine.kafka.lease import BRIEF, LEASE
from app.engine.kafka.onlooker import KafkaOnlooker
from app.engine.kafka.options import KafkaOptions
from app.engine.kafka.reader import KafkaReader
from app.engine.kafka.transactions import Transactions
from app.engine.log import FETCHED, TopicState
from app.engine.reader import Changes
from app.engine.records import Record, Send, TopicPartition

NOTES = "notes"
"""The compacted topic of named values, one partition: key = name."""

SMALL = {"segment.bytes": str(8 * 1024 * 1024)}
"""Of the notes: whoever gets the lease reads all of them, and Kafka does not compact the segment that is written."""

REPLAYED_AT_ONCE = 2_000

REPLAY = {"queued.max.messages.kbytes": 8_192}
"""A consumer's settings to read a whole partition: 200,000 records/s, bounded by `queued.max.messages.kbytes`."""


class KafkaLog:
    """One application's topics on a Kafka cluster."""

    keeps_itself_small = True

    def __init__(self, options: KafkaOptions, application: str) -> None:
        self._ids: dict[str, str] = {}
        self.where = f"kafka://{options.servers}"
        self.failure: LogFailed | None = None
        self.on_failure: Callable[[LogFailed], None] = lambda _error: None
        self.on_commit: Callable[[int, float], None] = lambda _records, _seconds: None
        self.cluster = Cluster(options)
        self._application = application
        self._writer: Transactions | None = None
        self._committing = asyncio.Lock()
        self._local = threading.local()
        self._scanners: list[Consumer] = []

    async def connect(self, within: float = REQUEST) -> None:
        """Reach the cluster, within so many seconds.

        Raises:
            LogAway: no broker answers.
            LogFailed: it refuses us.
        """
        await self.cluster.call(self.cluster.reach, within)

    async def disconnect(self) -> None:
        """Let go of the cluster."""
        self._writer = None
        for scanner in self._scanners:
            scanner.close()
        self.cluster.close()

    async def prepare(self, topics: Mapping[str, bool], partitions: int) -> None:
        """Make or check the topics (name -> compacted).

        Raises:
            TopicMismatch: one is there and other than wanted.
        """
        await self.cluster.call(self.cluster.prepare, topics, partitions)
        await self.cluster.call(self.cluster.prepare, {NOTES: True}, 1, SMALL)
        await self.cluster.call(self.cluster.prepare, {LEASE: False}, 1, BRIEF)
        await self.look(topics)

    async def look(self, topics: Collection[str]) -> None:
        """Learn which topics these are, without making any. Raises LogFailed when one is not there."""
        self._ids = await self.cluster.call(self.cluster.topic_ids, topics)

    async def describe(self) -> dict[str, TopicState]:
        """Every topic with our prefix."""
        return await self.cluster.call(self.cluster.describe)

    def reader(self, group: str, topics: Sequence[str], *, durable: bool, collects: float = 0.0) -> KafkaReader:
        """A reader of the topics. What Kafka shows a reader of committed records is as durable as the cluster is."""
        del durable
        prepared = all(topic in self._ids for topic in topics)
        begun = Begun(NOTES, self.notes, self._ids) if prepared else None
        return KafkaReader(self.cluster, group, topics, begun, collects)

    async def forgotten(self) -> dict[str, list[TopicPartition]]:
        """The places of each group that it had begun to read and of which Kafka has no offset any more."""
        return await self.cluster.call(self._forgotten)

    def _forgotten(self) -> dict[str, list[TopicPartition]]:
        self._ids = self.cluster.topic_ids(self.cluster.partitions())
        forgotten = {}
        for group, places in sorted(Begun(NOTES, self.notes, self._ids).places().items()):
            if gone := [place for place, (at, _) in self.cluster.stands(group, sorted(places)).items() if at is None]:
                forgotten[group] = gone
        return forgotten

    async def go_on(self, group: str, places: Collection[TopicPartition], *, at_end: bool) -> None:
        """Set the group's offsets of the places to their end, or start. Raises LogFailed, also while it has members."""
        await self.cluster.call(self._go_on, group, places, at_end)

    def _go_on(self, group: str, places: Collection[TopicPartition], at_end: bool) -> None:
        self.cluster.set_offsets(group, {place: self.span(*place)[at_end] for place in places})

    # ---- commits outside of lanes ----------------------------------------------------------------------

    async def commit(self, sends: Iterable[Send]) -> int:
        """One transaction of this worker's own producer. Raises LogFailed when it is not committed."""
        async with self._committing:
            await self.cluster.call(self._commit, list(sends))
        return 0

    def _commit(self, sends: Sequence[Send]) -> None:
        if self._writer is None:
            writer = Transactions(self.cluster, f"{self._application}.{self.cluster.options.worker}")
            writer.open()
            self._writer = writer
        writer, self._writer = self._writer, None  # if it fails, the next commit begins anew
        writer.stage(sends)
        try:
            writer.commit()
        except CommitAborted as error:
            with contextlib.suppress(LogFailed):
                writer.abort()
            raise LogFailed(f"Kafka: {error}") from error
        self._writer = writer

    async def synced(self, commit: int | None = None) -> None:
        """A committed transaction is as durable as the cluster is."""

    async def compact_grown(self, rows: Mapping[str, Mapping[int, int]]) -> None:
        """Kafka compacts by itself."""

    async def trim_old(self, topics: Sequence[str], before: float) -> None:
        """Kafka trims by itself, by each topic's retention."""

    def follower(self) -> KafkaFollower:
        """Reads on in changelogs."""
        return KafkaFollower(self.cluster, self.cluster.outer(f"{self._application}.replay"))

    def onlooker(self, *topics: str) -> KafkaOnlooker:
        """Who looks on at the topics."""
        return KafkaOnlooker(self.cluster, self.cluster.outer(f"{self._application}.onlooker"), topics)

    # ---- changelogs (on threads) -----------------------------------------------------------------------

    def identity(self, topic: str) -> str:
        """The topic's id: another application's, or one that was made anew, has another."""
        return self._ids[topic]

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        """The partition's first offset and its end, behind transactions that are not over yet. Raises LogFailed."""
        place = Place(self.cluster.outer(topic), partition)
        try:
            low, high = self._scanner().get_watermark_offsets(place, timeout=REQUEST)
        except KafkaException as error:
            raise failed(f"{topic}-{partition} can't be read", error) from error
        return low, high

    def changes(self, topic: str, partition: int, offset: int) -> Iterator[Changes]:
        """What the committed records from `offset` to the end set, once every transaction before it is over."""
        for messages in self._messages(topic, partition, offset):
            offset = (messages[-1].offset() or 0) + 1 if messages else offset
            yield [(message.key() or b"", message.value()) for message in messages], offset

    def replay(self, topic: str, partition: int, offset: int) -> Generator[list[Record], None, None]:
        """The committed records from `offset` to the end, once every transaction before it is over."""
        for messages in self._messages(topic, partition, offset):
            if messages:
                yield [self.cluster.record(message) for message in messages]

    def notes(self) -> dict[str, bytes]:
        """Every named value, as it is now. Raises LogFailed."""
        notes: dict[str, bytes] = {}
        for rows, _ in self.changes(NOTES, 0, 0):
            notes.update({name.decode(): value or b"" for name, value in rows})
        return notes

    async def fetch(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """Those of the records at these (ascending) offsets that are there; behind FETCHED bytes no more are read."""
        return await self.cluster.call(self._fetch, topic, partition, offsets)

    def _fetch(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """In one reading from the first of them to the last."""
        found: list[Record] = []
        wanted = set(offsets)
        if not wanted or offsets[0] >= self.span(topic, partition)[1]:
            return found
        replayed = self.replay(topic, partition, offsets[0])
        with contextlib.closing(replayed):
            size = 0
            for records in replayed:
                for record in records:
                    if record.offset in wanted:
                        found.append(record)
                        size += len(record.value or b"")
                    if size > FETCHED or record.offset >= offsets[-1]:
                        return found
        return found

    def _messages(self, topic: str, partition: int, offset: int) -> Iterator[list[Message]]:
        """Whoever commits is told before each partition knows of it; a former owner's last rows would be missed.

        [] when nothing comes for a while, so that the caller can give up.
        """
        end = self.span(topic, partition)[1]
        group = self.cluster.outer(f"{self._application}.replay")
        consumer = Consumer(self.cluster.consumer(**{"group.id": group, **REPLAY}))
        try:
            consumer.assign([Place(self.cluster.outer(topic), partition, offset)])
            while True:
                messages: list[Message] = []
                reached = False
                first = consumer.poll(0.2)  # `consume` would wait for more, although something has come
                for message in (first, *consumer.consume(REPLAYED_AT_ONCE, timeout=0)) if first is not None else ():
                    error = message.error()
                    if error is None:
                        messages.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
                        at = message.offset() or 0
                        if at < end:  # a transaction is not over; or a broker has lost what was not on its disk
                            end = min(end, self.span(topic, partition)[1])
                        reached = at >= end
                    elif not passing(error):
                        raise LogFailed(f"Kafka: {topic}-{partition} can't be read: {error.str()}")
                yield messages
                if reached:
                    return
        finally:
            consumer.close()

    def _scanner(self) -> Consumer:
        """A consumer of the calling thread, for questions."""
        consumer: Consumer | None = getattr(self._local, "consumer", None)
        if consumer is None:
            group = self.cluster.outer(f"{self._application}.replay")
            consumer = self._local.consumer = Consumer(
                self.cluster.consumer(**{"group.id": group, "isolation.level": "read_uncommitted"})
            )
            self._scanners.append(consumer)
        return consumer
