"""A store is brought to the changelog's end from wherever it stands, and what is kept of its rows stays exact."""

import asyncio
import io
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.engine import recovery, tables
from app.engine.changes import Change
from app.engine.declarations import TableSpec
from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import StoreDamaged
from app.engine.partitioner import partition_for
from app.engine.progress import Progress
from app.engine.records import Send
from app.engine.store import Store
from app.engine.tables import Table

PARTITIONS = 2


class Jar(msgspec.Struct, frozen=True):
    """A jar of olives, which is to be eaten by a time."""

    kind: str
    olives: int
    eat_by: float | None = None
    label: str = "x" * 200


class Glance(msgspec.Struct):
    kind: str
    olives: int
    eat_by: float | None = None


JARS: TableSpec[Jar] = TableSpec(
    "jars", Jar, deadline=lambda jar: jar.eat_by, sums=lambda jar: {jar.kind: 1, "olives": jar.olives}, glance=Glance
)


class Pantry:
    """A table over an embedded log, and what must be in it. Changes are made as a lane makes them."""

    def __init__(self, folder: Path, spec: TableSpec[Jar] = JARS) -> None:
        self.folder = folder
        self.log = EmbeddedLog(folder / "log.db")
        self.log.open()
        self.log.declare(JARS.changelog, PARTITIONS, compacted=True)
        self.told: list[tuple[int, int, int]] = []
        self.table = Table(spec, self.log, folder / "tables", PARTITIONS, lambda *told: self.told.append(told))
        self.model: dict[str, Jar] = {}

    async def open(self) -> "Pantry":
        await self.table.open(range(PARTITIONS))
        return self

    async def put(self, *jars: tuple[str, Jar | None], stored: bool = True) -> None:
        """A commit; not `stored`: the process was killed before it wrote its store."""
        for key, jar in jars:
            partition = partition_for(key.encode(), PARTITIONS)
            packed = None if jar is None else msgspec.json.encode(jar)
            await self.log.commit([Send(JARS.changelog, key.encode(), packed)])
            if stored:
                change = Change(key, jar, packed, self.model.get(key))
                self.table.partitions[partition].write([change], self.log.end(JARS.changelog, partition))
            if jar is None:
                self.model.pop(key, None)
            else:
                self.model[key] = jar

    def close(self) -> None:
        self.table.close()
        self.log.close()

    def again(self, spec: TableSpec[Jar] = JARS) -> "Pantry":
        """The process ends and another one starts."""
        self.close()
        another = Pantry(self.folder, spec)
        another.model = self.model
        return another

    def stores(self) -> list[Path]:
        return [self.folder / "tables" / "jars" / str(partition) for partition in range(PARTITIONS)]

    def is_right(self) -> bool:
        """Rows, count, sums and deadlines are those of the model."""
        assert dict(self.table.items()) == self.model
        assert self.table.count() == len(self.model)
        sums: Counter[str] = Counter()
        for jar in self.model.values():
            sums.update({jar.kind: 1, "olives": jar.olives})
        assert {name: number for name, number in self.table.sums().items() if number} == dict(sums)
        deadlines = sorted((jar.eat_by, key) for key, jar in self.model.items() if jar.eat_by is not None)
        assert self.table.timers() == len(deadlines)
        found = [item for part in self.table.partitions.values() for item in part.due(1e12, 10**6)]
        for key, deadline in found:
            self.table.partitions[partition_for(key.encode(), PARTITIONS)].remind(key, deadline)
        assert sorted((deadline, key) for key, deadline in found) == deadlines
        return True


@pytest.fixture
def pantry(tmp_path: Path) -> Iterator[Callable[..., Pantry]]:
    opened: list[Pantry] = []

    def make(before: Pantry | None = None, spec: TableSpec[Jar] = JARS) -> Pantry:
        opened.append(Pantry(tmp_path, spec) if before is None else before.again(spec))
        return opened[-1]

    yield make
    opened[-1].close()


def some_jars(number: int, kind: str = "picual") -> list[tuple[str, Jar | None]]:
    return [(f"jar-{n:04}", Jar(kind, n, eat_by=float(n) if n % 3 == 0 else None)) for n in range(number)]


Make = Callable[..., Pantry]


