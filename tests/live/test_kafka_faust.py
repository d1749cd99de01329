"""A stock Faust app runs on `a4co-kafka://` by its URL alone, and each trap of stock Faust on Kafka is closed.

Beside each trap is what was seen of the same test on Faust's own transport (faust-streaming 0.15.3, aiokafka 0.14,
Kafka 4.2): STOCK_FAUST=at_least_once or exactly_once, see `faust_worker`. Lanes close the same traps in tests of their
own: test_kafka_engine.py, test_lanes.py, test_dead_letters.py.
"""

import asyncio
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic  # type: ignore[attr-defined]

from app.engine.partitioner import partition_for
from tests.live.counting import read
from tests.live.faust_worker import MISBEHAVING, PARTITIONS, STOCK, VOCABULARY, WORD_COUNT, FaustWorker, Topics, Words
from tests.live.kafka_broker import KafkaBroker
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

Make = Callable[..., FaustWorker]

PATIENCE = 90 if STOCK else 40
"""Seconds until everything must have been counted."""


@pytest.fixture
def admin(kafka_broker: KafkaBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka_broker.servers})


@pytest.fixture
def prefix(admin: AdminClient) -> str:
    """Before the names of this test's topics and groups. The topics that the apps don't declare are there."""
    prefix = "" if STOCK else f"test-{uuid.uuid4().hex[:8]}."
    topics = [NewTopic(prefix + name, PARTITIONS, 1) for name in ("words", "counted", "told", "gathered", "done")]
    for future in admin.create_topics(topics).values():
        future.result(10)
    return prefix


@pytest.fixture
def topics(kafka_broker: KafkaBroker, prefix: str) -> Topics:
    return Topics(kafka_broker.servers, prefix)


@pytest.fixture
def words(kafka_broker: KafkaBroker, prefix: str) -> Words:
    return Words(kafka_broker.servers, prefix)


