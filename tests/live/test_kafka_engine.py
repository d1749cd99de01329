"""The engine on a real Kafka broker: exactly once whatever happens to its processes, and what it says when it can't."""

import asyncio
import random
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic  # type: ignore[attr-defined]

from app.engine.errors import LogFailed
from app.engine.kafka.cluster import Cluster
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.kafka.read_ahead import AHEAD_BYTES, FIRST, TAKEN
from app.engine.kafka.sole import SoleLog
from app.engine.records import Send, TopicPartition
from app.settings import Settings
from tests.live.counting import (
    CountingProcess,
    Load,
    differences,
    newest,
    pauses,
    read,
    settled,
    stored,
)
from tests.live.counting_app import COUNTS, PARTITIONS
from tests.live.kafka_broker import KafkaBroker
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

CHANGELOG = COUNTS.changelog
Make = Callable[..., CountingProcess]


@pytest.fixture
def prefix() -> str:
    """Before the names of this test's topics and groups."""
    return f"test-{uuid.uuid4().hex[:8]}."


@pytest_asyncio.fixture
async def worker(kafka_broker: KafkaBroker, prefix: str, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes and starts workers by name."""
    made: list[CountingProcess] = []

    def make(name: str, *options: str) -> CountingProcess:
        made.append(CountingProcess(kafka_broker.servers, prefix, tmp_path, name, *options))
        return made[-1].start()

    yield make
    for process in made:
        process.close()


@pytest.fixture
def load(kafka_broker: KafkaBroker, prefix: str) -> Load:
    return Load(kafka_broker.servers, prefix, rate=2_000)


async def owns(worker: CountingProcess, partitions: int, within: float = 20) -> float:
    """Seconds until the worker has so many partitions, up to date."""
    began = time.monotonic()

    def there() -> bool:
        assert worker.running, worker.output()
        return bool(worker.said("owned")) and len(worker.said("owned")[-1]["partitions"]) == partitions

    await wait_until(there, within=within, every=0.05, what=f"{worker.name} has not {partitions} partitions")
    return time.monotonic() - began


def identity(broker: KafkaBroker, prefix: str) -> str:
    return Cluster(KafkaOptions(broker.servers, "test", prefix)).topic_ids([CHANGELOG])[CHANGELOG]


# ---- killed -----------------------------------------------------------------------------------------------


async def test_a_worker_killed_again_and_again_counts_each_number_once(
    kafka_broker: KafkaBroker, prefix: str, worker: Make, load: Load
) -> None:
    process = worker("one")
    await owns(process, PARTITIONS)
    async with load:
        for wiped in (False, True):
            await asyncio.sleep(random.uniform(0.3, 0.8))
            process.kill()
            if wiped:
                shutil.rmtree(process.tables)
            process.start()
            await owns(process, PARTITIONS)
    rows = await settled(load, process)
    process.stop()
    assert list(differences(kafka_broker.servers, prefix, load, rows)) == []
    assert stored(process.tables, identity(kafka_broker, prefix)) == rows


async def test_a_killed_worker_is_replaced_within_ten_seconds(
    kafka_broker: KafkaBroker, prefix: str, worker: Make, load: Load
) -> None:
    stays, dies = worker("stays"), worker("dies")
    async with load:
        await owns(stays, PARTITIONS // 2)
        await owns(dies, PARTITIONS // 2)
        await asyncio.sleep(1)
        dies.kill()
        killed = time.time()
        seconds = await owns(stays, PARTITIONS)
        await asyncio.sleep(1)
    rows = await settled(load, stays)
    stopped = pauses([stays, dies], killed - 1, killed + seconds)
    print(f"taken over after {seconds:.1f} s; seconds that each partition stood still: {stopped}")
    assert seconds < 10
    assert sorted(stopped.values())[PARTITIONS // 2 - 1] < 1.5, "partitions that stayed stood still"
    assert list(differences(kafka_broker.servers, prefix, load, rows)) == []


@pytest.mark.timeout(300)
async def test_a_broker_killed_and_started_again_under_load_costs_nothing(tmp_path: Path, prefix: str) -> None:
    """The worker waits for it, whatever becomes of its transactions."""
    broker = KafkaBroker(tmp_path / "kafka")
    process = CountingProcess(broker.servers, prefix, tmp_path, "one").start()
    try:
        await owns(process, PARTITIONS)
        load = Load(broker.servers, prefix, rate=2_000)
        async with load:
            for _ in range(2):
                await asyncio.sleep(random.uniform(0.5, 1.5))
                broker.kill()
                await asyncio.sleep(1)
                await asyncio.to_thread(broker.start)
                await asyncio.sleep(3)
        rows = await settled(load, process, within=60)
        assert list(differences(broker.servers, prefix, load, rows)) == []
    finally:
        process.close()
        broker.stop()


# ---- come and go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standby", ["", "yes"], ids=["alone", "standing by"])
async def test_workers_that_come_and_go_under_load_lose_and_repeat_nothing(
    kafka_broker: KafkaBroker, prefix: str, worker: Make, load: Load, monkeypatch: pytest.MonkeyPatch, standby: str
) -> None:
    monkeypatch.setenv("STANDBY", standby)
    first = worker("first")
    await owns(first, PARTITIONS)
    async with load:
        await asyncio.sleep(0.5)
        began = time.time()
        second = worker("second")
        await owns(second, 2)
        await asyncio.sleep(1)
        second.stop()
        await owns(first, PARTITIONS)
        await asyncio.sleep(0.5)
        stopped = pauses([first, second], began, time.time())
    rows = await settled(load, first)
    print(f"seconds that each partition stood still at most: {stopped}")
    assert max(stopped.values()) < 3
    assert list(differences(kafka_broker.servers, prefix, load, rows)) == []


async def test_a_worker_that_was_stopped_and_goes_on_changes_nothing(
    kafka_broker: KafkaBroker, prefix: str, worker: Make, load: Load
) -> None:
    zombie, other = worker("zombie"), worker("other")
    await owns(zombie, 2)
    await owns(other, 2)
    async with load:
        await asyncio.sleep(1)
        zombie.send(signal.SIGSTOP)
        await owns(other, PARTITIONS)
        await asyncio.sleep(6)
        zombie.send(signal.SIGCONT)

        def rejoined_or_ended() -> bool:
            return not zombie.running or len(zombie.said("owned")[-1]["partitions"]) == 2

        await asyncio.sleep(3)
        await wait_until(rejoined_or_ended, within=30)
    print(f"the zombie {'goes on' if zombie.running else 'has ended'}: {zombie.output()[-600:]}")
    rows = await settled(load, other, *([zombie] if zombie.running else []))
    assert "Traceback" not in zombie.output()
    assert list(differences(kafka_broker.servers, prefix, load, rows)) == []


# ---- transactions -----------------------------------------------------------------------------------------


async def test_a_transaction_that_lasts_too_long_is_rolled_back_and_done_again(
    kafka_broker: KafkaBroker, prefix: str, worker: Make, load: Load
) -> None:
    """The broker gives it up after a second; the rule takes four for one record."""
    slow = worker("slow", "0.5", "1", "4")
    await owns(slow, PARTITIONS)
    load.say(8_000)  # enough for a transaction to be under way
    load._producer.produce(f"{prefix}numbers", "pause", "key-slow")
    async with load:
        await asyncio.sleep(6)
    rows = await settled(load, slow, more=1)
    assert "taken again" in slow.output()
    assert {key: row for key, row in rows.items() if key != "key-slow"} == load.model
    assert rows == newest(kafka_broker.servers, prefix)


async def test_a_message_as_large_as_nats_lets_through_is_kept(kafka_broker: KafkaBroker, prefix: str) -> None:
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", prefix), "test")
    await log.connect()
    await log.prepare({"orders": False}, 1)
    large = random.randbytes(1_048_576)
    await log.commit([Send("orders", b"order-1", large)])
    batches = await asyncio.to_thread(list, log.replay("orders", 0, 0))
    assert [record.value for batch in batches for record in batch] == [large]
    await log.disconnect()


# ---- the bridge's log -------------------------------------------------------------------------------------


async def test_a_flood_in_one_partition_hides_nothing_of_the_others_from_the_bridge(
    kafka_broker: KafkaBroker, prefix: str
) -> None:
    """What a former bridge may have published has to be known before anything is said."""
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", prefix), "bridging")
    await log.connect()
    await log.prepare({"outbound": False}, PARTITIONS)
    flood = 2 * AHEAD_BYTES // 1_500
    sends = [Send("outbound", None, b"%0500d" % number, (), None, 0) for number in range(flood)]
    await log.commit([*sends, *(Send("outbound", None, b"one", (), None, partition) for partition in (1, 2, 3))])
    sole = SoleLog(log, "bridging.bridge", "outbound", "bridging.out")
    await sole.open()
    try:
        assert [len(sole.read("outbound", partition, 0, 10)) for partition in range(PARTITIONS)] == [10, 1, 1, 1]
        offset = 0
        while offset < flood:  # the flood comes to its end, too
            records = await wait_until(lambda: sole.read("outbound", 0, offset, 5_000), within=10)  # noqa: B023
            assert [int(record.value or b"") for record in records] == list(range(offset, offset + len(records)))
            offset += len(records)
            await sole.commit([], offsets={TopicPartition("outbound", 0): offset})
        assert sole.committed("", "outbound", 0) == flood
    finally:
        await sole.close()
        await log.disconnect()


async def test_large_records_are_read_ahead_only_as_far_as_memory_is_meant_for_them(
    kafka_broker: KafkaBroker, prefix: str
) -> None:
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", prefix), "bridging")
    await log.connect()
    await log.prepare({"outbound": False}, PARTITIONS)
    large = 1_000_000  # and small on its way: it is sent compressed
    for number in range(60):
        value = b"%04d" % number + bytes(large - 4)
        await log.commit([Send("outbound", None, value, (), None, 0)])
    sole = SoleLog(log, "bridging.bridge", "outbound", "bridging.out")
    await sole.open()
    try:
        offset, most = 0, 0
        for number in range(60):
            records = await wait_until(lambda: sole.read("outbound", 0, offset, 60), within=10)  # noqa: B023
            most = max(most, sum(len(record.value or b"") for record in records))
            assert int((records[0].value or b"")[:4]) == number
            offset = records[0].offset + 1
            await sole.commit([], offsets={TopicPartition("outbound", 0): offset})
        assert most <= FIRST * AHEAD_BYTES / PARTITIONS + (TAKEN + 1) * large
    finally:
        await sole.close()
        await log.disconnect()


async def test_the_bridge_goes_on_where_it_was_also_when_kafka_has_forgotten_it(
    kafka_broker: KafkaBroker, prefix: str
) -> None:
    """As after a week without a commit, by the brokers' default."""
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", prefix), "bridging")
    await log.connect()
    await log.prepare({"outbound": False}, PARTITIONS)
    await log.commit([Send("outbound", None, b"one", (), None, 0)] * 5)
    admin, offsets = AdminClient({"bootstrap.servers": kafka_broker.servers}), []
    for _ in range(2):
        sole = SoleLog(log, "bridging.bridge", "outbound", "bridging.out")
        await sole.open()
        offsets.append(sole.committed("", "outbound", 0))
        await sole.commit([], offsets={TopicPartition("outbound", 0): 3})
        await sole.close()
        for forgotten in admin.delete_consumer_groups([f"{prefix}bridging.out"]).values():
            await asyncio.to_thread(forgotten.result, 10)
    await log.disconnect()
    assert offsets == [0, 3]
    notes = f"{prefix}notes"
    assert log.cluster._configs([notes])[notes]["segment.bytes"] == str(8 * 1024 * 1024)


# ---- topics -----------------------------------------------------------------------------------------------


async def test_a_changelog_that_was_cut_or_made_anew_is_what_the_table_becomes(
    kafka_broker: KafkaBroker, prefix: str, worker: Make, load: Load
) -> None:
    process = worker("one")
    await owns(process, PARTITIONS)
    load.say(4_000)
    rows = await settled(load, process)
    process.stop()
    admin = AdminClient({"bootstrap.servers": kafka_broker.servers})
    topic = f"{prefix}counts-changelog"
    ends = [part[-1].offset() or 0 for part in read(kafka_broker.servers, topic)]

    deletable = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[deletable])
    admin.incremental_alter_configs([resource])[resource].result(10)

    # Cut: the store is at the end and keeps what it has.
    places = [Place(topic, partition, end) for partition, end in enumerate(ends)]
    for future in admin.delete_records(places).values():
        future.result(10)
    process.start()
    await owns(process, PARTITIONS)
    assert (await process.table())["rows"] == rows
    process.stop()

    # Cut, and the store is gone: what is left is what there is, and no hang.
    shutil.rmtree(process.tables)
    process.start()
    await owns(process, PARTITIONS)
    left = newest(kafka_broker.servers, prefix)
    assert (await process.table())["rows"] == left
    assert 0 < len(left) < len(rows)
    process.stop()

    # Made anew: the store is ahead of it.
    admin.delete_topics([topic])[topic].result(10)
    await wait_until(lambda: topic not in admin.list_topics(timeout=5).topics)
    process.start()
    await owns(process, PARTITIONS)
    assert (await process.table())["rows"] == {}
    await wait_until(lambda: process.output(50_000).count("store rebuilt") >= PARTITIONS, within=10)


