"""Reads on in changelogs on Kafka, for who stands by. What it reads is committed."""

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from app.engine.errors import LogFailed
from app.engine.kafka.cluster import Cluster, passing
from app.engine.reader import Changes


class KafkaFollower:
    """A consumer of no group, with partitions that come and go."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        # A place that is gone is told: who goes on at another one would miss what was deleted.
        settings = {"group.id": group, "auto.offset.reset": "error", "queued.max.messages.kbytes": 4_096}
        self._consumer = Consumer(cluster.consumer(**settings, **{"enable.partition.eof": False}))

    def add(self, topic: str, partition: int, offset: int) -> None:
        """Read this one too, from `offset` on."""
        self._consumer.incremental_assign([Place(self._cluster.outer(topic), partition, offset)])

    def remove(self, topic: str, partition: int) -> None:
        """Not this one any more."""
        self._consumer.incremental_unassign([Place(self._cluster.outer(topic), partition)])

    def take(self, limit: int, wait: float) -> dict[tuple[str, int], Changes]:
        """What has come, by partition.

        Raises:
            LogFailed: a place is not there any more, or can't be read.
        """
        found: dict[tuple[str, int], Changes] = {}
        first = self._consumer.poll(wait)
        for message in (first, *self._consumer.consume(limit - 1, timeout=0)) if first is not None else ():
            error = message.error()
            if error is None:
                place = (self._cluster.inner(message.topic() or ""), message.partition() or 0)
                rows, _ = found.get(place, ([], 0))
                rows.append((message.key() or b"", message.value()))
                found[place] = rows, (message.offset() or 0) + 1
            elif not passing(error):
                raise LogFailed(f"Kafka: a changelog can't be followed: {error.str()}")
        return found

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()
