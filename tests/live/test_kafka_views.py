"""Three real workers on a real Kafka broker: any of them answers for every key, and none ever shows what is old.

There are two partitions, so that one of them has none.
"""

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.live.kafka_broker import KafkaBroker
from tests.live.marketplace import MailServer, Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import PRODUCTS, demand, plan_orders
from tests.live.views_watch import SHELVES, Site, Watch
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

ORDERS = 24
LETTERS = "/api/dead-letters"


@pytest_asyncio.fixture
async def site(nats_server: NatsServer, kafka_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Site]:
    prefix = f"views-{uuid.uuid4().hex[:8]}."
    mail = MailServer()
    smtp_url = await mail.start()
    workers = [
        WorkerProcess(
            tmp_path / name, NATS_URL=nats_server.url, KAFKA_URL=kafka_broker.url, TOPIC_PREFIX=prefix,
            WORKER_NAME=name, PARTITIONS="2", LOG_LEVEL="warning", PAYMENT_RETRY_DELAY="1",
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


def but_lag(answer: httpx.Response) -> dict[str, Any]:
    return {name: said for name, said in answer.json().items() if name != "lag"}


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
            states = await together.states()
            return states["completed"] + states["closed"] == ORDERS and await together.idle()

        await site.workers[0].until(ended, within=40, what="not every order has ended")

    # ---- the same from everybody ----
    keys = [f"/api/orders/{order.id}" for order in orders] + [f"/api/inventory/{product}" for product in PRODUCTS]
    known: dict[str, Any] = {}
    for key in [*keys, "/api/orders/never-heard-of", "/api/inventory/check/never-heard-of"]:
        answers = [await site.get(worker, key) for worker in site.workers]
        assert [answer.status_code for answer in answers] == ([200] * 3 if key in keys else [404] * 3), key
        # How far it is behind is the answering worker's own, and of that moment.
        rows = [but_lag(answer) for answer in answers]
        assert rows[0] == rows[1] == rows[2]
        known[key] = rows[0]
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
    killed, others, local = await site.who_has_most([key for key in keys if key.startswith("/api/orders")])
    killed.kill()
    began = time.monotonic()
    waited: Counter[str] = Counter()
    while waited["right again"] < len(local):
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
                    assert but_lag(answer) == known[key] | {"stale": answer.json()["stale"]}
                    waited["right again"] += worker is others[0]
        answer = await site.get(others[1], "/api/orders", limit=500)
        if answer.status_code == 200:  # it is 503 where the other partition moves, too
            page = answer.json()
            assert page["partial"] == bool(page["missingPartitions"]) == (len(page["items"]) < ORDERS)
            assert sum(page["states"].values()) == len(page["items"])
            waited["partial lists"] += page["partial"]
    assert waited["later"]
    assert waited["partial lists"]
    print(f"a killed worker's {len(local)} keys were all there again after {time.monotonic() - began:.1f} s: {waited}")


async def test_dead_letters_are_found_and_decided_through_any_worker(site: Site, nats_server: NatsServer) -> None:
    users = [f"user-{number}" for number in range(8)]
    async with Marketplace([]).connected(nats_server.url) as market:
        for user in users:
            await market.client.publish("user.verified", b'{"aggregateId": "%s"' % user.encode())  # cut off

    async def known() -> bool:
        return len(await site.walk(site.workers[0], LETTERS, limit=500) or ()) == len(users)

    await site.workers[0].until(known, within=30)
    listed = [await site.walk(worker, LETTERS, limit=3) for worker in site.workers]
    assert listed[0] == listed[1] == listed[2]
    ids = [letter["id"] for letter in listed[0] or ()]
    assert ids == sorted(ids, reverse=True)
    for number, (letter, worker) in enumerate(zip(ids, site.workers * 3, strict=False)):
        url = f"{worker.web}{LETTERS}/{letter}"
        if number % 2:
            answer = await site.client.post(f"{url}/discard", json={"reason": "cut off", "by": "eva"})
        else:
            event = {"eventId": letter, "aggregateId": users[number], "eventData": {}}
            answer = await site.client.post(f"{url}/replay", json={"payload": event, "by": "ana"})
        assert answer.status_code in {200, 202}, answer.text

    async def decided() -> bool:
        page = (await site.get(site.workers[2], LETTERS, limit=1)).json()
        return bool(page.get("states") == {"open": 0, "replayed": 4, "discarded": 4})

    await site.workers[0].until(decided, within=20)
    for worker in site.workers:
        whole = (await site.get(worker, f"{LETTERS}/{ids[0]}")).json()
        assert [(act["what"], act["by"]) for act in whole["acts"]] == [("replayed", "ana")]
        assert whole["payload"] is None


async def test_nothing_old_is_shown_whoever_sleeps_leaves_or_comes_back(site: Site, kafka_broker: KafkaBroker) -> None:
    await site.whole(site.workers, "/api/inventory")
    products = await site.set_stock(site.workers[0], 10)

    async def shows(worker: WorkerProcess, on_hand: int) -> bool:
        rows = await site.walk(worker, "/api/inventory", limit=500) or []
        return [row["onHand"] for row in rows] == [on_hand] * SHELVES

    async def shows_nothing(worker: WorkerProcess) -> bool:
        return {(await site.get(worker, path)).status_code for path in ("/api/inventory", here[0])} == {503}

    await wait_until(lambda: shows(site.workers[0], 10), within=20, every=0.1)
    sleeper, others, here = await site.who_has_most([f"/api/inventory/{product}" for product in products])
    assert sleeper.pid is not None
    watch = Watch(site, here)
    async with watch.running():
        os.kill(sleeper.pid, signal.SIGSTOP)
        slept = time.monotonic()
        try:
            await site.whole(others, "/api/inventory", within=30)  # its partitions are taken over
            await site.set_stock(others[0], 77)
            await wait_until(lambda: shows(others[1], 77), within=20, every=0.1)
            # These wait at the sleeper's door, and are among the first that it does when it wakes.
            at_the_door = asyncio.gather(*(watch.read(sleeper, path) for path in here), watch.list(sleeper))
            await asyncio.sleep(0.3)
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        seconds = time.monotonic() - slept
        assert seconds > 6, "it has to sleep for longer than a session"
        await at_the_door
        woken = dict(watch.told)
        if not sleeper.running:  # it was fenced in the midst of a commit
            sleeper.start()
        await wait_until(lambda: shows(sleeper, 77), within=30, every=0.1)
        others[1].stop()
        await site.set_stock(others[0], 78)
        others[1].start()
        await others[1].ready()
        await site.set_stock(others[0], 79)
        for worker in site.workers:
            await wait_until(lambda worker=worker: shows(worker, 79), within=20, every=0.1)  # type: ignore[misc]
        # Who is cut off from Kafka may have lost everything.
        with kafka_broker.silent():
            for worker in site.workers:
                await wait_until(lambda worker=worker: shows_nothing(worker), within=12, every=0.1)  # type: ignore[misc]
        for worker in site.workers:
            await wait_until(lambda worker=worker: shows(worker, 79), within=30, every=0.1)  # type: ignore[misc]
    print(f"slept {seconds:.1f} s; answers until it had woken: {woken}, and in all: {dict(watch.told)}")
    assert watch.wrong == []
    assert watch.told["200"] > 100
