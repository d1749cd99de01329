"""Several workers, each with some of the partitions, asked over real HTTP: every one of them answers for all."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import Request
from starlette.responses import Response

from app.domain import analytics
from app.domain.dead_letters import Letter, letter_id
from app.domain.rows import Bucket, OrderSaga, SagaState
from app.engine.declarations import TableSpec
from app.engine.owners import Owners
from app.web.api import create_api
from app.web.elsewhere import WANTED
from app.web.pages import PageAnswer, cursor_of, key_of, merged, page
from tests.flows.shop import NOON, PARTITIONS, MemoryTable, Shop, cheese, order, partition_of
from tests.waiting import wait_until

LETTERS = "/api/dead-letters"

Ask = Callable[..., Any]


class Told(Owners):
    """Owners as the test tells them: what `worker` believes until it looks, and what is true then."""

    def __init__(self, worker: int, truth: dict[int, int], urls: list[str]) -> None:
        self.silent = False
        self.looks = 0
        self._worker = worker
        self._truth = truth
        self._urls = urls
        self._believed = dict(truth)

    def held(self, partition: int) -> bool:
        return self._truth.get(partition) == self._worker

    def url(self, partition: int) -> str | None:
        owner = self._believed.get(partition)
        return None if owner is None or owner == self._worker else self._urls[owner]

    def others_have(self, partitions: int) -> bool:
        return False

    async def look(self) -> None:
        self.looks += 1
        self._believed = dict(self._truth)


class Workers:
    """Workers that share `truth`: which of them has which partition."""

    def __init__(self) -> None:
        self.truth = {0: 0, 1: 1, 2: 2, 3: 1}
        self.shops = [Shop(worker=f"worker-{number}") for number in range(3)]
        self.apis = [create_api(shop.views()) for shop in self.shops]
        self.urls: list[str] = []
        self.owners: list[Told] = []
        self.client = httpx.AsyncClient(timeout=10)
        self._servers: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Workers"]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.client)
            for api in self.apis:
                server = uvicorn.Server(uvicorn.Config(api, port=0, log_config=None, loop="none"))
                task = asyncio.create_task(server.serve())
                self._servers.append((server, task))
                await wait_until(lambda server=server: server.started)  # type: ignore[misc]
                self.urls.append(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
            self.told()
            yield self
            await asyncio.gather(*(self.ends(number) for number in range(len(self._servers))))

    def told(self) -> None:
        """Everybody knows the truth as it is now."""
        self.owners = [Told(number, self.truth, self.urls) for number in range(3)]
        for shop, owners in zip(self.shops, self.owners, strict=True):
            for table in (shop.order_sagas, shop.inventory, shop.dead_letters, shop.analytics):
                table.owners = owners

    async def ends(self, worker: int) -> None:
        server, task = self._servers[worker]
        server.should_exit = True
        await task

    def put(self, *rows: OrderSaga) -> None:
        """Each row is at the worker that has its partition."""
        for row in rows:
            self.shops[self.truth[partition_of(row.order_id)]].put(row)

    def put_letters(self, number: int) -> list[str]:
        """So many dead letters, each at the worker that has its partition. Returns their ids, the oldest first."""
        ids = [letter_id(NOON + at // 3, at % PARTITIONS, at) for at in range(number)]
        for at, identity in enumerate(ids):
            reason = "not-json" if at % 2 else "wrong-type"
            letter = Letter(
                letter_id=identity, at=NOON + at // 3, reason=reason, topic="orders", subject="order.created"
            )
            self.shops[self.truth[at % PARTITIONS]].put(letter)
        return sorted(ids)

    async def get(self, worker: int, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(self.urls[worker] + path, params=query)

    async def walk(self, worker: int, path: str = "/api/orders", **query: Any) -> list[str]:
        """The ids of every page of a list."""
        found: list[str] = []
        while True:
            answer = (await self.get(worker, path, **query)).json()
            assert answer["partial"] is False
            found += [item.get("orderId") or item["id"] for item in answer["items"]]
            if answer["nextCursor"] is None:
                return found
            query["cursor"] = answer["nextCursor"]


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers().running() as workers:
        yield workers


def key_in(partition: int, prefix: str = "order") -> str:
    """A key of the partition."""
    return next(key for number in itertools.count() if partition_of(key := f"{prefix}-{number}") == partition)


# ---- one key ----------------------------------------------------------------------------------------------


async def test_every_worker_gives_the_same_answer_for_every_key(workers: Workers) -> None:
    keys = [key_in(partition) for partition in range(PARTITIONS)]
    workers.put(*(order(key) for key in keys))
    for key in [*keys, "never-heard-of", "never heard of/either", "ni-ñ"]:
        path = f"/api/orders/{key.replace(' ', '%20').replace('/', '%2F')}"
        first, *others = [await workers.get(worker, path) for worker in range(3)]
        assert first.status_code == (200 if key in keys else 404)
        for other in others:
            assert (other.status_code, other.content) == (first.status_code, first.content)
            assert other.headers.items() - {("date", "")} >= {("cache-control", "no-cache")}
            assert other.headers["content-type"] == first.headers["content-type"]


async def test_what_the_client_says_of_itself_and_asks_for_reaches_the_owner(workers: Workers) -> None:
    heard: list[Request] = []
    workers.apis[2].middleware_stack = None  # built anew with the one below

    @workers.apis[2].middleware("http")
    async def listen(request: Request, call_next: Callable[[Request], Any]) -> Response:
        heard.append(request)
        answer: Response = await call_next(request)
        answer.headers["etag"] = '"7"'
        answer.headers["x-inner"] = "stays here"
        return answer

    key = key_in(2, "queso")
    workers.shops[2].put(cheese(product_id=key))
    said = {"authorization": "Bearer abc", "traceparent": "00-1-2-01", "if-none-match": '"6"', "x-forwarded-for": "no"}
    url = f"{workers.urls[0]}/api/inventory/check/{key}?quantity=21"
    answer = await workers.client.request("GET", url, headers=said, content=b"{}")
    assert answer.json() | {"asOf": ""} == {
        "productId": key, "available": 20, "quantity": 21, "sufficient": False, "asOf": "", "lag": 0, "stale": False,
    }  # fmt: skip
    assert answer.headers["etag"] == '"7"'
    assert "x-inner" not in answer.headers
    [request] = heard
    assert {name: request.headers.get(name) for name in said} == said | {"x-forwarded-for": None}
    assert request.headers["content-length"] == "2"


async def test_a_request_hops_once_and_no_further(workers: Workers) -> None:
    """The owner that was asked has lost the partition: it says so, and asks nobody."""
    workers.truth[2] = 1
    for path in (f"/api/orders/{key_in(2)}", "/api/orders"):
        answer = await workers.client.get(workers.urls[0] + path, headers={WANTED: "2"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
    half = (await workers.client.get(f"{workers.urls[0]}/api/inventory", headers={WANTED: "0,2"})).json()
    assert half["missingPartitions"] == [2]
    assert [owners.looks for owners in workers.owners] == [0, 0, 0]


async def test_a_partition_that_has_moved_is_found_at_its_new_owner(workers: Workers) -> None:
    """Who is asked first still has the row, and doesn't show it."""
    key = key_in(2)
    workers.put(order(key, SagaState.AWAITING_PAYMENT))
    workers.truth[2] = 1
    workers.put(order(key, SagaState.COMPLETED))
    answers = [await workers.get(worker, f"/api/orders/{key}") for worker in range(3)]
    assert [answer.json()["state"] for answer in answers] == ["completed"] * 3
    assert [owners.looks for owners in workers.owners] == [1, 0, 1]


