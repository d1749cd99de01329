"""The Faust transport `embedded:///path`: stock Faust agents and tables over the embedded log.

A round is the unit of work: some messages are delivered, and when all of them are acknowledged, everything that was
sent meanwhile (outputs, table changes) is committed together with their offsets. It decides nothing about messages.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, MutableMapping
from typing import Any, cast

from faust.assignor.client_assignment import ClientAssignment
from faust.transport import base
from faust.types import TP, ConsumerMessage, Message, RecordMetadata
from faust.types.tuples import FutureMessage

from app.engine.embedded_log import EmbeddedLog
from app.engine.open_logs import log_at
from app.engine.partitioner import partition_for
from app.engine.records import Headers, Record, Send, TopicPartition

ROUND = 200
"""Messages a round at most, over all partitions."""

IDLE = 0.1
"""Seconds between two looks when nothing arrives."""


def _headers(headers: Any) -> Headers:
    """Faust's headers (a mapping or pairs, text or bytes) as the log's."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return tuple((str(name), value if isinstance(value, bytes) else str(value).encode()) for name, value in pairs)


class Producer(base.Producer):
    """Collects what is sent; the consumer's round (or, outside of one, the next turn of the loop) commits it."""

    driver_version = "embedded"
    transport: "Transport"

    def on_init(self) -> None:
        """Begin with nothing to send."""
        self.in_round = False
        self._pending: list[tuple[Send, asyncio.Future[RecordMetadata]]] = []
        self._soon: list[FutureMessage] = []
        self._flushing: asyncio.Task[None] | None = None

    @property
    def broker(self) -> EmbeddedLog:
        """The log that is written."""
        return self.transport.log

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Take the message; the future is done when it is committed."""
        del transactional_id  # the round is the transaction
        self.transport.ensure_topic(topic)
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self._pending.append((Send(topic, key, value, _headers(headers), timestamp, partition), future))
        self._schedule()
        return future

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Send and wait for the commit; inside a round there is nothing to wait for yet, and the offset is -1."""
        future = await self.send(topic, key, value, partition, timestamp, headers, transactional_id=transactional_id)
        if self.in_round:
            place = partition if partition is not None else self.key_partition(topic, key or b"").partition
            return RecordMetadata(topic, place, TP(topic, place), -1)
        return await future

    def send_soon(self, fut: FutureMessage) -> None:
        """Take a message from code that can't await (a table's change)."""
        self._soon.append(fut)
        self._schedule()

    def _schedule(self) -> None:
        if not self.in_round and self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_outside())

    async def _flush_outside(self) -> None:
        try:
            if not self.in_round:
                await self.commit({})
        finally:
            self._flushing = None

    async def commit(self, offsets: Mapping[TP, int]) -> None:
        """Commit everything that was taken, and the offsets, as one transaction."""
        while self._soon:
            soon, self._soon = self._soon, []
            for fut in soon:
                await fut.message.channel.publish_message(fut, wait=False)
        pending, self._pending = self._pending, []
        places = {TopicPartition(tp.topic, tp.partition): offset for tp, offset in offsets.items()}
        placed = self.broker.append([send for send, _ in pending], group=self.app.conf.id, offsets=places)
        for (send, future), offset in zip(pending, placed, strict=True):
            if not future.done():
                partition = send.partition
                if partition is None:
                    partition = self.key_partition(send.topic, send.key or b"").partition
                future.set_result(RecordMetadata(send.topic, partition, TP(send.topic, partition), offset))

    def drop(self) -> None:
        """Forget what an unfinished round has sent: its messages will be delivered again."""
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()
        self._soon.clear()

    async def flush(self) -> None:
        """Commit what was sent outside of a round."""
        if not self.in_round and (self._pending or self._soon):
            await self.commit({})
        await self.broker.synced()

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Any = None,
        timeout: Any = None,  # noqa: ASYNC109 - Faust's signature
        retention: Any = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,
    ) -> None:
        """Declare the topic in the log; there is one copy, and it is kept."""
        del replication, config, timeout, retention, deleting, ensure_created
        self.broker.declare(topic, partitions, bool(compacting))

    def key_partition(self, topic: str, key: bytes) -> TP:
        """The partition of the key, by murmur2."""
        self.transport.ensure_topic(topic)
        return TP(topic, partition_for(key, self.broker.partitions(topic)))

    def supports_headers(self) -> bool:
        """Headers are kept."""
        return True


