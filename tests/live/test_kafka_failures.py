"""What the engine does on Kafka when calls fail or have no answer: nothing is passed over, nobody waits for ever."""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, KafkaError, KafkaException

from app.cli import main
from app.engine.cancelling import end
from app.engine.declarations import Effect, Topic
from app.engine.engine import Application, Engine
from app.engine.errors import LogFailed, OffsetsForgotten
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.kafka.reader import KafkaReader
from app.engine.kafka.sole import SoleLog
from app.engine.kafka.transactions import COMMIT
from app.engine.records import Record, Send, TopicPartition
from app.engine.store import Store
from app.engine.verify import verify
from bridge.dead_letters import OUTBOUND
from bridge.leased import FAILURES, LeasedBridge
from bridge.service import Bridge
from tests.live.counting_app import COUNTS
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

    def __init__(self, log: KafkaLog, topic: str = "numbers") -> None:
        self.has: set[int] = set()
        self.gone: list[int] = []
        self.fails: Exception | None = None
        self.reader: KafkaReader = log.reader("failing.count", [topic], durable=False)

    async def given(self, partitions: Collection[int]) -> None:
        self.has |= set(partitions)

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        self.has -= set(partitions)
        self.gone += partitions
        if self.fails is not None:
            raise self.fails

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


async def test_a_store_ahead_of_its_changelog_is_not_called_equal(log: KafkaLog, tmp_path: Path) -> None:
    await log.prepare({COUNTS.changelog: True}, 1)
    await log.commit([Send(COUNTS.changelog, b"key", b'{"count":1}', (), None, 0)])
    end = (await asyncio.to_thread(log.span, COUNTS.changelog, 0))[1]
    for ahead in (0, 7):
        store = Store(tmp_path / "counts", log.identity(COUNTS.changelog))
        store.write([(b"key", b'{"count":1}')] + [(b"other", b'{"count":1}')] * bool(ahead), end + ahead)
        store.close()
        verdict = await asyncio.to_thread(verify, COUNTS, 0, tmp_path / "counts", log)
        assert (verdict.equal, verdict.ahead, verdict.newer) == (not ahead, ahead, 0)


