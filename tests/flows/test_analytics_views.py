"""The analytics over HTTP, over plain tables: their columns, their times, and what is refused."""

import json
from typing import Any

import httpx
import pytest

from app.domain.analytics import key_of
from app.domain.messages import Counts
from app.domain.rows import Bucket
from app.web.analytics import PAGES
from tests.flows.shop import NOON, Shop, cheese

HOUR = 3600.0


def count(shop: Shop, counts: Counts, at: float = NOON, size: str = "hour", partition: int = 0) -> None:
    shop.analytics.rows[key_of(size, at, partition)] = Bucket(counts=counts, offset=0, at=at)


async def rows(web: httpx.AsyncClient, series: str, **asked: Any) -> list[dict[str, Any]]:
    answer = await web.get(f"/api/analytics/{series}", params={"to": "2026-11-24T13:00:00Z", **asked})
    assert answer.status_code == 200, answer.text
    assert answer.json()["partial"] is False
    return list(answer.json()["items"])


async def test_orders_have_a_row_for_every_hour_with_its_time_in_both_forms(shop: Shop, web: httpx.AsyncClient) -> None:
    count(shop, {"orders": {"opened": 3, "confirmed": 1}}, partition=0)
    count(shop, {"orders": {"opened": 1}}, partition=2)
    found = await rows(web, "orders", **{"from": "2026-11-24T11:00:00Z"})
    assert [(row["time"], row["timeMs"], row["opened"], row["conversion"]) for row in found] == [
        ("2026-11-24T11:00:00.000Z", 1795518000000, 0, None),
        ("2026-11-24T12:00:00.000Z", 1795521600000, 4, 0.25),
    ]


async def test_money_is_in_cents_and_what_came_back_is_taken_off(shop: Shop, web: httpx.AsyncClient) -> None:
    count(shop, {"revenue": {"EUR": 2999, "USD": 5}, "returned revenue": {"EUR": 1000}})
    found = await rows(web, "revenue")
    assert [(row["currency"], row["revenueCents"], row["netCents"], row["net"]) for row in found] == [
        ("EUR", 2999, 1999, 19.99), ("USD", 5, 5, 0.05),
    ]  # fmt: skip


async def test_sell_through_is_of_what_was_there(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese(on_hand=25), cheese(product_id="product_miel", on_hand=3, artisan_id="artisan_sierra"))
    count(shop, {"units": {"EUR product_queso_cabra": 6, "USD product_queso_cabra": 2, "EUR gone": 1}}, NOON - HOUR)
    count(shop, {"returned units": {"EUR product_queso_cabra": 3}, "artisan units": {"EUR artisan_sierra": 7}})
    products = await rows(web, "products", bucket="total")
    assert [(row["productId"], row["currency"], row["netUnits"], row["sellThrough"]) for row in products] == [
        ("product_queso_cabra", "EUR", 3, 0.1667), ("product_queso_cabra", "USD", 2, 0.1667), ("gone", "EUR", 1, None),
    ]  # fmt: skip
    [artisan] = await rows(web, "artisans", bucket="total")
    assert (artisan["artisanId"], artisan["onHand"], artisan["sellThrough"]) == ("artisan_sierra", 28, 0.2)
    assert {row["sellThrough"] for row in await rows(web, "products", bucket="hour")} == {None}


async def test_steps_have_their_quantiles(shop: Shop, web: httpx.AsyncClient) -> None:
    count(shop, {"steps": {"paid 73": 19, "paid 120": 1, "reserved 0": 2}})
    found = {row["step"]: (row["orders"], row["p50"], row["p95"]) for row in await rows(web, "steps")}
    assert found == {"reserved": (2, 0.001, 0.001), "paid": (20, 1.0, 1.0)}


async def test_files_have_the_same_rows_and_no_formulas(shop: Shop, web: httpx.AsyncClient) -> None:
    count(shop, {"units": {"EUR =cmd()": 2}})
    asked = {"to": "2026-11-24T13:00:00Z"}
    listed = await rows(web, "products")
    lines = (await web.get("/api/analytics/products.ndjson", params=asked)).text.splitlines()
    assert [json.loads(line) for line in lines] == listed
    head, row = (await web.get("/api/analytics/products.csv", params=asked)).text.splitlines()
    assert head.split(",") == list(listed[0])
    assert "'=cmd()" in row


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ("1795514400000", "2026-11-24T10:00:00.000Z"),
        ("2026-11-24T10:59:59Z", "2026-11-24T10:00:00.000Z"),
        ("2026-11-24T11:00:00+01:00", "2026-11-24T10:00:00.000Z"),
        ("2026-11-24 at 10", None),
        ("2026-11-24T10:00", "2026-11-24T10:00:00.000Z"),
    ],
)
async def test_times_are_taken_as_grafana_and_people_write_them(
    web: httpx.AsyncClient, given: str, start: str | None
) -> None:
    answer = await web.get("/api/analytics/orders", params={"from": given})
    assert (answer.json().get("from"), answer.status_code) == (start, 200 if start else 400)


@pytest.mark.parametrize(
    "asked",
    [
        {"from": "yesterday"},
        {"from": "9" * 30},
        {"from": "2026-11-24T13:00:00Z", "to": "2026-11-24T12:00:00Z"},
        {"from": "2020-01-01T00:00:00Z", "bucket": "minute"},
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_cause(web: httpx.AsyncClient, asked: dict[str, str]) -> None:
    answer = await web.get("/api/analytics/orders", params=asked)
    assert (answer.status_code, answer.json()["type"]) == (400, "/docs#invalid-time")
    assert answer.json()["errors"][0]["parameter"] in asked
    assert (await web.get("/api/analytics/orders", params={"bucket": "week"})).status_code == 422


async def test_every_series_answers_when_nothing_was_counted_and_stands_in_the_document(web: httpx.AsyncClient) -> None:
    paths = (await web.get("/openapi.json")).json()["paths"]
    for series in PAGES:
        found = await rows(web, series)
        assert len(found) == (48 if series == "orders" else 0)
        assert f"/api/analytics/{series}" in paths
    assert (await web.get("/api/analytics/dashboard")).json()["orders"]["opened"] == 0
    assert (await web.get("/api/analytics/weather")).status_code == 404
