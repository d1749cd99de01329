"""Dead letters by the hundred thousand: how long a worker takes for a list, and a command to replay them.

`python -m bench.letters --letters 100000`. The worker is a process of its own on the embedded log, without NATS.
"""

import argparse
import asyncio
import http.client
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from app import topics
from app.engine.embedded_log import EmbeddedLog
from app.engine.records import Send
from bench.report import conclude, peak_memory, percentiles, progress
from tests.live.worker_process import WorkerProcess, environment

PARTITIONS = 4
AT_ONCE = 1_000
QUESTIONS: dict[str, dict[str, str]] = {
    "the newest 50": {"state": "open"},
    "a reason of one in 1000": {"reason": "wrong-type"},
    "a subject of one in 1000": {"subject": "order.created"},
    "a text of one letter": {"text": "user-17@"},
    "a text of none": {"text": "nobody"},
    "of a minute in the midst": {"since": "2026-11-25T08:00:00Z", "until": "2026-11-25T08:01:00Z"},
}
BEGIN = 1_795_590_000.0  # 2026-11-25T07:00:00Z; one letter each 0.1 s


async def put(path: Path, letters: int) -> None:
    """So many letters that can be replayed."""
    log = EmbeddedLog(path)
    await log.connect()
    await log.prepare({topic.name: topic.compacted for topic in topics.ALL}, PARTITIONS)
    for start in range(0, letters, AT_ONCE):
        await log.commit([_letter(number) for number in range(start, min(letters, start + AT_ONCE))])
        progress("letters", min(letters, start + AT_ONCE), letters)
    await log.disconnect()


def _letter(number: int) -> Send:
    rare = number % 1000 == 0
    event = {
        "eventId": f"event-{number}",
        "eventType": "UserVerifiedEvent",
        "aggregateId": f"user-{number}",
        "eventData": {"email": f"user-{number}@jaen.example", "note": "x" * 300},
    }
    headers = (
        ("a4co-subject", b"order.created" if rare else b"user.verified"),
        ("a4co-reason", b"wrong-type" if rare else b"KeyError"),
        ("a4co-error", b"KeyError: 'something that was not there'"),
        ("a4co-topic", b"users"),
        ("a4co-partition", b"0"),
        ("a4co-offset", b"%d" % number),
    )
    return Send("dead-letters", b"user-%d" % number, json.dumps(event).encode(), headers, BEGIN + number / 10)


class Asked:
    """A worker over one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, query: dict[str, str]) -> tuple[float, dict[str, Any]]:
        """Seconds, and the answer."""
        started = time.perf_counter()
        self._connection.request("GET", f"/api/dead-letters?{urlencode(query)}")
        answer = self._connection.getresponse().read()
        return time.perf_counter() - started, json.loads(answer)

    def walk(self, query: dict[str, str]) -> tuple[float, int]:
        """Seconds until 50 are found or there are no more, and how many requests that takes."""
        seconds, requests, found = 0.0, 0, 0
        cursor: dict[str, str] = {}
        while True:
            took, page = self.get({**query, "limit": "50", **cursor})
            seconds, requests, found = seconds + took, requests + 1, found + len(page["items"])
            if found >= 50 or page["nextCursor"] is None:
                return seconds, requests
            cursor = {"cursor": page["nextCursor"]}


async def run(folder: Path, letters: int, rounds: int) -> dict[str, Any]:
    """The figures."""
    worker = WorkerProcess(folder, NATS_URL="nats://127.0.0.1:1", LOG_LEVEL="error", PARTITIONS=str(PARTITIONS))
    await put(worker.data / "log.db", letters)
    try:
        started = time.perf_counter()
        worker.start()

        async def known() -> bool:
            answer = await worker.answer("/api/dead-letters?limit=1")
            return answer is not None and sum(answer.json().get("states", {}).values()) == letters

        await worker.until(known, within=600)
        table = time.perf_counter() - started
        asked = Asked(int(worker.settings["WEB_PORT"]))
        questions: dict[str, Any] = {}
        for name, query in QUESTIONS.items():
            answers = [asked.walk(query) for _ in range(rounds)]
            questions[name] = {"ms": percentiles([seconds for seconds, _ in answers]), "requests": answers[0][1]}
        began = time.perf_counter()
        command = [str(Path(sys.executable).parent / "a4co"), "dlq", "replay", "--reason", "KeyError", "--yes"]
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(worker.settings), cwd=folder, stdout=sys.stderr
        )
        assert await process.wait() == 0
        seconds = time.perf_counter() - began
        memory = peak_memory(worker.pid or 0)
        worker.stop()
    finally:
        await worker.close()
    return {
        "letters": letters,
        "until_all_have_rows_s": round(table, 1),
        "lists": questions,
        "replay": {"seconds": round(seconds, 1), "letters_per_s": round(letters / seconds)},
        "worker_mb": memory,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(run(Path(folder), options.letters, options.rounds))
    conclude("dead letters", figures)


if __name__ == "__main__":
    main()
