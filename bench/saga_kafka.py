"""Full sagas a second on Kafka, without NATS: real models, real rules, real workers in processes of their own.

An order is one order.created, its reservation, one payment.succeeded and the confirmation; what the application says
comes back through the mirror as it does behind the bridge. This process is the marketplace around it: it keeps so many
orders open, pays what it is asked to, mirrors what was said, and hears each order confirmed, once, or the run does not
count. `python -m bench.saga_kafka --workers 2` runs two workers; `--engines ours,faust` runs the same application on
stock Faust as well (bench/saga_faust.py), on the same broker, in turns.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Message, Producer
from confluent_kafka import TopicPartition as Place

from app import topics
from app.domain.messages import StockImported
from bench.kafka import kafka
from bench.orders import order_created, payment_succeeded
from bench.programs import Wrong, in_turns, tail
from bench.report import conclude, cpu, progress
from bridge.routes import ROUTES
from deploy.kafka.broker import BrokerError, pid_of

PARTITIONS = 4
MEASURED_FROM = 0.5
"""The clock runs until all orders are published, so that as many are open at its end as at its start; this is the part
of them that is confirmed when it starts: a fresh broker is slow until it is compiled."""

SILENT = 60.0
"""Seconds without a new confirmation after which it is given up."""


Runs = dict[str, list[dict[str, Any]]]
"""The figures of each good run, by engine."""


class Engine(NamedTuple):
    """What a worker runs on: the module of its process, what follows the module's SERVERS NAME FOLDER PREFIX.

    `slow`: it gets fewer orders.
    """

    what: str
    module: str
    more: tuple[str, ...] = ()
    slow: bool = False


ENGINES = {
    "ours": Engine("this engine", "bench.saga_worker"),
    "ours_uncounted": Engine(
        "this engine, without counting for the analytics, as Faust's worker", "bench.saga_worker", ("uncounted",)
    ),
    "faust": Engine("stock Faust 0.15, exactly_once", "bench.saga_faust", ("exactly_once",), slow=True),
    "faust_at_least_once": Engine("stock Faust 0.15, at_least_once", "bench.saga_faust", ("at_least_once",), slow=True),
}


class Outside:
    """The services, the bridge's mirror and the customers: one consumer and one producer."""

    def __init__(self, servers: str, prefix: str, orders: int, products: int) -> None:
        self._prefix = prefix
        client = {"bootstrap.servers": servers, "log_level": 3}
        self._consumer = Consumer(
            client
            | {
                "group.id": f"{prefix}outside", "isolation.level": "read_committed", "enable.auto.commit": False,
                "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5,
            }
        )  # fmt: skip
        self._producer = Producer(
            client
            | {
                "partitioner": "murmur2_random", "linger.ms": 5, "enable.idempotence": True,
                "queue.buffering.max.messages": 1_000_000, "delivery.report.only.error": True,
            }
        )  # fmt: skip
        self._products = [f"product_{number:04}" for number in range(products)]
        self.orders = orders
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
                self._producer.produce(self._prefix + send.topic, send.value, send.key)
        self._producer.flush(30)

    def begin(self) -> None:
        """Listen; nothing is said before."""
        said = self._prefix + topics.OUTBOUND.name
        self._consumer.assign([Place(said, partition, 0) for partition in range(PARTITIONS)])

    def close(self) -> None:
        """Let go of the broker."""
        self._producer.flush(30)
        self._consumer.close()

    def step(self, waiting: int) -> None:
        """Publish until so many orders are open, and answer what was said."""
        for order, created in self._created[self._published : len(self.confirmed) + waiting]:
            self._produce("orders", created, order, [("a4co-subject", b"order.created")])
            self._published += 1
        for message in self._consumer.consume(2_000, 0.005):
            error = message.error()
            if error is not None:
                raise Wrong(f"Kafka: {error.str()}")
            self._answer(message)
        self._producer.poll(0)

    def _produce(self, topic: str, value: bytes | None, key: bytes | None, headers: list[Any]) -> None:
        while True:
            try:
                return self._producer.produce(self._prefix + topic, value, key, headers=headers)
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
    """A worker's process. It names what it has on the broker with `prefix` before it."""

    def __init__(self, engine: Engine, servers: str, prefix: str, folder: Path) -> None:
        folder.mkdir()
        self._said, self._errors = folder.with_suffix(".out"), folder.with_suffix(".err")
        with self._said.open("wb") as said, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", engine.module, servers, folder.name, str(folder), prefix, *engine.more],
                stdout=said, stderr=errors, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.pid = self._process.pid

    def check(self) -> None:
        """Raises Wrong when the worker has ended."""
        if self._process.poll() is not None:
            raise Wrong(f"a worker ended with {self._process.returncode}:\n{tail(self._errors)}")

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


