"""Faust transports over the engine's logs: `embedded:///path/log.db` here, Kafka's beside it.

A transport opens the log of the App's broker URL, and knows its topics. It decides nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from faust.transport import base

from app.engine.faust.consumer import Consumer
from app.engine.faust.producer import Producer
from app.engine.log import Log
from app.engine.open_logs import log_at
from app.engine.reader import Reader


class LogTransport(base.Transport):
    """What consumer and producer need of a log."""

    Consumer = Consumer
    Producer = Producer
    driver_version = "a4co"
    default_port = 0

    @property
    def log(self) -> Log:
        """The log."""
        raise NotImplementedError

    async def connect(self) -> None:
        """Reach the log. Raises LogFailed when it isn't there."""
        await self.log.connect()

    async def disconnect(self) -> None:
        """Let go of the log."""

    def reader(self, group: str, topics: Sequence[str]) -> Reader:
        """A reader of the topics. Raises TopicMismatch when they can't be read together."""
        return self.log.reader(group, topics, durable=False)

    def topics(self) -> Mapping[str, int]:
        """Every topic and its number of partitions."""
        raise NotImplementedError

    def partitions(self, topic: str) -> int:
        """The number of partitions. A topic that nobody declared is made, as Kafka does at the first use."""
        raise NotImplementedError

    async def ensure(self, topic: str) -> None:
        """Make the topic if it isn't there."""
        self.partitions(topic)

    async def declare(self, topic: str, partitions: int, replication: int, settings: Mapping[str, Any]) -> None:
        """Make the topic, with Kafka's settings, if it isn't there."""
        raise NotImplementedError


class EmbeddedTransport(LogTransport):
    """`broker="embedded:///path/to/log.db"` in a Faust App."""

    @property
    def log(self) -> Any:
        """The log of the App's broker URL, opened at first use; it is one for the whole process."""
        return log_at(self.url[0])

    def topics(self) -> Mapping[str, int]:
        """Every topic and its number of partitions."""
        known: Mapping[str, int] = self.log.topics()
        return known

    def partitions(self, topic: str) -> int:
        """The number of partitions; a topic that nobody declared is made."""
        if topic not in self.log.topics():
            self.log.declare(topic, self.app.conf.topic_partitions)
        return int(self.log.partitions(topic))

    async def declare(self, topic: str, partitions: int, replication: int, settings: Mapping[str, Any]) -> None:
        """There is one copy, and all is kept. A topic that is there stays as it is, as on Kafka."""
        del replication
        if topic not in self.log.topics():
            self.log.declare(topic, partitions, "compact" in settings.get("cleanup.policy", ""))
