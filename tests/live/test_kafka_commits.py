"""A member's commits on Kafka: who takes over ends what was left, and a commit without an answer is asked for."""

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from confluent_kafka import Consumer

from app.engine.errors import CommitAborted, CommitUnknown
from app.engine.kafka.commits import Commits
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.kafka.patience import Patience
from app.engine.records import Send, TopicPartition
from tests.live.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.live, pytest.mark.slow]

GROUP = "shop.count"
SOURCE = TopicPartition("numbers", 0)
ANSWER = [Send("answers", b"olives", b"12", (), None, 0)]


@pytest_asyncio.fixture
async def log(kafka_broker: KafkaBroker) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(KafkaOptions(kafka_broker.servers, "one", f"test-{uuid.uuid4().hex[:8]}."), "shop")
    await log.connect()
    await log.prepare({"numbers": False, "answers": False}, 1)
    yield log
    await log.disconnect()


async def member(log: KafkaLog, name: str) -> Commits:
    """Commits of one that is in no group, and so is refused nothing."""
    consumer = Consumer(log.cluster.consumer(**{"group.id": log.cluster.outer(GROUP)}))
    commits = Commits(log.cluster, GROUP, name, Patience(GROUP), None, consumer.consumer_group_metadata, dict)
    await commits.open()
    return commits


async def stands(log: KafkaLog) -> int | None:
    return (await log.cluster.call(log.cluster.stands, GROUP, [SOURCE]))[SOURCE][0]


async def test_who_takes_over_ends_the_transaction_that_was_left_open(log: KafkaLog) -> None:
    gone, new = await member(log, "gone"), await member(log, "new")
    gone.stage(ANSWER)
    assert await gone.commit({SOURCE: 3}) == {TopicPartition("answers", 0): 1}
    assert await stands(log) == 3  # the broker has written its marks
    gone.stage(ANSWER)
    gone.closing({SOURCE: 5})

    assert await log.cluster.call(new.take_over, [SOURCE]) == {SOURCE: 3}
    with pytest.raises(CommitAborted):
        await gone.commit({SOURCE: 5})
    new.stage(ANSWER)
    await new.commit({SOURCE: 4})
    assert await stands(log) == 4


@pytest.mark.parametrize("made", [True, False])
async def test_a_commit_without_an_answer_is_told_by_what_stands(
    log: KafkaLog, made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = await member(log, "one")
    await commits.commit({SOURCE: 3})
    commit = commits._writer.commit

    def no_answer() -> None:
        monkeypatch.setattr(commits._writer, "commit", commit)
        if made:
            commit()
        raise CommitUnknown("the broker has gone")

    monkeypatch.setattr(commits._writer, "commit", no_answer)
    commits.stage(ANSWER)
    if made:
        assert await commits.commit({SOURCE: 5}) == {TopicPartition("answers", 0): 1}
    else:
        with pytest.raises(CommitAborted):
            await commits.commit({SOURCE: 5})
        assert await stands(log) == 3
        await commits.abort()
        commits.stage(ANSWER)
        await commits.commit({SOURCE: 5})
    assert await stands(log) == 5


async def test_what_is_given_back_has_no_writer_any_more(log: KafkaLog) -> None:
    commits = await member(log, "one")
    await commits.give_back({SOURCE: 9})
    assert await stands(log) is None, "it has committed nothing"
    await commits.commit({SOURCE: 3})
    await commits.give_back({SOURCE: 3})
    assert await log.cluster.call(log.cluster.stands, GROUP, [SOURCE]) == {SOURCE: (3, "")}