async def test_a_topic_with_other_partitions_is_named(kafka_broker: KafkaBroker, prefix: str, worker: Make) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_broker.servers})
    for future in admin.create_topics([NewTopic(f"{prefix}numbers", PARTITIONS + 1, 1)]).values():
        future.result(10)
    process = worker("one")
    assert process.wait() == 1
    [failed] = process.said("failed")
    assert failed["cause"].startswith("TopicMismatch: topic 'numbers' has 5 partitions")


async def test_no_broker_is_one_clear_line(prefix: str, tmp_path: Path) -> None:
    process = CountingProcess("127.0.0.1:1", prefix, tmp_path, "one").start()
    assert await asyncio.to_thread(process.wait) == 1
    [failed] = process.said("failed")
    assert failed["cause"].startswith("LogAway: no Kafka at 127.0.0.1:1")
    assert process.output().splitlines()[:-1] == []


async def test_a_log_that_does_not_answer_says_so_each_time(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.kafka.log.REQUEST", 0.3)
    monkeypatch.setattr("app.engine.kafka.transactions.OPEN", 0.3)
    log = KafkaLog(KafkaOptions("127.0.0.1:1", "one", prefix), "test")
    for _ in range(2):
        with pytest.raises(LogFailed, match=r"no transactions for test\.one"):
            await log.commit([Send("orders", b"order-1", b"{}")])
    with pytest.raises(LogFailed, match="rows-0 can't be read"):
        await asyncio.to_thread(log.span, "rows", 0)
    await log.disconnect()


PASSWORDS = """
listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  username="a4co" password="picual" user_a4co="picual";
"""


async def test_a_broker_with_passwords_lets_in_who_has_one_and_tells_who_has_not(tmp_path: Path, prefix: str) -> None:
    broker = KafkaBroker(tmp_path / "kafka", PASSWORDS)
    (tmp_path / "password").write_text("picual\n")

    def log_with(**password: Any) -> KafkaLog:
        settings = Settings(
            kafka_url=broker.url,
            topic_prefix=prefix,
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_mechanism="PLAIN",
            kafka_sasl_username="a4co",
            **password,
        )
        assert settings.kafka is not None
        return KafkaLog(settings.kafka, "secured")

    try:
        log = log_with(kafka_sasl_password_file=tmp_path / "password")
        await log.connect()
        await log.prepare({"numbers": False}, 1)
        await log.commit([Send("numbers", b"key", b"1")])
        assert log.span("numbers", 0)[1] > 0
        await log.disconnect()

        refused = log_with(kafka_sasl_password="hojiblanca")
        with pytest.raises(LogFailed, match="Invalid username or password"):
            await refused.connect()
        await refused.disconnect()
    finally:
        broker.stop()
