"""Kills the worker again and again under load, and compares what came out of it with a model.

`python -m bench.chaos --kills 30 --seed 7` prints a line a kill and ends with one line of JSON; its exit code is 1 when
anything was lost, repeated or different. The tests run the same thing, shorter.
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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.engine.embedded_log import EmbeddedLog
from tests.live import kill_checks as check
from tests.live.marketplace import Heard, MailServer, Marketplace, heard, is_answer
from tests.live.nats_server import NatsServer
from tests.live.order_model import (
    PRODUCTS,
    Order,
    counted,
    demand,
    outcome,
    plan_orders,
    row_differences,
    said_differences,
    shelf_differences,
)
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers

MOMENTS = ("after its start", "while it opens", "at work", "at work", "at work")
ORDERS_A_KILL = 100
SETTINGS = {
    "PAYMENT_RETRY_DELAY": "1",
    "MAIL_RETRY_DELAY": "0.5",
    "MAIL_MAX_ATTEMPTS": "20",
    "LOG_LEVEL": "warning",
}


@dataclass
class Verdict:
    """What became of a run. All of `lost`, `duplicates` and `differences` must be nothing."""

    kills: int
    orders: int
    seed: int
    lost: int = 0  # answers decided that the stream does not have, or that the subscriber did not hear
    duplicates: int = 0  # answers that are in the stream, or were heard, once too often
    differences: list[str] = field(default_factory=list)
    mails_lost: int = 0
    mails_repeated: int = (
        0  # a mail may go out twice when the worker dies between the mail server's answer and its commit
    )
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicates or self.differences or self.mails_lost)

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {
                "what": "kill -9 of the worker",
                "kills": self.kills,
                "orders": self.orders,
                "lost": self.lost + self.mails_lost,
                "duplicates": self.duplicates,
                "differences": len(self.differences),
                "mails_repeated": self.mails_repeated,
                "seed": self.seed,
                "seconds": round(self.seconds, 1),
            }
        )


class Run:
    """One marketplace with one worker that is killed `kills` times, everything chosen by the seed."""

    still = 15.0
    """Seconds without a new answer after which nothing more is waited for; every timer of the run is shorter."""

    def __init__(
        self,
        folder: Path,
        *,
        kills: int,
        seed: int,
        orders: int = 0,
        wipe_tables: bool = False,
        moments: Sequence[str] = MOMENTS,
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._chance = random.Random(seed)
        self.orders = plan_orders(orders or ORDERS_A_KILL * (kills + 1), seed)
        self._verdict = Verdict(kills, len(self.orders), seed)
        self._wipe_always = wipe_tables
        self._moments = moments
        self._tell = tell
        self._folder = folder
        self._start = {product: max(20, int(part * demand(self.orders)[product])) for product, part in PRODUCTS.items()}
        self._nats = NatsServer(folder / "nats")
        self._mail = MailServer()
        self._market = Marketplace(self.orders)

    async def verdict(self) -> Verdict:
        """Do it all. Raises AssertionError when it can't come to an end."""
        began = time.monotonic()
        await self._nats.start()
        workers = self.workers(NATS_URL=self._nats.url, SMTP_URL=await self._mail.start(), **SETTINGS)
        try:
            async with self._market.connected(self._nats.url):
                workers.start()
                await workers.ready()
                await workers.until(workers.connected, what="nobody runs the bridge")
                await self._market.fill(workers, self._start)
                await self.trouble(workers)
                await workers.ready()
                await self._settle(workers)
                await self._judge(workers)
        finally:
            await workers.close()
            self._mail.close()
            self._nats.stop()
        self._verdict.seconds = time.monotonic() - began
        return self._verdict

    def workers(self, **settings: str) -> Workers:
        """Those of the marketplace, not started yet."""
        return Workers([WorkerProcess(self._folder / "worker", **settings)])

    def log(self, worker: WorkerProcess) -> AbstractContextManager[check.AnyLog]:
        """The log, to be read when all workers, of which this was the last, have been stopped."""
        log = EmbeddedLog(worker.data / "log.db")
        log.open()
        return contextlib.closing(log)

    # ---- killing ---------------------------------------------------------------------------------------

    async def trouble(self, workers: Workers) -> None:
        """Publish every order while the worker, which is ready, dies and comes back; it has been started at the end."""
        [worker] = workers.all
        shares = self._verdict.kills + 1
        for number in range(self._verdict.kills):
            publishing = asyncio.create_task(self.publish(self.orders[number::shares]))
            moment = self._chance.choice(self._moments) if number else "at work"
            if not worker.running:
                worker.start()
            await self._wait_for(moment, worker)
            worker.kill()
            wiped = self._wipe_always or self._chance.random() < 0.25
            if wiped:
                worker.wipe_tables()
            await publishing
            said = f"killed {moment}{', tables wiped' if wiped else ''}; {len(self._market.heard)} answers heard so far"
            self._tell(f"kill {number + 1}/{self._verdict.kills}: {said}")
        worker.start()
        await self.publish(self.orders[self._verdict.kills :: shares])

    async def publish(self, orders: Sequence[Order]) -> None:
        """Within a second."""
        for order in orders:
            await self._market.order(order)
            await asyncio.sleep(1.0 / len(orders))

    async def _wait_for(self, moment: str, worker: WorkerProcess) -> None:
        if moment == "after its start":
            await asyncio.sleep(self._chance.uniform(0, 0.05))
        elif moment == "while it opens":
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        else:
            await worker.ready()
            await self.answers(self._chance.randint(1, 2 * ORDERS_A_KILL), within=2)

    async def answers(self, some: int, within: float) -> None:
        """Return when so many more were heard, or after `within` seconds all the same."""
        enough = len(self._market.heard) + some
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while len(self._market.heard) < enough:
                    self._market.arrived.clear()
                    await self._market.arrived.wait()

    # ---- afterwards ------------------------------------------------------------------------------------

    async def _judge(self, workers: Workers) -> None:
        listed = await workers.pages("/api/orders")
        rows = {row["orderId"]: await workers.row(f"/api/orders/{row['orderId']}") for row in listed}
        shelves = await workers.pages("/api/inventory")
        last, *others = workers.all
        for worker in others:
            worker.stop()

        async def has_all() -> bool:
            return len(await last.pages("/api/inventory")) == len(shelves) and await last.idle()

        if others:
            await last.until(has_all, what="it has not taken over")
        last.stop()
        with self.log(last) as log:
            await self._compare(log, last.data / "tables", rows, shelves)

    async def _compare(
        self, log: check.AnyLog, tables: Path, rows: Mapping[str, dict[str, Any]], shelves: Sequence[dict[str, Any]]
    ) -> None:
        """The log and what HTTP said, with the model, the stream and what was heard."""
        stream = await check.stream_messages(self._market.client)
        answers = [heard(message) for message in stream if is_answer(message)]
        self._judge_answers(log, answers)
        self._verdict.differences = [
            *self._model_differences(rows, shelves),
            *self._count_differences(log, rows),
            *check.web_differences(log, rows.values(), shelves),
            *check.order_differences(log, answers, self._market.heard),
            *check.mirror_differences(log, stream),
            *check.offset_differences(log),
            *check.step_differences(log),
            *await check.table_differences(log, tables, self._folder / "cold"),
        ]

    async def _settle(self, workers: Workers) -> None:
        """Return when every order has ended and nothing waits any more, or when nothing happens any more."""
        heard_until, since, states = -1, time.monotonic(), Counter[str]()
        while time.monotonic() - since < self.still:
            if len(self._market.heard) > heard_until:
                heard_until, since = len(self._market.heard), time.monotonic()
            await asyncio.sleep(0.5)
            states = await workers.states()
            ended = states["completed"] + states["closed"]
            if ended == len(self.orders) and await workers.idle() and len(self._market.heard) == heard_until:
                return
        self._tell(f"nothing happens any more, and the orders are {dict(states)}")

    def _judge_answers(self, log: check.AnyLog, stream: Sequence[Heard]) -> None:
        verdict = self._verdict
        decided = [check.header(r, "Nats-Msg-Id") for part in check.records(log, "outbound") for r in part]
        for place in (stream, self._market.heard):
            for ids in ((answer.identity for answer in place), (answer.event["eventId"] for answer in place)):
                lost, repeated = check.lost_and_repeated(decided, ids)
                verdict.lost, verdict.duplicates = max(verdict.lost, lost), max(verdict.duplicates, repeated)
        mails = [
            answer.event["eventData"]["messageId"] for answer in stream if answer.subject == "notification.email.sent"
        ]
        verdict.mails_lost = len(set(mails) - self._mail.taken.keys())
        verdict.mails_repeated = self._mail.taken.total() - len(self._mail.taken)

    def _model_differences(
        self, rows: Mapping[str, dict[str, Any]], shelves: Sequence[dict[str, Any]]
    ) -> Iterator[str]:
        scarce = {product for product, units in demand(self.orders).items() if units > self._start[product]}
        said = check.said_by_order(self._market.heard)
        sold: Counter[str] = Counter()
        for order in self.orders:
            row = rows.get(order.id)
            if row is None:
                yield f"{order.id} is unknown"
                continue
            end = outcome(row)
            self._verdict.outcomes[end] += 1
            if end == "confirmed":
                sold += order.products
            yield from row_differences(order, row, scarce)
            yield from said_differences(order, end, said.pop(order.id, Counter()))
        for order_id in said:
            yield f"something was said about {order_id}, which nobody ordered"
        yield from shelf_differences(shelves, self._start, sold)

    def _count_differences(self, log: check.AnyLog, rows: Mapping[str, dict[str, Any]]) -> Iterator[str]:
        said = check.said_by_order(self._market.heard)
        wanted: Counter[str] = Counter()
        for order in self.orders:
            if order.id in rows:
                wanted += counted(order, outcome(rows[order.id]), said.get(order.id, Counter()))
        return check.count_differences(log, wanted, self._market.heard)


def command(name: str, about: str | None, kills: int) -> argparse.ArgumentParser:
    """The options that every such run has: they are named as `Run` names them."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=(about or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--orders", type=int, default=0, help=f"default: {ORDERS_A_KILL} for each kill")
    parser.add_argument("--wipe-tables", action="store_true", help="take the local tables away at every kill")
    return parser


def tell(line: str) -> None:
    """A word about how far it is."""
    print(line, file=sys.stderr, flush=True)


def conclude(verdict: Verdict) -> int:
    """Print it. Returns the exit code."""
    for difference in verdict.differences:
        tell(difference)
    tell(f"orders: {dict(verdict.outcomes)}")
    print(verdict.line())
    return 0 if verdict.good else 1


def main() -> int:
    """The command."""
    given = command("bench.chaos", __doc__, kills=12).parse_args()
    with tempfile.TemporaryDirectory(prefix="a4co-chaos-") as folder:
        return conclude(asyncio.run(Run(Path(folder), tell=tell, **vars(given)).verdict()))


if __name__ == "__main__":
    sys.exit(main())