async def test_a_key_whose_owner_is_gone_or_unknown_is_asked_again_later_and_never_unknown(workers: Workers) -> None:
    await workers.ends(2)
    del workers.truth[3]
    for partition in (2, 3):
        answer = await workers.get(0, f"/api/orders/{key_in(partition)}")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        reasons = {"partition": f"partition {partition} of order_sagas is not ready on this worker"}
        gone = {"owner": f"{workers.urls[2]} does not answer"} if partition == 2 else {}
        assert answer.json()["reasons"] == reasons | gone


# ---- lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 7, 500])
async def test_pages_of_several_workers_have_every_row_once_and_in_order(workers: Workers, limit: int) -> None:
    states = [SagaState.COMPLETED, SagaState.AWAITING_PAYMENT]
    keys = sorted(f"order-{number:02}" for number in range(31))
    workers.put(*(order(key, states[number % 2]) for number, key in enumerate(keys)))
    for worker in range(3):
        assert await workers.walk(worker, limit=limit) == keys
        assert await workers.walk(worker, limit=limit, state="completed") == keys[::2]
        counted = (await workers.get(worker, "/api/orders", limit=limit)).json()["states"]
        assert {state: n for state, n in counted.items() if n} == {"completed": 16, "awaiting_payment": 15}


async def test_a_list_without_a_worker_s_part_says_so(workers: Workers) -> None:
    keys = [key_in(partition) for partition in range(PARTITIONS)]
    workers.put(*(order(key) for key in keys))
    await workers.ends(1)
    answer = (await workers.get(0, "/api/orders")).json()
    assert [item["orderId"] for item in answer["items"]] == sorted([keys[0], keys[2]])
    assert (answer["partial"], answer["missingPartitions"]) == (True, [1, 3])
    assert answer["states"]["awaiting_payment"] == 2
    products = (await workers.get(0, "/api/inventory")).json()
    assert (products["partial"], products["missingPartitions"]) == (True, [1, 3])


