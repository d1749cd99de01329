"""What is counted of orders is what the log says, minute by minute; each bucket is kept as long as it is to be."""

import csv
import io
import random
from collections import Counter, defaultdict
from dataclasses import replace

import httpx
import pytest

from app.domain.analytics import start_of
from app.domain.messages import Counts
from app.domain.rows import SagaState
from app.web.api import create_api
from app.web.freshness import Freshness
from tests.flows.conftest import Opens
from tests.flows.invariants import summed
from tests.flows.market import NOW, Market
from tests.flows.recount import SECONDS, Recount, Recounted

DAY = 86400.0
UNSAID = ("refunds", "attention")
"""What no message tells the time of; the invariants of every flow check their numbers."""


def counted(market: Market) -> Recount:
    """Every bucket, its partitions added up, as the recount has them."""
    found: Recount = defaultdict(Counter)
    for key, bucket in market.rows()["analytics"].items():
        for measure, names in bucket.counts.items():
            for name, number in names.items():
                if measure != "steps" and name not in UNSAID:
                    found[key.split(" ")[0], start_of(key)][measure, name] += number
    return found


async def buys(market: Market, order: str, chance: random.Random) -> None:
    """One order, up to some point."""
    products = chance.sample(["aceite", "queso", "miel"], chance.randint(1, 3))
    lines = [(product, chance.randint(1, 3)) for product in products]
    await market.order(order, *lines, total=chance.randint(1, 10_000) / 100)
    if market.saga(order).state is not SagaState.AWAITING_PAYMENT:
        return
    await market.later(chance.uniform(1, 90))
    end = chance.choice(["paid", "paid", "paid late", "refused", "retryable", "cancelled", "returned", "silence"])
    if end == "cancelled":
        await market.customer_cancels(order)
    elif end in ("refused", "retryable"):
        await market.payment_fails(order, f"{order}-1", retryable=end == "retryable")
    elif end.startswith(("paid", "returned")):
        await market.paid(order, f"{order}-1", market.saga(order).total)
    if end == "returned":
        await market.later(chance.uniform(1, 300))
        await market.customer_cancels(order)


@pytest.mark.core
async def test_every_bucket_is_what_the_log_says(open_market: Opens) -> None:
    market = await open_market(payment_timeout=300)
    chance = random.Random(64)
    await market.stock_is(aceite=60, queso=20, miel=10)
    for number in range(24):
        await buys(market, f"order-{number}", chance)
        await market.later(chance.uniform(0, 200))
    await market.later(301)  # those that are to be paid once more
    await market.paid("order-7", "late", 1.0)
    for _ in range(4):
        await market.later(900)
    wanted = Recounted(market).buckets
    assert counted(market) == wanted
    days = summed(market, "day")
    assert set(days["cancelled"]) >= {"out-of-stock", "payment-failed", "payment-unanswered", "customer"}, (
        "all is there"
    )
    assert days["orders"].keys() >= {"opened", "reserved", "asked", "paid", "confirmed", "returned", "retries"}
    assert len({start for size, start in wanted if size == "minute"}) > 24
    steps = Counter(step.split(" ")[0] for step, number in days["steps"].items() for _ in range(number))
    assert {step: steps[step] for step in ("reserved", "paid", "confirmed", "cancelled")} == {
        step: days["orders"][step] for step in ("reserved", "paid", "confirmed", "cancelled")
    }
    assert steps["mailed"] > 0


async def test_what_is_heard_late_counts_where_it_belongs(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.falls_silent()
    await market.order("order-1", ("aceite", 1))
    market.now += 600
    await market.is_back()
    assert sorted(counted(market)) == sorted((size, NOW // s * s) for size, s in SECONDS.items())
    assert summed(market, "day")["orders"]["opened"] == 1


async def test_the_dashboard_shows_what_was_counted(market: Market) -> None:
    await market.stock_is(aceite=10)
    for number in range(3):
        await market.order(f"order-{number}", ("aceite", 2))
    await market.later(61)
    await market.paid("order-0")
    await market.customer_cancels("order-1")
    views = replace(market.application.views, freshness=lambda _table: Freshness(0, stale=False))
    transport = httpx.ASGITransport(create_api(views))
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
        shown = (await client.get("/api/analytics/dashboard", params={"bucket": "minute"})).json()
        table = await client.get("/api/analytics/products.csv", params={"bucket": "total"})
    assert [(row["stage"], row["orders"]) for row in shown["funnel"]] == [
        ("opened", 3), ("reserved", 3), ("asked", 3), ("paid", 1), ("confirmed", 1),
    ]  # fmt: skip
    assert [row["opened"] for row in shown["overTime"] if row["opened"] or row["confirmed"]] == [3, 0]
    assert shown["revenue"][0]["net"] == 25.0
    assert [(row["reason"], row["orders"]) for row in shown["cancellations"]] == [("customer", 1)]
    assert shown["topArtisans"][0]["artisanId"] == "artisan-1"
    assert shown["topProducts"][0]["sellThrough"] == 2 / 10  # two are sold, and eight on hand
    [row] = csv.DictReader(io.StringIO(table.text))
    assert (row["productId"], row["units"], row["salesCents"], row["sellThrough"]) == ("aceite", "2", "2500", "0.2")


@pytest.mark.core
async def test_minutes_go_after_two_days_and_hours_after_ninety(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.paid("order-1")
    await market.later(2 * DAY)
    assert {key.split(" ")[0] for key in market.rows()["analytics"]} == {"minute", "hour", "day"}
    await market.later(61)
    assert {key.split(" ")[0] for key in market.rows()["analytics"]} == {"hour", "day"}
    await market.later(90 * DAY)
    [day] = market.rows()["analytics"].values()
    assert day.counts["revenue"] == {"EUR": 2500}
    assert day.counts["units"] == {"EUR aceite": 2}


async def test_what_comes_too_late_for_its_minute_still_counts_in_its_hour(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.falls_silent()
    await market.order("order-1", ("aceite", 1))
    market.now += 3 * DAY
    await market.is_back()
    opened = {key.split(" ")[0] for key, bucket in market.rows()["analytics"].items() if "orders" in bucket.counts}
    assert opened == {"hour", "day", "minute"}  # the last one is of what became of it just now
    assert min(start_of(key) for key in market.rows()["analytics"] if key.startswith("minute")) > NOW + 2 * DAY


async def test_it_goes_on_counting_after_its_tables_were_lost(open_market: Opens) -> None:
    market = await open_market()
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 1))
    before = summed(market, "hour")
    await market.restart()
    await market.order("order-2", ("aceite", 1))
    wanted: Counts = {"orders": dict.fromkeys(("opened", "reserved", "asked"), 2)}
    assert summed(market, "hour")["orders"] == wanted["orders"]
    assert before["orders"]["opened"] == 1
