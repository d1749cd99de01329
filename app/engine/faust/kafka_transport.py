"""The Faust transport `a4co-kafka://host:9092`: any Faust app on Kafka, exactly once, over the engine's reader.

It decides how Faust's settings become those of a cluster, and makes topics as Faust asks for them.
"""

import asyncio
import os
import socket
import threading
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from faust.auth import SASLCredentials
from faust.types import AppT

from app.engine.errors import EngineError, LogFailed, TopicMismatch
from app.engine.faust.transport import LogTransport
from app.engine.kafka.cluster import REQUEST, why
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.reader import Reader


def options_of(app: AppT) -> KafkaOptions:
    """The cluster of an App: brokers from its URL, `prefix` and librdkafka's settings from the URL's query.

    Raises:
        EngineError: the App's credentials can't be given to librdkafka.
    """
    urls = app.conf.broker_consumer
    client = {name: value for url in urls for name, value in url.query.items()}
    credentials = app.conf.broker_credentials
    if isinstance(credentials, SASLCredentials):
        client = {
            "security.protocol": credentials.protocol.value,
            "sasl.mechanism": credentials.mechanism.value,
            "sasl.username": credentials.username or "",
            "sasl.password": credentials.password or "",
            **client,
        }
    elif credentials is not None and "security.protocol" not in client:
        raise EngineError(
            f"{type(credentials).__name__} can't be given to librdkafka: write its settings into the broker's URL, "
            "as in ?security.protocol=SSL&ssl.ca.location=/path/ca.pem"
        )
    return KafkaOptions(
        servers=",".join(f"{url.host}:{url.port or 9092}" for url in urls),
        prefix=client.pop("prefix", ""),
        worker=f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}",
        client=client,
        group_protocol=client.pop("group.protocol", "consumer"),
    )


class KafkaTransport(LogTransport):
    """`broker="a4co-kafka://host:9092"` in a Faust App."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._known: dict[str, int] = {}
        self._asking = threading.Lock()

    @cached_property
    def log(self) -> KafkaLog:
        """The cluster, as the App's log."""
        return KafkaLog(options_of(self.app), self.app.conf.id)

    async def disconnect(self) -> None:
        """Let go of the cluster."""
        await self.log.disconnect()

    def reader(self, group: str, topics: Sequence[str]) -> Reader:
        """A member of the group named as the App. Raises TopicMismatch when the topics' partitions are not as many."""
        counts = {topic: self.partitions(topic) for topic in topics}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
            raise TopicMismatch(f"the topics that one App reads need the same number of partitions: {said}")
        return super().reader(group, topics)

    # ---- topics ----------------------------------------------------------------------------------------

    def topics(self) -> Mapping[str, int]:
        """Every topic that was asked for, and its number of partitions."""
        return self._known

    def partitions(self, topic: str) -> int:
        """The number of partitions; a topic that nobody declared is made. Asks the cluster at the first time only."""
        known = self._known.get(topic)
        return self._make(topic, self.app.conf.topic_partitions, {}) if known is None else known

    async def ensure(self, topic: str) -> None:
        """Make the topic if it isn't there."""
        if topic not in self._known:
            await asyncio.to_thread(self.partitions, topic)

    async def declare(self, topic: str, partitions: int, replication: int, settings: Mapping[str, Any]) -> None:
        """Make the topic if it isn't there; one that is there stays as it is.

        Raises:
            TopicMismatch: a table's changelog is there and would lose rows.
        """
        if topic not in self._known:
            await asyncio.to_thread(self._make, topic, partitions, settings, replication)

    def _make(self, topic: str, partitions: int, settings: Mapping[str, Any], replication: int | None = None) -> int:
        cluster = self.log.cluster
        with self._asking:
            try:
                there = cluster.partitions()
                if topic not in there:
                    self._create(topic, partitions, settings, replication)
                    there = cluster.known([topic])
                elif "compact" in settings.get("cleanup.policy", ""):
                    cluster.check_policies({topic: True})
            except KafkaException as error:
                raise LogFailed(f"Kafka: topic {topic!r} can't be made: {why(error).str()}") from error
            self._known[topic] = there[topic]
            return there[topic]

    def _create(self, topic: str, partitions: int, settings: Mapping[str, Any], replication: int | None) -> None:
        if not self.app.conf.topic_allow_declare:
            raise TopicMismatch(f"topic {topic!r} is not there, and topic_allow_declare is off: make it")
        cluster = self.log.cluster
        copies = replication or self.app.conf.topic_replication_factor
        config = {name: str(value) for name, value in settings.items()}
        new = NewTopic(cluster.outer(topic), partitions, copies, config=config)
        try:
            cluster.admin.create_topics([new], operation_timeout=REQUEST)[new.topic].result(REQUEST)
        except KafkaException as error:
            if why(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another worker made it meanwhile
                raise
