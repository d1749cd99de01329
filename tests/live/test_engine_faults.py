"""What the worker process does when its disk, its files, its settings or NATS fail it: one clear line, the right exit
code, and nothing lost once the cause is gone.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bench.chaos import Run
from tests.live.marketplace import Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import Order
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers
from tests.waiting import wait_until

pytestmark = pytest.mark.live

NOBODY = "nats://127.0.0.1:1"


@pytest_asyncio.fixture
async def worker(tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    """Not started; without NATS until it is given one."""
    worker = WorkerProcess(tmp_path / "worker", NATS_URL=NOBODY)
    yield worker
    await worker.close()


async def opened(worker: WorkerProcess) -> None:
    """Started, and its web answers, whether it is ready or not."""
    worker.start()
    await worker.until(lambda: worker.answer("/ready"))


def cause(worker: WorkerProcess) -> str:
    """What it said last: the one line for people that tells why it ended. No bare traceback before it."""
    lines = re.sub(r"\x1b\[[?0-9]*[a-z]", "", worker.output()).strip().splitlines()
    assert not [line for line in lines if line.startswith(("Traceback", "  File"))]
    assert lines[-1].startswith("a4co: ")
    return lines[-1]


def an_order(number: int) -> Order:
    """A plain order of one unit that will be paid."""
    return Order(f"order-{number}", (("product_aceite_picual", 1),), ("paid",), False, False, "", 0)


async def states(worker: WorkerProcess) -> dict[str, int]:
    return dict((await worker.get("/api/orders", limit=1))["states"])


# ---- the disk ---------------------------------------------------------------------------------------------


class FullDisk(Run):
    """The same marketplace; instead of being killed the worker can't write any more."""

    async def trouble(self, workers: Workers) -> None:
        [worker] = workers.all
        worker.limit_files((worker.data / "log.db-wal").stat().st_size + 300_000)
        publishing = asyncio.create_task(self.publish(self.orders))
        self.exit_code = await worker.ended()
        self.cause = cause(worker)
        await publishing
        worker.start()


async def test_a_full_disk_stops_the_worker_and_with_room_it_goes_on_without_loss(tmp_path: Path) -> None:
    run = FullDisk(tmp_path, kills=0, seed=21, orders=200)
    verdict = await run.verdict()
    assert run.exit_code == 1
    assert "log.db can't be written" in run.cause
    assert "make room" in run.cause
    assert verdict.good, verdict


# ---- its files --------------------------------------------------------------------------------------------


async def test_a_second_worker_on_the_same_data_says_who_has_it_and_ends(worker: WorkerProcess) -> None:
    await opened(worker)
    second = WorkerProcess(worker.folder.parent / "second", NATS_URL=NOBODY, DATA_DIR=str(worker.data))
    second.start()
    assert await second.ended() == 1
    assert "is in use by the process" in cause(second)
    assert str(worker.pid) in cause(second)
    await second.close()
    assert worker.running


async def test_a_log_file_that_is_no_log_is_named_and_left_as_it_is(worker: WorkerProcess) -> None:
    await opened(worker)
    worker.stop()
    log = worker.data / "log.db"
    garbage = b"this is not a database, it only lies where one was" + log.read_bytes()[50:]
    log.write_bytes(garbage)
    worker.start()
    assert await worker.ended() == 1
    assert re.search(rf"a4co: the log {log} can't be opened: .*not a database", cause(worker))
    assert log.read_bytes() == garbage


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*"])
async def test_a_table_that_rocksdb_can_not_open_is_rebuilt_from_the_log(
    nats_server: NatsServer, worker: WorkerProcess, name: str
) -> None:
    worker.settings["NATS_URL"] = nats_server.url
    worker.start()
    await worker.ready()
    async with Marketplace(an_order(n) for n in range(8)).connected(nats_server.url) as market:
        await market.fill(worker, {"product_aceite_picual": 50})
        for order in market.orders.values():
            await market.order(order)
        await wait_until(lambda: [a.subject for a in market.heard].count("order.confirmed") == 8, within=20)
    before = await worker.pages("/api/orders"), await worker.pages("/api/inventory")
    worker.stop()

    damaged = list(worker.data.glob(f"tables/*/*/{name}"))
    for file in damaged:
        file.write_bytes(b"garbage\n")
    worker.start()
    await worker.ready()
    assert (await worker.pages("/api/orders"), await worker.pages("/api/inventory")) == before
    stores = {file.parent for file in damaged}  # of each table one for each of its four partitions
    assert worker.output(100_000).count("store rebuilt") == len(stores) >= 12