@pytest_asyncio.fixture
async def worker(kafka_broker: KafkaBroker, prefix: str, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes and starts workers by name."""
    made: list[FaustWorker] = []

    def make(name: str, script: Path = WORD_COUNT, **environment: str) -> FaustWorker:
        made.append(FaustWorker(script, kafka_broker.servers, prefix, tmp_path, name, **environment))
        return made[-1].start()

    yield make
    for process in made:
        if not process.running:
            print(f"{process.name}:\n{process.output()}")
        process.close()


async def counted(words: Words, records: int, *workers: FaustWorker) -> None:
    """Wait until so many counts have come, marks of transactions counted as well."""

    def there() -> bool:
        assert all(worker.running for worker in workers)
        return words.counted() >= records

    await wait_until(there, within=PATIENCE, every=0.1, what=f"no {records} counts")


async def all_is_counted(words: Words, *workers: FaustWorker) -> None:
    """Wait until each word is counted once, in outputs, table and offsets."""
    await counted(words, words.said, *workers)

    def settled() -> bool:
        differences = words.differences()
        assert differences == [], "; ".join(differences)
        return True

    await wait_until(settled, within=PATIENCE, every=0.5, what="not all is counted once")


async def owns(worker: FaustWorker, partitions: int) -> None:
    """Wait until the worker has said that it has so many partitions."""

    def there() -> bool:
        assert worker.running, worker.output()
        return worker.assigned() == partitions

    await wait_until(there, within=PATIENCE, every=0.05, what=f"{worker.name} has not {partitions} partitions")


# ---- killed -----------------------------------------------------------------------------------------------


async def test_a_worker_killed_again_and_again_counts_each_word_once(words: Words, worker: Make) -> None:
    """Traps: counts double after kill -9; commits stick after a restart; exactly_once loses and repeats.

    Stock, for 12,000 words: at_least_once said 19,925 counts, and the table's sum was 19,926; exactly_once said 15,611
    counts, 3,691 of them repeated, and 80 were lost from the table. `counted` is a topic that the app does not consume.
    """
    chance = random.Random(11)
    process = worker("one")
    for _kill in range(3):
        words.say(4_000)
        await counted(words, words.counted() + chance.randrange(500, 3_000), process)
        process.kill()
        process.start()
    await all_is_counted(words, process)
    process.stop()
    for partition, messages in enumerate(read(words.servers, f"{words.prefix}counted")):
        assert {partition_for(message.key() or b"", PARTITIONS) for message in messages} <= {partition}


async def test_two_workers_of_which_one_is_killed_and_comes_back_count_each_word_once(
    words: Words, worker: Make
) -> None:
    """Stock, at_least_once: two workers that had started together had not said 1,471 of 4,000 counts after 90 s."""
    chance = random.Random(12)
    stays, dies = worker("stays"), worker("dies")
    for _kill in range(2):
        words.say(4_000)
        await counted(words, words.counted() + chance.randrange(500, 2_000), stays, dies)
        dies.kill()
        words.say(1_000)
        dies.start()
    await all_is_counted(words, stays, dies)


async def test_a_killed_worker_s_words_are_counted_by_another_within_ten_seconds(words: Words, worker: Make) -> None:
    """Trap: a killed worker's partitions wait for its session to end. Stock, by its own settings: 64.1 s."""
    words.say(VOCABULARY)
    stays, dies = worker("stays"), worker("dies")
    await owns(stays, 2)
    await owns(dies, 2)
    await all_is_counted(words, stays, dies)
    dies.kill()
    killed = time.monotonic()
    words.say(VOCABULARY)
    await all_is_counted(words, stays)
    seconds = time.monotonic() - killed
    print(f"taken over after {seconds:.1f} s")
    assert seconds < 10


# ---- come and go ------------------------------------------------------------------------------------------


async def test_workers_that_come_and_go_in_mid_stream_count_each_word_once(words: Words, worker: Make) -> None:
    """Trap: counts double after a graceful rebalance. Stock, at_least_once: 13,664 counts for 9,000 words."""
    first = worker("first")
    await owns(first, PARTITIONS)
    words.say(6_000)
    await counted(words, 500, first)
    second = worker("second")
    await owns(second, 2)
    words.say(3_000)
    await counted(words, words.counted() + 500, first, second)
    second.stop()
    await all_is_counted(words, first)


async def test_a_worker_that_was_frozen_and_goes_on_counts_nothing_twice(words: Words, worker: Make) -> None:
    """Trap: a zombie is not fenced. Stock, at_least_once, for 9,000 words: 9,591 counts, 45 repeated, the table's sum
    9,546; and of two partitions 3,825 messages were never committed.
    """
    frozen, other = worker("frozen"), worker("other")
    await owns(frozen, 2)
    await owns(other, 2)
    words.say(8_000)
    await counted(words, 500, frozen, other)
    frozen.send(signal.SIGSTOP)
    await owns(other, PARTITIONS)
    words.say(1_000)
    frozen.send(signal.SIGCONT)
    await all_is_counted(words, other)


# ---- handlers ---------------------------------------------------------------------------------------------


async def all_is_done(topics: Topics, wanted: dict[str, list[int]], process: FaustWorker) -> None:
    """Wait until so many counts are said of each key, and the table is the same; then no more may come."""

    def settled() -> bool:
        assert process.running, process.output()
        assert topics.values("done") == wanted
        assert topics.newest("misbehaving-counts-changelog") == {key: counts[-1] for key, counts in wanted.items()}
        assert topics.uncommitted("misbehaving", "told") == [0] * PARTITIONS
        return True

    await wait_until(settled, within=PATIENCE, every=0.5, what="not each message is done once")


async def has_said(topics: Topics, wanted: dict[str, list[int]]) -> None:
    """Wait until so many counts are said of each key."""

    def there() -> bool:
        said = dict(topics.values("done"))
        assert said == wanted, said
        return True

    await wait_until(there, within=PATIENCE, every=0.5, what="not each message is done once")


async def test_a_message_whose_handler_is_not_done_is_not_committed_past(
    topics: Topics, worker: Make, tmp_path: Path
) -> None:
    """Trap: acks out of order commit past what is not done: here handlers run beside each other.

    Stock, at_least_once: the slow message was never done; it was committed while its handler ran.
    """
    process = worker("one", MISBEHAVING, CONCURRENCY="10")
    topics.send("told", "slow", "wait", partition=0)
    for number in range(40):
        topics.send("told", f"quick-{number}", "go", partition=0)
    topics.flush()
    await wait_until((tmp_path / "waited").exists, within=PATIENCE, every=0.1)
    await asyncio.sleep(5 if STOCK else 0.5)  # the time for a commit of what is done
    process.kill()
    process.start()
    await all_is_done(topics, {"slow": [1], **{f"quick-{number}": [1] for number in range(40)}}, process)


async def test_a_message_whose_handler_fails_is_not_acknowledged(topics: Topics, worker: Make) -> None:
    """Trap: a handler's exception acks the message. Here nothing of it is kept, nor of those beside it, and the worker
    ends; the next one does them again. Stock, at_least_once: its output never came, the other 39 did.
    """
    process = worker("one", MISBEHAVING)
    for number in range(40):
        topics.send("told", f"key-{number}", "fail" if number == 20 else "go", partition=number % PARTITIONS)
    topics.flush()
    if not STOCK:
        assert await asyncio.to_thread(process.wait) != 0
        assert "ValueError: fail" in process.output()
        process.start()
    await all_is_done(topics, {f"key-{number}": [1] for number in range(40)}, process)


async def test_what_take_has_said_of_messages_that_are_not_done_was_never_said(
    topics: Topics, worker: Make, tmp_path: Path
) -> None:
    """Trap: tables can't be changed in `take`, nor outside of a stream: Faust raises a TypeError on any transport, so
    nothing can be wrong there. What is sent from it belongs to the round. Stock, both guarantees: said twice.
    """
    process = worker("one", MISBEHAVING)
    for what in ("one", "two", "three", "wait"):
        topics.send("gathered", "key", what, partition=0)
    topics.flush()
    await wait_until((tmp_path / "waited").exists, within=PATIENCE, every=0.1)
    await asyncio.sleep(1)
    process.kill()
    process.start()
    await has_said(topics, {"one": [1], "two": [1], "three": [1], "wait": [1]})


# ---- changelogs -------------------------------------------------------------------------------------------


async def test_a_changelog_without_a_record_at_its_end_does_not_keep_a_worker_from_starting(
    topics: Topics, worker: Make, admin: AdminClient
) -> None:
    """Trap: recovery waits for the record before the end. Partition 0 has rows, and the mark of their transaction; 1
    was cut; 2 has what was aborted; 3 is empty. Stock: at_least_once counted nothing in 90 s, exactly_once went on.
    """
    process = worker("one", MISBEHAVING)
    topics.send("told", "stays", "go", partition=0)
    topics.send("told", "goes", "go", partition=1)
    topics.flush()
    await all_is_done(topics, {"stays": [1], "goes": [1]}, process)
    process.stop()
    changelog = f"{topics.prefix}misbehaving-counts-changelog"
    resource = ConfigResource(ConfigResource.Type.TOPIC, changelog)
    assert admin.describe_configs([resource])[resource].result(10)["cleanup.policy"].value == "compact"
    deletable = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, changelog, incremental_configs=[deletable])
    admin.incremental_alter_configs([resource])[resource].result(10)
    end = topics.ends("misbehaving-counts-changelog")[1]
    admin.delete_records([Place(changelog, 1, end)])[Place(changelog, 1)].result(10)
    topics.abort("misbehaving-counts-changelog", "aborted", 7, partition=2)

    process.start()
    topics.send("told", "stays", "go", partition=0)
    topics.send("told", "goes", "go", partition=1)
    topics.send("told", "aborted", "go", partition=2)
    topics.flush()
    began = time.monotonic()
    await has_said(topics, {"stays": [1, 2], "goes": [1, 1], "aborted": [1]})
    print(f"started and done after {time.monotonic() - began:.1f} s")


async def test_a_table_that_would_be_written_before_its_commit_is_refused(worker: Make) -> None:
    """Trap: RocksDB that is ahead of its changelog stops the worker at each start (read). Here it is refused at once.

    The stores of lanes rebuild themselves: test_a_changelog_that_was_cut_or_made_anew_is_what_the_table_becomes.
    """
    process = worker("one", MISBEHAVING, APP_STORE="rocksdb://", STORE="rocksdb://")
    assert await asyncio.to_thread(process.wait) != 0
    assert "table 'counts' would be stored before its changes are committed" in process.output()
