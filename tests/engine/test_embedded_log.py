"""The embedded log keeps what was committed, all or nothing, in the places where Kafka would put it."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner

from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import LogBusy, LogFailed, TopicMismatch
from app.engine.partitioner import partition_for
from app.engine.records import Send, TopicPartition
from tests.engine.conftest import reopened

SOURCE = TopicPartition("words", 0)


async def test_records_come_back_in_order_with_key_headers_and_time(log: EmbeddedLog) -> None:
    headers = (("subject", b"order.created"), ("raw", bytes(range(256))), ("subject", b"twice"))
    await log.commit([Send("words", b"k", b"1", headers, 12.5, 2), Send("words", None, None, (), 13.0, 2)])
    first, second = log.read("words", 2, 0, 10)
    assert (first.offset, first.key, first.value, first.headers, first.timestamp) == (0, b"k", b"1", headers, 12.5)
    assert (second.offset, second.key, second.value, second.headers) == (1, None, None, ())


async def test_a_log_that_closes_while_it_syncs_has_not_failed(tmp_path: Path) -> None:
    for number in range(20):
        log = EmbeddedLog(tmp_path / f"{number}.db")
        failures: list[BaseException] = []
        log.on_failure = failures.append
        log.open()
        log.declare("words", 1)
        await log.commit([Send("words", b"k", b"1")])
        await asyncio.sleep(0)  # the sync is under way
        await log.commit([Send("words", b"k", b"2")])
        assert log._sync is not None
        under_way = log._sync._running
        assert under_way is not None
        log.close()
        await under_way
        assert failures == []


@pytest.mark.parametrize("key", [b"order-1", b"", "Jaén".encode(), b"\x00\xff", b"x" * 300])
def test_a_key_goes_where_kafka_puts_it(key: bytes) -> None:
    partitions = list(range(7))
    assert partition_for(key, 7) == DefaultPartitioner()(key, partitions, partitions)


async def test_offsets_notes_and_records_are_committed_together_or_not_at_all(log: EmbeddedLog) -> None:
    await log.commit([Send("words", b"a", b"1")], group="g", offsets={SOURCE: 4}, notes={"position": b"9"})
    with pytest.raises(TopicMismatch):
        await log.commit(
            [Send("words", b"a", b"2")], group="g", offsets={TopicPartition("nowhere", 0): 5}, notes={"position": b"10"}
        )
    log = reopened(log)
    assert sum(log.end("words", partition) for partition in range(3)) == 1
    assert log.committed("g", "words", 0) == 4
    assert log.committed("other", "words", 0) is None
    assert log.note("position") == b"9"
    log.close()


async def test_a_transaction_that_fails_in_the_middle_leaves_nothing_and_the_log_takes_no_more(
    log: EmbeddedLog,
) -> None:
    class Broken(bytes):
        """Bytes that SQLite can't bind."""

    await log.commit([Send("words", b"a", b"kept", (), None, 0)])
    log._db.execute("CREATE TRIGGER full BEFORE INSERT ON records WHEN NEW.value = x'ff' "
                    "BEGIN SELECT RAISE(ABORT, 'disk is full'); END")  # fmt: skip
    heard: list[LogFailed] = []
    log.on_failure = heard.append
    with pytest.raises(LogFailed, match="disk is full"):
        await log.commit([Send("words", b"a", b"lost", (), None, 0), Send("words", b"a", b"\xff", (), None, 0)])
    assert [record.value for record in log.read("words", 0, 0, 10)] == [b"kept"]
    assert log.end("words", 0) == 1
    assert len(heard) == 1
    with pytest.raises(LogFailed):
        await log.commit([Send("words", b"a", b"more", (), None, 0)])


async def test_offsets_go_on_where_they_were_after_a_restart(log: EmbeddedLog) -> None:
    await log.commit([Send("words", b"a", b"1", (), None, 1), Send("words", b"a", b"2", (), None, 1)])
    log = reopened(log)
    log.append([Send("words", b"a", b"3", (), None, 1)])
    assert [record.value for record in log.read("words", 1, 2, 10)] == [b"3"]
    assert log.topics() == {"words": 3, "rows": 1}
    log.close()


