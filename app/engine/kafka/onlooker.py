"""Looks on at topics on Kafka: one consumer of no group, which only a thread of its own ever calls."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from app.engine.cancelling import unbroken
from app.engine.errors import LogFailed
from app.engine.kafka.cluster import Cluster, failed, passing
from app.engine.records import Record, TopicPartition

T = TypeVar("T")

ANSWERS = 3.0
"""Seconds that Kafka has to tell a partition's span."""

# A place that is gone is told: who goes on at another one would miss what was there.
SETTINGS = {"auto.offset.reset": "error", "queued.max.messages.kbytes": 1_024}


class KafkaOnlooker:
    """An Onlooker of one cluster."""

    def __init__(self, cluster: Cluster, group: str, topics: Sequence[str]) -> None:
        self.positions: dict[TopicPartition, int] = {}
        self._cluster = cluster
        self._topics = topics
        self._settings = {"group.id": group, **SETTINGS}
        self._consumer: Consumer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onlooker")

    async def spans(self) -> dict[TopicPartition, tuple[int, int]]:
        """Each partition's begin, and its end before the first transaction that is not over."""
        return await self._call(self._spans)

    def _spans(self) -> dict[TopicPartition, tuple[int, int]]:
        consumer, outer = self._opened(), self._cluster.outer
        try:
            there = consumer.list_topics(timeout=ANSWERS).topics
            return {
                TopicPartition(topic, partition): consumer.get_watermark_offsets(
                    Place(outer(topic), partition), timeout=ANSWERS
                )
                for topic in self._topics
                for partition in sorted(there[outer(topic)].partitions)
            }
        except KafkaException as error:
            raise failed("where its topics end is not told", error) from error
        except KeyError as topic:
            raise LogFailed(f"Kafka: there is no topic {topic}") from None

    async def begin(self, places: Mapping[TopicPartition, int]) -> None:
        """Read these from now on."""
        self.positions = dict(places)
        outer = self._cluster.outer
        wanted = [Place(outer(topic), partition, offset) for (topic, partition), offset in places.items()]
        await self._call(lambda: self._opened().assign(wanted))

    async def take(self, limit: int, wait: float) -> list[Record]:
        """What has come."""
        return await self._call(self._take, limit, wait)

    def _take(self, limit: int, wait: float) -> list[Record]:
        consumer, record_of, positions = self._opened(), self._cluster.record, self.positions
        found: list[Record] = []
        first = consumer.poll(wait)  # `consume` would wait for more, although something has come
        for message in (first, *consumer.consume(limit - 1, timeout=0)) if first is not None else ():
            error = message.error()
            if error is None:
                record = record_of(message)
                found.append(record)
                positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
                topic = self._cluster.inner(message.topic() or "")
                positions[TopicPartition(topic, message.partition() or 0)] = message.offset() or 0
            elif not passing(error):
                raise LogFailed(f"Kafka: a topic can't be looked at: {error.str()}")
        return found

    async def close(self) -> None:
        """Stop reading, and end the thread."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._call(consumer.close)
        self._thread.shutdown(wait=False)

    def _opened(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(self._cluster.consumer(**self._settings))
        return self._consumer

    async def _call(self, work: Callable[..., T], *arguments: object) -> T:
        """On the thread. Whoever is cancelled waits for its end."""
        return await unbroken(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))