async def test_what_the_client_has_is_not_what_another_worker_has_not(workers: Workers) -> None:
    workers.truth |= dict.fromkeys(range(PARTITIONS), 1)
    workers.told()
    workers.put(*(order(key_in(partition)) for partition in range(PARTITIONS)))
    url = f"{workers.urls[0]}/api/orders"
    etag = (await workers.client.get(url)).headers["etag"]
    assert (await workers.client.get(url, headers={"if-none-match": etag})).status_code == 304


async def test_an_overview_has_every_worker_and_adds_up_their_orders(workers: Workers) -> None:
    workers.put(*(order(key_in(partition), deadline=NOON + partition) for partition in range(PARTITIONS)))
    for asked in range(3):
        answer = (await workers.get(asked, "/api/overview")).json()
        parts = {worker["worker"]: worker["partitions"]["order_sagas"] for worker in answer["items"]}
        assert parts == {"worker-0": [0], "worker-1": [1, 3], "worker-2": [2]}
        assert answer["orders"]["awaiting_payment"] == PARTITIONS
        assert [worker["timers"] for worker in answer["items"]] == [1, 2, 1]
        timers = (await workers.get(asked, "/api/timers")).json()
        assert [timer["orderId"] for timer in timers["items"]] == [key_in(each) for each in range(PARTITIONS)]
        assert timers["waiting"] == PARTITIONS
    await workers.ends(2)
    answer = (await workers.get(0, "/api/overview")).json()
    assert (answer["partial"], answer["missingPartitions"], len(answer["items"])) == (True, [2], 2)


async def test_a_partition_that_moves_while_a_list_is_made_is_in_it_once(workers: Workers) -> None:
    """The former owner has its rows still; the new one is asked after another look."""
    keys = [key_in(partition) for partition in range(PARTITIONS)]
    workers.put(*(order(key) for key in keys))
    workers.truth[2] = 1
    workers.put(order(keys[2], SagaState.COMPLETED))
    answer = (await workers.get(0, "/api/orders")).json()
    assert answer["partial"] is False
    assert {item["orderId"]: item["state"] for item in answer["items"]} == {
        key: "completed" if key == keys[2] else "awaiting_payment" for key in keys
    }
    assert (answer["states"]["completed"], answer["states"]["awaiting_payment"]) == (1, 3)


