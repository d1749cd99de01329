"""What a lane counts of its changes is said with their commit, once; a record may be about several rows."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from app.engine.declarations import Reducer, TableSpec, Topic
from app.engine.embedded_log import EmbeddedLog
from app.engine.engine import Application, Engine
from app.engine.errors import CommitAborted
from app.engine.lanes import Hooks
from app.engine.records import Record, Send
from tests.waiting import wait_until


class Word(NamedTuple):
    key: str


class Result(NamedTuple):
    row: int | None
    outputs: tuple[str, ...] = ()
    outcome: str = "applied"


def read(record: Record) -> tuple[Word, ...]:
    return tuple(Word(word) for word in (record.value or b"").decode().split())


def count(row: int | None, word: Word) -> Result:
    if word.key == "bad":
        raise ValueError(word.key)
    return Result((row or 0) + 1, (word.key,))


class Total:
    """Counts changed rows."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._number = 0

    def add(self, before: int | None, after: int | None, at: float) -> None:
        assert (before or 0) + 1 == after
        assert at == 7.0
        if after == 13:
            raise ValueError("unlucky")
        self._number += 1

    def sends(self) -> Sequence[Send]:
        return (Send("totals", None, str(self._number).encode(), partition=self._partition),) if self._number else ()


LINES = Topic("lines", read)
WORDS = Topic("words", lambda record: Word((record.value or b"").decode()))
TOTALS, SAID = Topic("totals"), Topic("said")
COUNTS, LENGTHS = TableSpec("counts", int), TableSpec("lengths", int)


def encode(output: str, _headers: object) -> Sequence[Send]:
    return (Send("said", b"k", output.encode()),)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    log = EmbeddedLog(tmp_path / "log.db", clock=lambda: 7.0)
    log.open()
    rejected = Topic("rejected")
    application = Application(
        name="test",
        topics=(LINES, WORDS, TOTALS, SAID, rejected),
        reducers=(
            Reducer("by_line", (LINES,), COUNTS, count, encode),
            Reducer("by_word", (WORDS,), LENGTHS, count, encode, tally=Total, collects=0.05),
        ),
        partitions=1,
        hooks=Hooks(reject=lambda record, _reason, _error: [Send("rejected", record.key, record.value)]),
    )
    engine = Engine(application, log, tmp_path / "tables")
    await engine.open()
    await engine.start()
    yield engine
    await engine.stop()
    log.close()


def values(engine: Engine, topic: str) -> list[str]:
    assert isinstance(engine.log, EmbeddedLog)
    return [(record.value or b"").decode() for record in engine.log.read(topic, 0, 0, 1000)]


async def settled(engine: Engine) -> None:
    await wait_until(engine.idle)
    assert engine.failure is None


async def test_a_record_about_several_rows_changes_all_of_them_or_none(engine: Engine) -> None:
    await engine.log.commit([Send("lines", b"k", line) for line in (b"one two", b"two bad three", b"three two")])
    await settled(engine)
    assert dict(engine.tables["counts"].items()) == {"one": 1, "two": 2, "three": 1}
    assert values(engine, "rejected") == ["two bad three"]
    assert values(engine, "said") == ["one", "two", "three", "two"]


async def test_what_was_counted_is_said_once_for_each_commit(engine: Engine) -> None:
    await engine.log.commit([Send("words", b"k", b"olive")] * 10)
    await settled(engine)
    assert sum(map(int, values(engine, "totals"))) == 10
    assert len(values(engine, "totals")) == 1


async def test_what_could_not_be_counted_is_a_dead_letter_and_changes_nothing(engine: Engine) -> None:
    await engine.log.commit([Send("words", b"k", b"olive")] * 13)
    await settled(engine)
    assert dict(engine.tables["lengths"].items()) == {"olive": 12}
    assert sum(map(int, values(engine, "totals"))) == len(values(engine, "said")) == 12
    assert values(engine, "rejected") == ["olive"]


async def test_a_commit_that_was_refused_counts_once(engine: Engine) -> None:
    lane = next(lane for lane in engine.lanes if lane.name == "by_word")
    commit, refused = lane.reader.commit, list[object]()

    async def refuses_once(offsets: object) -> object:
        if not refused:
            refused.append(offsets)
            raise CommitAborted("taken for dead")
        return await commit(offsets)  # type: ignore[arg-type]

    lane.reader.commit = refuses_once  # type: ignore[method-assign, assignment]
    await engine.log.commit([Send("words", b"k", b"olive")] * 3)
    await settled(engine)
    assert refused
    assert values(engine, "totals") == ["3"]
    assert dict(engine.tables["lengths"].items()) == {"olive": 3}
