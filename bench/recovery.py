"""How long a worker takes to be ready with tables of many keys: without stores, with them, and with them behind.

The rows are the real tables', the engine is the application's; each start is a process of its own. Kafka is a broker
that the bench starts and ends (Java 17, Maven).
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer

from agents.orders import advance_order_sagas
from agents.stock import apply_stock_commands
from app import topics
from app.domain.messages import Line
from app.domain.policy import Policy
from app.domain.rows import Held, Hold, OrderSaga, SagaState, Step, Stock
from app.engine.embedded_log import EmbeddedLog
from app.engine.engine import Application, Engine
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.lanes import Hooks
from app.engine.partitioner import partition_for
from app.engine.records import Send
from app.engine.standby import Standby
from bench.report import conclude, progress
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS

ROOT = Path(__file__).parents[1]
BROKER = ROOT / "deploy" / "kafka" / "broker.py"
JARS = ROOT / "data" / "kafka" / "libs"
PARTITIONS = 4
NAME = "a4co"
AT_ONCE = 5_000
TARGETS = {"cold": 15.0, "warm": 2.0, "behind": 2.0}
"""Seconds to be ready, for a million keys."""

Row = tuple[str, bytes, bytes]
"""A changelog record to be: its topic, key and value."""


def rows(keys: int, again: int = 0) -> Iterator[Row]:
    """So many rows: nine orders (one of ten under way) to one product. `again` makes other rows of the same keys."""
    encode = msgspec.json.encode
    for number in range(keys):
        if number % 10 == 9:
            stock = _stock(number, again)
            yield INVENTORY.changelog, stock.product_id.encode(), encode(stock)
        else:
            saga = _saga(number, again)
            yield ORDER_SAGAS.changelog, saga.order_id.encode(), encode(saga)


def _saga(number: int, again: int) -> OrderSaga:
    order, at, ended = f"order_{number * 7_919 % 100_000_007:09d}", 1.7e9 + number, number % 10 > 0
    steps = [("order.created", "in"), ("Reserve", "out"), ("Reserved", "in"), ("payment.initiated", "out")]
    return OrderSaga(
        order_id=order,
        state=SagaState.COMPLETED if ended else SagaState.AWAITING_PAYMENT,
        customer_id=f"customer_{number % 9_973}",
        customer_email="cliente@jaen.example",
        lines=(Line("product_aceite_picual", 2, 1250, "Aceite Picual de Úbeda", "artisan_olivares_ubeda"),),
        total=2500,
        created_at=at,
        updated_at=at + again,
        products={"product_aceite_picual": Held(2, "committed" if ended else "asked", 40)},
        attempt=1,
        deadline=None if ended else 4e9 + number,
        timeline=tuple(Step(at, what, direction) for what, direction in steps),
        seen=(f"{number:032x}",),
    )


def _stock(number: int, again: int) -> Stock:
    return Stock(
        product_id=f"product_{number:09d}",
        on_hand=100 + again,
        holds={f"order_{number + n:09d}": Hold(2, 4e9) for n in range(3)},
        threshold=10,
        name="Aceite Picual de Úbeda",
        category="aceite",
        artisan_id="artisan_olivares_ubeda",
        ended={f"order_{number + 10 + n:09d}": "committed" for n in range(4)},
    )


class Embedded:
    """Changelogs in a SQLite file."""

    name = "embedded"

    def __init__(self, folder: Path) -> None:
        self.arguments = ["embedded", str(folder / "log.db"), str(folder / "tables")]
        self._path = folder / "log.db"

    async def write(self, made: Iterator[Row], total: int) -> None:
        """Append the rows to the changelogs."""
        log = EmbeddedLog(self._path)
        await log.connect()
        await log.prepare(dict.fromkeys((ORDER_SAGAS.changelog, INVENTORY.changelog), True), PARTITIONS)
        for number, batch in enumerate(_batches(made), 1):
            await log.commit([Send(topic, key, value) for topic, key, value in batch])
            progress("rows written", min(total, number * AT_ONCE), total)
        await log.disconnect()


class Kafka:
    """Changelogs on a broker."""

    name = "kafka"

    def __init__(self, folder: Path, servers: str) -> None:
        self.arguments = ["kafka", servers, str(folder / "tables")]
        self._servers = servers

    async def write(self, made: Iterator[Row], total: int) -> None:
        """Append the rows to the changelogs."""
        log = _kafka(self._servers)
        await log.connect()
        await log.prepare(dict.fromkeys((ORDER_SAGAS.changelog, INVENTORY.changelog), True), PARTITIONS)
        await log.disconnect()
        producer = Producer({"bootstrap.servers": self._servers, "linger.ms": 5, "compression.type": "lz4"})
        for number, batch in enumerate(_batches(made), 1):
            for topic, key, value in batch:
                producer.produce(topic, value, key, partition_for(key, PARTITIONS))
            producer.flush()
            progress("rows written", min(total, number * AT_ONCE), total)


def _batches(made: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in made:
        batch.append(row)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _kafka(servers: str) -> KafkaLog:
    return KafkaLog(KafkaOptions(servers, "bench"), NAME)


# ---- one start, in a process of its own ------------------------------------------------------------------


def _engine(log: EmbeddedLog | KafkaLog, tables: Path) -> Engine:
    policy = Policy()
    application = Application(
        name=NAME,
        topics=topics.ALL,
        reducers=(advance_order_sagas(policy), apply_stock_commands(policy)),
        partitions=PARTITIONS,
        hooks=Hooks(reject=lambda *_: []),
    )
    return Engine(application, log, tables)


def _owned(engine: Engine) -> int:
    if engine.failure is not None:
        raise engine.failure
    return sum(len(table.partitions) for table in engine.tables.values())


async def start(kind: str, where: str, tables: str) -> dict[str, Any]:
    """Open the log and the tables, and tell how long it took until the worker was ready, and what there is."""
    log = EmbeddedLog(Path(where)) if kind == "embedded" else _kafka(where)
    engine = _engine(log, Path(tables))
    began, cpu = time.perf_counter(), time.process_time()
    await log.connect()
    await engine.open()
    await engine.start()
    while _owned(engine) < 2 * PARTITIONS:  # noqa: ASYNC110 - the engine has no event for it, and needs none
        await asyncio.sleep(0.002)
    seconds = time.perf_counter() - began
    counted = {name: table.count() for name, table in engine.tables.items()}
    timers = sum(table.timers() for table in engine.tables.values())
    await engine.stop()
    await log.disconnect()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime - cpu, 2),
        "rows": sum(counted.values()),
        "timers": timers,
        "rss_mb": used.ru_maxrss // 1024,
    }


async def work(servers: str, name: str, tables: str, standing_by: str) -> None:
    """A worker among others, until it is killed. It says how many partitions it has, and for how many it stands by."""
    log = KafkaLog(KafkaOptions(servers, name), NAME)
    engine = _engine(log, Path(tables))
    await log.connect()
    await engine.open()
    await engine.start()
    standby = Standby(engine.tables.values(), log, lambda: engine.ready)
    if standing_by == "True":
        standby.start()
    said = (0, 0)
    while True:
        here = _owned(engine), standby.followed
        if here != said:
            said = here
            print(*here, flush=True)
        await asyncio.sleep(0.01)


class Worker:
    """A process that does `work`."""

    def __init__(self, servers: str, name: str, folder: Path, *, standby: bool) -> None:
        arguments = ["--work", servers, name, str(folder / name), str(standby)]
        command = [sys.executable, "-m", "bench.recovery", *arguments]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)

    def wait_for(self, owned: int, followed: int) -> float:
        """Until it has so many partitions and stands by for so many. Returns the seconds that took."""
        began = time.perf_counter()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.split() == [b"%d" % owned, b"%d" % followed]:
                return time.perf_counter() - began
        raise RuntimeError("a worker has ended")

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()


def takeover(servers: str, folder: Path) -> dict[str, float]:
    """Seconds from the kill of one of two workers until the other one has its partitions, cold and standing by."""
    seconds = {}
    for standby in (False, True):
        dies = Worker(servers, "dies", folder / str(standby), standby=False)
        dies.wait_for(2 * PARTITIONS, 0)
        stays = Worker(servers, "stays", folder / str(standby), standby=standby)
        try:
            stays.wait_for(PARTITIONS, PARTITIONS if standby else 0)
            dies.kill()
            seconds["standby" if standby else "cold"] = round(stays.wait_for(2 * PARTITIONS, 0), 2)
        finally:
            dies.kill()
            stays.kill()
        sys.stderr.write(f"takeover: {seconds}\n")
    return seconds


def _start(log: Embedded | Kafka) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.recovery", "--start", *log.arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return dict(json.loads(ran.stdout.splitlines()[-1]))


async def measure(log: Embedded | Kafka, keys: int, behind: int) -> dict[str, Any]:
    """Write the changelogs, and start three times."""
    size = sum(len(value) for _, _, value in rows(10_000)) // 10_000
    await log.write(rows(keys), keys)
    figures: dict[str, Any] = {"keys": keys, "row_bytes": size}
    for name in TARGETS:
        if name == "behind":
            await log.write(rows(behind, again=1), behind)
        figures[name] = await asyncio.to_thread(_start, log)
        sys.stderr.write(f"{log.name} {name}: {figures[name]}\n")
        assert figures[name]["rows"] == keys, figures
    return figures


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A broker of the bench's own."""
    folder.mkdir()
    if JARS.is_dir():
        (folder / "libs").symlink_to(JARS)
    command = [sys.executable, str(BROKER)]
    subprocess.run([*command, "start", "--dir", str(folder), "--port", "19792"], check=True, stdout=sys.stderr)
    try:
        yield "127.0.0.1:19792"
    finally:
        subprocess.run([*command, "stop", "--dir", str(folder)], check=True, stdout=sys.stderr)


def run(name: str, keys: int, behind: int) -> None:
    """Measure on one log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if name == "embedded":
            figures = asyncio.run(measure(Embedded(path), keys, behind))
        else:
            with broker(path / "kafka") as servers:
                figures = asyncio.run(measure(Kafka(path, servers), keys, behind))
                figures["takeover_seconds"] = takeover(servers, path)
    conclude(f"recovery, {name}", figures | {"targets_seconds": TARGETS})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument("--log", choices=["embedded", "kafka", "both"], default="both")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--behind", type=int, default=10_000, help="records that the store lacks in the last start")
    parser.add_argument("--start", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(*options.work))
    if options.start:
        print(json.dumps(asyncio.run(start(*options.start))))
        return
    for name in ("embedded", "kafka") if options.log == "both" else (options.log,):
        run(name, options.keys, options.behind)


if __name__ == "__main__":
    main()
