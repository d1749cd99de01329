"""Reads of one product over HTTP, at a steady rate, by a process of its own while a bench runs: how long each took.

`python -m bench.reads URL` reads 50 times a second until its standard input ends, and prints milliseconds as JSON.
"""

import asyncio
import contextlib
import http.client
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from bench.report import percentiles

RATE = 50
"""Reads a second."""


@contextlib.asynccontextmanager
async def reading(url: str) -> AsyncIterator[dict[str, Any]]:
    """Reads meanwhile; the mapping has the figures at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.reads", url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    figures: dict[str, Any] = {}
    try:
        yield figures
    finally:
        said, _ = await process.communicate(b"")  # which ends its input
        figures |= json.loads(said or b"{}")


def main() -> None:
    """Command line."""
    place = urlsplit(sys.argv[1])
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    took: list[float] = []
    others = 0

    def read() -> bool:
        connection.request("GET", place.path)
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200

    while not read() and not ended.is_set():  # what was imported a moment ago
        ended.wait(1 / RATE)
    began = time.perf_counter()
    while not ended.is_set():
        started = time.perf_counter()
        others += not read()
        took.append(time.perf_counter() - started)
        ended.wait(max(0.0, began + len(took) / RATE - time.perf_counter()))
    print(json.dumps({"reads": len(took), "not_200": others, "ms": percentiles(took)} if took else {}))


if __name__ == "__main__":
    main()
