"""Rounds of the Faust transports, over the embedded log in this process: what is dropped leaves nothing behind."""

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
        "counting", broker=f"embedded://{tmp_path}/log.db", store="memory://", topic_partitions=2, web_enabled=False,
        datadir=str(tmp_path / "data"),
    )  # fmt: skip
    words = app.topic("words", key_type=str, value_type=str)
    counted = app.topic("counted", key_type=str)
    counts = app.Table("counts", default=int)

    @app.agent(words)
    async def count(stream: Any) -> None:
        async for word in stream:
            counts[word] += 1
            await counted.send(key=word, value=counts[word])

    yield app
    await app.stop()
    log_at(f"embedded://{tmp_path}/log.db").close()


def said(log: EmbeddedLog) -> list[tuple[bytes | None, bytes | None]]:
    return sorted((r.key, r.value) for p in range(2) for r in log.read("counted", p, 0, 100))


async def test_a_round_whose_commit_is_refused_is_done_again_as_if_it_had_never_been(
    counting: faust.App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are new: their rows are in no changelog that would correct them."""

    def reader(self: EmbeddedTransport, group: str, topics: Sequence[str]) -> RefusesOnce:
        return RefusesOnce(self.log, group, topics)

    monkeypatch.setattr(EmbeddedTransport, "reader", reader)
    log = log_at(f"embedded://{tmp_path}/log.db")
    log.declare("words", 2)
    log.declare("counted", 2)
    await log.commit([Send("words", word.encode(), f'"{word}"'.encode()) for word in ("aceite", "sal", "aceite")])
    await counting.start()
    wanted = [(b"aceite", b"1"), (b"aceite", b"2"), (b"sal", b"1")]
    await wait_until(lambda: len(said(log)) >= len(wanted), within=20)
    assert said(log) == wanted
    assert dict(cast(Any, counting.tables["counts"])) == {"aceite": 2, "sal": 1}
