"""A table is brought back from a changelog on Kafka, whatever has become of the changelog or of the store."""

import asyncio
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from app.engine.declarations import TableSpec
from app.engine.errors import EngineError
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.standby import Standby
from app.engine.store import Store
from app.engine.tables import Table
from tests.live.kafka_broker import KafkaBroker
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

PARTITIONS = 3
NOBODYS = 2
"""The partition that never gets a record."""


class Jar(msgspec.Struct, frozen=True):
    """A jar of olives."""

    olives: int


JARS: TableSpec[Jar] = TableSpec("jars", Jar, sums=lambda jar: {"olives": jar.olives})


class Pantry:
    """A table over a log of its own on the broker."""

    def __init__(self, broker: KafkaBroker, folder: Path) -> None:
        self.prefix = f"test-{uuid.uuid4().hex[:8]}."
        self.topic = self.prefix + JARS.changelog
        self.folder = folder
        self.servers = broker.servers
        self.admin = AdminClient({"bootstrap.servers": broker.servers})
        self._producer = Producer({"bootstrap.servers": broker.servers})
        self._options = KafkaOptions(broker.servers, "test", self.prefix)
        self.log = KafkaLog(self._options, "test")
        self.table = Table(JARS, self.log, self.folder, PARTITIONS)

    async def restart(self, meanwhile: Callable[[], object] = lambda: None) -> "Pantry":
        """The process ends, something happens, and another process starts."""
        self.table.close()
        await self.log.disconnect()
        meanwhile()
        self.log = KafkaLog(self._options, "test")
        await self.log.connect()
        await self.log.prepare({JARS.changelog: True}, PARTITIONS)
        self.table = Table(JARS, self.log, self.folder, PARTITIONS)
        await self.table.open(range(PARTITIONS))
        return self

    def put(self, partition: int, **jars: int | None) -> None:
        """Changelog records."""
        for key, olives in jars.items():
            value = None if olives is None else msgspec.json.encode(Jar(olives))
            self._producer.produce(self.topic, value, key, partition)
        self._producer.flush(10)

    def cut(self, partition: int, before: int) -> None:
        """The broker drops the records before this offset, as soon as it knows that the topic may be cut."""
        place, deadline = Place(self.topic, partition, before), time.monotonic() + 10
        while True:
            try:
                self.admin.delete_records([place])[place].result(10)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.POLICY_VIOLATION or time.monotonic() > deadline:
                    raise
            else:
                return

    def store(self, partition: int) -> Path:
        return self.folder / "jars" / str(partition)

    def rows(self) -> Mapping[str, int]:
        rows = {key: jar.olives for key, jar in self.table.items()}
        assert self.table.count() == len(rows)
        assert self.table.sums().get("olives", 0) == sum(rows.values())
        return rows

    def rebuilt(self, partition: int) -> str:
        return self.table.partitions[partition].store.rebuilt_because


@pytest_asyncio.fixture
async def pantry(kafka_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Pantry]:
    pantry = await Pantry(kafka_broker, tmp_path).restart()
    pantry.put(0, picual=10, arbequina=20)
    pantry.put(1, hojiblanca=30)
    await pantry.restart()
    assert pantry.rows() == {"picual": 10, "arbequina": 20, "hojiblanca": 30}
    yield pantry
    pantry.table.close()
    await pantry.log.disconnect()


async def test_a_partition_without_records_is_there_at_once(pantry: Pantry) -> None:
    assert pantry.table.partitions[NOBODYS].count == 0
    await pantry.restart(lambda: shutil.rmtree(pantry.folder))
    assert pantry.rows() == {"picual": 10, "arbequina": 20, "hojiblanca": 30}


async def test_a_store_that_is_behind_goes_on_from_where_it_stands(pantry: Pantry) -> None:
    await pantry.restart(lambda: pantry.put(0, picual=11, arbequina=None))
    assert pantry.rows() == {"picual": 11, "hojiblanca": 30}
    assert pantry.rebuilt(0) == ""


async def test_a_store_before_the_begin_of_its_changelog_is_rebuilt_from_there(pantry: Pantry) -> None:
    def happens() -> None:
        pantry.put(0, cornicabra=1, manzanilla=2, picual=12)
        let_be_cut(pantry)
        pantry.cut(0, before=3)

    await pantry.restart(happens)
    assert pantry.rows() == {"manzanilla": 2, "picual": 12, "hojiblanca": 30}
    assert pantry.rebuilt(0) == "it stands at 2, before the changelog's begin 3"
    await pantry.restart(lambda: shutil.rmtree(pantry.folder))
    assert pantry.rows() == {"manzanilla": 2, "picual": 12, "hojiblanca": 30}


