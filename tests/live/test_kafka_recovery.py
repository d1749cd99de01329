"""A table is brought back from a changelog on Kafka, whatever has become of the changelog or of the store."""

import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.store import Store
from app.engine.tables import Table, TableSpec
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
        """The broker drops the records before this offset."""
        self.admin.delete_records([Place(self.topic, partition, before)])[Place(self.topic, partition, before)].result(
            10
        )

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
