"""A stock Faust app runs on `a4co-kafka://` by its URL alone, and counts each word once whatever happens to workers."""

import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.live.kafka_broker import KafkaBroker
from tests.live.word_counting import PARTITIONS, VOCABULARY, WordCounter, Words
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

Make = Callable[..., WordCounter]


@pytest.fixture
def prefix(kafka_broker: KafkaBroker) -> str:
    """Before the names of this test's topics and groups; the topic `words` is there."""
    prefix = f"test-{uuid.uuid4().hex[:8]}."
    admin = AdminClient({"bootstrap.servers": kafka_broker.servers})
    for future in admin.create_topics([NewTopic(f"{prefix}words", PARTITIONS, 1)]).values():
        future.result(10)
    return prefix


@pytest.fixture
def words(kafka_broker: KafkaBroker, prefix: str) -> Words:
    return Words(kafka_broker.servers, prefix)


@pytest_asyncio.fixture
async def counter(kafka_broker: KafkaBroker, prefix: str, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes and starts workers by name."""
    made: list[WordCounter] = []

    def make(name: str) -> WordCounter:
        made.append(WordCounter(f"a4co-kafka://{kafka_broker.servers}?prefix={prefix}", tmp_path, name))
        return made[-1].start()

    yield make
    for process in made:
        if not process.running:
            print(f"{process.name}:\n{process.output()}")
        process.close()


async def counted(words: Words, records: int, *workers: WordCounter, within: float = 40) -> None:
    """Wait until so many counts have come, marks of transactions counted as well."""

    def there() -> bool:
        for worker in workers:
            assert worker.running, worker.output()
        return sum(words.ends("counted")) >= records

    await wait_until(there, within=within, every=0.1, what=f"no {records} counts")


async def all_is_counted(words: Words, *workers: WordCounter, within: float = 40) -> None:
    await counted(words, words.said, *workers, within=within)

    def settled() -> bool:
        assert words.differences() == []
        return True

    await wait_until(settled, within=within, every=0.5, what="not all is counted")


async def test_a_worker_killed_again_and_again_counts_each_word_once(words: Words, counter: Make) -> None:
    chance = random.Random(11)
    process = counter("one")
    for _kill in range(3):
        words.say(4_000)
        await counted(words, sum(words.ends("counted")) + chance.randrange(500, 3_000), process)
        process.kill()
        process.start()
    await all_is_counted(words, process)
    process.stop()
    assert words.differences() == []


async def test_two_workers_of_which_one_is_killed_and_comes_back_count_each_word_once(
    words: Words, counter: Make
) -> None:
    chance = random.Random(12)
    stays, dies = counter("stays"), counter("dies")
    for _kill in range(2):
        words.say(4_000)
        await counted(words, sum(words.ends("counted")) + chance.randrange(500, 2_000), stays, dies)
        dies.kill()
        words.say(1_000)
        dies.start()
    await all_is_counted(words, stays, dies)
    dies.stop()
    words.say(1_000)
    await all_is_counted(words, stays)
    stays.stop()
    assert words.differences() == []


async def test_a_killed_worker_s_words_are_counted_by_another_within_ten_seconds(words: Words, counter: Make) -> None:
    words.say(VOCABULARY)
    stays, dies = counter("stays"), counter("dies")
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


async def owns(worker: WordCounter, partitions: int, within: float = 30) -> None:
    """Wait until the worker has said that it has so many partitions."""

    def there() -> bool:
        assert worker.running, worker.output()
        return worker.assigned() == partitions

    await wait_until(there, within=within, every=0.05, what=f"{worker.name} has not {partitions} partitions")
