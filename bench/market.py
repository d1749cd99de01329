"""The whole application as the services see it: one worker process, real NATS, order.created in, order.confirmed out.

Measures orders a second when they come all at once, the latency at a steady rate, point reads over HTTP meanwhile, and
the worker's memory. `--log kafka` runs it on a Kafka broker of its own.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.kafka import kafka
from bench.orders import PRODUCTS, order_created, payment_succeeded
from bench.reads import reading
from bench.report import conclude, percentiles, progress
from deploy.kafka.broker import BrokerError
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess

PATIENCE = 120.0
"""Seconds without any confirmation after which a run is given up."""


class Services:
    """The order and payment services: publishes orders, pays at once, and notes when what was heard."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.created: dict[str, float] = {}
        self.reserved: dict[str, float] = {}
        self.confirmed: dict[str, float] = {}
        self._paid: set[str] = set()

    async def listen(self) -> None:
        for subject, hear in (
            ("inventory.stock.reserved", self._on_reserved),
            ("payment.initiated", self._on_payment),
            ("order.confirmed", self._on_confirmed),
        ):
            await self.client.subscribe(subject, cb=hear, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await self.client.flush()

    async def order(self, order: str) -> None:
        payload = json.dumps(order_created(order)).encode()
        self.created[order] = time.perf_counter()
        await self.client.publish("order.created", payload)

    async def _on_reserved(self, message: Msg) -> None:
        self.reserved.setdefault(json.loads(message.data)["eventData"]["orderId"], time.perf_counter())

    async def _on_payment(self, message: Msg) -> None:
        order = json.loads(message.data)["eventData"]["orderId"]
        await self.client.publish("payment.succeeded", json.dumps(payment_succeeded(order)).encode())

    async def _on_confirmed(self, message: Msg) -> None:
        order = json.loads(message.data)["aggregateId"]
        if order in self.confirmed:
            raise AssertionError(f"{order} was confirmed twice")
        self.confirmed[order] = time.perf_counter()

    async def all_confirmed(self, wanted: int, what: str) -> None:
        last, since = -1, time.monotonic()
        while len(self.confirmed) < wanted:
            if len(self.confirmed) != last:
                last, since = len(self.confirmed), time.monotonic()
                progress(what, last, wanted)
            elif time.monotonic() - since > PATIENCE:
                raise SystemExit(f"{what}: {wanted - last} of {wanted} orders were not confirmed")
            await asyncio.sleep(0.05)
        progress(what, wanted, wanted)


async def throughput(services: Services, orders: int) -> dict[str, Any]:
    """Every order at once; from the first publish to the last confirmation heard."""
    began = time.perf_counter()
    for number in range(orders):
        await services.order(f"burst_{number:08}")
        if number % 200 == 199:
            await services.client.flush()
    await services.all_confirmed(orders, "burst")
    seconds = max(services.confirmed.values()) - began
    return {"orders": orders, "orders_per_second": round(orders / seconds)}


async def latency(services: Services, rate: int, seconds: int) -> dict[str, Any]:
    """Orders at a steady rate; milliseconds from publishing order.created to hearing the answer."""
    began, total = time.perf_counter(), rate * seconds
    for number in range(total):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        await services.order(f"steady_{number:08}")
        progress("steady", number + 1, total)
    await services.all_confirmed(total, "steady confirmed")
    took = {
        name: [heard[order] - at for order, at in services.created.items()]
        for name, heard in (("reserved", services.reserved), ("confirmed", services.confirmed))
    }
    return {
        "rate": rate,
        "created_to_reserved_ms": percentiles(took["reserved"]),
        "created_to_confirmed_ms": percentiles(took["confirmed"]),
    }


@dataclass(frozen=True)
class Place:
    """Where a measurement runs: the folder of its files, and the Kafka broker (host:port) or "" for an embedded log."""

    folder: Path
    kafka: str = ""

    def settings(self) -> dict[str, str]:
        """The worker's settings for its log."""
        return {"KAFKA_URL": f"kafka://{self.kafka}", "TOPIC_PREFIX": f"{self.folder.name}."} if self.kafka else {}


async def with_worker(place: Place, sync: str, run: Callable[[Services], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """A fresh nats-server, log and worker for one measurement; reads and the memory are added to its figures."""
    place.folder.mkdir()
    server = NatsServer(place.folder / "nats", sync=sync)
    await server.start()
    worker = WorkerProcess(place.folder / "worker", NATS_URL=server.url, LOG_LEVEL="warning", **place.settings())
    try:
        worker.start()
        await worker.ready()
        await stock(worker.web)
        client = await nats.connect(server.url)
        services = Services(client)
        await services.listen()
        async with reading(f"{worker.web}/api/inventory/check/{PRODUCTS[0]}") as reads:
            figures = await run(services)
        figures["point_reads"] = reads
        figures["rss_mb"] = await memory(worker.web)
        await client.close()
    finally:
        await worker.close()
        server.stop()
    return figures


async def stock(web: str) -> None:
    """Enough of everything."""
    lines = [
        {"productId": product, "name": product, "category": "c", "artisanId": "a", "onHand": 10**9, "threshold": 0}
        for product in PRODUCTS
    ]
    async with httpx.AsyncClient() as client:
        (await client.post(f"{web}/api/stock/import", json=lines)).raise_for_status()


async def memory(web: str) -> int:
    """The worker's resident memory, MB, as it tells Prometheus."""
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"{web}/metrics")).text
    [line] = [line for line in metrics.splitlines() if line.startswith("process_resident_memory_bytes ")]
    return round(float(line.split()[1]) / 2**20)


async def measure(folder: Path, servers: str, orders: int, rate: int, seconds: int) -> dict[str, Any]:
    """The measurements, one after the other; the burst also with JetStream's own default, a sync every two minutes."""

    async def burst(services: Services) -> dict[str, Any]:
        return await throughput(services, orders)

    async def steady(services: Services) -> dict[str, Any]:
        return await latency(services, rate, seconds)

    return {
        "burst": await with_worker(Place(folder / "burst", servers), "always", burst),
        "burst_nats_syncs_every_2_min": await with_worker(Place(folder / "burst-2m", servers), '"2m"', burst),
        "steady": await with_worker(Place(folder / "steady", servers), "always", steady),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.market", description=__doc__)
    parser.add_argument("--log", choices=("embedded", "kafka"), default="embedded")
    parser.add_argument("--orders", type=int, default=10_000, help="orders of the burst")
    parser.add_argument("--rate", type=int, default=100, help="orders a second of the steady run")
    parser.add_argument("--seconds", type=int, default=20, help="length of the steady run")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="a4co-market-") as name, contextlib.ExitStack() as stack:
            servers = stack.enter_context(kafka(Path(name) / "kafka")) if given.log == "kafka" else ""
            figures = asyncio.run(measure(Path(name), servers, given.orders, given.rate, given.seconds))
    except BrokerError as error:
        sys.exit(f"bench.market: {error}")
    conclude(f"full saga through NATS, {given.log} log, one worker process", figures)


if __name__ == "__main__":
    main()
