"""The live feed of a real worker: resumed over kill -9, ended by SIGTERM, and not held up by who does not read."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.live.live_listener import Listener
from tests.live.marketplace import MailServer, Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import demand, plan_orders
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers
from tests.waiting import wait_until

pytestmark = pytest.mark.live

ORDERS = 60


@pytest_asyncio.fixture
async def worker(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    mail = MailServer()
    worker = WorkerProcess(
        tmp_path / "worker", NATS_URL=nats_server.url, LOG_LEVEL="warning", PAYMENT_RETRY_DELAY="0.3",
        SMTP_URL=await mail.start(), MAIL_RETRY_DELAY="0.3", MAIL_MAX_ATTEMPTS="20",
    )  # fmt: skip
    worker.start()
    await worker.ready()
    yield worker
    await worker.close()
    mail.close()


@pytest.mark.slow
async def test_over_kills_and_restarts_no_final_state_is_missed(worker: WorkerProcess, nats_server: NatsServer) -> None:
    orders = plan_orders(ORDERS, seed=11)
    market, listener = Marketplace(orders), Listener()
    async with market.connected(nats_server.url):
        for part in range(3):
            async with listener.at(worker):
                if part == 0:
                    await market.fill(worker, demand(orders))
                for order in orders[part::3]:
                    await market.order(order)
                heard = len(listener.heard)
                await wait_until(lambda: len(listener.heard) > heard + 5)  # noqa: B023
                worker.kill()
                worker.start()
                await worker.ready()
            if part == 1:
                await asyncio.sleep(0.3)  # some of it while nobody listens
        async with listener.at(worker):

            async def ended() -> bool:
                states = (await worker.get("/api/orders", limit=1))["states"]
                return bool(states["completed"] + states["closed"] == ORDERS and await worker.idle())

            await worker.until(ended, within=60, what="not every order has ended")
            await listener.has_all(Workers([worker]))
    resumed = [each.data["resumed"] for each in listener.heard if each.event == "hello"]
    assert resumed == [False, True, True, True]
    assert not [each for each in listener.heard if each.event in ("restart", "dropped")]


async def test_sigterm_ends_streams_at_once_and_the_worker_with_0(worker: WorkerProcess) -> None:
    async with (
        httpx.AsyncClient(base_url=worker.web, timeout=30) as client,
        client.stream("GET", "/api/live") as answer,
    ):
        pieces = answer.aiter_text()
        await anext(pieces)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)
        began = time.monotonic()
        async for _ in pieces:
            pass
        assert time.monotonic() - began < 5
    assert await worker.ended() == 0
    assert "ASGI" not in worker.output()


async def test_who_does_not_read_is_dropped_while_others_go_on(worker: WorkerProcess) -> None:
    host, port = worker.web.removeprefix("http://").split(":")
    lazy, listener = socket.socket(), Listener()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.connect((host, int(port)))
    lazy.sendall(b"GET /api/live HTTP/1.1\r\nhost: live\r\n\r\n")
    shelves = [
        {"productId": f"product-{n}", "name": "x" * 200, "category": "c", "artisanId": "a", "threshold": 0}
        for n in range(500)
    ]

    async def metric(name: str) -> float:
        answer = await worker.answer("/metrics")
        assert answer is not None
        lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
        return float(lines[name])

    async def dropped() -> bool:
        await client.post("/api/stock/import", json=[{**line, "onHand": time.time_ns() % 10**6} for line in shelves])
        return await metric("live_clients_dropped_total") == 1

    async with httpx.AsyncClient(base_url=worker.web, timeout=30) as client, listener.at(worker):
        await wait_until(lambda: metric("live_clients"))
        await wait_until(dropped, within=60)
        await listener.has_all(Workers([worker]))
    assert not [each for each in listener.heard if each.event in ("restart", "dropped")]
    lazy.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=lazy)
    rest = b""
    while not rest.endswith(b"0\r\n\r\n"):
        piece = await asyncio.wait_for(reader.read(65536), 20)
        assert piece, "it was cut off without notice"
        rest = rest[-4096:] + piece
    assert b"event: dropped\n" in rest
    writer.close()