async def test_a_commit_that_is_broken_off_lets_nobody_else_commit_before_it_has_ended(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two calls of one producer at a time are refused."""
    commit, going = log._commit, threading.Event()

    def slow(sends: Sequence[Send]) -> None:
        assert not going.is_set(), "two commits at a time"
        going.set()
        time.sleep(0.5)
        commit(sends)
        going.clear()

    monkeypatch.setattr(log, "_commit", slow)
    broken_off = asyncio.create_task(say(log, 1))
    await wait_until(going.is_set)
    broken_off.cancel()
    await say(log, 2)
    with pytest.raises(asyncio.CancelledError):
        await broken_off
    batches = await asyncio.to_thread(list, log.replay("numbers", 0, 0))
    assert [record.value for batch in batches for record in batch] == [b"1", b"2"]


async def test_an_owner_that_fails_when_partitions_go_is_not_told_of_them_again(log: KafkaLog) -> None:
    await log.prepare({"pairs": False}, 2)
    owner, other = Owner(log, "pairs"), Owner(log, "pairs")
    reader = owner.reader
    await reader.start(owner)
    while len(owner.has) < 2:
        await reader.take(10, 0.1)
    owner.fails = RuntimeError("the disk is full of olives")
    await other.reader.start(other)

    async def share() -> None:
        while not other.has:
            await asyncio.gather(reader.take(10, 0.1), other.reader.take(10, 0.1))

    with pytest.raises(RuntimeError, match="olives"):
        await share()
    owner.fails = None
    await reader.stop()
    await other.reader.stop()
    assert sorted(owner.gone) == [0, 1]


async def test_what_kafka_has_forgotten_is_not_read_from_the_start_again_before_somebody_says_so(
    kafka_broker: KafkaBroker, log: KafkaLog, prefix: str
) -> None:
    """As after a week in which no worker ran, by the brokers' default."""

    async def read(count: int) -> list[int]:
        owner = Owner(log)
        await owner.reader.start(owner)
        try:
            numbers = await owner.take(count)
            await owner.reader.commit({TopicPartition("numbers", 0): numbers[-1] + 1})
            return numbers
        finally:
            await owner.reader.stop()

    def a4co(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, env={"KAFKA_URL": kafka_broker.url, "TOPIC_PREFIX": prefix})

    await log.commit([Send("numbers", b"key", b"%d" % number, (), None, 0) for number in range(5)])
    assert await read(5) == [0, 1, 2, 3, 4]
    assert (await asyncio.to_thread(a4co, "offsets")).output == "nothing is forgotten\n"

    for go_on_at, count in {"start": 5, "end": 1}.items():
        forgotten = log.cluster.admin.delete_consumer_groups([f"{prefix}failing.count"])
        await asyncio.to_thread(forgotten[f"{prefix}failing.count"].result, 10)
        with pytest.raises(OffsetsForgotten, match=r"how far failing\.count has read numbers-0: .* `a4co offsets "):
            await read(1)
        told = await asyncio.to_thread(a4co, "offsets")
        assert (told.exit_code, told.output) == (1, "failing.count: numbers-0 forgotten\n")
        told = await asyncio.to_thread(a4co, "offsets", "--forgotten", go_on_at)
        assert (told.exit_code, told.output) == (0, f"failing.count: numbers-0 go on at the {go_on_at}\n")
        if go_on_at == "end":
            await say(log, 5)
        assert await read(count) == ([0, 1, 2, 3, 4] if go_on_at == "start" else [5])


async def test_offsets_that_do_not_move_are_committed_again_before_kafka_forgets_them(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.kafka.commits.RENEW", 0.5)
    owner = Owner(log)
    await owner.reader.start(owner)
    try:
        while not owner.has:
            await owner.reader.take(10, 0.1)
        seen: set[str] = set()
        async with asyncio.timeout(20):
            while len(seen) < 3:
                assert await owner.reader.take(10, 0.1) == []
                place = TopicPartition("numbers", 0)
                offset, metadata = (await asyncio.to_thread(log.cluster.stands, "failing.count", [place]))[place]
                assert offset in (None, 0)
                seen.add(metadata)
    finally:
        await owner.reader.stop()


async def test_a_member_that_could_not_ask_for_records_for_too_long_joins_again(
    kafka_broker: KafkaBroker, prefix: str
) -> None:
    """As after minutes without Kafka, in which it waited for the end of a transaction."""
    client = {"max.poll.interval.ms": "6000", "session.timeout.ms": "6000"}
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", prefix, client=client, group_protocol="classic"), "late")
    await log.connect()
    await log.prepare({"numbers": False}, 1)
    owner = Owner(log)
    await owner.reader.start(owner)
    try:
        await say(log, 1, 2)
        assert await owner.take(2) == [1, 2]
        await asyncio.sleep(8)
        assert await owner.take(2, within=30) == [1, 2]
        assert (owner.gone, owner.has) == ([0], {0})
    finally:
        await owner.reader.stop()
        await log.disconnect()


async def test_what_is_taken_again_counts_as_waiting(log: KafkaLog) -> None:
    owner = Owner(log)
    await say(log, 1, 2)
    await owner.reader.start(owner)
    try:
        assert await owner.take(2) == [1, 2]
        async with asyncio.timeout(20):
            while owner.reader.lag():  # until it has seen the end
                assert await owner.reader.take(10, 0.1) == []
        await owner.reader.rollback()
        owner.reader._consumer = Broken(owner.reader._consumer, seek=5)  # type: ignore[assignment]
        assert await owner.reader.take(10, 0.1) == []
        assert owner.reader.lag() > 0
    finally:
        await owner.reader.stop()


# ---- the bridge's log -------------------------------------------------------------------------------------


class Talker:
    """Stands where the bridge stands: it says one number after the other, from the one that is noted on."""

    def __init__(self, log: SoleLog, on_failure: Callable[[Exception], None]) -> None:
        self.said = 0
        self._log = log
        self._on_failure = on_failure
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.said = int(self._log.note("said") or b"0")
        self._task = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        try:
            while True:
                said = b"%d" % (self.said + 1)
                await self._log.commit([Send("numbers", b"key", said, (), None, 0)], notes={"said": said})
                self.said += 1
        except LogFailed as error:
            self._on_failure(error)

    async def stop(self) -> None:
        assert self._task is not None
        await end([self._task])

    def is_behind(self) -> bool:
        return False


class Talk:
    """A bridge that talks, over one broker: what it has said, how often it has begun, and why it ended."""

    def __init__(self, log: KafkaLog) -> None:
        self.failures: list[Exception] = []
        self.made: list[Talker] = []
        self.bridge = LeasedBridge(log, "failing", self._make, self.failures.append)
        self._log = log

    def _make(self, sole: SoleLog, on_failure: Callable[[Exception], None]) -> Bridge:
        self.made.append(Talker(sole, on_failure))
        return cast(Bridge, self.made[-1])

    @property
    def said(self) -> int:
        return self.made[-1].said if self.made else 0

    async def goes_on(self, within: float) -> None:
        """Return when it says more than until now, or has ended."""
        said = self.said
        await wait_until(lambda: self.failures or self.said > said + 3, within=within)

    async def numbers(self) -> list[int]:
        """What stands in the topic."""
        batches = await asyncio.to_thread(list, self._log.replay("numbers", 0, 0))
        return [int(record.value or b"") for batch in batches for record in batch]


@pytest_asyncio.fixture
async def talk(log: KafkaLog) -> AsyncIterator[Talk]:
    """It talks."""
    await log.prepare({OUTBOUND: False}, 1)
    talk = Talk(log)
    await talk.bridge.start()
    await talk.goes_on(within=20)
    yield talk
    await talk.bridge.stop()
    assert talk.failures == []
    numbers = await talk.numbers()
    assert len(numbers) >= talk.said
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.kafka.cluster.TRANSACTION_TIMEOUT", 2.0)
    monkeypatch.setattr("app.engine.kafka.transactions.COMMIT", 2.0)


@pytest.mark.usefixtures("_impatient")
async def test_the_bridge_begins_anew_as_often_as_kafka_is_killed_and_says_nothing_twice(
    kafka_broker: KafkaBroker, talk: Talk
) -> None:
    for _ in range(FAILURES + 1):
        await asyncio.to_thread(kafka_broker.kill)
        await asyncio.to_thread(kafka_broker.start)
        await talk.goes_on(within=60)
    assert len(talk.made) > FAILURES, "it did not begin anew each time"


@pytest.mark.timeout(240)
async def test_the_bridge_lives_through_a_broker_that_hangs_and_then_dies_twice_in_a_row(
    kafka_broker: KafkaBroker, talk: Talk
) -> None:
    with kafka_broker.silent():
        await asyncio.sleep(COMMIT + 3)
    for _ in range(2):
        await asyncio.to_thread(kafka_broker.kill)
        await asyncio.to_thread(kafka_broker.start)
    await talk.goes_on(within=120)


async def test_the_bridge_ends_when_its_log_fails_again_and_again_while_kafka_answers(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_arguments: Any, **_more: Any) -> int:
        raise LogFailed("Kafka: Broker: Topic authorization failed")

    monkeypatch.setattr("bridge.leased.AGAIN", 0.0)
    monkeypatch.setattr(SoleLog, "commit", refused)
    await log.prepare({OUTBOUND: False}, 1)
    talk = Talk(log)
    await talk.bridge.start()
    await wait_until(lambda: talk.failures, within=20)
    await talk.bridge.stop()
    assert len(talk.made) == FAILURES


async def test_a_bridge_log_that_is_not_read_in_time_is_given_up(
    kafka_broker: KafkaBroker, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.kafka.sole.OPENS", 1.0)
    await log.prepare({OUTBOUND: False}, 1)
    sole = SoleLog(log, "failing.bridge", OUTBOUND, "failing.out")
    begin, silent = sole._consumer, kafka_broker.silent()

    def begin_and_hear_nothing() -> Consumer:
        consumer = begin()
        silent.__enter__()
        return consumer

    monkeypatch.setattr(sole, "_consumer", begin_and_hear_nothing)
    try:
        with pytest.raises(LogFailed, match="outbound is not read after 1 s"):
            await asyncio.wait_for(sole.open(), 20)
    finally:
        silent.__exit__(None, None, None)
