"""The lease on a real Kafka broker: one of many has it, a silent one loses it, and a former one knows."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from confluent_kafka import Producer

from app.engine.kafka import lease
from app.engine.kafka.lease import BRIEF, LEASE, SILENCE, Lease
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from tests.live.kafka_broker import KafkaBroker
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]


FOR_EVER = 3600.0
"""Seconds of silence that nobody waits for."""


class Process:
    """What one process does with the lease: `works` tells whether it is at it."""

    def __init__(self, log: KafkaLog, part: Lease) -> None:
        self.lease = part
        self.works = False
        self._log = log
        self._task = asyncio.create_task(part.run(self._begin, self._end))

    async def _begin(self) -> None:
        self.works = True

    async def _end(self) -> None:
        self.works = False

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._log.disconnect()


Make = Callable[..., Process]


@pytest_asyncio.fixture
async def process(kafka_broker: KafkaBroker) -> AsyncIterator[Make]:
    """Makes processes by name."""
    prefix, made = f"lease-{uuid.uuid4().hex[:8]}.", list[Process]()
    first = KafkaLog(KafkaOptions(kafka_broker.servers, "first", prefix), "leasing")
    await first.connect()
    await first.prepare({}, 1)

    def make(name: str, *, claims: bool = True, note: str = "") -> Process:
        log = KafkaLog(KafkaOptions(kafka_broker.servers, name, prefix), "leasing")
        made.append(Process(log, Lease(log.cluster, claims=claims, says=lambda: note)))
        return made[-1]

    yield make
    for one in made:
        await one.stop()
    await first.disconnect()


async def test_one_of_many_has_it_and_the_next_has_it_at_once_when_that_one_ends(
    process: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SILENCE", FOR_EVER)
    many = [process(f"bridge-{number}") for number in range(3)]
    await wait_until(lambda: any(one.works for one in many), within=10)
    while len(many) > 1:
        [holder] = [one for one in many if one.works]
        await wait_until(lambda: all(one.lease.sign for one in many), within=5)
        assert {one.lease.sign.term for one in many if one.lease.sign} == {holder.lease.sign.term}  # type: ignore[union-attr]
        many.remove(holder)
        await holder.stop()
        assert not holder.works
        await wait_until(lambda: any(one.works for one in many), within=SILENCE - 0.5)


async def test_who_only_looks_on_knows_of_the_holder_and_never_is_one(process: Make) -> None:
    looker = process("worker", claims=False)
    await wait_until(lambda: looker.lease._began)
    assert looker.lease.sign is None
    holder = process("bridge", note="behind")
    sign = await wait_until(lambda: looker.lease.sign, within=10)
    assert sign is not None
    assert (sign.holder.rpartition(".")[0], sign.note) == ("bridge", "behind")
    await holder.stop()
    await wait_until(lambda: looker.lease.sign is None, within=5)
    assert not looker.works


async def test_a_holder_that_slept_has_lost_it_and_is_not_certain_before_it_knows(
    process: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = process("sleeper")
    await wait_until(lambda: sleeper.works, within=10)
    await wait_until(sleeper.lease.certain)
    awake = asyncio.Event()
    loop = asyncio.get_running_loop()

    def sleeps(*_arguments: object) -> None:
        asyncio.run_coroutine_threadsafe(awake.wait(), loop).result()

    with monkeypatch.context() as patched:
        patched.setattr(sleeper.lease, "_step", sleeps)
        other = process("other")
        await wait_until(lambda: other.works, within=SILENCE + 5)
        assert sleeper.works
        assert not sleeper.lease.certain()
    awake.set()
    assert not await sleeper.lease.still_ours()
    await wait_until(lambda: not sleeper.works)
    assert other.works


async def test_a_process_that_was_started_again_does_not_wait_for_itself(
    process: Make, kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SILENCE", FOR_EVER)
    looker = process("looker", claims=False)
    producer = Producer({"bootstrap.servers": kafka_broker.servers})
    producer.produce(looker.lease._place.topic, b'{"term":7,"holder":"bridge.before","at":1.0}', partition=0)
    assert producer.flush(10) == 0
    other = process("other")
    again = process("bridge")
    await wait_until(lambda: again.works, within=10)
    assert not other.works
    assert again.lease.sign is not None
    assert again.lease.sign.term == 8


async def test_of_two_claims_of_a_term_the_first_counts_for_everybody(process: Make, kafka_broker: KafkaBroker) -> None:
    """Also for who comes later; and a word of somebody else's disturbs nobody."""
    early = process("early", claims=False)
    producer = Producer({"bootstrap.servers": kafka_broker.servers})
    for line in (
        b'{"term":1,"holder":"a.1"}', b'{"term":2,"holder":"b.1"}', b'{"term":2,"holder":"c.1"}', b"what?",
        b'{"term":1,"holder":"a.1"}',
    ):  # fmt: skip
        producer.produce(early.lease._place.topic, line, partition=0)
    assert producer.flush(10) == 0
    late = process("late", claims=False)
    for one in (early, late):
        sign = await wait_until(lambda: one.lease.sign, within=2 * SILENCE)  # noqa: B023
        assert sign is not None
        assert (sign.term, sign.holder) == (2, "b.1")


async def test_its_topic_keeps_a_day_of_signs(process: Make) -> None:
    cluster = process("looker", claims=False)._log.cluster
    config = cluster._configs([cluster.outer(LEASE)])[cluster.outer(LEASE)]
    assert BRIEF.items() <= config.items()
