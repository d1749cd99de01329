"""The bench of point reads, in short: every read is answered with what was asked for, and the figures are there."""

import asyncio
import json
import sys

import pytest

from tests.live.nats_server import executable

pytestmark = [pytest.mark.live, pytest.mark.slow]


async def test_reads_are_answered_while_orders_are_confirmed() -> None:
    executable()  # or the test is skipped
    bench = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.point_reads", "--orders", "40", "--rate", "100", "--seconds", "3",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await bench.communicate()
    assert bench.returncode == 0
    figures = json.loads(said.splitlines()[-1])
    assert (figures["reads"], figures["not_200"]) == (300, 0)
    assert figures["orders_per_second"] > 0
    assert figures["ms"].keys() == {"p50", "p95", "p99", "max"}
    assert figures["cpu"].keys() == {"worker", "nats-server", "order and payment services", "reads"}
