"""Filters, flat files, freshness, waiting and the check of a cart: what a client may ask for beyond a plain read."""

import asyncio
import csv
import io
import json
import time
from collections import Counter
from typing import Any

import httpx
import msgspec
import pytest

from app.domain.messages import Line
from app.domain.rows import SagaState, Step
from app.web.freshness import Freshness
from tests.flows.shop import NOON, Shop, cheese, order


async def ids(web: httpx.AsyncClient, path: str, **query: Any) -> list[str]:
    answer = await web.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [item.get("orderId") or item["productId"] for item in answer.json()["items"]]


# ---- filters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "table", "flag"), [
    ("/api/orders", "order_sagas", "attention"),
    ("/api/inventory", "inventory", "low"),
])  # fmt: skip
async def test_a_search_ends_when_all_that_there_can_be_was_found(
    shop: Shop, web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, table: str, flag: str
) -> None:
    shop.put(*(order(f"o-{number:03}", attention="paid twice" if number == 1 else None) for number in range(100)))
    shop.put(*(cheese(product_id=f"p-{number:03}", low=number == 1) for number in range(100)))
    looked_at: list[str] = []
    seen = getattr(shop, table)
    items = type(seen).items

    def counted(*given: Any, **options: Any) -> Any:
        for key, row in items(seen, *given, **options):
            looked_at.append(key)
            yield key, row

    monkeypatch.setattr(seen, "items", counted)
    monkeypatch.setattr(seen, "sums", lambda partitions=None, sums=seen.spec.sums: _summed(seen, sums))
    assert len(await ids(web, path, **{flag: "true"})) == 1
    assert len(looked_at) == 3


def _summed(table: Any, sums: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in table.rows.values():
        total.update(sums(row))
    return total


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"customer": "ana"}, ["o-1"]),
        ({"product": "aceite"}, ["o-2"]),
        ({"reason": "no money"}, ["o-3"]),
        ({"attention": "true"}, ["o-4"]),
        ({"attention": "false", "state": "closed"}, ["o-3"]),
        ({"state": ["closed", "completed"]}, ["o-3", "o-4"]),
        ({"since": "2026-11-24T11:00:00Z"}, ["o-1", "o-2", "o-3"]),
        ({"until": "2026-11-24T11:00:00"}, ["o-4"]),
        ({"since": "2026-11-24T11:00:00Z", "customer": "luis"}, ["o-2", "o-3"]),
        ({"idleFor": 3600}, ["o-4"]),
        ({"customer": "nobody"}, []),
    ],
    ids=str,
)
async def test_orders_are_filtered(
    shop: Shop, web: httpx.AsyncClient, query: dict[str, Any], wanted: list[str]
) -> None:
    shop.put(
        order("o-1", customer_id="ana"),
        order("o-2", customer_id="luis", lines=(Line("aceite", 1, 3),)),
        order("o-3", SagaState.CLOSED, customer_id="luis", cancel_reason="no money"),
        order(
            "o-4", SagaState.COMPLETED, customer_id="luis", attention="paid twice",
            created_at=NOON - 7200, updated_at=NOON - 7000,
        ),
    )  # fmt: skip
    assert await ids(web, "/api/orders", **query) == wanted


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"category": "quesos"}, ["a-queso", "c-queso"]),
        ({"artisan": "otro"}, ["c-queso"]),
        ({"text": "MIEL"}, ["b-miel"]),
        ({"low": "true"}, ["c-queso"]),
        ({"category": "quesos", "low": "false"}, ["a-queso"]),
    ],
    ids=str,
)
async def test_products_are_filtered(
    shop: Shop, web: httpx.AsyncClient, query: dict[str, Any], wanted: list[str]
) -> None:
    shop.put(
        cheese(product_id="a-queso"),
        cheese(product_id="b-miel", name="Miel de azahar", category="mieles"),
        cheese(product_id="c-queso", artisan_id="otro", low=True),
    )
    assert await ids(web, "/api/inventory", **query) == wanted


