"""A stock Faust app runs on `embedded://` by its URL alone, and a kill in mid-stream changes nothing it says."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from app.engine.embedded_file import OFFSET_BITS
from app.engine.embedded_log import EmbeddedLog
from app.engine.records import Send
from tests.waiting import wait_until

EXAMPLE = Path("docs/examples/word_count.py")
WORDS = 6_000
VOCABULARY = 40


def worker(log: Path, output: Path) -> subprocess.Popen[bytes]:
    with output.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLE), "worker", "-l", "warn", "--without-web"],
            env={**os.environ, "BROKER": f"embedded://{log}"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def counted(path: Path) -> dict[bytes, list[int]]:
    """Every count that was said of each word, in order, read from the file while a worker has it."""
    said: dict[bytes, list[int]] = defaultdict(list)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        rows = reader.execute(
            "SELECT key, value FROM records JOIN places ON places.id = records.id >> ? WHERE topic = 'counted' "
            "ORDER BY records.id",
            (OFFSET_BITS,),
        )
        for key, value in rows:
            said[key].append(json.loads(value))
    return said


def total(path: Path) -> int:
    return sum(len(counts) for counts in counted(path).values())


@pytest.mark.slow
async def test_a_stock_app_counts_each_word_once_although_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = EmbeddedLog(path)
    log.open()
    log.declare("words", 4)
    said = [f"palabra-{number % VOCABULARY}".encode() for number in range(WORDS)]
    await log.commit([Send("words", word, json.dumps(word.decode()).encode()) for word in said])
    log.close()

    chance = random.Random(7)
    for _kill in range(3):
        before = total(path)
        process = worker(path, tmp_path / "worker.txt")
        try:
            goal = min(before + chance.randrange(200, 1_500), WORDS - 1)
            await wait_until(lambda goal=goal: total(path) >= goal, within=30, every=0.02)  # type: ignore[misc]
        finally:
            process.kill()
            process.wait()
    assert total(path) < WORDS, "it was killed in mid-stream"

    process = worker(path, tmp_path / "worker.txt")
    try:
        await wait_until(lambda: total(path) >= WORDS, within=30)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, (tmp_path / "worker.txt").read_text()
    assert counted(path) == {
        f"palabra-{number}".encode(): list(range(1, WORDS // VOCABULARY + 1)) for number in range(VOCABULARY)
    }


def test_the_example_sends_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "send"], input="la aceituna y el aceite", text=True, check=False,
        env={**os.environ, "BROKER": f"embedded://{path}"}, capture_output=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = EmbeddedLog(path)
    log.open()
    values = [record.value or b"" for p in range(4) for record in log.read("words", p, 0, 100)]
    assert sorted(values) == sorted(json.dumps(word).encode() for word in "la aceituna y el aceite".split())  # noqa: SIM905
    log.close()
