"""Who looks on at topics on Kafka: begins before what is not committed yet, and stands behind what is no record."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.engine.errors import LogFailed
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.onlooker import KafkaOnlooker
from app.engine.kafka.options import KafkaOptions
from app.engine.kafka.transactions import Transactions
from app.engine.records import Record, Send, TopicPartition
from tests.live.kafka_broker import KafkaBroker
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

PLACE = TopicPartition("rows", 0)


@pytest_asyncio.fixture
async def log(kafka_broker: KafkaBroker) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", f"look-{uuid.uuid4().hex[:8]}."), "test")
    await log.connect()
    await log.prepare({"rows": True}, 1)
    yield log
    await log.disconnect()


def row(value: str) -> Send:
    return Send("rows", b"key", value.encode(), partition=0)


async def all_of(onlooker: KafkaOnlooker, number: int) -> list[bytes | None]:
    found: list[Record] = []
    deadline = time.monotonic() + 10
    while len(found) < number and time.monotonic() < deadline:
        found += await onlooker.take(10, 0.2)
    return [record.value for record in found]


async def test_what_is_under_way_when_one_begins_is_seen_once_it_is_committed(log: KafkaLog) -> None:
    await log.commit([row("before")])
    writer = Transactions(log.cluster, "another")
    await asyncio.to_thread(writer.open)
    writer.stage([row("under way")])
    await wait_until(lambda: asyncio.to_thread(lambda: log.span("rows", 0)[1] >= 3), what="it has not arrived")
    onlooker = log.onlooker("rows")
    begin, end = (await onlooker.spans())[PLACE]
    assert (begin, end) == (0, 2)  # the record and its transaction's mark; what is under way is behind it
    await onlooker.begin({PLACE: end})
    assert await onlooker.take(10, 0.5) == []
    await asyncio.to_thread(writer.commit)
    assert await all_of(onlooker, 1) == [b"under way"]
    await wait_until(lambda: _stands(onlooker, 4))  # behind the mark
    await onlooker.close()


async def test_what_was_given_up_is_passed_over(log: KafkaLog) -> None:
    writer = Transactions(log.cluster, "another")
    await asyncio.to_thread(writer.open)
    writer.stage([row("given up")])
    await wait_until(lambda: asyncio.to_thread(lambda: log.span("rows", 0)[1] >= 1))
    await asyncio.to_thread(writer.abort)
    onlooker = log.onlooker("rows")
    await onlooker.begin({PLACE: 0})
    await wait_until(lambda: _stands(onlooker, 2))
    await log.commit([row("then")])
    assert await all_of(onlooker, 1) == [b"then"]
    await onlooker.close()


async def test_a_place_that_is_not_there_is_told_and_so_is_a_topic(log: KafkaLog) -> None:
    onlooker = log.onlooker("rows")
    await onlooker.begin({PLACE: 99})
    with pytest.raises(LogFailed, match="can't be looked at"):
        await all_of(onlooker, 1)
    await onlooker.close()
    nowhere = log.onlooker("nowhere")
    with pytest.raises(LogFailed, match="nowhere"):
        await nowhere.spans()
    await nowhere.close()


async def _stands(onlooker: KafkaOnlooker, offset: int) -> bool:
    await onlooker.take(10, 0.1)
    return onlooker.positions[PLACE] == offset
