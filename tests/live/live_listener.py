"""Follows the live feed of real workers as a browser does: over HTTP, coming back with the last id."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.flows.live_client import Events
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers
from tests.waiting import wait_until


class Listener(Events):
    """One client; what it hears adds up, over all that it was connected to."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0

    @asynccontextmanager
    async def at(self, worker: WorkerProcess) -> AsyncIterator[None]:
        """Connected, from the last id on; inside, a connection that ends by itself is no failure."""
        following = asyncio.create_task(self._follow(worker.web))
        connections = self.connections
        try:
            await wait_until(lambda: following.done() or self.connections > connections, within=20)
            yield
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    async def _follow(self, web: str) -> None:
        self._rest = ""  # what was cut off does not count
        headers = {"last-event-id": self.place} if self.place else {}
        async with (
            httpx.AsyncClient(base_url=web, timeout=60) as client,
            client.stream("GET", "/api/live", headers=headers) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            with contextlib.suppress(httpx.TransportError):
                async for text in answer.aiter_text():
                    self.take(text)
                    self.connections += "event: hello" in text

    def latest(self) -> dict[str, dict[str, Any]]:
        """What was heard last of each order and each product."""
        return {
            each.data.get("orderId") or each.data["productId"]: each.data
            for each in self.heard
            if each.event in ("order", "stock")
        }

    async def has_all(self, workers: Workers, within: float = 30.0) -> None:
        """Return when what was heard last is what the lists show."""

        async def same() -> bool:
            listed: Mapping[str, Any] = {
                item.get("orderId") or item["productId"]: item
                for path in ("/api/orders", "/api/inventory")
                for item in await workers.pages(path)
            }
            latest = self.latest()
            other = [key for key in listed if latest.get(key) != listed[key]]
            assert not other, json.dumps([[latest.get(key), listed[key]] for key in other[:2]])
            return True

        await wait_until(same, within=within, every=0.1)
