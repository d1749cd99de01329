"""A Kafka log as it stands after the workers have stopped, read once, with the questions that an embedded log answers.

The checks of `kill_checks` work on it as on an embedded log. Offsets of transaction marks count as read.
"""

from collections.abc import Iterator

from app.engine.kafka.cluster import Cluster
from app.engine.kafka.options import KafkaOptions
from app.engine.reader import Changes
from app.engine.records import Record
from tests.live.counting import committed, read


class KafkaAsRead:
    """The committed records of the application whose names begin with `prefix`."""

    def __init__(self, servers: str, prefix: str) -> None:
        self._cluster = Cluster(KafkaOptions(servers, "reader", prefix))
        self._servers = servers
        self._prefix = prefix
        self._topics: dict[str, list[list[Record]]] = {}

    def _of(self, topic: str) -> list[list[Record]]:
        if topic not in self._topics:
            self._topics[topic] = [
                [
                    Record(
                        topic, partition, m.offset() or 0, m.timestamp()[1] / 1000, m.key(), m.value(),
                        tuple(m.headers() or ()),  # type: ignore[arg-type]  # bytes, as ours all are
                    )
                    for m in messages
                ]
                for partition, messages in enumerate(read(self._servers, self._prefix + topic))
            ]  # fmt: skip
        return self._topics[topic]

    def partitions(self, topic: str) -> int:
        return len(self._of(topic))

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        return [record for record in self._of(topic)[partition] if record.offset >= offset][:limit]

    def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record."""
        records = self._of(topic)[partition]
        return records[-1].offset + 1 if records else 0

    def committed(self, group: str, topic: str, partition: int) -> int | None:
        """The group's offset; marks behind the last record don't count."""
        name = group if group.startswith("a4co.") else f"a4co.{group}"
        offset = committed(self._servers, self._prefix + name, self._prefix + topic, self.partitions(topic))[partition]
        return min(offset, self.end(topic, partition))

    def identity(self, topic: str) -> str:
        return self._cluster.topic_ids([topic])[topic]

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, self.end(topic, partition)

    def changes(self, topic: str, partition: int, offset: int) -> Iterator[Changes]:
        if records := self.read(topic, partition, offset, 10_000_000):
            yield [(record.key or b"", record.value) for record in records], records[-1].offset + 1

    def replay(self, topic: str, partition: int, offset: int) -> Iterator[list[Record]]:
        if records := self.read(topic, partition, offset, 10_000_000):
            yield records
