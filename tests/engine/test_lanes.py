"""A lane folds a rule over records, commits offsets, outputs and changelog together, and can rebuild its table."""

import asyncio
import functools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec
import pytest

from app.engine import lanes
from app.engine.declarations import Effect, Reducer, TableSpec, Topic
from app.engine.embedded_log import EmbeddedLog
from app.engine.engine import Application, Engine
from app.engine.errors import CommitAborted, LogFailed, StoreDamaged
from app.engine.lanes import SLICE, Hooks
from app.engine.partitioner import partition_for
from app.engine.records import Record, Send
from app.engine.store import Store
from tests.waiting import wait_until


class Tally(msgspec.Struct, frozen=True):
    """How often a word was seen, and when it is to be recalled."""

    count: int
    due: float | None = None


class Word(NamedTuple):
    key: str
    value: str


class Step(NamedTuple):
    row: Tally | None
    outputs: tuple[Any, ...] = ()
    outcome: str = "applied"


def read_word(record: Record) -> Word | None:
    value = (record.value or b"").decode()
    return None if value == "nothing" else Word((record.key or b"").decode(), value)


def count_words(row: Tally | None, word: Word) -> Step:
    count = row.count if row else 0
    match word.value:
        case "poison":
            raise ValueError("no such word")
        case "forget":
            return Step(None)
        case "same":
            return Step(row, outcome="ignored")
        case "later":
            return Step(Tally(count, due=100.0))
        case "due":
            return Step(Tally(count + 1000))
        case _:
            return Step(Tally(count + 1), (f"{word.key}={count + 1}",))


WORDS = Topic("words", read_word)
TIMERS = Topic("timers", read_word)
COUNTED = Topic("counted")
REJECTED = Topic("rejected")
TALLIES = TableSpec("tallies", Tally, deadline=lambda row: row.due)


def reject(record: Record, reason: str, error: str) -> list[Send]:
    return [Send("rejected", record.key, record.value, (("reason", reason.encode()), ("error", error.encode())))]


class Counting:
    """The engine over a log in `path`, with the test's clock."""

    def __init__(self, path: Path, effects: tuple[Effect, ...] = ()) -> None:
        self.path = path
        self.now = 0.0
        self.outcomes: list[str] = []
        self.log = EmbeddedLog(path / "log.db")
        self.log.open()
        counter = Reducer(
            "count_words", (WORDS, TIMERS), TALLIES, count_words,
            encode=lambda said, headers: [Send("counted", said.partition("=")[0].encode(), said.encode(), headers)],
            timer=lambda key, _due, _now: Send("timers", key.encode(), b"due"),
        )  # fmt: skip
        hooks = Hooks(reject=reject, processed=lambda _l, _r, outcomes, _s: self.outcomes.extend(outcomes))
        everything = (WORDS, TIMERS, COUNTED, REJECTED)
        application = Application(
            name="test", topics=everything, reducers=(counter,), effects=effects, partitions=3, hooks=hooks
        )
        self.engine = Engine(application, self.log, path / "tables", clock=lambda: self.now)
        self.tallies = self.engine.tables["tallies"]

    async def open(self) -> "Counting":
        await self.engine.open()
        return self

    async def start(self) -> "Counting":
        await self.open()
        await self.engine.start()
        return self

    async def say(self, *words: tuple[str, str]) -> None:
        await self.log.commit([Send("words", key.encode(), word.encode()) for key, word in words])

    async def settle(self) -> None:
        await wait_until(lambda: self.engine.failure or self.engine.idle(), what="the engine to be idle")

    async def stop(self) -> None:
        await self.engine.stop()
        self.log.close()

    def everything(self, topic: str) -> list[Record]:
        return [record for part in range(3) for record in self.log.read(topic, part, 0, 10_000)]


@pytest.fixture
async def counting(tmp_path: Path) -> AsyncIterator[Counting]:
    counting = await Counting(tmp_path).start()
    yield counting
    await counting.stop()


async def test_rows_outputs_and_changelog_follow_from_the_records(counting: Counting) -> None:
    await counting.say(("oliva", "a"), ("oliva", "b"), ("queso", "a"), ("oliva", "c"))
    await counting.settle()
    assert counting.tallies.get("oliva") == Tally(3)
    assert dict(counting.tallies.items()) == {"oliva": Tally(3), "queso": Tally(1)}
    assert counting.tallies.count() == 2
    said = sorted(record.value or b"" for record in counting.everything("counted"))
    assert said == [b"oliva=1", b"oliva=2", b"oliva=3", b"queso=1"]
    newest = {record.key: record.value for record in counting.everything("tallies-changelog")}
    assert newest == {b"oliva": b'{"count":3,"due":null}', b"queso": b'{"count":1,"due":null}'}


async def test_a_batch_writes_one_changelog_record_for_each_changed_row(tmp_path: Path) -> None:
    counting = await Counting(tmp_path).open()
    await counting.say(*[("oliva", "x")] * 50, ("queso", "x"), ("miel", "same"))
    await counting.engine.start()
    await counting.settle()
    assert len(counting.everything("tallies-changelog")) == 2
    assert counting.outcomes.count("applied") == 51
    assert counting.outcomes.count("ignored") == 1
    await counting.stop()