async def test_a_changelog_of_which_nothing_is_left_is_an_empty_table_for_a_store_that_is_lost(pantry: Pantry) -> None:
    def happens() -> None:
        let_be_cut(pantry)
        pantry.cut(0, before=2)
        shutil.rmtree(pantry.folder)

    await pantry.restart(happens)
    assert pantry.rows() == {"hojiblanca": 30}


async def test_a_store_ahead_of_its_changelog_is_rebuilt(pantry: Pantry) -> None:
    def happens() -> None:
        store = Store(pantry.store(0), pantry.log.identity(JARS.changelog))
        store.write([(b"picual", b'{"olives":77}')], 500)
        store.close()

    await pantry.restart(happens)
    assert pantry.rows() == {"picual": 10, "arbequina": 20, "hojiblanca": 30}
    assert pantry.rebuilt(0) == "it stands at 500, ahead of the changelog's end 2"


@pytest.mark.parametrize("file", ["CURRENT", "MANIFEST-*", "*.log"])
async def test_a_store_with_a_file_of_garbage_is_rebuilt(pantry: Pantry, file: str) -> None:
    def happens() -> None:
        for path in pantry.store(0).glob(file):
            path.write_bytes(b"\xde\xad" * 500)

    await pantry.restart(happens)
    assert pantry.rows() == {"picual": 10, "arbequina": 20, "hojiblanca": 30}


async def test_a_changelog_that_was_made_anew_alone_is_noticed_although_it_has_as_many_records(pantry: Pantry) -> None:
    def happens() -> None:
        pantry.admin.delete_topics([pantry.topic])[pantry.topic].result(10)

    async def gone() -> bool:
        return pantry.topic not in pantry.admin.list_topics(timeout=5).topics

    pantry.table.close()
    happens()
    await wait_until(gone, within=10)
    await pantry.log.prepare({JARS.changelog: True}, PARTITIONS)
    pantry.put(0, lechin=1, verdial=2)
    await pantry.restart()
    assert pantry.rows() == {"lechin": 1, "verdial": 2}
    assert pantry.rebuilt(0) == "it belongs to another log, or its changelog was made anew"


def let_be_cut(pantry: Pantry) -> None:
    """A compacted topic refuses it otherwise."""
    deletable = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, pantry.topic, incremental_configs=[deletable])
    pantry.admin.incremental_alter_configs([resource])[resource].result(10)


# ---- standing by ----------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def standby(pantry: Pantry) -> AsyncIterator[Standby]:
    """Stands by for every partition of the pantry's table; nobody owns one."""
    pantry.table.close()
    standby = Standby([pantry.table], pantry.log, lambda: True)
    standby.start()
    yield standby
    await standby.stop()


def followed(pantry: Pantry) -> dict[str, int]:
    """What is in the stores, as seen from outside."""
    rows: dict[str, int] = {}
    for partition in range(PARTITIONS):
        with tempfile.TemporaryDirectory() as temporary:
            try:
                store = Store(pantry.store(partition), pantry.log.identity(JARS.changelog), Path(temporary))
            except EngineError:  # not there yet
                continue
            rows |= {key.decode(): msgspec.json.decode(row, type=Jar).olives for key, row in store.items()}
            store.close()
    return rows


async def test_who_stands_by_writes_what_others_commit(pantry: Pantry, standby: Standby) -> None:
    pantry.put(0, picual=11, arbequina=None)
    pantry.put(NOBODYS, lechin=5)
    await wait_until(lambda: followed(pantry) == {"picual": 11, "hojiblanca": 30, "lechin": 5}, within=10)


async def test_an_owner_gets_the_store_warm_and_those_who_stand_by_have_let_go_of_it(
    pantry: Pantry, standby: Standby
) -> None:
    pantry.put(0, picual=11)
    await wait_until(lambda: followed(pantry)["picual"] == 11, within=10)
    began = time.monotonic()
    await pantry.table.open([0])
    assert time.monotonic() - began < 3
    assert pantry.rows() == {"picual": 11, "arbequina": 20}
    assert pantry.rebuilt(0) == ""
    pantry.put(0, picual=12)
    pantry.put(1, hojiblanca=31)
    await wait_until(lambda: followed(pantry)["hojiblanca"] == 31, within=10)
    assert followed(pantry)["picual"] == 11, "nobody writes an owner's store but the owner"
    pantry.table.close([0])
    await wait_until(lambda: followed(pantry)["picual"] == 12, within=10)


