"""Reads products from three workers on Kafka again and again, while two of them are killed, ended, and held.

The third sets every product's stock to 1, 2, 3, ... and is left alone. `python -m bench.chaos_views --events 30` prints
a line an event and ends with one line of JSON; its exit code is 1 when any worker ever showed a number that was older
than one which somebody had been shown before the question was put, or left something out without saying so.
"""

import argparse
import asyncio
import itertools
import os
import random
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from bench.report import conclude
from tests.live.kafka_broker import KafkaBroker
from tests.live.nats_server import NatsServer
from tests.live.views_watch import SHELVES, Site, Watch
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

SETS_EVERY = 0.2
"""Seconds between two changes of every product."""

EVENTS = {
    "held for a while": (1.0, 6.0),
    "held for longer than a session": (7.0, 12.0),
    "killed": (0.0, 9.0),
    "ended": (0.0, 3.0),
}
"""What happens to a worker -> seconds that it is away, from and to."""


async def disturbed(worker: WorkerProcess, event: str, away: float) -> None:
    """Do it, and bring the worker back."""
    assert worker.pid is not None
    if event.startswith("held"):
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(away)
        os.kill(worker.pid, signal.SIGCONT)
        return
    if event == "killed":
        worker.kill()
    else:
        worker.stop()
    await asyncio.sleep(away)
    worker.start()


async def run(folder: Path, broker: KafkaBroker, events: int, seed: int) -> Watch:
    """All of it. Raises AssertionError when a worker does not come up."""
    chance = random.Random(seed)
    nats = NatsServer(folder / "nats")
    await nats.start()
    workers = [
        WorkerProcess(
            folder / name, NATS_URL=nats.url, KAFKA_URL=broker.url, WORKER_NAME=name, LOG_LEVEL="warning"
        )
        for name in ("steady", "picual", "arbequina")
    ]  # fmt: skip
    site = Site(workers)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            await worker.ready(60)
        await site.whole(workers, "/api/inventory")
        products = await site.set_stock(workers[0], 0)
        for worker in workers:
            await wait_until(lambda worker=worker: site.lists(worker, SHELVES), within=30)  # type: ignore[misc]
        watch = Watch(site, [f"/api/inventory/{product}" for product in products])
        setting = asyncio.create_task(_set_on_and_on(site))
        async with watch.running():
            for number in range(events):
                victim = chance.choice(workers[1:])
                if victim.exit_code is not None:  # it was in the midst of a commit when it was held
                    victim.start()
                await victim.ready(60)
                event = chance.choice(list(EVENTS))
                away = chance.uniform(*EVENTS[event])
                await disturbed(victim, event, away)
                await asyncio.sleep(chance.uniform(1, 4))
                said = f"event {number + 1}/{events}: {victim.folder.name} {event}, {away:.1f} s; {dict(watch.told)}"
                print(f"{said}, wrong {len(watch.wrong)}", file=sys.stderr, flush=True)
        setting.cancel()
        [ended] = await asyncio.gather(setting, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended
    finally:
        await site.client.aclose()
        for worker in workers:
            await worker.close()
        nats.stop()
    return watch


async def _set_on_and_on(site: Site) -> None:
    for number in itertools.count(1):
        await site.set_stock(site.workers[0], number)
        await asyncio.sleep(SETS_EVERY)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos_views", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="a4co-views-") as folder:
        broker = KafkaBroker(Path(folder) / "kafka")
        try:
            watch = asyncio.run(run(Path(folder), broker, given.events, given.seed))
        finally:
            broker.stop()
    for wrong in watch.wrong[:20]:
        print(wrong, file=sys.stderr)
    figures = {"events": given.events, "answers": dict(watch.told), "wrong": len(watch.wrong)}
    conclude("views of three workers under chaos", figures, seed=given.seed)
    return 1 if watch.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
