"""Kills the process that runs the bridge on Kafka, again and again, and takes the time until the next one mirrors.

`python -m bench.takeover --kills 10 --bridges 3`: `a4co bridge` processes beside a broker and a nats-server of their
own, under 200 messages/s. A takeover is the time from kill -9 until a consumer of committed records sees the first one
of the next process. The broker's session timeouts are Kafka's defaults: the lease does not depend on them.
"""

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

import nats
from confluent_kafka import Consumer
from nats.js.client import JetStreamContext

from bench.kafka import kafka
from bench.orders import order_created
from bench.report import conclude, percentiles, progress
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess

RATE = 200
"""Messages/s meanwhile."""

STEADY = (1.0, 3.0)
"""Seconds between a takeover and the next kill."""

LONGEST = 60.0

DEFAULTS = """
group.consumer.session.timeout.ms=45000
group.consumer.min.session.timeout.ms=45000
group.consumer.heartbeat.interval.ms=5000
group.consumer.min.heartbeat.interval.ms=5000
group.min.session.timeout.ms=6000
group.initial.rebalance.delay.ms=3000
"""
"""What `make kafka` sets otherwise."""


class Mirrored:
    """Reads the topic `orders` along: `after(t)` is when the first record was seen that was made after t."""

    def __init__(self, servers: str) -> None:
        settings = {"bootstrap.servers": servers, "group.id": "takeover", "isolation.level": "read_committed"}
        self._consumer = Consumer(settings | {"auto.offset.reset": "latest", "fetch.wait.max.ms": 10})
        self._consumer.subscribe(["orders"])

    def after(self, made: float) -> float:
        """Blocks. Raises TimeoutError after LONGEST."""
        while time.time() < made + LONGEST:
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None and message.timestamp()[1] > 1000 * made:
                return time.time()
        raise TimeoutError(f"nobody mirrors {LONGEST:g} s after the kill")

    def close(self) -> None:
        self._consumer.close()


async def publish(stream: JetStreamContext) -> None:
    """RATE orders a second, until cancelled."""
    number = 0
    while True:
        number += 1
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await stream.publish("order.created", json.dumps(order_created(f"order-{number}")).encode())
        await asyncio.sleep(1 / RATE)


async def measure(folder: Path, servers: str, kills: int, bridges: int, seed: int) -> list[float]:
    """Seconds of each takeover."""
    chance, taken = random.Random(seed), list[float]()
    server = NatsServer(folder / "nats")
    await server.start()
    processes = [
        WorkerProcess(
            folder / f"bridge-{number}", command="bridge", NATS_URL=server.url, KAFKA_URL=f"kafka://{servers}",
            WORKER_NAME=f"bridge-{number}", LOG_LEVEL="warning",
        )
        for number in range(bridges)
    ]  # fmt: skip
    client = await nats.connect(server.url)
    mirrored, publishing = None, None
    try:
        for process in processes:
            process.start()
        for process in processes:
            await process.ready()
        mirrored = Mirrored(servers)
        publishing = asyncio.create_task(publish(client.jetstream()))
        await asyncio.to_thread(mirrored.after, time.time())
        for number in range(kills):
            await asyncio.sleep(chance.uniform(*STEADY))
            for process in processes:
                await process.ready()
            [active] = [process for process in processes if await process.connected()]
            killed = time.time()
            active.kill()
            taken.append(await asyncio.to_thread(mirrored.after, time.time()) - killed)
            sys.stderr.write(f"{active.settings['WORKER_NAME']} killed, taken over after {taken[-1]:.2f} s\n")
            progress("takeovers", number + 1, kills)
            active.start()
    finally:
        if publishing is not None:
            publishing.cancel()
        for process in processes:
            await process.close()
        if mirrored is not None:
            await asyncio.to_thread(mirrored.close)
        await client.close()
        server.stop()
    return taken


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.takeover", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--bridges", type=int, default=3)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="a4co-takeover-") as folder,
        kafka(Path(folder) / "kafka", DEFAULTS) as servers,
    ):
        taken = asyncio.run(measure(Path(folder), servers, given.kills, given.bridges, given.seed))
    figures = {"kills": given.kills, "bridges": given.bridges, "takeover_ms": percentiles(taken)}
    conclude("takeover of the bridge after kill -9", figures, seed=given.seed)


if __name__ == "__main__":
    main()