async def test_a_list_that_nobody_can_give_a_part_of_is_asked_for_later(workers: Workers) -> None:
    workers.truth.clear()
    answer = await workers.get(0, "/api/inventory")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    answer = await workers.client.get(f"{workers.urls[0]}/api/inventory", headers={WANTED: "all"})
    assert answer.status_code == 422


class Numbers(PageAnswer, frozen=True, kw_only=True):
    items: list[str]


@pytest.mark.parametrize("seed", range(20))
async def test_walking_pages_that_stop_anywhere_skips_and_repeats_nothing(seed: int) -> None:
    """Each worker looks at so few rows a call, and has so few that are wanted, that most pages are short or empty."""
    chance = random.Random(seed)
    table: MemoryTable[int] = MemoryTable(TableSpec("numbers", int))
    table.rows = {f"{number:03}": number for number in range(chance.randrange(1, 120))}
    every = chance.choice([1, 3, 10])
    parts = [[0], [1, 3], [2]]
    after, found, limit = None, [], chance.choice([1, 2, 5])
    for _ in range(200):
        pages = []
        for part in parts:
            got = await page(
                table, part, after=after, limit=limit, wanted=lambda number: number % every == 0,
                scanned=chance.randrange(1, 9),
            )  # fmt: skip
            items = [f"{number:03}" for number in got.rows]
            pages.append(
                Numbers(items=items, next_cursor=cursor_of(got.last), partial=False, missing_partitions=[], as_of="now")
            )
        whole = merged(pages, [], limit, str)
        assert len(whole.items) <= limit
        found += whole.items
        after = key_of(whole.next_cursor)
        if after is None:
            break
    assert found == [key for key, number in sorted(table.rows.items()) if number % every == 0]


# ---- dead letters -----------------------------------------------------------------------------------------


async def test_dead_letters_of_all_workers_are_one_list_by_time_in_both_directions(workers: Workers) -> None:
    ids = workers.put_letters(40)
    for worker in range(3):
        for limit in (1, 3, 7, 100):
            assert await workers.walk(worker, LETTERS, limit=limit) == ids[::-1]
            assert await workers.walk(worker, LETTERS, limit=limit, order="oldest") == ids
        page = (await workers.get(worker, LETTERS, limit=1)).json()
        assert page["states"] == {"open": 40, "replayed": 0, "discarded": 0}
        assert page["reasons"] == {"not-json": 20, "wrong-type": 20}
    del workers.truth[3]
    page = (await workers.get(0, LETTERS, limit=100)).json()
    assert (page["partial"], page["missingPartitions"], len(page["items"])) == (True, [3], 30)