async def test_partitions_that_come_and_go_while_records_come_end_as_the_changelog_says(
    pantry: Pantry, standby: Standby
) -> None:
    chance = random.Random(7)
    model = {"picual": 10, "arbequina": 20, "hojiblanca": 30}
    for step in range(25):
        for _ in range(20):
            partition, number = chance.randrange(PARTITIONS), chance.randrange(40)
            key = f"jar-{partition}-{number}"
            if chance.random() < 0.2:
                pantry.put(partition, **{key: None})
                model.pop(key, None)
            else:
                pantry.put(partition, **{key: step})
                model[key] = step
        owned = [partition for partition in range(PARTITIONS) if chance.random() < 0.5]
        pantry.table.close()
        await pantry.table.open(owned)
        ours = {key: n for key, n in model.items() if place_of(key) in owned}
        assert pantry.rows() == ours
    pantry.table.close()
    await wait_until(lambda: followed(pantry) == model, within=20)
    await standby.stop()
    await pantry.table.open(range(PARTITIONS))
    assert pantry.rows() == model
    assert [pantry.rebuilt(partition) for partition in range(PARTITIONS)] == ["", "", ""]


def place_of(key: str) -> int:
    """The partition that these tests put it into."""
    return int(key.split("-")[1]) if key.startswith("jar-") else 1 if key == "hojiblanca" else 0


async def test_who_stands_by_begins_anew_when_the_place_is_gone(pantry: Pantry, standby: Standby) -> None:
    await wait_until(lambda: followed(pantry).get("picual") == 10, within=10)
    await standby.stop()
    pantry.put(0, cornicabra=1, manzanilla=2)
    let_be_cut(pantry)
    pantry.cut(0, before=4)
    again = Standby([pantry.table], pantry.log, lambda: True)
    again.start()
    try:
        await wait_until(lambda: followed(pantry) == {"hojiblanca": 30}, within=10)
        pantry.put(0, picual=1)
        await wait_until(lambda: followed(pantry) == {"hojiblanca": 30, "picual": 1}, within=10)
    finally:
        await again.stop()


async def test_who_waits_for_a_transaction_that_is_not_over_can_give_up(pantry: Pantry) -> None:
    hanging = Producer({"bootstrap.servers": pantry.servers, "transactional.id": f"{pantry.prefix}hanging"})
    hanging.init_transactions(10)
    hanging.begin_transaction()
    hanging.produce(pantry.topic, b"{}", "picual", 0)
    hanging.flush(10)
    restarting = asyncio.create_task(pantry.restart())
    try:
        await asyncio.wait({restarting}, timeout=2)
        assert not restarting.done(), "it did not wait"
        restarting.cancel()
        await asyncio.wait({restarting}, timeout=2)
        assert restarting.cancelled()
    finally:
        hanging.abort_transaction(10)
    await pantry.restart()
    assert pantry.rows() == {"picual": 10, "arbequina": 20, "hojiblanca": 30}


# ---- a rebalance meanwhile ------------------------------------------------------------------------------


class Slow:
    """An owner that never has its partitions up to date."""

    breaks_off = True

    def __init__(self) -> None:
        self.under_way: set[int] = set()
        self.broken_off: set[int] = set()

    async def given(self, partitions: Collection[int]) -> None:
        self.under_way |= set(partitions)
        try:
            await asyncio.Event().wait()
        finally:
            self.under_way -= set(partitions)
            self.broken_off |= set(partitions)

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        raise AssertionError("nothing was ours yet")


async def test_a_recovery_is_broken_off_when_its_partition_goes_to_another_worker(pantry: Pantry) -> None:
    await pantry.log.prepare({"olives": False}, PARTITIONS)
    owners = [Slow(), Slow()]
    readers = [pantry.log.reader("eat", ["olives"], durable=False) for _ in owners]
    taking: list[asyncio.Task[None]] = []

    async def take(number: int) -> None:
        await readers[number].start(owners[number])
        while True:
            await readers[number].take(10, 0.1)

    try:
        taking.append(asyncio.create_task(take(0)))
        await wait_until(lambda: len(owners[0].under_way) == PARTITIONS, within=20)
        taking.append(asyncio.create_task(take(1)))
        await wait_until(lambda: owners[1].under_way, within=20)
        await wait_until(lambda: sum(len(owner.under_way) for owner in owners) == PARTITIONS, within=20)
        assert owners[0].broken_off >= owners[1].under_way
    finally:
        for task, reader in zip(taking, readers, strict=False):
            task.cancel()
            await reader.stop()
    assert owners[0].broken_off | owners[1].broken_off == set(range(PARTITIONS))
