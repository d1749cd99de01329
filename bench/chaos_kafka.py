"""Kills workers that share a Kafka log, one at a time, again and again under load; the same model judges what came out.

`python -m bench.chaos_kafka --kills 50 --leaves 20 --stops 2 --workers 3` prints a line for each and ends with one line
of JSON; its exit code is 1 when anything was lost, repeated or different. A worker that leaves does so in order, and
comes back. A stop: who runs the bridge is held for longer than the others wait for it, and goes on then, believing that
it still has what others have by now.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench.chaos import ORDERS_A_KILL, Run, command, conclude, tell
from tests.live.kafka_broker import KafkaBroker
from tests.live.kafka_read import KafkaAsRead
from tests.live.kill_checks import AnyLog
from tests.live.order_model import Order
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers

HELD = 30.0
"""Seconds that a worker is held: five times that after which the others have its work."""


class KafkaRun(Run):
    """The same marketplace with `workers` workers on one Kafka log; one of them at a time is killed."""

    still = 25.0
    """As in `Run`; two sessions of a worker are shorter, too."""

    def __init__(
        self, folder: Path, *, servers: str, workers: int, leaves: int = 0, stops: int = 0, **options: Any
    ) -> None:
        super().__init__(folder, **options)
        self._leaves = leaves
        self._stops = stops
        self._servers = servers
        self._prefix = f"chaos-{uuid.uuid4().hex[:8]}."
        self._count = workers

    def workers(self, **settings: str) -> Workers:
        return Workers(
            [
                WorkerProcess(
                    self._folder / f"worker-{number}", **settings,
                    KAFKA_URL=f"kafka://{self._servers}", TOPIC_PREFIX=self._prefix, WORKER_NAME=f"worker-{number}",
                    STANDBY=str(number % 2 == 1),  # every other one
                )
                for number in range(self._count)
            ]
        )  # fmt: skip

    def log(self, worker: WorkerProcess) -> AbstractContextManager[AnyLog]:
        del worker
        return contextlib.nullcontext(KafkaAsRead(self._servers, self._prefix))

    async def trouble(self, workers: Workers) -> None:
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
        await workers.ready()
        await workers.until(workers.connected, what="nobody runs the bridge")
        [zombie] = [worker for worker in workers.all if await worker.connected()]
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
        await self.answers(self._chance.randint(1, ORDERS_A_KILL), within=self._chance.uniform(0.2, 9))


def main() -> int:
    """The command."""
    parser = command("bench.chaos_kafka", __doc__, kills=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--leaves", type=int, default=0, help="workers that are stopped in order")
    parser.add_argument("--stops", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="a4co-chaos-") as folder:
        broker = KafkaBroker(Path(folder) / "kafka")
        try:
            run = KafkaRun(Path(folder), servers=broker.servers, tell=tell, **vars(given))
            return conclude(asyncio.run(run.verdict()))
        finally:
            broker.stop()


if __name__ == "__main__":
    sys.exit(main())
