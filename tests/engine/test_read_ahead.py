"""Reading ahead: how far each partition is read before anything is done with, and that one does not keep the others."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError

from app.engine.kafka import read_ahead
from app.engine.kafka.read_ahead import FIRST, RECORD_BYTES, TAKEN, ReadAhead

SHARE = 1_000
"""Records that are kept of each partition."""


class Said:
    """A message of a partition, without a value; or its end."""

    def __init__(self, partition: int, offset: int, *, end: bool = False) -> None:
        self._place = partition, offset
        self._end = end

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def error(self) -> Any:
        return KafkaError(KafkaError._PARTITION_EOF) if self._end else None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> None: ...
    def value(self) -> None: ...
    def headers(self) -> None: ...


class Topic:
    """A consumer of a topic with so many records in each partition, which gives all of one before any of the next."""

    def __init__(self, *lengths: int) -> None:
        self._left = [
            [*(Said(partition, offset) for offset in range(length)), Said(partition, length, end=True)]
            for partition, length in enumerate(lengths)
        ]
        self._paused: set[int] = set()
        self.given = [0] * len(lengths)
        self.done = threading.Event()

    def consume(self, number: int, timeout: float) -> list[Said]:
        for partition, left in enumerate(self._left):
            if left and partition not in self._paused:
                some = left[:number]
                del left[:number]
                self.given[partition] += len(some)
                return some
        self.done.wait(timeout)
        return []

    def poll(self, timeout: float) -> Said | None:
        return next(iter(self.consume(1, timeout)), None)

    def pause(self, places: Sequence[Any]) -> None:
        self._paused |= {place.partition for place in places}

    def resume(self, places: Sequence[Any]) -> None:
        self._paused -= {place.partition for place in places}

    def assign(self, _places: Sequence[Any]) -> None: ...
    def close(self) -> None: ...


class Cluster:
    """Calls on threads, names as they are."""

    async def call(self, work: Any, *given: Any) -> Any:
        return await asyncio.to_thread(work, *given)

    def outer(self, name: str) -> str:
        return name


async def test_each_partition_is_read_a_share_and_a_quarter_before_anything_is_done_with_and_a_share_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_ahead, "AHEAD_BYTES", 3 * SHARE * RECORD_BYTES)
    topic = Topic(5_000, 5_000, 7)
    failures: list[Exception] = []
    ahead = ReadAhead(Cluster(), topic, "outbound", [0, 0, 0], lambda: None, failures.append)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(10):
            await ahead.ready.wait()
        first = [SHARE * FIRST < end <= SHARE * FIRST + 2 * TAKEN for end in ahead.ends[:2]]
        assert (first, ahead.ends[2]) == ([True, True], 7), ahead.ends
        before = list(topic.given)
        await asyncio.sleep(4 * read_ahead.WAIT)  # a reader that is full reads nothing
        assert topic.given == before

        begun = ahead.ends[0]
        for done in range(SHARE // 2, begun, SHARE // 2):  # the surplus is not read again
            ahead.done(0, done)
            ahead.done(1, done)
            await asyncio.sleep(2 * read_ahead.WAIT)
            assert len(ahead.read(0, 0, 10_000)) <= max(begun - done, SHARE + 2 * TAKEN)
        assert ahead.ends[0] > begun
        assert [record.offset for record in ahead.read(0, 0, 10_000)] == list(range(done, ahead.ends[0]))
    finally:
        topic.done.set()
        await ahead.close()
    assert not failures