async def test_a_second_process_is_told_who_has_the_file(log: EmbeddedLog) -> None:
    code = f"""
        from pathlib import Path
        from app.engine.embedded_log import EmbeddedLog
        EmbeddedLog(Path({str(log.path)!r})).open()
    """
    other = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert other.returncode == 1
    assert f"LogBusy: the embedded log {log.path} is in use by the process {os.getpid()}" in other.stderr
    with pytest.raises(LogBusy):
        EmbeddedLog(log.path).open()


def test_a_file_that_is_no_log_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"this is not a database, it is a letter" * 100)
    with pytest.raises(LogFailed, match="can't be opened"):
        EmbeddedLog(path).open()
    assert path.read_bytes().startswith(b"this is not")


def test_a_topic_keeps_its_number_of_partitions(log: EmbeddedLog) -> None:
    log.declare("words", 3)
    with pytest.raises(TopicMismatch, match="has 3 partitions"):
        log.declare("words", 4)
    with pytest.raises(TopicMismatch, match="not declared"):
        log.read("letters", 0, 0, 1)


async def test_synced_returns_when_the_file_was_synced_and_one_sync_serves_many(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    real = os.fdatasync

    def counted(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        real(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    await log.commit([Send("words", b"a", b"1")])
    await log.synced()
    assert syncs >= 1
    before = syncs
    commits = [await log.commit([Send("words", b"a", b"%d" % n)]) for n in range(100)]
    await asyncio.gather(*(log.synced(commit) for commit in commits))
    assert syncs - before <= 3


async def test_a_disk_that_fails_to_sync_is_an_error_for_everybody_who_waits(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.synced()

    def fails(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fails)
        commit = await log.commit([Send("words", b"a", b"1")])
        for _ in range(2):
            with pytest.raises(LogFailed, match="Input/output error"):
                await log.synced(commit)
    assert log.failure is not None


async def test_what_is_kept_in_memory_is_what_the_file_says(log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches reads from memory as far as that goes back, and from the file before it."""
    monkeypatch.setattr("app.engine.embedded_tail.KEPT_BYTES", 20_000)
    await log.commit([Send("words", b"early", b"before anybody watched", (("subject", b"s"),), 1.0, 0)])
    log.watch(["words"])
    for number in range(60):
        headers = (("subject", b"order.created"),) if number % 2 else ()
        await log.commit([Send("words", b"k", b"%090d" % (2 * number + n), headers, 2.0 + number, 0) for n in range(2)])
    step = 7
    told = [record for at in range(0, 121, step) for record in log.read("words", 0, at, step)]
    assert [record.offset for record in told] == list(range(121))
    assert told == [record for records in log.replay("words", 0, 0) for record in records]
    assert log._tails.read(log.place("words", 0), 0, 1) is None
    assert log._tails.read(log.place("words", 0), 120, 1) == told[-1:]
    await log.tidying.trim("words", 0, before=9_999.0)
    await log.commit([], group="reader", offsets={SOURCE: 121})
    await log.tidying.trim("words", 0, before=9_999.0)
    assert [record.offset for record in log.read("words", 0, 0, 10)] == [120]


async def test_watchers_hear_of_their_topics_only(log: EmbeddedLog) -> None:
    words, rows = log.watch(["words"]), log.watch(["rows"])
    await log.commit([Send("words", b"a", b"1")])
    assert words.is_set()
    assert not rows.is_set()


async def test_compaction_keeps_the_newest_of_each_key_and_always_the_last_record(log: EmbeddedLog) -> None:
    sends = [Send("rows", b"k%d" % (n % 5), b"%d" % n) for n in range(5_000)]
    await log.commit([*sends, Send("rows", b"k3", None), Send("rows", b"k4", None)])
    assert await log.tidying.compact("rows", 0, slice_size=300) == 5_002 - 4
    kept = [(record.key, record.value, record.offset) for record in log.read("rows", 0, 0, 100)]
    assert kept == [(b"k0", b"4995", 4995), (b"k1", b"4996", 4996), (b"k2", b"4997", 4997), (b"k4", None, 5001)]
    log = reopened(log)
    assert log.end("rows", 0) == 5_002
    assert log.span("rows", 0)[0] == 4_995
    log.close()


async def test_trimming_leaves_what_a_reader_has_not_begun_to_read(log: EmbeddedLog) -> None:
    log.watch(["words"])
    await log.commit([Send("words", b"k", b"v", (), 1.0, 0)] * 10)
    assert await log.tidying.trim("words", 0, before=100.0) == 0
    await log.commit([], group="reader", offsets={SOURCE: 4})
    assert await log.tidying.trim("words", 0, before=100.0) == 4


async def test_trimming_drops_old_records_that_every_group_is_done_with_and_never_the_last(log: EmbeddedLog) -> None:
    await log.commit([Send("words", b"a", b"%d" % n, (), float(n), 0) for n in range(1_000)])
    await log.commit([], group="slow", offsets={SOURCE: 400})
    await log.commit([], group="quick", offsets={SOURCE: 1_000})
    assert await log.tidying.trim("words", 0, before=100.0, slice_size=30) == 100
    assert log.span("words", 0)[0] == 100
    assert await log.tidying.trim("words", 0, before=9_999.0) == 300
    await log.commit([], group="slow", offsets={SOURCE: 1_000})
    assert await log.tidying.trim("words", 0, before=9_999.0) == 599
    log = reopened(log)
    assert [record.offset for record in log.read("words", 0, 0, 10)] == [999]
    log.append([Send("words", b"a", b"new", (), None, 0)])
    assert [record.value for record in log.read("words", 0, 1_000, 10)] == [b"new"]
    log.close()


async def test_the_write_ahead_file_is_folded_in_while_the_log_works(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.disk_sync.CHECKPOINT_BYTES", 200_000)
    wal = log.path.with_name("log.db-wal")
    for _ in range(200):
        await log.synced(await log.commit([Send("words", b"a", b"x" * 10_000, (), None, 0)]))
    assert wal.stat().st_size < 1_500_000
    assert len(log.read("words", 0, 0, 1000)) == 200


async def test_a_write_ahead_file_that_has_been_long_is_short_again_and_not_folded_in_at_every_sync(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.disk_sync.CHECKPOINT_BYTES", 200_000)
    wal = log.path.with_name("log.db-wal")
    await log.synced(await log.commit([Send("words", b"a", b"x" * 10_000, (), None, 0)] * 200))
    assert wal.stat().st_size > 2_000_000
    await log.synced(await log.commit([Send("words", b"a", b"x", (), None, 0)]))
    assert wal.stat().st_size < 50_000


@pytest.mark.parametrize("each", [1, 600], ids=["small", "large"])
async def test_a_killed_process_leaves_whole_commits_only(tmp_path: Path, each: int) -> None:
    code = f"""
        import asyncio
        from pathlib import Path
        from app.engine.embedded_log import EmbeddedLog
        from app.engine.records import Send, TopicPartition

        async def main():
            log = EmbeddedLog(Path({str(tmp_path / "log.db")!r}))
            log.open()
            log.declare("words", 2)
            for n in range(1_000_000):
                sends = [Send("words", b"", b"%d" % n, (), None, p) for p in (0, 1)] * {each}
                await log.commit(sends, group="g", offsets={{TopicPartition("words", 0): (n + 1) * {each}}})
                if n == {300 // each + 20}:
                    print("going", flush=True)
                await asyncio.sleep(0)

        asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert process.stdout is not None
    assert process.stdout.readline() == b"going\n"
    process.kill()
    process.wait()
    process.stdout.close()
    log = EmbeddedLog(tmp_path / "log.db")
    log.open()
    ends = {log.end("words", 0), log.end("words", 1), log.committed("g", "words", 0)}
    assert len(ends) == 1
    assert ends.pop() > 20 * each  # type: ignore[operator]
    log.close()


def test_the_file_says_what_it_is_to_any_sqlite_reader(log: EmbeddedLog) -> None:
    assert sqlite3.connect(log.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
