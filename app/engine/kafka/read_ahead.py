"""Reads on in one topic on Kafka, on a thread, ahead of whoever works with it: as far as memory is meant for it.

It decides how much waits here. Where it begins, and what is done with, is its user's.
"""

import asyncio
import bisect
import threading
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from app.engine.errors import LogFailed
from app.engine.kafka.cluster import Cluster, headers_of, why
from app.engine.records import Record

AHEAD = 5_000
"""Records of a partition that are kept at most, read and not yet done with."""
AHEAD_BYTES = 16 * 1024 * 1024
"""Bytes of all partitions together that are kept at most; each has its share, and one record whatever its size."""
RECORD_BYTES = 1_000
"""Bytes that a record takes beside its value, about."""
HANDED_OVER = 1_000
"""Records that are handed to the loop at a time, at most."""
TAKEN = 32
"""Records that are taken before the next look at how much waits; what was sent compressed is large only here."""

SETTINGS = {"queued.max.messages.kbytes": 8_192}
"""What waits in the client before it is taken."""

LASTING = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError._FATAL,  # noqa: SLF001 - librdkafka's own name
)
"""Errors that reading on does not mend; with any other, the client goes on by itself."""


def _size(record: Record) -> int:
    return RECORD_BYTES + len(record.value or b"")


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
        self._records: list[list[Record]] = [[] for _ in offsets]
        self._share = AHEAD_BYTES // len(offsets)
        # Of each partition, what was read ever (told by the thread), and what was done with (told by the loop).
        self._read = [0] * len(offsets)
        self._read_bytes = [0] * len(offsets)
        self._done = [0] * len(offsets)
        self._done_bytes = [0] * len(offsets)
        self._caught_up: set[int] = set()
        self._full: set[int] = set()
        self._stop = threading.Event()
        consumer.assign([Place(cluster.outer(topic), partition, offset) for partition, offset in enumerate(offsets)])
        self._thread = asyncio.ensure_future(cluster.call(self._read_on, asyncio.get_running_loop()))

    # ---- on the loop ---------------------------------------------------------------------------------------

    def read(self, partition: int, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on, as far as they have arrived."""
        records = self._records[partition]
        start = bisect.bisect_left(records, offset, key=lambda record: record.offset)
        return records[start : start + limit]

    def done(self, partition: int, offset: int) -> None:
        """The records before `offset` are not wanted any more."""
        records = self._records[partition]
        end = bisect.bisect_left(records, offset, key=lambda record: record.offset)
        self._done[partition] += end
        self._done_bytes[partition] += sum(map(_size, records[:end]))
        del records[:end]

    def _arrived(self, records: list[Record]) -> None:
        for record in records:
            self._records[record.partition].append(record)
            self.ends[record.partition] = record.offset + 1
        self._told()
        if len(self._caught_up | self._full) == len(self.ends):
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
                self._pause_the_full()
                records: list[Record] = []
                first = consumer.poll(0.05)  # `consume` would wait for more, although something has come
                came = [first] if first is not None else []
                while came:
                    records += self._taken(came)
                    on = len(records) < HANDED_OVER and self._now_full() == self._full
                    came = consumer.consume(TAKEN, timeout=0) if on else []
                if records or not self.ready.is_set():
                    loop.call_soon_threadsafe(self._arrived, records)
        except KafkaException as error:
            failure = LogFailed(f"Kafka: {self._topic} can't be read: {why(error).str()}")
            loop.call_soon_threadsafe(self._on_failure, failure)
        finally:
            consumer.close()

    def _taken(self, messages: Sequence[Message]) -> list[Record]:
        """The messages' records. Raises KafkaException for an error that lasts."""
        records: list[Record] = []
        topic = self._topic
        for message in messages:
            partition, error = message.partition() or 0, message.error()
            if error is None:
                value = message.value()
                at = message.timestamp()[1] / 1000
                headers = headers_of(message)
                records.append(Record(topic, partition, message.offset() or 0, at, message.key(), value, headers))
                self._read[partition] += 1
                self._read_bytes[partition] += RECORD_BYTES + len(value or b"")
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                self._caught_up.add(partition)
            elif error.fatal() or error.code() in LASTING:
                raise KafkaException(error)
        return records

    def _pause_the_full(self) -> None:
        """So that none keeps the others from being read."""
        full = self._now_full()
        if full != self._full:
            topic = self._cluster.outer(self._topic)
            self._consumer.pause([Place(topic, partition) for partition in full - self._full])
            self._consumer.resume([Place(topic, partition) for partition in self._full - full])
            self._full = full

    def _now_full(self) -> set[int]:
        return {partition for partition in range(len(self.ends)) if self._is_full(partition)}

    def _is_full(self, partition: int) -> bool:
        """Whether no more is to be read of it; once full, it stays so until the half is done with."""
        part = 2 if partition in self._full else 1
        records = self._read[partition] - self._done[partition]
        size = self._read_bytes[partition] - self._done_bytes[partition]
        return records > AHEAD // part or size > self._share // part