@pytest.mark.parametrize("few", [20_000, 5], ids=["followed", "filled"])
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_the_sums_and_deadlines_are_those_of_the_rows(
    pantry: Make, monkeypatch: pytest.MonkeyPatch, seed: int, few: int
) -> None:
    monkeypatch.setattr(recovery, "FEW", few)
    chance = random.Random(seed)
    here = await pantry().open()
    for _ in range(5):
        for _ in range(chance.randrange(60)):
            jar = Jar(chance.choice("ab"), chance.randrange(9), chance.choice([None, 5.0, 7.0]))
            await here.put((f"jar-{chance.randrange(30)}", chance.choice([jar, jar, None])), stored=True)
        assert here.is_right()
        if chance.random() < 0.3:
            await here.log.tidying.compact(JARS.changelog, 0)
        for _ in range(chance.randrange(40)):
            jar = Jar(chance.choice("ab"), chance.randrange(9), chance.choice([None, 5.0, 7.0]))
            await here.put((f"jar-{chance.randrange(30)}", chance.choice([jar, jar, None])), stored=False)
        here = pantry(here)
        if chance.random() < 0.3:
            shutil.rmtree(here.stores()[chance.randrange(PARTITIONS)], ignore_errors=True)
        await here.open()
        assert here.is_right()


