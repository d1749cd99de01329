"""Several workers as their clients see them: asked one by one, and watched for anything older than it may be."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.web.elsewhere import WANTED
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

SHELVES = 40
"""Products that `set_stock` sets."""


class Site:
    """The workers, asked one by one."""

    def __init__(self, workers: list[WorkerProcess]) -> None:
        self.workers = workers
        self.client = httpx.AsyncClient(timeout=10)

    async def get(self, worker: WorkerProcess, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(worker.web + path, params=query)

    async def who_has_most(self, paths: list[str]) -> tuple[WorkerProcess, list[WorkerProcess], list[str]]:
        """The worker that has the most of these rows itself, the other workers, and those rows."""
        rows: dict[WorkerProcess, list[str]] = {}
        for worker in self.workers:
            asked = {path: await self.client.get(worker.web + path, headers={WANTED: "0,1"}) for path in paths}
            rows[worker] = [path for path, answer in asked.items() if answer.status_code == 200]
        assert sum(map(len, rows.values())) == len(paths), "each row is at one of them"
        most = max(rows, key=lambda worker: len(rows[worker]))
        assert len(rows[most]) < len(paths), "it has some of the rows, and not all"
        return most, [worker for worker in self.workers if worker is not most], rows[most]

    async def set_stock(self, worker: WorkerProcess, on_hand: int) -> list[str]:
        """Every product has so many units from now on; taken when it returns, and shown soon. Returns their ids."""
        products = [f"product-{number:02}" for number in range(SHELVES)]
        lines = [
            {"productId": product, "name": product, "category": "despensa", "artisanId": "artisan-1",
             "onHand": on_hand, "threshold": 0}
            for product in products
        ]  # fmt: skip
        answer = await self.client.post(f"{worker.web}/api/stock/import", json=lines)
        assert answer.status_code == 200, answer.text
        return products

    async def walk(self, worker: WorkerProcess, path: str, **query: Any) -> list[Any] | None:
        """Every item of a list, page by page; None: some of it was missing."""
        found: list[Any] = []
        while True:
            answer = await self.get(worker, path, **query)
            page = answer.json()
            if answer.status_code != 200 or page["partial"]:
                return None
            found += page["items"]
            if page["nextCursor"] is None:
                return found
            query["cursor"] = page["nextCursor"]

    async def whole(self, workers: Iterable[WorkerProcess], path: str, within: float = 20) -> None:
        """Return when each of them lists everything."""
        for worker in workers:
            await wait_until(lambda worker=worker: self._lists(worker, path), within=within, every=0.1)  # type: ignore[misc]

    async def _lists(self, worker: WorkerProcess, path: str) -> bool:
        return await self.walk(worker, path, limit=500) is not None

    async def lists(self, worker: WorkerProcess, products: int) -> bool:
        """Whether the worker lists so many products, and misses none."""
        return len(await self.walk(worker, "/api/inventory", limit=500) or ()) == products


class Watch:
    """Reads products and their list from every worker again and again.

    No read may be older than one, from whichever worker, that had ended before it began.
    """

    def __init__(self, site: Site, paths: list[str]) -> None:
        self.told: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._site = site
        self._paths = paths
        self._newest: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reading, two at a time from each worker."""
        tasks = [
            asyncio.create_task(self._again_and_again(worker, first))
            for worker in self._site.workers
            for first in range(2)
        ]
        yield
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended

    async def _again_and_again(self, worker: WorkerProcess, first: int) -> None:
        while True:
            for path in self._paths[first::2]:
                await self.read(worker, path)
                await asyncio.sleep(0.02)
            await self.list(worker)

    async def read(self, worker: WorkerProcess, path: str) -> None:
        least = self._newest[path]
        answer = await self._answer(worker, path)
        if answer is not None:
            self._judge(worker, path, answer.json()["onHand"], least)

    async def list(self, worker: WorkerProcess) -> None:
        least = self._newest.copy()
        answer = await self._answer(worker, "/api/inventory")
        page: dict[str, Any] = answer.json() if answer is not None else {"items": [], "partial": True}
        rows = {f"/api/inventory/{row['productId']}": row["onHand"] for row in page["items"]}
        if len(rows) < SHELVES and not page["partial"]:
            self.wrong.append(f"{worker.folder.name} lists {len(rows)} products")
        for path, on_hand in rows.items():
            self._judge(worker, path, on_hand, least[path])

    async def _answer(self, worker: WorkerProcess, path: str) -> httpx.Response | None:
        try:
            answer = await self._site.get(worker, path)
        except httpx.TransportError:  # it is being started
            await asyncio.sleep(0.1)
            return None
        self.told[str(answer.status_code)] += 1
        if answer.status_code not in {200, 503}:
            self.wrong.append(f"{worker.folder.name}: {answer.status_code} {answer.text}")
        return answer if answer.status_code == 200 else None

    def _judge(self, worker: WorkerProcess, path: str, on_hand: int, least: int) -> None:
        if on_hand < least:
            self.wrong.append(f"{worker.folder.name} says {on_hand} to {path}, after {least}")
        self._newest[path] = max(self._newest[path], on_hand)
