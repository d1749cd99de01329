"""A large commit of the embedded log goes on beside the loop, and is all that a small one is."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator

import pytest

from app.engine.embedded_log import LARGE, EmbeddedLog
from app.engine.errors import LogFailed
from app.engine.records import Send, TopicPartition
from tests.engine.conftest import reopened
from tests.waiting import wait_until

SOURCE = TopicPartition("words", 0)


def words(number: int, first: int = 0) -> list[Send]:
    return [Send("words", b"k%d" % (at % 40), b"%d" % at, (("n", b"%d" % at),)) for at in range(first, first + number)]


def read(log: EmbeddedLog) -> list[int]:
    """Every word, place by place."""
    found = [
        record for partition in range(log.partitions("words")) for record in log.read("words", partition, 0, 99_999)
    ]
    assert all(record.headers == (("n", record.value),) for record in found)
    return [int(record.value or b"") for record in found]


class Gate:
    """Holds large commits up on their thread."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.reached, self.free = threading.Event(), threading.Event()
        write = log._file.write_large

        def held(transaction: object) -> None:
            self.reached.set()
            assert self.free.wait(10)
            write(transaction)  # type: ignore[arg-type]

        log._file.write_large = held  # type: ignore[method-assign]


@pytest.fixture
def gate(log: EmbeddedLog) -> Iterator[Gate]:
    gate = Gate(log)
    yield gate
    gate.free.set()


@pytest.mark.parametrize("number", [LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 7])
async def test_it_is_committed_whole_with_offsets_and_notes(log: EmbeddedLog, number: int) -> None:
    woken = log.watch(["words"])
    notes = {f"note-{at}": b"%d" % at for at in range(60)}
    await log.commit(words(number), group="g", offsets={SOURCE: number}, notes=notes)
    assert woken.is_set()
    there = log
    for _ in range(2):
        found = read(there)
        assert sorted(found) == list(range(number))
        of_keys = [[word for word in found if word % 40 == key] for key in range(40)]
        assert all(of_key == sorted(of_key) for of_key in of_keys)
        assert there.committed("g", "words", 0) == number
        assert [there.note(name) for name in notes] == list(notes.values())
        there = reopened(there)
    there.close()


async def test_the_loop_goes_on_meanwhile_and_who_commits_waits_for_its_turn(log: EmbeddedLog, gate: Gate) -> None:
    await log.commit(words(3))
    large = asyncio.create_task(log.commit(words(LARGE, 3)))
    await wait_until(gate.reached.is_set)
    small = asyncio.create_task(log.commit(words(1, LARGE + 3)))
    await asyncio.sleep(0.02)
    assert sorted(read(log)) == [0, 1, 2]
    assert not small.done()
    with pytest.raises(RuntimeError):
        log.append(words(1))
    gate.free.set()
    assert await large < await small
    assert sorted(read(log)) == list(range(LARGE + 4))


async def test_it_ends_also_when_nobody_waits_any_more(log: EmbeddedLog, gate: Gate) -> None:
    large = asyncio.create_task(log.commit(words(LARGE)))
    await wait_until(gate.reached.is_set)
    large.cancel()
    await asyncio.sleep(0)
    gate.free.set()
    with pytest.raises(asyncio.CancelledError):
        await large
    await log.commit(words(1, LARGE))
    assert sorted(read(log)) == list(range(LARGE + 1))


async def test_when_it_fails_nothing_of_it_is_there_and_the_log_takes_no_more(log: EmbeddedLog) -> None:
    place = log.place("words", 1)
    with sqlite3.connect(log.path) as other:  # a record that is nobody's: none may take its place
        other.execute("INSERT INTO records VALUES (?, 0, NULL, x'2d31', NULL)", ((place << 40) + 5,))
    other.close()
    with pytest.raises(LogFailed, match="UNIQUE"):
        await log.commit(words(2 * LARGE), group="g", offsets={SOURCE: 1}, notes={"note": b"1"})
    with pytest.raises(LogFailed):
        await log.commit(words(1))
    assert read(log) == []
    assert (log.committed("g", "words", 0), log.note("note")) == (None, None)
    assert sqlite3.connect(log.path).execute("SELECT count(*) FROM records").fetchone() == (1,)