async def test_a_warm_start_goes_through_no_row(pantry: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await pantry().open()
    await here.put(*some_jars(50))
    here = pantry(here)
    monkeypatch.setattr(Store, "items", lambda _self, _after=None: pytest.fail("went through the rows"))
    await here.open()
    monkeypatch.undo()
    assert here.is_right()


async def test_other_sums_are_found_by_going_through_the_rows_once(pantry: Make) -> None:
    here = await pantry().open()
    await here.put(*some_jars(50))
    anew: TableSpec[Jar] = TableSpec("jars", Jar, sums=lambda _jar: {"jars": 1}, version=2)
    here = await pantry(here, anew).open()
    assert here.table.sums() == {"jars": 50}
    assert here.table.timers() == 0


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_filling_that_is_broken_off_goes_on_later(
    pantry: Make, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(recovery, "FEW", 5)
    monkeypatch.setattr("app.engine.embedded_log.REPLAYED_AT_ONCE", 10)
    here = pantry()
    await here.put(*some_jars(100), stored=False)
    written: list[int] = []
    whole = Store.write

    def write(self: Store, *arguments: Any, **more: Any) -> None:
        if len(written) == after:
            raise OSError("the power went off")
        written.append(1)
        whole(self, *arguments, **more)

    monkeypatch.setattr(Store, "write", write)
    with pytest.raises(OSError, match="power"):
        await here.open()
    monkeypatch.setattr(Store, "write", whole)
    here = await pantry(here).open()
    assert here.is_right()


async def test_who_gives_up_a_recovery_gives_the_files_back(pantry: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.embedded_log.REPLAYED_AT_ONCE", 1)
    here = pantry()
    await here.put(*some_jars(300), stored=False)
    given_up = threading.Event()

    class Slow(list[tuple[int, int, int]]):
        def append(self, told: tuple[int, int, int]) -> None:
            super().append(told)
            if told[1]:
                given_up.wait(5)

    here.told = Slow()
    opening = asyncio.create_task(here.open())
    while not any(done for _, done, _ in here.told):  # noqa: ASYNC110 - another thread tells
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.sleep(0)
    opening.cancel()  # as a worker that ends does
    given_up.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert here.told[-1][1] < 150, "it went on to the end"
    assert here.table.partitions == {}
    await here.open()
    assert here.is_right()


# ---- damage ---------------------------------------------------------------------------------------------


def spoil(store: Path) -> None:
    """Bytes in the midst of the rows are lost."""
    [table] = store.glob("*.sst")
    content = bytearray(table.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    table.write_bytes(content)


async def test_a_store_that_is_damaged_somewhere_is_rebuilt_when_its_rows_are_gone_through(
    pantry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FEW", 5)
    here = pantry()
    await here.put(*some_jars(200), stored=False)
    await here.open()
    here = pantry(here, TableSpec(JARS.name, Jar, JARS.deadline, JARS.sums, version=2))
    spoil(here.stores()[0])
    await here.open()
    assert "Corruption" in here.table.partitions[0].store.rebuilt_because
    assert here.is_right()


async def test_a_store_that_turns_out_damaged_says_so_and_is_rebuilt_at_the_next_start(
    pantry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FEW", 5)
    here = pantry()
    await here.put(*some_jars(200), stored=False)
    await here.open()
    here = pantry(here)
    spoil(here.stores()[0])
    await here.open()
    with pytest.raises(StoreDamaged, match="rebuilt at the next start"):
        dict(here.table.items())
    lost = [key for key in here.model if partition_for(key.encode(), PARTITIONS) == 0]
    with pytest.raises(StoreDamaged):
        [here.table.get(key) for key in lost]
    here = await pantry(here).open()
    assert here.is_right()


# ---- the changelog --------------------------------------------------------------------------------------


async def test_an_empty_changelog_is_an_empty_table(pantry: Make) -> None:
    here = await pantry().open()
    assert here.is_right()
    here = await pantry(here).open()
    assert here.is_right()


async def test_a_changelog_whose_begin_is_gone_is_what_the_table_becomes(pantry: Make) -> None:
    here = await pantry().open()
    await here.put(*some_jars(40))
    store = Store(here.folder / "old", here.log.identity(JARS.changelog))
    store.write([(b"jar-9999", msgspec.json.encode(Jar("gone", 1)))], 3)
    store.close()
    here = pantry(here)
    low = here.log.place(JARS.changelog, 0) << 40
    lost = here.log._db.execute("SELECT key FROM records WHERE id >= ? AND id < ?", (low, low + 10)).fetchall()
    here.log._db.execute("DELETE FROM records WHERE id >= ? AND id < ?", (low, low + 10))
    shutil.rmtree(here.stores()[0])
    shutil.move(here.folder / "old", here.stores()[0])  # it stands before the begin: what it lacks is nowhere any more
    for (key,) in lost:
        del here.model[key.decode()]
    await here.open()
    assert here.table.partitions[0].store.rebuilt_because == "it stands at 3, before the changelog's begin 10"
    assert here.is_right()


# ---- progress -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_is_cleared_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    terminal = Terminal()
    told = Progress(terminal)
    told.told("jars", 0, 0, 800_000)
    told.told("jars", 1, 0, 200_000)
    now[0] += 4
    told.told("jars", 0, 400_000, 800_000)
    assert terminal.getvalue() == "\x1b[Krecovering jars: 40 %, 100,000 records/s, 6 s left\r"
    assert told.percent == 40
    told.told("jars", 0, 800_000, 800_000)
    told.told("jars", 1, 200_000, 200_000)
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert told.percent == 100


def test_a_log_has_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    said: list[str] = []
    told = Progress(io.StringIO(), said.append)
    told.told("jars", 0, 0, 100_000)
    for second in range(1, 10):
        now[0] += 1
        told.told("jars", 0, second * 10_000, 100_000)
    assert said == [
        "recovering jars: 30 %, 10,000 records/s, 7 s left",
        "recovering jars: 60 %, 10,000 records/s, 4 s left",
        "recovering jars: 90 %, 10,000 records/s, 1 s left",
    ]


async def test_a_recovery_tells_what_there_is_to_do_before_it_does_any_of_it(
    pantry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.embedded_log.REPLAYED_AT_ONCE", 10)
    here = pantry()
    await here.put(*some_jars(100), stored=False)
    await here.open()
    ends = [here.log.end(JARS.changelog, partition) for partition in range(PARTITIONS)]
    first = [told for told in here.told if told[1] == 0]
    assert sorted(here.told[:PARTITIONS]) == sorted(first) == [(0, 0, ends[0]), (1, 0, ends[1])]
    for partition in range(PARTITIONS):
        done = [done for of, done, _ in here.told if of == partition]
        assert done == sorted(done)
        assert done[-1] == ends[partition]


async def test_a_view_that_is_still_being_read_does_not_keep_a_partition_from_coming_back(pantry: Make) -> None:
    here = await pantry().open()
    await here.put(*some_jars(50))
    reading = here.table.items()
    next(reading)
    here.table.close()
    opening = asyncio.create_task(here.open())
    done, _ = await asyncio.wait({opening}, timeout=0.1)
    assert not done
    del reading
    await opening
    assert here.is_right()


def test_what_is_written_while_rows_are_gone_through_is_not_seen_and_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", "log")
    store.write([(b"b", b"1"), (b"c", b"1")], 1, b"")
    forwards, backwards = store.items(), store.items(backwards=True)
    assert (next(forwards), next(backwards)) == ((b"b", b"1"), (b"c", b"1"))
    store.write([(b"a", b"2"), (b"c", b"2"), (b"d", b"2")], 2, b"")
    assert (list(forwards), list(backwards)) == ([(b"c", b"1")], [(b"b", b"1")])
    store.close()


async def test_deadlines_that_are_changed_again_and_again_take_no_more_room(
    pantry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "DEADLINES_KEPT", 5)
    here = await pantry().open()
    for later in range(200):
        await here.put(("jar", Jar("picual", 1, eat_by=100.0 + later)))
    assert sum(len(part._due) for part in here.table.partitions.values()) < 10
    assert here.is_right()
