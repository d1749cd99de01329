"""Kills, freezes and stops two workers of the example's stock Faust app on Kafka, again and again under load.

`python -m bench.chaos_faust --acts 30` ends with one line of JSON; its exit code is 1 when a word was not counted once,
in outputs, table or offsets. Words are rare: what a forgotten round leaves behind would be seen.
"""

import argparse
import secrets
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from bench.kafka import kafka
from bench.report import conclude
from tests.live import faust_worker
from tests.live.faust_worker import PARTITIONS, WORD_COUNT, FaustWorker, Words

VOCABULARY = 3_000
STARTS = 12.0
"""Seconds that the workers have before the first act."""

SETTLES = 180.0
"""Seconds after the last act within which every word must be counted."""


class Load:
    """Says words at a rate, on a thread, until it is left."""

    def __init__(self, words: Words, rate: int) -> None:
        self._words, self._rate = words, rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            self._words.say(self._rate // 10)


def act(chance: Random, workers: list[FaustWorker]) -> str:
    """Do something to one of the workers, and let it go on; what it was."""
    worker = chance.choice(workers)
    what = chance.choice(["kill", "kill", "freeze", "stop"])
    if what == "kill":
        worker.kill()
        time.sleep(chance.uniform(0, 4))
    elif what == "freeze":
        worker.send(signal.SIGSTOP)
        time.sleep(chance.uniform(1, 14))
        worker.send(signal.SIGCONT)
    else:
        worker.send(signal.SIGTERM)
        worker.wait(60)
    if what != "freeze":
        worker.start()
    return f"{what} {worker.name}"


def settle(words: Words, workers: list[FaustWorker]) -> list[str]:
    """What is not exactly once when all has been counted, or time is over."""
    deadline = time.monotonic() + SETTLES
    while True:
        died = [worker.name for worker in workers if not worker.running]
        differences = words.differences() if words.counted() >= words.said else ["not all is counted"]
        if died or not differences or time.monotonic() > deadline:
            return [*differences, *(f"{name} has ended by itself" for name in died)]
        time.sleep(1)


def run(servers: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """The differences at the end."""
    admin = AdminClient({"bootstrap.servers": servers})
    topics = [NewTopic(f"chaos.{name}", PARTITIONS, 1) for name in ("words", "counted")]
    for future in admin.create_topics(topics).values():
        future.result(20)
    faust_worker.VOCABULARY = VOCABULARY
    words, chance = Words(servers, "chaos."), Random(options.seed)
    workers = [FaustWorker(WORD_COUNT, servers, "chaos.", folder, name).start() for name in ("one", "two")]
    try:
        with Load(words, options.rate):
            time.sleep(STARTS)
            for number in range(options.acts):
                time.sleep(chance.uniform(0.5, 6))
                done = act(chance, workers)
                sys.stderr.write(f"{number + 1}/{options.acts} {done}: {words.said} words, {words.counted()} counts\n")
        differences = settle(words, workers)
        conclude(
            "stock Faust app on Kafka, two workers",
            {"acts": options.acts, "words": words.said, "differences": differences}, seed=options.seed,
        )  # fmt: skip
    finally:
        for worker in workers:
            worker.close()
    return differences


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos_faust", description=__doc__)
    parser.add_argument("--acts", type=int, default=30)
    parser.add_argument("--rate", type=int, default=500, help="words a second")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="a4co-chaos-") as folder, kafka(Path(folder) / "kafka") as servers:
        return 1 if run(servers, Path(folder), options) else 0


if __name__ == "__main__":
    sys.exit(main())
