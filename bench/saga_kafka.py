"""Full sagas a second on Kafka, without NATS: real models, real rules, real workers in processes of their own.

An order is one order.created, its reservation, one payment.succeeded and the confirmation; what the application says
comes back through the mirror as it does behind the bridge. This process is the marketplace around it: it keeps so many
orders open, pays what it is asked to, mirrors what was said, and hears each order confirmed, once.
`python -m bench.saga_kafka --workers 2` runs two workers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, Producer
from confluent_kafka import TopicPartition as Place

from app import topics
from app.domain.messages import StockImported
from bench.kafka import kafka
from bench.orders import order_created, payment_succeeded
from bench.report import conclude, cpu, progress
from bridge.routes import ROUTES
from deploy.kafka.broker import BrokerError, pid_of

PARTITIONS = 4
MEASURED_FROM = 0.5
"""The part of the orders after whose confirmation the clock starts: a fresh broker is slow until it is compiled."""

SILENT = 60.0
"""Seconds without a new confirmation after which it is given up."""


class Outside:
    """The services, the bridge's mirror and the customers: one consumer and one producer."""

    def __init__(self, servers: str, orders: int, products: int) -> None:
        client = {"bootstrap.servers": servers, "log_level": 3}
        self._consumer = Consumer(
            client
            | {
                "group.id": "outside", "isolation.level": "read_committed", "enable.auto.commit": False,
                "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5,
            }
        )  # fmt: skip
        self._producer = Producer(
            client
            | {
                "partitioner": "murmur2_random", "linger.ms": 5, "enable.idempotence": True, "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000, "delivery.report.only.error": True,
            }
        )  # fmt: skip
        self._products = [f"product_{number:04}" for number in range(products)]
        self._created: list[tuple[bytes, bytes]] = []
        self._paid: dict[bytes, bytes] = {}
        for number in range(orders):
            order = f"order_{number:09}"
            created = order_created(order)
            created["eventData"]["items"][0]["productId"] = self._products[number % products]
            self._created.append((order.encode(), json.dumps(created).encode()))
            self._paid[order.encode()] = json.dumps(payment_succeeded(order)).encode()
        self.confirmed: set[bytes] = set()
        self.repeated = 0
        self._published = 0

    def stock(self) -> None:
        """Enough of every product."""
        for product in self._products:
            said = StockImported(
                event_id=product, key=product, at=time.time(), source="bench", on_hand=10**9, threshold=0,
                name=product, category="", artisan_id="",
            )  # fmt: skip
            for send in topics.sends_of(said):
                self._producer.produce(send.topic, send.value, send.key)
        self._producer.flush(30)

    def begin(self) -> None:
        """Listen; nothing is said before."""
        self._consumer.assign([Place(topics.OUTBOUND.name, partition, 0) for partition in range(PARTITIONS)])

    def step(self, waiting: int) -> None:
        """Publish until so many orders are open, and answer what was said."""
        for order, created in self._created[self._published : len(self.confirmed) + waiting]:
            self._produce("orders", created, order, [("a4co-subject", b"order.created")])
            self._published += 1
        for message in self._consumer.consume(2_000, 0.005):
            error = message.error()
            if error is not None:
                raise SystemExit(f"Kafka: {error.str()}")
            self._answer(message)
        self._producer.poll(0)

    def _produce(self, topic: str, value: bytes | None, key: bytes | None, headers: list[Any]) -> None:
        while True:
            try:
                return self._producer.produce(topic, value, key, headers=headers)
            except BufferError:
                self._producer.poll(0.1)

    def _answer(self, message: Message) -> None:
        headers: list[Any] = list(message.headers() or [])
        subject, key = dict(headers)["a4co-subject"].decode(), message.key() or b""
        self._produce(ROUTES[subject].topic, message.value(), key, [*headers, ("a4co-ours", b"1")])
        if subject == "payment.initiated":
            self._produce("payments", self._paid[key], key, [("a4co-subject", b"payment.succeeded")])
        elif subject == "order.confirmed":
            self.repeated += key in self.confirmed
            self.confirmed.add(key)


