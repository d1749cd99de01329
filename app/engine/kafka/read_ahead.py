"""Reads on in one topic on Kafka, on a thread, ahead of whoever works with it: as far as memory is meant for it.

It decides how much waits here. Where it begins, and what is done with, is its user's.
"""

import asyncio
import bisect
import functools
import operator
import threading
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from app.engine.errors import LogFailed
from app.engine.kafka.cluster import Cluster, headers_of, why
from app.engine.records import Record

AHEAD_BYTES = 24 * 1024 * 1024
"""Bytes of all partitions together that are kept at most, read and not yet done with; each has its share, and one
record whatever its size."""
RECORD_BYTES = 1_000
"""Bytes that a record takes beside its value, about."""
HANDED_OVER = 1_000
"""Records that are handed to the loop at a time, at most."""
WAIT = 0.05
"""Seconds that records, or room for more, are waited for at a time."""
TAKEN = 32
"""Records that are taken before the next look at how much waits; what was sent compressed is large only here."""
FIRST = 1.25
"""Of its share, what is read of a partition before anything is done with: whoever begins sees at least all that whoever
was here before may have worked with."""

SETTINGS = {"queued.max.messages.kbytes": 8_192}
"""What waits in the client before it is taken."""

LASTING = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError._FATAL,  # noqa: SLF001 - librdkafka's own name
)
"""Errors that reading on does not mend; with any other, the client goes on by itself."""


class _Kept:
    """The records of one partition, read and not yet done with; `sizes` are the bytes of it up to and with each one."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.sizes: list[int] = []

    def find(self, offset: int) -> int:
        """Where the records from `offset` on begin."""
        return bisect.bisect_left(self.records, offset, key=_offset)


_offset = operator.attrgetter("offset")


class ReadAhead:
    """The records of `topic` from `offsets` (by partition) on. `arrived` is called on the loop whenever some came.

    The consumer belongs to this from now on: it is closed at the end.
    """

    def __init__(
        self,
        cluster: Cluster,
        consumer: Consumer,
        topic: str,
        offsets: Sequence[int],
        arrived: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.ends = list(offsets)
        """The offset behind the last record of each partition that has arrived."""
        self.ready = asyncio.Event()
        """Set once every partition was read to its end, or as far as memory is meant for it."""
        self._cluster = cluster
        self._consumer = consumer
        self._topic = topic
        self._told = arrived
        self._on_failure = on_failure
        self._kept = [_Kept() for _ in offsets]
        self._share = AHEAD_BYTES // len(offsets)
        # Bytes of each partition that were read ever (told by the thread), and done with (told by the loop).
        self._read_bytes = [0] * len(offsets)
        self._done_bytes = [0] * len(offsets)
        self._caught_up: set[int] = set()
        self._full: set[int] = set()
        self._filled = False
        self._room = threading.Event()
        self._stop = threading.Event()
        consumer.assign([Place(cluster.outer(topic), partition, offset) for partition, offset in enumerate(offsets)])
        self._thread = asyncio.ensure_future(cluster.call(self._read_on, asyncio.get_running_loop()))

    # ---- on the loop ---------------------------------------------------------------------------------------

    def read(self, partition: int, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on, as far as they have arrived."""
        kept = self._kept[partition]
        start = kept.find(offset)
        return kept.records[start : start + limit]

    def done(self, partition: int, offset: int) -> None:
        """The records before `offset` are not wanted any more."""
        kept = self._kept[partition]
        if end := kept.find(offset):
            self._done_bytes[partition] = kept.sizes[end - 1]
            del kept.records[:end], kept.sizes[:end]
            self._room.set()

    def _arrived(self, came: dict[int, _Kept], *, filled: bool) -> None:
        for partition, more in came.items():
            kept = self._kept[partition]
            kept.records += more.records
            kept.sizes += more.sizes
            self.ends[partition] = more.records[-1].offset + 1
        self._told()
        if filled:
            self.ready.set()

    async def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        await asyncio.gather(self._thread, return_exceptions=True)

    # ---- on the thread -------------------------------------------------------------------------------------

    def _read_on(self, loop: asyncio.AbstractEventLoop) -> None:
        consumer = self._consumer
        try:
            while not self._stop.is_set():
                self._room.clear()
                if self._filled and self._now_full():
                    self._room.wait(WAIT)  # a pause would throw away what the client has fetched
                    continue
                came: dict[int, _Kept] = {}
                first = consumer.poll(WAIT)
                messages = [first] if first is not None else []
                taken = 0
                while messages:
                    self._take(messages, came)
                    taken += len(messages)
                    on = taken < HANDED_OVER and self._now_full() == self._full
                    messages = consumer.consume(TAKEN, timeout=0) if on else []
                if not self._filled:
                    self._fill()
                if came or not self.ready.is_set():
                    loop.call_soon_threadsafe(functools.partial(self._arrived, came, filled=self._filled))
        except KafkaException as error:
            failure = LogFailed(f"Kafka: {self._topic} can't be read: {why(error).str()}")
            loop.call_soon_threadsafe(self._on_failure, failure)
        finally:
            consumer.close()

    def _take(self, messages: Sequence[Message], came: dict[int, _Kept]) -> None:
        """Add the messages' records to what came. Raises KafkaException for an error that lasts."""
        topic, read = self._topic, self._read_bytes
        for message in messages:
            partition, error = message.partition() or 0, message.error()
            if error is None:
                value = message.value()
                at = message.timestamp()[1] / 1000
                headers = headers_of(message)
                read[partition] += RECORD_BYTES + len(value or b"")
                kept = came.get(partition) or came.setdefault(partition, _Kept())
                kept.records.append(Record(topic, partition, message.offset() or 0, at, message.key(), value, headers))
                kept.sizes.append(read[partition])
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                self._caught_up.add(partition)
            elif error.fatal() or error.code() in LASTING:
                raise KafkaException(error)

    def _fill(self) -> None:
        """Pause those that have come far enough, so that none keeps the others from being read, until all have."""
        full, topic = self._now_full(), self._cluster.outer(self._topic)
        self._consumer.pause([Place(topic, partition) for partition in full - self._full])
        self._full = full
        if len(self._caught_up | full) == len(self.ends):
            self._consumer.resume([Place(topic, partition) for partition in full])
            self._filled, self._full = True, set()

    def _now_full(self) -> set[int]:
        """The partitions of which no more is to be read."""
        share = self._share if self._filled else self._share * FIRST
        return {
            partition
            for partition in range(len(self.ends))
            if self._read_bytes[partition] - self._done_bytes[partition] > share
        }
