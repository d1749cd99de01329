"""What the engine does on Kafka when calls fail or have no answer: nothing is passed over, nobody waits for ever."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from confluent_kafka import KafkaError, KafkaException

from app.engine.engine import Application, Engine
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.kafka.reader import KafkaReader
from app.engine.lanes import Effect, Topic
from app.engine.records import Record, Send, TopicPartition
from tests.live.kafka_broker import KafkaBroker
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def prefix() -> str:
    """Before the names of this test's topics and groups."""
    return f"test-{uuid.uuid4().hex[:8]}."


@pytest_asyncio.fixture
async def log(kafka_broker: KafkaBroker, prefix: str) -> AsyncIterator[KafkaLog]:
    """A log with the topic `numbers` of one partition."""
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", prefix), "failing")
    await log.connect()
    await log.prepare({"numbers": False}, 1)
    yield log
    await log.disconnect()


async def say(log: KafkaLog, *numbers: int) -> None:
    await log.commit([Send("numbers", b"key", b"%d" % number, (), None, 0) for number in numbers])


class Owner:
    """Takes what comes, and tells of what goes."""

    breaks_off = True

    def __init__(self, log: KafkaLog, group: str = "failing.count") -> None:
        self.has: set[int] = set()
        self.lost: list[bool] = []
        self.reader: KafkaReader = log.reader(group, ["numbers"], durable=False)

    async def given(self, partitions: Collection[int]) -> None:
        self.has |= set(partitions)

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        self.has -= set(partitions)
        self.lost.append(lost)

    async def take(self, count: int, within: float = 20) -> list[int]:
        """So many numbers."""
        records: list[Record] = []
        async with asyncio.timeout(within):
            while len(records) < count:
                records += await self.reader.take(100, 0.1)
        return [int(record.value or b"") for record in records]


class Broken:
    """A consumer of which some calls fail: `fails` says how often, by name."""

    def __init__(self, consumer: Any, **fails: int) -> None:
        self._consumer = consumer
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        if self.fails.get(name, 0) > 0:
            self.fails[name] -= 1
            raise KafkaException(KafkaError(KafkaError._STATE))
        return getattr(self._consumer, name)


async def test_a_reader_that_cannot_go_back_takes_nothing_until_it_can(log: KafkaLog) -> None:
    owner = Owner(log)
    reader = owner.reader
    await say(log, *range(10))
    await reader.start(owner)
    try:
        assert await owner.take(10) == list(range(10))
        await reader.commit({TopicPartition("numbers", 0): 5})
        reader._consumer = broken = Broken(reader._consumer, seek=3)  # type: ignore[assignment]
        await reader.rollback()
        await say(log, *range(10, 15))
        assert await owner.take(10) == list(range(5, 15))
        assert not broken.fails["seek"]
    finally:
        await reader.stop()


async def test_an_engine_that_is_stopped_while_kafka_is_silent_stops_all_lanes_at_once(
    kafka_broker: KafkaBroker, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.kafka.cluster.TRANSACTION_TIMEOUT", 3.0)
    monkeypatch.setattr("app.engine.kafka.transactions.COMMIT", 3.0)
    heard: list[Record] = []

    async def hear(records: list[Any]) -> list[Send]:
        heard.extend(records)
        return []

    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", prefix), "stopping")
    numbers = Topic("numbers")
    lanes = tuple(Effect(f"hear-{lane}", numbers, hear) for lane in range(5))
    engine = Engine(Application(name="stopping", topics=(numbers,), effects=lanes, partitions=1), log, tmp_path)
    await log.connect()
    await engine.open()
    await engine.start()
    await say(log, 1)
    await wait_until(lambda: len(heard) == len(lanes) and engine.idle(), within=30)
    with kafka_broker.silent():
        began = time.monotonic()
        await engine.stop()
        assert time.monotonic() - began < 15, "they wait one after the other"
    await log.disconnect()