class _AckCounter:
    """Stands where Faust keeps the future that an ack wakes: its compiled stream calls nothing else at an ack."""

    def __init__(self, consumer: "Consumer") -> None:
        self._consumer = consumer

    def done(self) -> bool:
        """Never: each ack is to be heard of."""
        return False

    def set_result(self, _result: object) -> None:
        """A message was acknowledged."""
        self._consumer.on_ack()


class Consumer(base.Consumer):
    """Delivers the log's records in rounds, and is assigned every partition of what it subscribes to."""

    transport: "Transport"

    def on_init(self) -> None:
        """Begin at no place."""
        self._assigned: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._round_offsets: dict[TP, int] = {}
        self._round_size = 0
        self._round_done = asyncio.Event()
        self._between_rounds = asyncio.Lock()
        self._wakeup = asyncio.Event()

    @property
    def broker(self) -> EmbeddedLog:
        """The log that is read."""
        return self.transport.log

    @property
    def producer(self) -> Producer:
        """The producer whose messages a round commits."""
        return cast(Producer, self.app.producer)

    # ---- subscription ----------------------------------------------------------------------------------

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Take every partition of the topics. Faust learns of it as of a rebalance, outside of this call."""
        self.add_future(self._assign(set(topics)))

    async def _assign(self, topics: set[str]) -> None:
        async with self._between_rounds:
            for topic in topics:
                self.transport.ensure_topic(topic)
            self._wakeup = self.broker.watch(topics)
            self.app.on_rebalance_start()
            await self.on_partitions_revoked(set(self._assigned))
            self._assigned = {TP(topic, p) for topic in topics for p in range(self.broker.partitions(topic))}
            self.app.consumer_generation_id += 1
            assignor = cast(Any, self.app.assignor)
            actives = {topic: list(range(self.broker.partitions(topic))) for topic in topics}
            assignor._assignment = ClientAssignment(actives=actives, standbys={})  # noqa: SLF001 - no setter
            assignor._topic_groups = dict.fromkeys(topics, 0)  # noqa: SLF001 - no setter
            assignor._active_tps, assignor._standby_tps = set(self._assigned), set()  # noqa: SLF001 - no setter
            await self.on_partitions_assigned(set(self._assigned), self.app.consumer_generation_id)

    def assignment(self) -> set[TP]:
        """Every partition of every subscribed topic."""
        return set(self._assigned)

    # ---- rounds ----------------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.wait(cast(Any, self.can_resume_flow))
                continue
            self._wakeup.clear()
            async with self._between_rounds:
                worked = await self._round()
            if not worked:
                await self.wait_first(self._wakeup.wait(), self.suspend_flow.wait(), timeout=IDLE)

    async def _round(self) -> bool:
        records = await self._getmany(self._get_active_partitions(), 0)
        if not records:
            return False
        self.producer.in_round = True
        self._round_done.clear()
        self._n_acked = 0
        self._round_size = sum(len(r) for tp, r in records.items() if self.app.topics.acks_enabled_for(tp.topic))
        self._waiting_for_ack = cast(Any, _AckCounter(self))
        for tp, record in self.scheduler.iterate(cast(Any, records)):
            if not self.flow_active:
                break
            if self.app.topics.acks_enabled_for(tp.topic):
                self._round_offsets[tp] = record.offset + 1
            self._positions[tp] = record.offset + 1
            await self.callback(cast(Message, self._to_message(tp, record)))
            self._read_offset[tp] = record.offset
        if not self._finished:
            await self.wait_first(self._round_done.wait(), self.suspend_flow.wait())
        await self.commit()
        return True

    @property
    def _finished(self) -> bool:
        return self._n_acked >= self._round_size

    def on_ack(self) -> None:
        """A stream is done with a message of the round."""
        if self._finished:
            self._round_done.set()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """End the round, if every message of it is done: offsets, outputs and table changes in one transaction."""
        del topics, start_new_transaction
        if not self._finished:
            return False
        offsets, self._round_offsets = self._round_offsets, {}
        if offsets:
            await self._handle_attached(offsets)
        await self.producer.commit(offsets)
        self.producer.in_round = False
        for tp in offsets:
            self._acked.pop(tp, None)
            self._acked_index.pop(tp, None)
        self._committed_offset.update(offsets)
        self.app.monitor.on_tp_commit(offsets)
        return bool(offsets)

    async def on_stop(self) -> None:
        """Commit the round if it is done; otherwise it never was."""
        await super().on_stop()
        if not self._finished:
            self.producer.drop()
        self.producer.in_round = False

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> MutableMapping[TP, list[Any]]:  # noqa: ASYNC109
        del timeout
        found: dict[TP, list[Any]] = {}
        left = ROUND
        # A partition at a time would starve the last ones: each gets an equal part of the round at first.
        partitions = sorted(active_partitions or ())
        for tp in partitions:
            start = self._positions.get(tp)
            if start is None or left <= 0:
                continue
            records = self.broker.read(tp.topic, tp.partition, start, max(1, min(left, ROUND // len(partitions) or 1)))
            if records:
                found[tp] = list(records)
                left -= len(records)
        return found

    def _to_message(self, tp: TP, record: Record) -> ConsumerMessage:
        return ConsumerMessage(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            1,
            list(record.headers),
            record.key,
            record.value,
            None,
            len(record.key or b""),
            len(record.value or b""),
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    # ---- positions -------------------------------------------------------------------------------------

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go where the group's committed offsets are (0 without one), except in changelogs."""
        committed = {
            tp: self.broker.committed(self.app.conf.id, tp.topic, tp.partition) or 0
            for tp in self._assigned
            if not self._is_changelog_tp(tp)
        }
        self._positions.update(committed)
        self._round_offsets.clear()
        self._n_acked = self._round_size = 0
        return committed

    async def perform_seek(self) -> None:
        """Seek to the committed offsets. A partition without a commit begins at 0, whatever was read of it before."""
        committed = await self.seek_to_committed()
        for tp, offset in committed.items():
            self._read_offset[tp] = None
            self._committed_offset[tp] = offset or None

    async def _seek(self, partition: TP, offset: int) -> None:
        self._positions[partition] = offset

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek; it is done at once."""
        for tp, offset in partitions.items():
            await self.seek(tp, offset)

    async def position(self, tp: TP) -> int | None:
        """The next offset to be delivered."""
        return self._positions.get(tp)

    def highwater(self, tp: TP) -> int:
        """The partition's end."""
        return self.broker.end(tp.topic, tp.partition)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The partitions' ends."""
        return {tp: self.highwater(tp) for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The partitions' first offsets."""
        return {tp: self.broker.begin(tp.topic, tp.partition) for tp in partitions}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        await self.producer.commit(offsets)
        return True

    # ---- topics ----------------------------------------------------------------------------------------

    async def create_topic(self, topic: str, partitions: int, replication: int, **options: Any) -> None:
        """Declare the topic in the log."""
        await self.producer.create_topic(topic, partitions, replication, **options)

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions the topic has; None when it isn't there."""
        return self.broker.topics().get(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """The partition given, or the key's."""
        if partition is not None or key is None:
            return partition
        return self.producer.key_partition(topic, key).partition

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109
        """One batch of messages, for code that drives the consumer by itself."""
        for tp, records in (await self._getmany(self._get_active_partitions(), timeout)).items():
            for record in records:
                self._positions[tp] = record.offset + 1
                yield tp, cast(Message, self._to_message(tp, record))

    def close(self) -> None:
        """Nothing is held."""


class Transport(base.Transport):
    """`broker="embedded:///path/to/log.db"` in a Faust App."""

    Consumer = Consumer
    Producer = Producer
    driver_version = "embedded"
    default_port = 0

    @property
    def log(self) -> EmbeddedLog:
        """The log of the App's broker URL, opened at first use."""
        return log_at(self.url[0])

    def ensure_topic(self, topic: str) -> None:
        """Declare a topic that nobody declared, as Kafka creates one at its first use."""
        if topic not in self.log.topics():
            self.log.declare(topic, self.app.conf.topic_partitions)