class Worker:
    """A worker's process."""

    def __init__(self, servers: str, name: str, folder: Path) -> None:
        (folder / name).mkdir()
        self._said, self._errors = folder / f"{name}.out", folder / f"{name}.err"
        with self._said.open("wb") as said, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.saga_worker", servers, name, str(folder / name)],
                stdout=said, stderr=errors, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.pid = self._process.pid

    def check(self) -> None:
        """End the bench when the worker has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"a worker ended with {self._process.returncode}:\n{self._errors.read_text()[-3000:]}")

    def has(self, partitions: int) -> bool:
        """Whether it has just so many of every table."""
        self.check()
        lines = self._said.read_text().splitlines()
        return bool(lines) and set(lines[-1].split()) == {str(partitions)}

    def report(self) -> dict[str, Any]:
        """What it told at its end."""
        return json.loads(self._said.read_text().splitlines()[-1])  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure(servers: str, folder: Path, orders: int, *, workers: int, waiting: int, products: int) -> dict[str, Any]:
    """Run that many orders through; the messages are made before the clock starts."""
    running = [Worker(servers, f"worker-{number}", folder) for number in range(workers)]
    try:
        deadline = time.monotonic() + SILENT
        while not all(worker.has(PARTITIONS // workers) for worker in running):
            if time.monotonic() > deadline:
                raise SystemExit("the workers have not shared the partitions")
            time.sleep(0.1)
        pids = {f"worker-{number}": worker.pid for number, worker in enumerate(running)}
        pids |= {"outside": os.getpid(), "broker": pid_of(folder / "kafka") or 0}
        sys.stderr.write(f"pids: {pids}\n")
        outside = Outside(servers, orders, products)
        outside.stock()
        outside.begin()
        figures = run(outside, orders, waiting, running, pids)
    finally:
        for worker in running:
            worker.stop()
    return figures | {"records_per_transaction": batches(running)}


def batches(workers: Sequence[Worker]) -> dict[str, float]:
    """The mean of each lane, over all workers, from their start to their end."""
    transactions, records = Counter[str](), Counter[str]()
    for worker in workers:
        report = worker.report()
        transactions.update(report["transactions"])
        records.update(report["records"])
    return {lane: round(records[lane] / number, 1) for lane, number in transactions.items()}


def run(outside: Outside, orders: int, waiting: int, running: Sequence[Worker], pids: dict[str, int]) -> dict[str, Any]:
    """Until every order is confirmed; the figures are those of what came after MEASURED_FROM."""
    first, began, spent = 0, 0.0, dict[str, float]()
    done, since = 0, time.monotonic()
    while len(outside.confirmed) < orders:
        outside.step(waiting)
        if len(outside.confirmed) != done:
            before, done, since = done, len(outside.confirmed), time.monotonic()
            if done * 10 // orders != before * 10 // orders:
                progress("confirmed", done * 10 // orders * (orders // 10), orders)
        elif time.monotonic() > since + SILENT:
            raise SystemExit(f"no confirmation for {SILENT:g} s at {done} of {orders}")
        if time.monotonic() > since + 1:
            for worker in running:
                worker.check()
        if not first and done >= orders * MEASURED_FROM:
            first, began, spent = done, time.perf_counter(), {name: cpu(pid) for name, pid in pids.items()}
    seconds, counted = time.perf_counter() - began, orders - first
    return {
        "orders": orders,
        "orders_per_second": round(counted / seconds),
        "confirmed_twice": outside.repeated,
        "cpu_microseconds_per_order": {
            name: round(1e6 * (cpu(pid) - spent[name]) / counted) for name, pid in pids.items()
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.saga_kafka", description=__doc__)
    parser.add_argument("--orders", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=1, choices=(1, 2, 4))
    parser.add_argument("--waiting", type=int, default=4_000, help="orders that are open at once (4000)")
    parser.add_argument("--products", type=int, default=200)
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="a4co-saga-") as name, kafka(Path(name) / "kafka") as servers:
            figures = measure(
                servers, Path(name), given.orders,
                workers=given.workers, waiting=given.waiting, products=given.products,
            )  # fmt: skip
    except BrokerError as error:
        sys.exit(f"bench.saga_kafka: {error}")
    figures |= {"workers": given.workers, "open": given.waiting, "products": given.products}
    conclude(f"full saga on Kafka without NATS, from {MEASURED_FROM:.0%} on", figures)


if __name__ == "__main__":
    main()
