"""Three real workers on a real Kafka broker: any of them answers for every key, and none ever shows what is old."""

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.web.elsewhere import WANTED
from bench.chaos_kafka import Workers
from tests.live.kafka_broker import KafkaBroker
from tests.live.marketplace import MailServer, Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import PRODUCTS, demand, plan_orders
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

ORDERS = 24
SHELVES = 40


class Site:
    """The workers, asked one by one."""

    def __init__(self, workers: list[WorkerProcess]) -> None:
        self.workers = workers
        self.client = httpx.AsyncClient(timeout=10)

    async def get(self, worker: WorkerProcess, path: str, *, only_here: bool = False, **query: Any) -> httpx.Response:
        headers = {WANTED: "0,1,2,3"} if only_here else {}
        return await self.client.get(worker.web + path, params=query, headers=headers)

    async def set_stock(self, worker: WorkerProcess, on_hand: int) -> list[str]:
        """Every product has so many units from now on; taken when it returns, and shown soon. Returns their ids."""
        products = [f"product-{number:02}" for number in range(SHELVES)]
        lines = [
            {"productId": product, "name": product, "category": "despensa", "artisanId": "artisan-1",
             "onHand": on_hand, "threshold": 0}
            for product in products
        ]  # fmt: skip
        answer = await self.client.post(f"{worker.web}/api/stock/import", json=lines)
        assert answer.status_code == 200, answer.text
        return products

    async def walk(self, worker: WorkerProcess, path: str, **query: Any) -> list[Any] | None:
        """Every item of a list, page by page; None: some of it was missing."""
        found: list[Any] = []
        while True:
            answer = await self.get(worker, path, **query)
            page = answer.json()
            if answer.status_code != 200 or page["partial"]:
                return None
            found += page["items"]
            if page["nextCursor"] is None:
                return found
            query["cursor"] = page["nextCursor"]

    async def whole(self, workers: Iterable[WorkerProcess], path: str, within: float = 20) -> None:
        """Return when each of them lists everything."""
        for worker in workers:
            await wait_until(lambda worker=worker: self._lists(worker, path), within=within, every=0.1)  # type: ignore[misc]

    async def _lists(self, worker: WorkerProcess, path: str) -> bool:
        return await self.walk(worker, path, limit=500) is not None


@pytest_asyncio.fixture
async def site(nats_server: NatsServer, kafka_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Site]:
    prefix = f"views-{uuid.uuid4().hex[:8]}."
    mail = MailServer()
    smtp_url = await mail.start()
    workers = [
        WorkerProcess(
            tmp_path / name, NATS_URL=nats_server.url, KAFKA_URL=kafka_broker.url, TOPIC_PREFIX=prefix,
            WORKER_NAME=name, LOG_LEVEL="warning", PAYMENT_RETRY_DELAY="1",
            SMTP_URL=smtp_url, MAIL_RETRY_DELAY="0.5", MAIL_MAX_ATTEMPTS="20",
        )
        for name in ("picual", "arbequina", "hojiblanca")
    ]  # fmt: skip
    site = Site(workers)
    for worker in workers:
        worker.start()
    for worker in workers:
        await worker.ready()
    await workers[0].until(Workers(workers).connected, what="nobody runs the bridge")
    yield site
    await site.client.aclose()
    for worker in workers:
        await worker.close()
    mail.close()


