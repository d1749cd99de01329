"""The marketplace at work: the simulated services on NATS, the counters while they run, and the verdict at the end. It
decides the pace of the orders and how long is waited for them.
"""

import asyncio
import http.client
import itertools
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client

from app.demo import screen
from app.demo.goods import GOODS, SEED, Planned, planned_orders, scaled_stock
from app.demo.ledger import ENDS, Finding, Ledger
from app.demo.mail_sink import MailSink
from app.demo.processes import DemoError
from app.demo.servers import TIMERS
from app.demo.services import Artisans, OrderService, PaymentService
from app.demo.worker_api import Snapshot, WorkerApi, shelves
from app.nats_settings import nats_servers

PER_SECOND, PER_SECOND_COUNTED = 10.0, 100.0
"""Orders a second: without an end, and with --orders."""

LATEST = TIMERS["RESERVATION_TTL"] + 15.0
"""Seconds in which every order must have ended: its reservation can't live longer, and a mail may be tried again."""

SETTLE = 5.0
"""Seconds after the last order's end in which mails and stock must be right."""

GRACE = 0.3
"""Seconds in which a second answer would be heard that must not come."""

STOCKED_WITHIN = 10.0  # seconds

CLIENTS = ("order-service", "payment-service", "inventory-service", "demo-ledger")


class Market:
    """One run of it. `wanted`: orders, None without an end; `began`: when the demo started, by the monotonic clock."""

    def __init__(self, api: WorkerApi, nats_url: str, sink: MailSink, wanted: int | None, began: float) -> None:
        self._api = api
        self._nats_url = nats_url
        self._sink = sink
        self._wanted = wanted
        self._began = began
        self._rate = PER_SECOND if wanted is None else PER_SECOND_COUNTED
        self._ledger = Ledger()
        self._counters = screen.Counters()

    async def run(self) -> int:
        """Open the shops, and show what happens. Returns the exit code: 1 when an invariant failed."""
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(_connected(self._nats_url, name)) for name in CLIENTS]
            orders, payments, artisans = (
                OrderService(clients[0], self._ledger.placed),
                PaymentService(clients[1]),
                Artisans(clients[2]),
            )
            await self._ledger.listen(clients[3])
            await orders.listen()
            await payments.listen()
            if self._wanted is None:
                await artisans.listen()
            for client in clients:
                await client.flush()
            await self._stock_up(artisans)
            count = "" if self._wanted is None else f"{self._wanted} orders, "
            screen.say("orders", f"{count}{self._rate:g} a second, seed {SEED}; Ctrl-C ends it")
            with _running(orders.run(self._orders(), self._rate)) as placing:
                return await self._show(placing)

    def _orders(self) -> Iterator[Planned]:
        return itertools.islice(planned_orders(), self._wanted)

    async def _stock_up(self, artisans: Artisans) -> None:
        """Name the products over HTTP, with nothing on the shelf; the units come as events, as they do later."""
        await self._api.import_stock(
            [
                {
                    "productId": good.product_id,
                    "name": good.name,
                    "category": good.category,
                    "artisanId": good.artisan_id,
                    "onHand": 0,
                    "threshold": good.threshold,
                }
                for good in GOODS
            ]
        )
        if self._wanted is None:
            stock = {good.product_id: 4 * good.stock for good in GOODS}
        else:
            stock = scaled_stock(self._orders())
        for product, units in stock.items():
            await artisans.bring(product, units)
        screen.say("stock", screen.delivered(stock))
        deadline = time.monotonic() + STOCKED_WITHIN
        while (found := await self._on_hand()) != stock:
            if time.monotonic() > deadline:
                raise DemoError(f"after {STOCKED_WITHIN:g} s the application has {found} on hand, not {stock}")
            await asyncio.sleep(0.03)

    async def _on_hand(self) -> dict[str, int]:
        products = shelves((await self._api.snapshot()).products)
        return {product: shelf.on_hand for product, shelf in products.items()}

    # ---- what is seen ----------------------------------------------------------------------------------

    async def _show(self, placing: asyncio.Task[None]) -> int:
        began = time.monotonic()
        with screen.watched() as watched:
            ended = await self._watch(placing, watched, began)
        return await self._judge(ended - began)

    async def _watch(self, placing: asyncio.Task[None], watched: screen.Screen, began: float) -> float:
        """Show counters until the orders are done, or late. Returns when that was."""
        every = 0.5 if sys.stdout.isatty() else 1.0
        told = False
        latest: float | None = None
        last, last_at = await self._api.snapshot(), time.monotonic()
        while True:
            await asyncio.sleep(every)
            with suppress(OSError, http.client.HTTPException):  # a worker that is gone is seen elsewhere
                snapshot, at = await self._api.snapshot(), time.monotonic()
                pace = (snapshot.processed - last.processed) / (at - last_at)
                self._counters = self._count(snapshot, at - began, pace)
                last, last_at = snapshot, at
                watched.show(self._counters)
            if not told and self._ledger.first_confirmed_at is not None:
                told = True
                took = self._ledger.first_confirmed_at - self._began
                watched.tell(f"first order confirmed after {took:.1f} s, counted from the start of the demo")
            if placing.done():
                placing.result()
                latest = latest or time.monotonic() + LATEST
                if self._all_ended() or time.monotonic() > latest:
                    return time.monotonic()

    def _count(self, snapshot: Snapshot, seconds: float, events_per_second: float) -> screen.Counters:
        negative = sum(max(0, -product["available"]) for product in snapshot.products)
        return screen.Counters(
            seconds=seconds,
            placed=len(self._ledger.orders),
            states=snapshot.states,
            events_per_second=events_per_second,
            mails=self._sink.mails.total(),
            oversold=max(self._ledger.most_oversold, negative),
            lost=self._ledger.overdue(LATEST),
            products=snapshot.products,
        )

    def _all_ended(self) -> bool:
        ended = sum(self._counters.states.get(state, 0) for state in ENDS)
        return ended >= len(self._ledger.orders) and all(order.answered for order in self._ledger.orders.values())

    async def _judge(self, seconds: float) -> int:
        states = await self._api.states_by_order()
        deadline = time.monotonic() + SETTLE
        while not all(finding.holds for finding in await self._findings(states)):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(GRACE)
        findings = await self._findings(states)
        screen.summary(self._ledger, self._sink.mails.total(), (await self._api.snapshot()).products, seconds)
        return 0 if screen.verdict(findings) else 1

    async def _findings(self, states: Mapping[str, str]) -> list[Finding]:
        products = shelves((await self._api.snapshot()).products)
        return self._ledger.judge(states, products, self._sink.mails)


@asynccontextmanager
async def _connected(url: str, name: str) -> AsyncIterator[Client]:
    async def on_error(_error: Exception) -> None:
        """Say nothing: a server that is gone is seen elsewhere."""

    client = await nats.connect(nats_servers(url), name=name, error_cb=on_error)
    try:
        yield client
    finally:
        with suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(0.2):
                await client.close()


@contextmanager
def _running(work: Coroutine[Any, Any, None]) -> Iterator[asyncio.Task[None]]:
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield task
    finally:
        task.cancel()
