"""A connection whose client takes nothing is cut off, whatever was to be sent; one that is only slow is not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from app.web import http_protocol
from app.web.http_protocol import HttpProtocol
from tests.waiting import wait_until

SIZE = 64 * 1024 * 1024


@asynccontextmanager
async def asked(app: Any) -> AsyncIterator[socket.socket]:
    """A client that has asked a server of the app for something."""
    config = uvicorn.Config(
        app, port=0, http=HttpProtocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())  # without its signal handlers
    await wait_until(lambda: server.started)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(server.servers[0].sockets[0].getsockname())
    client.sendall(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    client.setblocking(False)
    try:
        yield client
    finally:
        client.close()
        server.should_exit = True
        await serving


async def test_who_takes_nothing_for_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALLED", 0.3)
    over = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(SIZE), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        over.set()

    async with asked(app):
        await asyncio.wait_for(over.wait(), 10)


@pytest.mark.slow
async def test_who_is_slow_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALLED", 1.0)
    pieces = 200

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20000000")]})
        for number in range(pieces):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": number < pieces - 1})

    async with asked(app) as client:
        reader, writer = await asyncio.open_connection(sock=client)
        taken = b""
        while len(taken) < 20_000_000:
            piece = await asyncio.wait_for(reader.read(200_000), 10)
            assert piece, len(taken)
            taken += piece
            await asyncio.sleep(0.03)
        writer.close()
