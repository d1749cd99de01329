"""Reads of one row that is here have a way of their own: it says what the endpoints say, and leaves them the rest."""

import dataclasses
import gc
import weakref
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.engine.collecting import collect_briefly
from app.engine.owners import Alone
from tests.flows.shop import Shop, cheese, order
from tests.waiting import wait_until

CHECK, ORDER = "/api/inventory/check/product_queso_cabra", "/api/orders/order-1"
CHANGING = {"date"}


@pytest.fixture(autouse=True)
def rows(shop: Shop) -> None:
    shop.put(cheese(), order("order-1"))


def without_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_arguments: Any) -> None:
        raise AssertionError("it went through FastAPI")

    monkeypatch.setattr(FastAPI, "__call__", never)


@pytest.mark.parametrize("path", [CHECK, ORDER])
async def test_both_ways_say_the_same(
    web: httpx.AsyncClient, shop: Shop, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = await web.get(path, params={"timeout": 1})
    without_fastapi(monkeypatch)
    short = await web.get(path)
    assert (short.status_code, short.content) == (200, long.content)
    assert dict(short.headers) == dict(long.headers)
    route = path.rpartition("/")[0] + ("/{orderId}" if path == ORDER else "/{productId}")
    labels = {"method": "GET", "route": route, "status": "200", "status_class": "2xx"}
    assert shop.metric("http_requests_total", **labels) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/inventory/check/unicornio", 404),
        ("/api/orders/nobody-ordered-this", 404),
        ("/api/orders/order-1/more", 404),
        (f"{CHECK}?quantity=3", 200),
        (f"{CHECK}?quantity=none", 422),
        (f"/api/orders/{'x' * 1_000}", 422),
    ],
)
async def test_what_is_not_plain_is_the_endpoints(web: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await web.get(path)
    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_condition_is_the_endpoint_s(web: httpx.AsyncClient) -> None:
    etag = (await web.get(ORDER)).headers["etag"]
    assert (await web.get(ORDER, headers={"if-none-match": etag})).status_code == 304
    assert (await web.request("POST", ORDER)).status_code == 405


async def test_a_row_of_another_worker_is_the_endpoint_s(web: httpx.AsyncClient, shop: Shop) -> None:
    class Nobody(Alone):
        def held(self, partition: int) -> bool:
            del partition
            return False

    shop.order_sagas.owners = Nobody()
    assert (await web.get(ORDER)).status_code == 503


async def test_cycles_are_found_soon_and_what_was_there_at_the_start_is_not_looked_at() -> None:
    @dataclasses.dataclass(eq=False)
    class Ring:
        me: Any = None

    collect_briefly()
    ring = Ring()
    ring.me = ring
    seen = weakref.ref(ring)
    del ring
    await wait_until(lambda: seen() is None, within=3)
    assert gc.get_freeze_count() > 10_000
