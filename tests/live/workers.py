"""Several `a4co worker` processes, asked as if they were one."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tests.live.worker_process import STARTS, WorkerProcess


class Workers:
    """What each has, together. Those that do not run are not asked."""

    def __init__(self, workers: Sequence[WorkerProcess]) -> None:
        self.all = list(workers)

    @property
    def running(self) -> list[WorkerProcess]:
        return [worker for worker in self.all if worker.running]

    def start(self) -> None:
        """All of them."""
        for worker in self.all:
            worker.start()

    async def ready(self) -> None:
        """Return when every one answers /ready with 200."""
        for worker in self.all:
            await worker.ready()

    async def close(self) -> None:
        """End all, whatever their state."""
        for worker in self.all:
            await worker.close()

    async def until(self, probe: Callable[[], Any], within: float = STARTS, what: str = "it did not come true") -> Any:
        return await self.all[0].until(probe, within, what)

    async def pages(self, path: str) -> list[Any]:
        """Every item of a list, each once."""
        found: dict[str, Any] = {}
        for worker in self.running:
            for item in await worker.pages(path):
                found[item.get("orderId") or item["productId"]] = item
        return list(found.values())

    async def row(self, path: str) -> Any:
        """The answer of whoever has it."""
        for worker in self.running:
            answer = await worker.answer(path)
            if answer is not None and answer.status_code == 200:
                return answer.json()
        raise AssertionError(f"nobody answers {path}")

    async def states(self) -> Counter[str]:
        """How many orders stand in each state: any worker knows of all."""
        return Counter((await self.running[0].get("/api/orders", limit=1))["states"])

    async def connected(self) -> bool:
        """Whether one of them runs the bridge."""
        return any([await worker.connected() for worker in self.running])

    async def idle(self) -> bool:
        return all([await worker.idle() for worker in self.running])