async def test_any_worker_answers_any_key_and_a_killed_one_s_keys_are_never_unknown(
    site: Site, nats_server: NatsServer
) -> None:
    orders = plan_orders(ORDERS, seed=5)
    together = Workers(site.workers)
    market = Marketplace(orders)
    async with market.connected(nats_server.url):
        wanted = demand(orders)
        await site.whole(site.workers, "/api/inventory")
        await market.fill(
            site.workers[1], {product: max(1, int(wanted[product] * part)) for product, part in PRODUCTS.items()}
        )
        for order in orders:
            await market.order(order)

        async def ended() -> bool:
            states = Counter((await site.workers[0].get("/api/orders"))["states"])
            return states["completed"] + states["closed"] == ORDERS and await together.idle()

        await site.workers[0].until(ended, within=40, what="not every order has ended")

    # ---- the same from everybody ----
    keys = [f"/api/orders/{order.id}" for order in orders] + [f"/api/inventory/{product}" for product in PRODUCTS]
    known: dict[str, Any] = {}
    for key in [*keys, "/api/orders/never-heard-of", "/api/inventory/check/never-heard-of"]:
        answers = [await site.get(worker, key) for worker in site.workers]
        assert [answer.status_code for answer in answers] == ([200] * 3 if key in keys else [404] * 3), key
        assert answers[0].content == answers[1].content == answers[2].content
        known[key] = answers[0].json()
    for worker in site.workers:
        listed = await site.walk(worker, "/api/orders", limit=5)
        assert listed is not None
        assert [row["orderId"] for row in listed] == sorted(order.id for order in orders)
        assert all(
            known[f"/api/orders/{row['orderId']}"] | row == known[f"/api/orders/{row['orderId']}"] for row in listed
        )
        states = Counter(row["state"] for row in listed)
        counted = (await site.get(worker, "/api/orders", limit=1)).json()["states"]
        assert {state: n for state, n in counted.items() if n} == states
        assert len(await site.walk(worker, "/api/inventory", limit=3) or ()) == len(PRODUCTS)

    # ---- one is killed ----
    killed, *others = sorted(site.workers, key=lambda worker: worker.pid or 0)
    local = {key for key in keys if (await site.get(killed, key, only_here=True)).status_code == 200}
    assert 0 < len(local) < len(keys), "it has some of the keys, and not all"
    killed.kill()
    began = time.monotonic()
    waited: Counter[str] = Counter()
    while len(waited) < 3 or waited["right again"] < len(local):
        assert time.monotonic() - began < 30, waited
        waited["right again"] = 0
        for key in local:
            for worker in others:
                answer = await site.get(worker, key)
                assert answer.status_code in {200, 503}, f"{key}: {answer.status_code} {answer.text}"
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) > 0
                    waited["later"] += 1
                else:
                    assert answer.json() == known[key]
                    waited["right again"] += worker is others[0]
        page = (await site.get(others[1], "/api/orders", limit=500)).json()
        assert page["partial"] == bool(page["missingPartitions"]) == (len(page["items"]) < ORDERS)
        assert sum(page["states"].values()) == len(page["items"])
        waited["partial lists"] += page["partial"]
    print(f"a killed worker's {len(local)} keys were all there again after {time.monotonic() - began:.1f} s: {waited}")


async def test_a_worker_that_slept_shows_nothing_that_another_has_changed_meanwhile(site: Site) -> None:
    sleeper, *others = site.workers
    await site.whole(site.workers, "/api/inventory")
    products = await site.set_stock(others[0], 10)

    async def shown(worker: WorkerProcess, on_hand: int) -> bool:
        rows = await site.walk(worker, "/api/inventory", limit=500) or []
        return [row["onHand"] for row in rows] == [on_hand] * SHELVES

    await wait_until(lambda: shown(sleeper, 10), within=20, every=0.1)
    here = [
        product
        for product in products
        if (await site.get(sleeper, f"/api/inventory/{product}", only_here=True)).status_code == 200
    ]
    assert here, "it has some of the products"
    assert sleeper.pid is not None
    os.kill(sleeper.pid, signal.SIGSTOP)
    slept = time.monotonic()
    try:
        await site.whole(others, "/api/inventory", within=30)  # its partitions are taken over
        await site.set_stock(others[0], 77)
        await wait_until(lambda: shown(others[1], 77), within=20, every=0.1)
        # These wait at the sleeper's door, and are the first that it does when it wakes.
        waiting = [asyncio.create_task(site.get(sleeper, f"/api/inventory/{product}")) for product in here]
        lists = [asyncio.create_task(site.get(sleeper, "/api/inventory", limit=500)) for _ in range(3)]
        await asyncio.sleep(0.3)
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    seconds = time.monotonic() - slept
    assert seconds > 6, "it has to sleep for longer than a session"
    told: Counter[int] = Counter()
    awake = time.monotonic()
    while waiting or time.monotonic() < awake + 3:
        for answer in await asyncio.gather(*waiting):
            told[answer.status_code] += 1
            assert answer.status_code in {200, 503}, answer.text
            assert answer.status_code == 503 or answer.json()["onHand"] == 77, "it shows an old row"
        for answer in await asyncio.gather(*lists):
            assert {row["onHand"] for row in answer.json().get("items", ())} <= {77}, "it lists old rows"
        if not sleeper.running:  # that it was fenced in the midst of a commit ends it; then it answers nothing
            break
        waiting = [asyncio.create_task(site.get(sleeper, f"/api/inventory/{product}")) for product in here]
        if time.monotonic() >= awake + 3:
            waiting = []
        lists = [asyncio.create_task(site.get(sleeper, "/api/inventory", limit=500))]
    print(f"slept {seconds:.1f} s; answers for its {len(here)} former products: {dict(told)}")
