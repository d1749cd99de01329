"""The log's side of a run, on Kafka and embedded: topics that are filled beforehand, or read afterwards."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import LogFailed
from app.engine.records import Headers, Send
from bench.bridge.judge import Judge
from bench.bridge.messages import IN, Spoken, number_in
from bench.programs import STUCK, Wrong

PARTITIONS = 4
OUTBOUND = "outbound"
MIRRORED = tuple(dict.fromkeys(topic for _, topic in IN))
LETTERS = "dead-letters"
ALL = (*MIRRORED, "users", OUTBOUND, LETTERS)
REQUEST = 20.0
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def headers(message: Spoken) -> Headers:
    """What an outbound record says of its message."""
    return (
        ("a4co-subject", message.subject.encode()),
        ("Nats-Msg-Id", message.event_id.encode()),
        ("a4co-dialect", b"a"),
    )


class Topics(Protocol):
    """The topics of the run `name`. `url` is where a program finds them."""

    def url(self, name: str) -> str: ...
    def make(self, name: str) -> None: ...
    def fill(self, name: str, messages: Iterable[Spoken]) -> None: ...
    async def mirrored(self, name: str) -> int: ...
    async def read(self, name: str, judge: Judge) -> None: ...


class KafkaTopics:
    """On a broker; the run's name and a dot stand before a topic's name. Records have the time of their append."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._client: dict[str, str | int | float | bool] = {"bootstrap.servers": servers, "log_level": 0}
        self._admin = AdminClient(self._client)

    def url(self, name: str) -> str:
        """As programs are told."""
        del name
        return f"kafka://{self._servers}"

    def make(self, name: str) -> None:
        """Empty topics."""
        config = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete", "retention.ms": "-1"}
        new = [NewTopic(f"{name}.{topic}", PARTITIONS, 1, config=config) for topic in ALL]
        for future in self._admin.create_topics(new, operation_timeout=REQUEST).values():
            future.result(REQUEST)
        deadline = time.monotonic() + REQUEST
        while not self._led(name) and time.monotonic() < deadline:
            time.sleep(0.1)  # nats-kafka drops what it writes before

    def _led(self, name: str) -> bool:
        """Whether every partition has a leader that answers."""
        asked = self._admin.list_offsets(dict.fromkeys(_places(name), LATEST), request_timeout=REQUEST)
        return all(future.exception(REQUEST) is None for future in asked.values())

    def fill(self, name: str, messages: Iterable[Spoken]) -> None:
        """What is to go out, placed as the engine places it."""
        settings = {"partitioner": "murmur2_random", "linger.ms": 20, "enable.idempotence": True}
        producer = Producer(self._client | settings)
        for message in messages:
            while True:
                try:
                    producer.produce(f"{name}.{OUTBOUND}", message.payload, message.key, headers=list(headers(message)))
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
        if producer.flush(60):
            raise Wrong("outbound could not be filled")

    async def mirrored(self, name: str) -> int:
        """How many may be committed (marks of transactions are counted, too); 0 where the broker is too busy."""
        places = dict.fromkeys(_places(name), LATEST)
        asked = self._admin.list_offsets(places, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST)
        try:
            return sum(future.result(REQUEST).offset for future in asked.values())
        except KafkaException:
            return 0

    async def read(self, name: str, judge: Judge) -> None:
        """Tell the judge of what is committed, until that is all, or nothing came for a while."""
        settings = {
            "group.id": "judge", "isolation.level": "read_committed", "enable.partition.eof": True,
            "enable.auto.commit": False,
        }  # fmt: skip
        consumer = Consumer(self._client | settings)
        places = _places(name)
        consumer.assign([Place(place.topic, place.partition, 0) for place in places])
        ended: set[tuple[str, int]] = set()
        since = time.monotonic()
        while not (len(ended) == len(places) and judge.complete) and time.monotonic() < since + STUCK / 6:
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    judge.hear(number_in(message.value() or b""), message.timestamp()[1] / 1000)
                    since = time.monotonic()
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
                    ended.add((message.topic() or "", message.partition() or 0))
                else:
                    raise Wrong(error.str())
        consumer.close()


def _places(name: str) -> list[Place]:
    return [Place(f"{name}.{topic}", partition) for topic in MIRRORED for partition in range(PARTITIONS)]


class EmbeddedTopics:
    """Each run has a log of its own below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str) -> Path:
        return self._folder / name / "log.db"

    def url(self, name: str) -> str:
        """As programs are told."""
        return f"embedded://{self._path(name)}"

    def make(self, name: str) -> None:
        """A new log with empty topics."""
        self._open(name).close()

    def _open(self, name: str) -> EmbeddedLog:
        log = EmbeddedLog(self._path(name))
        log.open()
        for topic in ALL:
            log.declare(topic, PARTITIONS)
        return log

    def fill(self, name: str, messages: Iterable[Spoken]) -> None:
        """What is to go out."""
        log = self._open(name)
        for some in _by_thousands(messages):
            log.append([Send(OUTBOUND, said.key.encode(), said.payload, headers(said)) for said in some])
        log.close()

    async def mirrored(self, name: str) -> int:
        """How many are there."""
        log = await self._look(name)
        there = sum(log.end(topic, partition) for topic in MIRRORED for partition in range(PARTITIONS)) if log else 0
        if log:
            log.close()
        return there

    async def _look(self, name: str) -> EmbeddedLog | None:
        log = EmbeddedLog(self._path(name))
        try:
            await log.look()
        except LogFailed:  # it has only just been made
            return None
        return log

    async def read(self, name: str, judge: Judge) -> None:
        """Tell the judge of everything."""
        log = await self._look(name)
        if log is None:
            raise Wrong("there is no log")
        for topic in MIRRORED:
            for partition in range(PARTITIONS):
                for records in log.replay(topic, partition, 0):
                    for record in records:
                        judge.hear(number_in(record.value or b""), record.timestamp)
        log.close()


def _by_thousands(messages: Iterable[Spoken]) -> Iterator[list[Spoken]]:
    some: list[Spoken] = []
    for message in messages:
        some.append(message)
        if len(some) == 1_000:
            yield some
            some = []
    yield some