async def test_poison_is_dead_lettered_alone_and_its_neighbours_pass(counting: Counting) -> None:
    await counting.say(("oliva", "a"), ("oliva", "poison"), ("oliva", "b"), ("oliva", "nothing"))
    await counting.settle()
    assert counting.tallies.get("oliva") == Tally(2)
    [rejected] = counting.everything("rejected")
    assert dict(rejected.headers) == {"reason": b"ValueError", "error": b"ValueError: no such word"}


async def test_a_row_can_be_forgotten_and_stays_forgotten(counting: Counting) -> None:
    await counting.say(("oliva", "a"), ("queso", "a"))
    await counting.settle()
    await counting.say(("oliva", "forget"))
    await counting.settle()
    assert counting.tallies.get("oliva") is None
    assert counting.tallies.count() == 1
    await counting.stop()
    shutil.rmtree(counting.path / "tables")
    again = await Counting(counting.path).start()
    assert dict(again.tallies.items()) == {"queso": Tally(1)}
    counting.engine, counting.log = again.engine, again.log


async def test_a_deadline_is_told_once_when_it_is_due_also_after_a_restart(counting: Counting) -> None:
    await counting.say(("oliva", "a"), ("oliva", "later"))
    await counting.settle()
    assert counting.tallies.timers() == 1
    counting.now = 99.0
    await counting.settle()
    assert counting.everything("timers") == []
    await counting.stop()

    again = Counting(counting.path)
    again.now = 101.0
    await again.start()
    await again.settle()
    assert again.tallies.get("oliva") == Tally(1001)
    assert len(again.everything("timers")) == 1
    counting.engine, counting.log = again.engine, again.log


async def test_many_deadlines_at_once_are_told_a_batch_at_a_time(tmp_path: Path) -> None:
    counting = await Counting(tmp_path).open()
    [lane] = counting.engine.lanes
    await lane.reader.start(lane)
    words = [f"word-{number}" for number in range(4 * SLICE)]
    await counting.say(*[(word, "later") for word in words])
    while lane.lag():
        await lane.step()
    counting.now = 101.0
    await lane.step()
    assert 0 < len(counting.everything("timers")) <= 3 * SLICE
    while not counting.engine.idle():
        await lane.step()
    assert sorted(record.key or b"" for record in counting.everything("timers")) == sorted(w.encode() for w in words)
    await counting.stop()


async def test_a_transaction_ends_when_nothing_more_has_come_and_not_with_the_first_few_records(tmp_path: Path) -> None:
    counting = await Counting(tmp_path).open()
    [lane] = counting.engine.lanes
    await lane.reader.start(lane)
    lane.reader.commit_records, lane.reader.commit_seconds = 1_000, 60.0  # as on Kafka, where a commit costs
    await counting.say(("oliva", "a"))
    await lane.step()
    await counting.say(("oliva", "b"))
    await lane.step()
    assert counting.everything("counted") == []
    await lane.step()
    assert len(counting.everything("counted")) == 2
    assert [row.value for row in counting.everything("tallies-changelog")] == [b'{"count":2,"due":null}']
    await counting.stop()


async def test_a_flood_in_one_topic_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    counting = await Counting(tmp_path).open()
    [lane] = counting.engine.lanes
    lane.batch = 10
    await lane.reader.start(lane)
    await counting.say(*[("oliva", "x")] * 100)
    await counting.log.commit([Send("timers", b"oliva", b"due")])
    for _ in range(6):  # once for each partition of each topic
        await lane.step()
    tally = counting.tallies.get("oliva")
    assert tally is not None
    assert 1000 <= tally.count < 1000 + 100
    while lane.lag():
        await lane.step()
    assert counting.tallies.get("oliva") == Tally(1000 + 100)
    await counting.stop()


async def test_the_loop_is_free_between_two_batches(tmp_path: Path) -> None:
    """A commit never suspends, so without a break the batches would hold the loop together."""
    counting = await Counting(tmp_path).open()
    counting.engine.lanes[0].batch = 20
    turns: list[int] = []
    counting.engine.application.hooks.processed = lambda *_batch: turns.append(turn)
    await counting.say(*[(f"word-{number}", "x") for number in range(60)])
    turn = 0
    await counting.engine.start()
    while counting.engine.lag()["count_words"]:
        turn += 1
        await asyncio.sleep(0)
    assert len(turns) == len(set(turns)) >= 3
    await counting.stop()


