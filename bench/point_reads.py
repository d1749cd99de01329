"""Point reads of one worker while it works: so many GETs a second of products and orders, as orders come over NATS.

The worker is a process of its own with the embedded log, on a real nats-server. The order and payment services are this
process, the reads come from another one: an open loop over keep-alive connections, each latency from the moment at
which its request was to be sent. All of them share the machine, so each one's share of a core is told.
"""

import argparse
import asyncio
import json
import random
import select
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats

from bench.market import Services, stock
from bench.orders import PRODUCTS
from bench.report import conclude, cpu, percentiles
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess

WARM = 4.0
"""Seconds of orders before the first read: what an order needs is loaded, and there are orders to read."""

OLD = 1.5
"""Seconds after which an order is there to be read."""

CONNECTIONS = 16
"""Connections at the start; when all wait for an answer, one more is opened, for no request waits for another one."""

CHECK, ORDER = "/api/inventory/check/{productId}", "/api/orders/{orderId}"


# ---- the reading process ---------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What is read: `began` is when the first order was published, by the machine's monotonic clock."""

    web: str
    rate: int
    seconds: float
    orders: int
    began: float
    seed: int


class Connection:
    """One keep-alive connection; `due` is when its request was to be sent."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.what = ""
        self._answer = b""

    def ask(self, path: str, what: str, due: float) -> None:
        self.due, self.what = due, what
        self.socket.sendall(b"GET %b HTTP/1.1\r\nHost: bench\r\n\r\n" % path.encode())

    def answered(self) -> int:
        """The status, once the answer is whole; 0 before."""
        piece = self.socket.recv(65536)
        if not piece:
            raise SystemExit("bench.point_reads: the worker has closed a connection")
        self._answer += piece
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]):
            return 0
        self._answer = b""
        return int(head[9:12])


def read(plan: Plan) -> dict[str, Any]:
    """Read for the plan's seconds, and tell the figures."""
    place = urlsplit(plan.web)
    assert place.hostname is not None
    assert place.port is not None
    # In turn, so that none is idle for long: the worker closes those that are.
    free = deque(Connection(place.hostname, place.port) for _ in range(CONNECTIONS))
    busy: dict[socket.socket, Connection] = {}
    took: dict[str, list[float]] = {CHECK: [], ORDER: []}
    late, failed, opened = [], 0, CONNECTIONS
    chance = random.Random(plan.seed)
    paths = _paths(plan, chance)
    began = time.monotonic() + 0.1
    total = int(plan.rate * plan.seconds)
    asked = 0
    while asked < total or busy:
        now = time.monotonic()
        while asked < total and (due := began + asked / plan.rate) <= now:
            if not free:
                free.append(Connection(place.hostname, place.port))
                opened += 1
            connection = free.popleft()
            what, path = next(paths)
            connection.ask(path, what, due)
            late.append(time.monotonic() - due)
            busy[connection.socket] = connection
            asked += 1
        wait = began + asked / plan.rate - time.monotonic() if asked < total else 5.0
        # select takes microseconds, where epoll takes milliseconds.
        readable, _, _ = select.select(list(busy), (), (), max(0.0, wait))
        for ready in readable:
            connection = busy[ready]
            status = connection.answered()
            if status:
                took[connection.what].append(time.monotonic() - connection.due)
                failed += status != 200
                del busy[ready]
                free.append(connection)
    seconds = time.monotonic() - began
    return {
        "reads": asked,
        "reads_per_second": round(asked / seconds, 1),
        "not_200": failed,
        "connections": opened,
        "ms": percentiles([each for times in took.values() for each in times]),
        "ms_by_path": {what: percentiles(times) for what, times in took.items()},
        "sent_late_ms": percentiles(late),
        "cpu": round(time.process_time() / seconds, 3),
    }


def _paths(plan: Plan, chance: random.Random) -> Iterator[tuple[str, str]]:
    """One product, one order, and so on: any product, and any order that is old enough."""
    while True:
        yield CHECK, f"/api/inventory/check/{chance.choice(PRODUCTS)}"
        newest = int((time.monotonic() - plan.began - OLD) * plan.orders)
        yield ORDER, f"/api/orders/{name(chance.randrange(max(1, newest)))}"


def name(number: int) -> str:
    """The order of this number."""
    return f"steady_{number:08}"


# ---- the measuring process -------------------------------------------------------------------------------


async def measure(folder: Path, orders: int, rate: int, seconds: int, sync: str, seed: int) -> dict[str, Any]:
    """Orders at a steady rate, and reads meanwhile."""
    server = NatsServer(folder / "nats", sync=sync)
    await server.start()
    worker = WorkerProcess(folder / "worker", NATS_URL=server.url, LOG_LEVEL="warning")
    try:
        worker.start()
        await worker.ready()
        await stock(worker.web)
        client = await nats.connect(server.url)
        services = Services(client)
        await services.listen()
        began = time.monotonic()
        ordering = asyncio.create_task(_order(services, orders, began))
        await asyncio.sleep(WARM)
        assert worker.pid is not None
        assert server.pid is not None
        pids = {"worker": worker.pid, "nats-server": server.pid}
        before = {what: cpu(pid) for what, pid in pids.items()}
        ours, started, confirmed = time.process_time(), time.monotonic(), len(services.confirmed)
        reads = await _reading(Plan(worker.web, rate, seconds, orders, began, seed))
        lasted = time.monotonic() - started
        shares = {what: round((cpu(pid) - before[what]) / lasted, 3) for what, pid in pids.items()}
        figures = {
            "orders_per_second": round((len(services.confirmed) - confirmed) / lasted, 1),
            **reads,
            "cpu": {**shares, "order and payment services": round((time.process_time() - ours) / lasted, 3),
                    "reads": reads["cpu"]},
        }  # fmt: skip
        ordering.cancel()
        await services.all_confirmed(len(services.created), "confirmed")
        figures["created_to_confirmed_ms"] = percentiles(
            [heard - services.created[order] for order, heard in services.confirmed.items()]
        )
        await client.close()
    finally:
        await worker.close()
        server.stop()
    return figures


async def _order(services: Services, rate: int, began: float) -> None:
    """So many a second, until cancelled."""
    number = 0
    while True:
        while number < (time.monotonic() - began) * rate:
            await services.order(name(number))
            number += 1
        await asyncio.sleep(0.005)


async def _reading(plan: Plan) -> dict[str, Any]:
    """What the reading process says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.point_reads", "--plan", json.dumps(plan), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    figures: dict[str, Any] = json.loads(said)
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.point_reads", description=__doc__)
    parser.add_argument("--orders", type=int, default=500, help="orders a second")
    parser.add_argument("--rate", type=int, default=1_000, help="reads a second")
    parser.add_argument("--seconds", type=int, default=25, help="length of the reads")
    parser.add_argument("--sync", default='"2m"', help="nats-server's sync_interval")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plan:
        print(json.dumps(read(Plan(*json.loads(given.plan)))))
        return
    with tempfile.TemporaryDirectory(prefix="a4co-reads-") as folder:
        figures = asyncio.run(measure(Path(folder), given.orders, given.rate, given.seconds, given.sync, given.seed))
    conclude(
        "point reads over HTTP while orders come over NATS, embedded log, one worker process", figures, seed=given.seed
    )


if __name__ == "__main__":
    main()