class Bench:
    """Runs engines on the broker at `servers`, whose process is `broker`, with files below `folder`.

    `waiting` orders are open at once.
    """

    def __init__(
        self, servers: str, folder: Path, broker: int,
        *, orders: int, slow_orders: int, waiting: int, products: int, workers: int,
    ) -> None:  # fmt: skip
        self._servers, self._folder, self._broker = servers, folder, broker
        self._orders, self._slow_orders = orders, slow_orders
        self._waiting, self._products, self._workers = waiting, products, workers
        self._runs = 0

    def run(self, name: str) -> dict[str, Any]:
        """One run's figures.

        Raises:
            Wrong: a worker has ended, or nothing more is confirmed, or something twice.
        """
        engine = ENGINES[name]
        self._runs += 1
        prefix = f"{name}-{self._runs}-"
        running = [
            Worker(engine, self._servers, prefix, self._folder / f"{prefix}worker-{number}")
            for number in range(self._workers)
        ]
        try:
            wait_for(running, PARTITIONS // self._workers)
            pids = {f"worker-{number}": worker.pid for number, worker in enumerate(running)}
            pids |= {"outside": os.getpid(), "broker": self._broker}
            sys.stderr.write(f"pids: {pids}\n")
            orders = self._slow_orders if engine.slow else self._orders
            with contextlib.closing(Outside(self._servers, prefix, orders, self._products)) as outside:
                outside.stock()
                outside.begin()
                figures = confirm_all(outside, self._waiting, running, pids)
        finally:
            for worker in running:
                worker.stop()
        return figures if engine.slow else figures | {"records_per_transaction": batches(running)}


def wait_for(workers: Sequence[Worker], partitions: int) -> None:
    """Return when each has just so many of every table. Raises Wrong when that takes too long."""
    deadline = time.monotonic() + SILENT
    while not all(worker.has(partitions) for worker in workers):
        if time.monotonic() > deadline:
            raise Wrong("the workers have not shared the partitions")
        time.sleep(0.1)


def batches(workers: Sequence[Worker]) -> dict[str, float]:
    """The mean of each lane, over all workers, from their start to their end."""
    transactions, records = Counter[str](), Counter[str]()
    for worker in workers:
        report = worker.report()
        transactions.update(report["transactions"])
        records.update(report["records"])
    return {lane: round(records[lane] / number, 1) for lane, number in transactions.items()}


class Moment(NamedTuple):
    """So many orders are confirmed, by the clock, and what each process has had of a processor, in seconds."""

    confirmed: int
    at: float
    spent: dict[str, float]


def confirm_all(outside: Outside, waiting: int, running: Sequence[Worker], pids: dict[str, int]) -> dict[str, Any]:
    """Until every order is confirmed; the figures are those of the time that is measured (MEASURED_FROM)."""
    last = outside.orders - waiting
    marks, moments = [int(MEASURED_FROM * last), last], list[Moment]()
    done, since = 0, time.monotonic()
    while len(outside.confirmed) < outside.orders:
        outside.step(waiting)
        if len(outside.confirmed) != done:
            before, done, since = done, len(outside.confirmed), time.monotonic()
            if done * 10 // outside.orders != before * 10 // outside.orders:
                progress("confirmed", done * 10 // outside.orders * (outside.orders // 10), outside.orders)
        elif time.monotonic() > since + SILENT:
            raise Wrong(f"no confirmation for {SILENT:g} s at {done} of {outside.orders}")
        if time.monotonic() > since + 1:
            for worker in running:
                worker.check()
        if marks and done >= marks[0]:
            del marks[0]
            moments.append(Moment(done, time.perf_counter(), {name: cpu(pid) for name, pid in pids.items()}))
    if outside.repeated:
        raise Wrong(f"{outside.repeated} of {outside.orders} orders were confirmed twice")
    begin, end = moments
    counted = end.confirmed - begin.confirmed
    return {
        "orders_per_second": round(counted / (end.at - begin.at)),
        "cpu_microseconds_per_order": {
            name: round(1e6 * (end.spent[name] - begin.spent[name]) / counted) for name in pids
        },
    }


def measure(engines: Sequence[str], rounds: int, bench: Bench) -> tuple[Runs, dict[str, str]]:
    """Every good run, and why the last bad one was bad, by engine."""
    good: Runs = {name: [] for name in engines}
    wrong: dict[str, str] = {}
    for turn, name in in_turns(engines, rounds):
        try:
            run = bench.run(name)
        except Wrong as error:
            wrong[name] = str(error)
            sys.stderr.write(f"{turn} {name}: does not count: {error}\n")
        else:
            good[name].append(run)
            sys.stderr.write(f"{turn} {name}: {run}\n")
    return good, wrong


def figures(good: Runs, wrong: dict[str, str]) -> dict[str, Any]:
    """Medians, all rounds, and how many times as fast as each other engine ours is."""
    good = {name: runs for name, runs in good.items() if runs}
    rounds = {name: [run["orders_per_second"] for run in runs] for name, runs in good.items()}
    speeds = {name: statistics.median(speeds) for name, speeds in rounds.items()}
    ours, uncounted, faust = (speeds.get(name) for name in ("ours", "ours_uncounted", "faust"))
    return {
        "orders_per_second": {name: round(speed) for name, speed in speeds.items()},
        "rounds": rounds,
        "ours_to": {name: round(ours / speed, 2) for name, speed in speeds.items() if ours and name != "ours"},
        "uncounted_to_faust": round(uncounted / faust, 2) if uncounted and faust else None,
        "cpu_microseconds_per_order": _medians(good, "cpu_microseconds_per_order", None),
        "records_per_transaction": _medians(good, "records_per_transaction", 1),
        "wrong": wrong,
    }


def _medians(good: Runs, what: str, digits: int | None) -> dict[str, dict[str, float]]:
    """Of each engine whose runs tell it by name."""
    return {
        name: {each: round(statistics.median(run[what][each] for run in runs), digits) for each in runs[0][what]}
        for name, runs in good.items()
        if what in runs[0]
    }


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.saga_kafka", description=__doc__)
    parser.add_argument("--orders", type=int, default=40_000)
    parser.add_argument("--slow-orders", type=int, default=16_000, help="for each run of stock Faust (16000)")
    parser.add_argument("--workers", type=int, default=1, choices=(1, 2, 4))
    parser.add_argument("--waiting", type=int, default=4_000, help="orders that are open at once (4000)")
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--engines", default="ours", help=f"of {','.join(ENGINES)}")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    given.engines = given.engines.split(",")
    unknown = [name for name in given.engines if name not in ENGINES]
    if unknown:
        parser.error(f"no engine {unknown[0]!r}: there are {', '.join(ENGINES)}")
    if min(given.orders, given.slow_orders) < 2 * given.waiting:
        parser.error("--orders and --slow-orders must be at least twice --waiting")
    return given


def main() -> int:
    """The command."""
    given = options()
    for name in given.engines:
        sys.stderr.write(f"{name:20} {ENGINES[name].what}\n")
    try:
        with tempfile.TemporaryDirectory(prefix="a4co-saga-") as name, kafka(Path(name) / "kafka") as servers:
            bench = Bench(
                servers, Path(name), pid_of(Path(name) / "kafka") or 0,
                orders=given.orders, slow_orders=given.slow_orders, waiting=given.waiting, products=given.products,
                workers=given.workers,
            )  # fmt: skip
            good, wrong = measure(given.engines, given.rounds, bench)
    except BrokerError as error:
        sys.stderr.write(f"bench.saga_kafka: {error}\n")
        return 1
    asked = {"orders": given.orders, "workers": given.workers, "open": given.waiting, "products": given.products}
    conclude("full saga on Kafka without NATS, while so many orders are open", asked | figures(good, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