# ---- NATS, settings, signals ------------------------------------------------------------------------------


async def test_without_nats_the_worker_runs_and_says_why_it_is_not_ready_until_nats_is_there(
    nats_server: NatsServer, worker: WorkerProcess
) -> None:
    nats_server.stop()
    worker.settings["NATS_URL"] = nats_server.url
    await opened(worker)

    async def reason() -> Any:
        answer = await worker.answer("/ready")
        assert answer is not None
        assert answer.status_code == 503
        reasons = answer.json()["reasons"]
        return set(reasons) == {"nats"} and reasons["nats"].startswith("no NATS at")

    await wait_until(reason)  # and no other one: the tables are there, too
    health = await worker.get("/health")
    assert health["status"] == "degraded"
    assert await states(worker)
    await nats_server.start()
    await worker.ready(within=10)
    assert (await worker.get("/health"))["status"] == "healthy"


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("PAYMENT_RETRY_DELAY", "soon", "PAYMENT_RETRY_DELAY=soon is wrong; allowed: a number of seconds above 0"),
        ("WEB_PORT", "99999", "WEB_PORT=99999 is wrong; allowed: a port from 1 to 65535"),
        ("NATS_URL", "http://user:hush@host", "NATS_URL=http://user:***@host is wrong; allowed: nats://"),
        ("BROKER", "rabbit://host", "BROKER=rabbit://host is wrong; allowed: embedded:///"),
    ],
)
async def test_a_wrong_setting_is_one_line_and_exit_code_2(
    worker: WorkerProcess, setting: str, value: str, line: str
) -> None:
    worker.settings[setting] = value
    worker.start()
    assert await worker.ended() == 2
    [said] = worker.output().strip().splitlines()
    assert line in said


async def test_a_port_that_is_taken_is_named_with_exit_code_1(worker: WorkerProcess) -> None:
    async with await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0) as taken:
        worker.settings["WEB_PORT"] = port = str(taken.sockets[0].getsockname()[1])
        worker.start()
        assert await worker.ended() == 1
        assert f"127.0.0.1:{port} (WEB_HOST, WEB_PORT)" in cause(worker)


async def test_another_number_of_partitions_is_named_with_exit_code_1(worker: WorkerProcess) -> None:
    await opened(worker)
    worker.stop()
    worker.settings["PARTITIONS"] = "8"
    worker.start()
    assert await worker.ended() == 1
    assert "set PARTITIONS as it was" in cause(worker)


async def test_sigterm_ends_it_in_two_seconds_in_the_midst_of_work(
    nats_server: NatsServer, worker: WorkerProcess
) -> None:
    worker.settings["NATS_URL"] = nats_server.url
    worker.start()
    await worker.ready()
    async with Marketplace(an_order(n) for n in range(300)).connected(nats_server.url) as market:
        await market.fill(worker, {"product_aceite_picual": 500})
        for order in market.orders.values():
            await market.order(order)
        await wait_until(lambda: len(market.heard) > 20)
        assert seconds_to_stop(worker) < 2


async def test_sigterm_ends_it_in_two_seconds_without_nats(worker: WorkerProcess) -> None:
    await opened(worker)
    assert seconds_to_stop(worker) < 2


def seconds_to_stop(worker: WorkerProcess) -> float:
    began = time.monotonic()
    worker.stop()  # fails unless the exit code is 0
    return time.monotonic() - began
