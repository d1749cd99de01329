"""Rounds of the Faust transports, over the embedded log in this process: what is dropped leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import faust
import pytest
import pytest_asyncio

from app.engine.embedded_log import EmbeddedLog
from app.engine.embedded_reader import EmbeddedReader
from app.engine.errors import CommitAborted
from app.engine.faust.transport import EmbeddedTransport
from app.engine.open_logs import log_at
from app.engine.records import Send, TopicPartition
from tests.waiting import wait_until


class RefusesOnce(EmbeddedReader):
    """Its first commit is refused, as Kafka does when the worker was taken for dead."""

    refused = 0

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        if not self.refused:
            self.refused += 1
            raise CommitAborted("fenced")
        return await super().commit(offsets)


@pytest_asyncio.fixture
async def counting(tmp_path: Path) -> AsyncIterator[faust.App]:
    """An app that counts words, not yet started."""
    app = faust.App(
        "counting", broker=f"embedded://{tmp_path}/log.db", store="memory://", topic_partitions=3, web_enabled=False,
        datadir=str(tmp_path / "data"),
    )  # fmt: skip
    words = app.topic("words", key_type=str, value_type=str, partitions=2)
    counted = app.topic("counted", key_type=str)
    counts = app.Table("counts", default=int, partitions=2)

    @app.agent(words)
    async def count(stream: Any) -> None:
        async for word in stream:
            counts[word] += 1
            await counted.send(key=word, value=counts[word])

    yield app
    await app.stop()
    log_at(f"embedded://{tmp_path}/log.db").close()


@pytest.fixture
def log(tmp_path: Path) -> EmbeddedLog:
    """The log of that app."""
    return log_at(f"embedded://{tmp_path}/log.db")


def said(log: EmbeddedLog) -> list[tuple[bytes | None, bytes | None]]:
    if "counted" not in log.topics():
        return []
    return sorted((r.key, r.value) for p in range(log.partitions("counted")) for r in log.read("counted", p, 0, 10_000))


async def test_a_round_whose_commit_is_refused_is_done_again_as_if_it_had_never_been(
    counting: faust.App, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are new: their rows are in no changelog that would correct them."""

    def reader(self: EmbeddedTransport, group: str, topics: Sequence[str]) -> RefusesOnce:
        return RefusesOnce(self.log, group, topics)

    monkeypatch.setattr(EmbeddedTransport, "reader", reader)
    log.declare("words", 2)
    await log.commit([Send("words", word.encode(), f'"{word}"'.encode()) for word in ("aceite", "sal", "aceite")])
    await counting.start()
    wanted = [(b"aceite", b"1"), (b"aceite", b"2"), (b"sal", b"1")]
    await wait_until(lambda: len(said(log)) >= len(wanted), within=20)
    assert said(log) == wanted
    assert dict(cast(Any, counting.tables["counts"])) == {"aceite": 2, "sal": 1}


async def test_a_topic_that_comes_while_the_app_runs_is_read_beside_the_others(
    counting: faust.App, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(counting.topics), "_resubscribe_sleep_lock_seconds", 0.01)
    words = [Send("words", b"%d" % (n % 7), b'"%d"' % (n % 7)) for n in range(700)]
    log.declare("words", 2)
    await log.commit(words)
    await counting.start()
    await wait_until(lambda: said(log), within=20)
    heard: list[str] = []

    async def hear() -> None:
        async for value in counting.topic("more", value_type=str).stream():
            heard.append(value)  # noqa: PERF401 - one by one

    hearing = asyncio.create_task(hear())
    await wait_until(lambda: "more" in log.topics(), within=20)
    await log.commit([*words, Send("more", b"1", b'"at last"')])
    await wait_until(lambda: heard == ["at last"] and len(said(log)) >= 1_400, within=20)
    hearing.cancel()
    assert said(log) == sorted((b"%d" % key, b"%d" % count) for key in range(7) for count in range(1, 201))


async def test_topics_have_the_partitions_that_the_app_asks_for(counting: faust.App, log: EmbeddedLog) -> None:
    await counting.start()
    await wait_until(lambda: "words" in log.topics(), within=20)
    assert log.topics()["words"] == 2
    assert log.topics()["counting-counts-changelog"] == 2
    await (await counting.topic("counted", key_type=str).send(key="sal", value=1))
    assert log.topics()["counted"] == 3, "nobody has said how many"