@pytest.mark.parametrize("damage", ["wiped", "garbage", "ahead", "of another log", "none"])
async def test_a_store_is_rebuilt_whatever_happened_to_it(tmp_path: Path, damage: str) -> None:
    counting = await Counting(tmp_path).start()
    await counting.say(*[(f"word-{number}", "a") for number in range(200)])
    await counting.settle()
    live = dict(counting.tallies.items())
    identity = counting.log.identity(TALLIES.changelog)
    await counting.stop()
    for partition in range(3):
        path = tmp_path / "tables" / "tallies" / str(partition)
        match damage:
            case "wiped":
                shutil.rmtree(path)
            case "garbage":
                for file in path.glob("MANIFEST*"):
                    file.write_bytes(b"\xde\xad" * 50)
            case "ahead":
                store = Store(path, identity)
                store.write([(b"word-0", b'{"count":77,"due":null}')], 10_000)
                store.close()
            case "of another log":
                store = Store(path, "another")
                store.write([(b"word-0", b'{"count":77,"due":null}')], 1)
                store.close()
            case _:
                pass
    again = await Counting(tmp_path).start()
    assert dict(again.tallies.items()) == live
    await again.stop()


async def test_a_store_behind_the_changelog_catches_up_from_where_it_stands(tmp_path: Path) -> None:
    counting = await Counting(tmp_path).start()
    await counting.say(("oliva", "a"))
    await counting.settle()
    part = next(part for part in range(3) if counting.log.end("words", part))
    # As after a crash between the commit and the store's write.
    await counting.log.commit([Send("tallies-changelog", b"oliva", b'{"count":5,"due":null}', (), None, part)])
    await counting.stop()
    again = await Counting(tmp_path).start()
    assert again.tallies.get("oliva") == Tally(5)
    await again.stop()


async def test_an_effect_sees_durable_records_and_its_answers_are_committed_with_its_offset(tmp_path: Path) -> None:
    performed: list[bytes | None] = []

    async def perform(records: list[Record]) -> list[Send]:
        await asyncio.sleep(0)
        performed.extend(record.value for record in records)
        return [Send("words", b"echo", b"x") for _ in records]

    counting = await Counting(tmp_path, (Effect("speak", COUNTED, perform),)).start()
    await counting.log.commit([Send("counted", b"k", b"hello"), Send("counted", b"k", b"again")])
    await wait_until(lambda: counting.tallies.get("echo") is not None)
    await counting.engine.stop()
    assert performed[:2] == [b"hello", b"again"]
    counting.log.close()


async def test_a_log_that_fails_stops_the_engine_with_the_cause(counting: Counting) -> None:
    heard: list[BaseException] = []
    counting.engine.on_failure = heard.append
    await counting.log.synced()
    counting.log._db.execute("PRAGMA query_only=1")
    counting.log.failure = None
    with pytest.raises(LogFailed):
        await counting.say(("oliva", "a"))
    counting.log.failure = None
    counting.log._db.execute("PRAGMA query_only=0")
    await counting.say(("oliva", "a"))
    counting.log._db.execute("PRAGMA query_only=1")
    await wait_until(lambda: bool(heard))
    assert isinstance(heard[0], LogFailed)
    assert counting.tallies.get("oliva") is None


async def test_a_piece_that_was_broken_off_is_not_committed_when_the_partitions_go(counting: Counting) -> None:
    """The first word's row is counted by then, but what it says would be missing, and never be said."""
    [lane] = counting.engine.lanes
    assert isinstance(lane, lanes.ReducerLane)
    decode = lane._decode["words"]

    def spoiled(record: Record) -> Any:
        if record.key == b"quince":
            raise StoreDamaged("a block can't be read")
        return decode(record)

    lane._decode["words"] = spoiled
    first = next(key for key in map(str, range(99)) if partition_for(key.encode(), 3) == partition_for(b"quince", 3))
    await counting.say((first, "a"), ("quince", "a"))
    await wait_until(lambda: counting.engine.failure)
    await lane.taken(range(3), lost=False)
    assert counting.everything("counted") == []
    assert counting.everything("tallies-changelog") == []


async def test_a_lane_whose_transactions_are_refused_for_good_stops_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "AGAIN", 0.0)
    counting = await Counting(tmp_path).open()
    [lane] = counting.engine.lanes
    refused: list[int] = []

    async def refuse(_offsets: object) -> NoReturn:
        refused.append(1)
        raise CommitAborted("not authorized")

    monkeypatch.setattr(lane.reader, "commit", refuse)
    await counting.say(("oliva", "x"))
    await counting.engine.start()
    await wait_until(lambda: counting.engine.failure, what="the engine to stop")
    assert "20 transactions in a row were refused: not authorized" in str(counting.engine.failure)
    assert len(refused) == lanes.ABORTS
    await counting.stop()


async def test_what_does_not_stop_in_order_keeps_nothing_else_from_being_stopped(tmp_path: Path) -> None:
    async def perform(messages: list[Any]) -> list[Send]:
        return []

    counting = await Counting(tmp_path, (Effect("first", COUNTED, perform), Effect("second", COUNTED, perform))).start()
    stopped: list[str] = []

    async def stop(name: str) -> None:
        stopped.append(name)
        if name == "count_words":
            raise RuntimeError("the disk is full of olives")

    for lane in counting.engine.lanes:
        lane.reader.stop = functools.partial(stop, lane.name)  # type: ignore[method-assign]
    await counting.stop()
    assert sorted(stopped) == ["count_words", "first", "second"]
    assert not counting.tallies.partitions