# ---- flat files -------------------------------------------------------------------------------------------


async def test_a_list_is_one_csv_or_ndjson_of_every_page_with_its_filter(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(*(order(f"o-{number:04}", customer_id="ana" if number % 2 else "luis") for number in range(1_201)))
    text = await web.get("/api/orders.csv", params={"customer": "ana"})
    assert text.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert [row["orderId"] for row in rows] == [f"o-{number:04}" for number in range(1, 1_201, 2)]
    assert rows[0] | {"createdAt": "", "updatedAt": "", "deadline": ""} == {
        "orderId": "o-0001", "state": "awaiting_payment", "customerId": "ana", "total": "25", "currency": "EUR",
        "units": "2", "createdAt": "", "updatedAt": "", "deadline": "", "cancelReason": "", "attention": "",
    }  # fmt: skip
    lines = (await web.get("/api/orders.ndjson")).text.splitlines()
    listed = (await web.get("/api/orders", params={"limit": 2})).json()["items"]
    assert len(lines) == 1_201
    assert [json.loads(line) for line in lines[:2]] == listed


async def test_words_of_publishers_are_no_formulas_and_break_no_line(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese(product_id="a", name='=cmd|"/c calc"', category="uno,\ndos", artisan_id="-1"))
    [row] = csv.DictReader(io.StringIO((await web.get("/api/inventory.csv")).text, newline=""))
    assert (row["name"], row["category"], row["artisanId"]) == ('\'=cmd|"/c calc"', "uno,\ndos", "'-1")
    assert (row["onHand"], row["low"]) == ("25", "false")
    assert json.loads((await web.get("/api/inventory.ndjson")).text)["name"] == '=cmd|"/c calc"'


async def test_another_form_is_named_as_wrong(web: httpx.AsyncClient) -> None:
    answer = await web.get("/api/orders.xls")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "form"


# ---- freshness --------------------------------------------------------------------------------------------


async def test_every_answer_says_how_far_it_is_behind(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese(), order())
    shop.freshness = Freshness(7, stale=True)
    for path in (
        "/api/inventory/check/product_queso_cabra", "/api/inventory/product_queso_cabra", "/api/inventory",
        "/api/orders", "/api/orders/order-1",
    ):  # fmt: skip
        answer = (await web.get(path)).json()
        assert (answer["lag"], answer["stale"]) == (7, True), path
        assert answer["asOf"]
    cart = (await web.post("/api/inventory/check", json={"items": [{"productId": "x", "quantity": 1}]})).json()
    assert (cart["lag"], cart["stale"]) == (7, True)


@pytest.mark.parametrize("path", ["/api/orders/order-1", "/api/inventory/product_queso_cabra"])
async def test_what_the_client_has_already_is_not_sent_again(shop: Shop, web: httpx.AsyncClient, path: str) -> None:
    shop.put(cheese(), order())
    first = await web.get(path)
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await web.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    shop.put(cheese(on_hand=24), order(state=SagaState.CONFIRMED))
    changed = await web.get(path, headers={"if-none-match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


# ---- waiting ----------------------------------------------------------------------------------------------


async def test_an_answer_waits_for_the_event_that_the_client_has_said(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(order())

    async def arrives() -> None:
        await asyncio.sleep(0.1)
        shop.put(order(timeline=(Step(NOON, "payment.succeeded", "in", event_id="e-7"),), state=SagaState.CONFIRMED))

    arriving = asyncio.create_task(arrives())
    answer = await web.get("/api/orders/order-1", params={"wait_for": "e-7", "timeout": 5})
    assert answer.json()["state"] == "confirmed"
    await arriving
    for known in ({"seen": ("e-8",)}, {"parked": ({"event_id": "e-8"},)}):
        shop.put(order(**known))
        assert (await web.get("/api/orders/order-1", params={"wait_for": "e-8", "timeout": 0})).status_code == 200


async def test_an_order_that_is_not_there_yet_is_waited_for_and_then_said_to_be_late(
    shop: Shop, web: httpx.AsyncClient
) -> None:
    async def arrives() -> None:
        await asyncio.sleep(0.05)
        shop.put(order())

    arriving = asyncio.create_task(arrives())
    assert (await web.get("/api/orders/order-1", params={"wait_for": "e-1"})).status_code == 200
    await arriving
    began = time.monotonic()
    late = await web.get("/api/orders/order-2", params={"wait_for": "e-1", "timeout": 0.2})
    assert 0.2 <= time.monotonic() - began < 2
    assert late.status_code == 503
    assert late.json()["type"] == "/docs#not-yet"
    assert "e-1" in late.json()["detail"]


async def test_a_shelf_is_waited_for_by_event_or_by_the_order_that_takes_from_it(
    shop: Shop, web: httpx.AsyncClient
) -> None:
    shop.put(cheese(seen=("imported-1",), ended={"order-9": "committed"}))
    for known in ("imported-1", "order-1", "order-9"):
        for path in ("/api/inventory/product_queso_cabra", "/api/inventory/check/product_queso_cabra"):
            assert (await web.get(path, params={"wait_for": known, "timeout": 0})).status_code == 200
    late = await web.get("/api/inventory/check/product_queso_cabra", params={"wait_for": "order-77", "timeout": 0})
    assert late.status_code == 503


# ---- the cart ---------------------------------------------------------------------------------------------


async def test_a_cart_is_checked_as_a_whole_and_lines_of_a_product_are_added(
    shop: Shop, web: httpx.AsyncClient
) -> None:
    shop.put(cheese(product_id="a"), cheese(product_id="b", on_hand=6))  # 5 of each are held
    lines = [{"productId": "a", "quantity": 12}, {"productId": "b", "quantity": 1}, {"productId": "a", "quantity": 8}]
    answer = (await web.post("/api/inventory/check", json={"items": lines})).json()
    assert answer["sufficient"] is True
    assert answer["items"] == [
        {"productId": "a", "quantity": 20, "available": 20, "sufficient": True, "known": True},
        {"productId": "b", "quantity": 1, "available": 1, "sufficient": True, "known": True},
    ]
    more = [*lines, {"productId": "a", "quantity": 1}, {"productId": "unicornio", "quantity": 1}]
    answer = (await web.post("/api/inventory/check", json={"items": more})).json()
    assert answer["sufficient"] is False
    assert [(item["productId"], item["sufficient"], item["known"]) for item in answer["items"]] == [
        ("a", False, True), ("b", True, True), ("unicornio", False, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"items":[]}', b'{"items":[{"productId":"a"}]}',
        b'{"items":[{"productId":"a","quantity":0}]}',
        b'{"items":[{"productId":"a","quantity":1.5}]}', b'{"items":[{"productId":"","quantity":1}]}',
        b'{"items":[{"productId":"a","quantity":1,"price":1}]}', b"\xff", b"[" * 5_000,
        msgspec.json.encode({"items": [{"productId": "a", "quantity": 1}] * 201}),
    ],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
async def test_a_cart_that_is_none_is_a_problem(web: httpx.AsyncClient, body: bytes) -> None:
    answer = await web.post("/api/inventory/check", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["type"] == "/docs#invalid-cart"
    assert answer.json()["errors"][0]["cause"]
    other = await web.post("/api/inventory/check", content=body, headers={"content-type": "text/plain"})
    assert other.status_code == 415


async def test_while_tables_are_rebuilt_an_unknown_product_of_a_cart_is_not_0(
    shop: Shop, web: httpx.AsyncClient
) -> None:
    shop.not_ready = {"tables": "recovering"}
    answer = await web.post("/api/inventory/check", json={"items": [{"productId": "a", "quantity": 1}]})
    assert answer.status_code == 503
