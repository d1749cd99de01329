"""Full sagas a second on one embedded worker, without NATS: real models, real rules, real log, real tables.

An order is one order.created, its reservation, one payment.succeeded and the confirmation; what the application says
comes back through the mirror as it does behind the bridge.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app import topics
from app.engine.embedded_log import EmbeddedLog
from app.engine.records import Record, Send
from app.main import Marketplace
from app.settings import Settings
from app.web.stock_lines import StockLine
from bench.orders import PRODUCTS, order_created, payment_succeeded
from bench.report import conclude, progress
from bridge.routes import ROUTES

MAX_WAITING = 2_000
"""Orders that wait for the saga at once, so that memory does not grow with the number of orders."""


class Payments:
    """Stands for the bridge and the payment service: pays what is asked for, and mirrors what was said."""

    def __init__(self, log: EmbeddedLog, orders: int) -> None:
        self.confirmed = 0
        self._log = log
        self._orders = orders
        names = (f"order_{number:09}" for number in range(orders))
        self._paid = {name.encode(): json.dumps(payment_succeeded(name)).encode() for name in names}
        self._positions = [0] * log.partitions("outbound")

    async def run(self) -> None:
        """Return when every order is confirmed."""
        wakeup = self._log.watch(["outbound"])
        while self.confirmed < self._orders:
            wakeup.clear()
            said = [record for partition in range(len(self._positions)) for record in self._read(partition)]
            if said:
                await self._log.commit([send for record in said for send in self._answer(record)])
                progress("confirmed", self.confirmed, self._orders)
                await asyncio.sleep(0)
            else:
                await wakeup.wait()

    def _read(self, partition: int) -> list[Record]:
        records = self._log.read("outbound", partition, self._positions[partition], 500)
        if records:
            self._positions[partition] = records[-1].offset + 1
        return records

    def _answer(self, record: Record) -> list[Send]:
        subject = (topics.header(record.headers, "a4co-subject") or b"").decode()
        echo = Send(ROUTES[subject].topic, record.key, record.value, (*record.headers, ("a4co-ours", b"1")))
        if subject == "order.confirmed":
            self.confirmed += 1
        if subject != "payment.initiated":
            return [echo]
        paid = self._paid[record.key or b""]
        return [echo, Send("payments", record.key, paid, (("a4co-subject", b"payment.succeeded"),))]


def _created(order: str) -> Send:
    value = json.dumps(order_created(order)).encode()
    return Send("orders", order.encode(), value, (("a4co-subject", b"order.created"),))


async def _until(true: Callable[[], bool], every: float = 0.001) -> None:
    await asyncio.sleep(0)
    while not true():  # noqa: ASYNC110 - the engine has no event for it, and needs none
        await asyncio.sleep(every)


async def measure(orders: int, directory: Path) -> dict[str, Any]:
    """Run that many orders through; the messages are made before the clock starts."""
    settings = Settings(data_dir=directory)
    log = EmbeddedLog(settings.log_path)
    log.open()
    market = Marketplace(settings, log)
    await market.engine.open()
    lines = [
        StockLine(product_id=product, name=product, category="", artisan_id="", on_hand=10**9, threshold=0)
        for product in PRODUCTS
    ]
    await market.import_stock(lines)
    await market.engine.start()
    sends = [_created(f"order_{number:09}") for number in range(orders)]
    payments = Payments(log, orders)
    paying = asyncio.create_task(payments.run())
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, orders, 200):
        await log.commit(sends[start : start + 200])
        await _until(lambda: market.engine.lanes[0].lag() <= MAX_WAITING)
    await paying
    await _until(lambda: not any(lane.lag() for lane in market.engine.lanes if not lane.collects))
    seconds = time.perf_counter() - began
    await _until(market.engine.idle, every=0.1)  # also what was collected to be counted
    cpu = time.process_time() - cpu
    await market.engine.stop()
    log.close()
    return {
        "orders": orders,
        "orders_per_second": round(orders / seconds),
        "cpu_microseconds_per_order": round(1e6 * cpu / orders),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.saga", description=__doc__)
    parser.add_argument("--orders", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(options.orders, Path(folder)))
    conclude("full saga, embedded, one worker, without NATS", figures)


if __name__ == "__main__":
    main()