async def test_a_wish_about_many_is_about_the_letters_of_all_workers_oldest_first(workers: Workers) -> None:
    ids = workers.put_letters(40)
    some: list[str] = []
    query: dict[str, Any] = {"reason": "not-json", "state": "discarded", "order": "newest", "limit": 7, "dryRun": True}
    while True:
        answer = await workers.client.post(workers.urls[2] + LETTERS + "/discard", params=query, json={"reason": "old"})
        assert answer.status_code == 200, answer.text
        some += [item["id"] for item in answer.json()["items"]]
        assert answer.json()["missingPartitions"] == []
        if answer.json()["nextCursor"] is None:
            break
        query["cursor"] = answer.json()["nextCursor"]
    odd = {letter_id(NOON + at // 3, at % PARTITIONS, at) for at in range(1, 40, 2)}
    assert some == [identity for identity in ids if identity in odd]


# ---- beyond a plain read ----------------------------------------------------------------------------------


async def test_a_flat_file_has_every_workers_rows_in_order_with_the_filter(workers: Workers) -> None:
    workers.put(*(order(f"o-{number:04}", customer_id="ana" if number % 3 else "luis") for number in range(1_300)))
    for worker in range(3):
        lines = (await workers.get(worker, "/api/orders.csv", customer="luis")).text.splitlines()
        assert [line.split(",")[0] for line in lines[1:]] == [f"o-{number:04}" for number in range(0, 1_300, 3)]


async def test_a_flat_file_without_some_rows_is_refused(workers: Workers) -> None:
    workers.put(order("o-1"))
    await workers.ends(1)
    answer = await workers.get(0, "/api/orders.ndjson")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


async def test_a_cart_is_checked_whoever_has_its_products(workers: Workers) -> None:
    keys = [key_in(partition, "queso") for partition in range(PARTITIONS)]
    for partition, key in enumerate(keys):
        workers.shops[workers.truth[partition]].put(cheese(product_id=key, on_hand=5 + partition, holds={}))
    lines = [{"productId": key, "quantity": 6} for key in (*keys, key_in(1, "nadie"))]
    for worker in range(3):
        answer = await workers.client.post(workers.urls[worker] + "/api/inventory/check", json={"items": lines})
        assert [(item["available"], item["known"]) for item in answer.json()["items"]] == [
            (5, True), (6, True), (7, True), (8, True), (0, False),
        ]  # fmt: skip
        assert answer.json()["sufficient"] is False
    await workers.ends(1)
    answer = await workers.client.post(workers.urls[0] + "/api/inventory/check", json={"items": lines})
    assert answer.status_code == 503


@pytest.mark.slow
async def test_another_worker_may_wait_as_long_as_the_client_says(workers: Workers) -> None:
    key = key_in(2)

    async def arrives() -> None:
        await asyncio.sleep(2.5)  # longer than another worker has without
        workers.put(order(key))

    arriving = asyncio.create_task(arrives())
    answer = await workers.get(0, f"/api/orders/{key}", wait_for="e-1", timeout=9)
    await arriving
    assert answer.status_code == 200
    assert answer.json()["orderId"] == key
    etag = answer.headers["etag"]
    again = await workers.client.get(f"{workers.urls[1]}/api/orders/{key}", headers={"if-none-match": etag})
    assert (again.status_code, again.headers["etag"]) == (304, etag)


# ---- what is counted ---------------------------------------------------------------------------------------


async def test_every_worker_adds_up_what_all_of_them_count(workers: Workers) -> None:
    for partition in range(PARTITIONS):
        counts = {"orders": {"opened": 10**partition}, "units": {"EUR queso": 1}}
        key = analytics.key_of("hour", NOON, partition)
        workers.shops[workers.truth[partition]].analytics.rows[key] = Bucket(counts=counts, offset=0, at=NOON)
        product = cheese(product_id=key_in(partition, "queso"))
        workers.shops[workers.truth[partition]].put(product)
    for worker in range(3):
        answer = (await workers.get(worker, "/api/analytics/orders", to="2026-11-24T13:00:00Z", bucket="total")).json()
        assert [row["opened"] for row in answer["items"]] == [1111]
        assert (answer["partial"], answer["missingPartitions"]) == (False, [])
        shown = (await workers.get(worker, "/api/analytics/dashboard", to="2026-11-24T13:00:00Z")).json()
        assert (shown["orders"]["opened"], shown["topProducts"][0]["units"]) == (1111, 4)
        assert len((await workers.get(worker, "/api/analytics/stock")).json()["items"]) == PARTITIONS
    await workers.ends(2)
    answer = (await workers.get(0, "/api/analytics/orders", to="2026-11-24T13:00:00Z", bucket="total")).json()
    assert [row["opened"] for row in answer["items"]] == [1011]
    assert (answer["partial"], answer["missingPartitions"]) == (True, [2])
    file = await workers.get(0, "/api/analytics/orders.csv", to="2026-11-24T13:00:00Z")
    assert file.status_code == 503, "a file can't say that it is not the whole"
