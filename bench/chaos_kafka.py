"""Kills workers that share a Kafka log, one at a time, again and again under load; the same model judges what came out.

`python -m bench.chaos_kafka --kills 50 --leaves 20 --stops 2 --workers 3` prints a line for each and ends with one line
of JSON; its exit code is 1 when anything was lost, repeated or different. A worker that leaves does so in order, and
comes back. A stop: who runs the bridge is held for longer than the others wait for it, and goes on then, believing that
it still has what others have by now.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.chaos import ORDERS_A_KILL, SETTINGS, Run, Verdict
from tests.live.kafka_broker import KafkaBroker
from tests.live.kafka_read import KafkaAsRead
from tests.live.order_model import Order
from tests.live.worker_process import WorkerProcess

STILL = 25.0
"""Seconds without a new answer after which nothing more is waited for: two sessions of a worker, and every timer."""


HELD = 30.0
"""Seconds that a worker is held: five times that after which the others have its work."""


class Workers:
    """Several workers, asked as if they were one: what each has, together."""

    def __init__(self, workers: Sequence[WorkerProcess]) -> None:
        self.all = list(workers)

    @property
    def running(self) -> list[WorkerProcess]:
        return [worker for worker in self.all if worker.running]

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

    async def until(self, probe: Callable[[], Any], within: float = 30, what: str = "it did not come true") -> Any:
        return await self.all[0].until(probe, within, what)

    async def connected(self) -> bool:
        """Whether one of them runs the bridge."""
        return any([await is_connected(worker) for worker in self.running])

    async def idle(self) -> bool:
        return all([await worker.idle() for worker in self.running])


async def is_connected(worker: WorkerProcess) -> bool:
    """Whether the worker runs the bridge."""
    return bool((await worker.get("/health"))["checks"]["nats"]["connected"])


class KafkaRun(Run):
    """The same marketplace with `workers` workers on one Kafka log; one of them at a time is killed."""

    def __init__(
        self, folder: Path, *, servers: str, workers: int, leaves: int = 0, stops: int = 0, **options: Any
    ) -> None:
        super().__init__(folder, **options)
        self._leaves = leaves
        self._stops = stops
        self._servers = servers
        self._prefix = f"chaos-{uuid.uuid4().hex[:8]}."
        self._count = workers

    async def verdict(self) -> Verdict:
        """Do it all. Raises AssertionError when it can't come to an end."""
        began = time.monotonic()
        await self._nats.start()
        mail = await self._mail.start()
        workers = Workers(
            [
                WorkerProcess(
                    self._folder / f"worker-{number}", NATS_URL=self._nats.url, SMTP_URL=mail,
                    KAFKA_URL=f"kafka://{self._servers}", TOPIC_PREFIX=self._prefix, WORKER_NAME=f"worker-{number}",
                    STANDBY=str(number % 2 == 1),  # every other one
                    **SETTINGS,
                )
                for number in range(self._count)
            ]
        )  # fmt: skip
        try:
            async with self._market.connected(self._nats.url):
                for worker in workers.all:
                    worker.start()
                for worker in workers.all:
                    await worker.ready()
                await workers.until(workers.connected, what="nobody runs the bridge")
                await self._market.fill(workers, self._start)  # type: ignore[arg-type]  # asked as if they were one
                await self._trouble(workers)
                await self._judge_all(workers)
        finally:
            for worker in workers.all:
                await worker.close()
            self._mail.close()
            self._nats.stop()
        self._verdict.seconds = time.monotonic() - began
        return self._verdict

    async def _trouble(self, workers: Workers) -> None:
        """Publish every order while workers die, leave and come back; all have been started at the end."""
        ends = ["killed"] * self._verdict.kills + ["left"] * self._leaves
        self._chance.shuffle(ends)
        shares = len(ends) + self._stops + 1
        for number, end in enumerate(ends):
            publishing = asyncio.create_task(self.publish(self.orders[number::shares]))
            victim = self._chance.choice(workers.all)
            await self._at_work()
            if end == "killed":
                victim.kill()
            else:
                await victim.ready()  # a process that has only just begun does not know of signals yet
                await asyncio.to_thread(victim.stop)
            if wiped := self._wipe_always or self._chance.random() < 0.25:
                victim.wipe_tables()
            away = self._chance.choice([0.0, 1.0, 3.0, 8.0])
            await publishing
            await asyncio.sleep(away)
            victim.start()
            if self._chance.random() < 0.5:
                await victim.ready()
            said = f"away {away:g} s{', tables wiped' if wiped else ''}; {len(self._market.heard)} answers heard so far"
            self._tell(f"{number + 1}/{len(ends)}: {victim.settings['WORKER_NAME']} {end}, {said}")
        for number in range(len(ends), len(ends) + self._stops):
            await self._stop_the_bridge(workers, self.orders[number::shares])
        await self.publish(self.orders[shares - 1 :: shares])

    async def _stop_the_bridge(self, workers: Workers, orders: Sequence[Order]) -> None:
        for worker in workers.all:
            await worker.ready()
        await workers.until(workers.connected, what="nobody runs the bridge")
        [zombie] = [worker for worker in workers.all if await is_connected(worker)]
        assert zombie.pid is not None
        publishing = asyncio.create_task(self.publish(orders))
        await self._at_work()
        os.kill(zombie.pid, signal.SIGSTOP)
        await publishing
        await asyncio.sleep(HELD)
        os.kill(zombie.pid, signal.SIGCONT)
        await asyncio.sleep(3)
        self._tell(f"{zombie.settings['WORKER_NAME']} held for {HELD:g} s, {'goes on' if zombie.running else 'ended'}")
        if not zombie.running:
            assert zombie.exit_code == 1
            assert "\na4co: Kafka: " in zombie.output(), zombie.output()
            zombie.start()

    async def _at_work(self) -> None:
        """Some answers after now; after a while without any, all the same."""
        enough = len(self._market.heard) + self._chance.randint(1, ORDERS_A_KILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.uniform(0.2, 9)):
                while len(self._market.heard) < enough:
                    self._market.arrived.clear()
                    await self._market.arrived.wait()

    async def _judge_all(self, workers: Workers) -> None:
        for worker in workers.all:
            await worker.ready()
        await self._settle_all(workers)
        listed = await workers.pages("/api/orders")
        rows = {row["orderId"]: await workers.row(f"/api/orders/{row['orderId']}") for row in listed}
        shelves = await workers.pages("/api/inventory")
        last = workers.all[0]
        for worker in workers.all[1:]:
            worker.stop()

        async def has_all() -> bool:
            return len(await last.pages("/api/inventory")) == len(shelves) and await last.idle()

        await last.until(has_all, what="it has not taken over")
        last.stop()
        await self._compare(KafkaAsRead(self._servers, self._prefix), last.data / "tables", rows, shelves)

    async def _settle_all(self, workers: Workers) -> None:
        """Return when every order has ended and nothing waits any more, or when nothing happens any more."""
        heard_until, since, states = -1, time.monotonic(), Counter[str]()
        while time.monotonic() - since < STILL:
            if len(self._market.heard) > heard_until:
                heard_until, since = len(self._market.heard), time.monotonic()
            await asyncio.sleep(0.5)
            states = Counter(row["state"] for row in await workers.pages("/api/orders"))
            ended = states["completed"] + states["closed"]
            if ended == len(self.orders) and await workers.idle() and len(self._market.heard) == heard_until:
                return
        self._tell(f"nothing happens any more, and the orders are {dict(states)}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos_kafka", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--leaves", type=int, default=0, help="workers that are stopped in order")
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--orders", type=int, default=0, help=f"default: {ORDERS_A_KILL} for each kill")
    parser.add_argument("--wipe-tables", action="store_true", help="take the local tables away at every kill")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="a4co-chaos-") as folder:
        broker = KafkaBroker(Path(folder) / "kafka")
        try:
            run = KafkaRun(
                Path(folder),
                servers=broker.servers,
                workers=given.workers,
                kills=given.kills,
                leaves=given.leaves,
                stops=given.stops,
                seed=given.seed,
                orders=given.orders,
                wipe_tables=given.wipe_tables,
                tell=lambda line: print(line, file=sys.stderr, flush=True),
            )
            verdict = asyncio.run(run.verdict())
        finally:
            broker.stop()
    for difference in verdict.differences:
        print(difference, file=sys.stderr)
    print(f"orders: {dict(verdict.outcomes)}", file=sys.stderr)
    print(verdict.line())
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
