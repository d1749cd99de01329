"""What holds of a marketplace at rest, whatever happened in it. Every flow test ends with it."""

import msgspec

from app import topics
from app.domain.analytics import LOST, ORDERS, SIZES, add, put
from app.domain.dead_letters import letter_id
from app.domain.messages import Counts
from app.domain.rows import SagaState
from tests.flows.market import STOCK, Market

WANTED = ("asked", "held")
LOST_OR_WON = (SagaState.CONFIRMED, SagaState.COMPLETED, SagaState.CANCELLING, SagaState.CANCELLED, SagaState.CLOSED)


def hold(market: Market) -> None:
    """No product is promised twice, nothing is said twice, and tables and changelogs are one."""
    nothing_is_promised_twice(market)
    nothing_is_said_twice(market)
    tables_are_their_changelogs(market)
    every_dead_letter_has_its_row(market)
    what_is_counted_is_what_the_orders_are(market)
    if not market.expects_dead_letters:
        assert market.dead_letters() == []
    if STOCK not in market.away:
        every_hold_is_wanted(market)


def nothing_is_promised_twice(market: Market) -> None:
    for product, stock in market.rows()["inventory"].items():
        assert 0 <= stock.reserved <= stock.on_hand, product
        assert stock.reserved == sum(hold.quantity for hold in stock.holds.values()), product


def nothing_is_said_twice(market: Market) -> None:
    ids = [topics.header(record.headers, "Nats-Msg-Id") for record in market.records("outbound")]
    assert None not in ids
    assert len(set(ids)) == len(ids)


def tables_are_their_changelogs(market: Market) -> None:
    for name, table in market.engine.tables.items():
        logged = {key: row for key, row in market.changelog(name).items() if row}  # without the rows that are gone
        assert {key: msgspec.json.decode(row, type=table.spec.row_type) for key, row in logged.items()} == dict(
            table.items()
        )
        assert all(market.row(name, key) == row for key, row in table.items())


def every_dead_letter_has_its_row(market: Market) -> None:
    ids = {letter_id(at.timestamp, at.partition, at.offset) for at in market.records("dead-letters")}
    assert set(market.rows()["dead_letters"]) == ids


def what_is_counted_is_what_the_orders_are(market: Market) -> None:
    """The days add up to what the orders' rows say; each is in the day in which its order was opened or confirmed."""
    wanted: Counts = {}
    for saga in market.rows()["order_sagas"].values():
        sold, lost = saga.confirmed_at is not None, saga.state in LOST
        numbers = {
            "opened": saga.state is not SagaState.PARKED,
            "asked": saga.attempt > 0,
            "retries": max(0, saga.attempt - 1),
            "confirmed": sold,
            "cancelled": lost and not sold,
            "returned": lost and sold,
            "refunds": len(saga.refunds),
            "attention": saga.attention is not None,
        }
        for name, number in numbers.items():
            put(wanted, "orders", name, int(number))
        for way in ("", "returned ") if lost and sold else ("",) if sold else ():
            put(wanted, f"{way}revenue", saga.currency, round(saga.total * 100))
            for line in saga.lines:
                put(wanted, f"{way}units", f"{saga.currency} {line.product_id}", line.quantity)
    days = summed(market, "day")
    assert {name: days.get("orders", {}).get(name, 0) for name in ORDERS if name not in ("reserved", "paid")} == {
        name: wanted.get("orders", {}).get(name, 0) for name in ORDERS if name not in ("reserved", "paid")
    }
    for measure in ("revenue", "units", "returned revenue", "returned units"):
        assert days.get(measure) == wanted.get(measure), measure
    if all(saga.created_at > market.now - (SIZES["hour"].kept or 0) for saga in market.rows()["order_sagas"].values()):
        assert summed(market, "hour") == days  # none has gone


def summed(market: Market, size: str) -> Counts:
    """The counts of all buckets of a size."""
    total: Counts = {}
    for key, bucket in market.rows()["analytics"].items():
        if key.startswith(size):
            add(total, bucket.counts)
    return total


def every_hold_is_wanted(market: Market) -> None:
    """A product's holds are those that the orders' sagas know of, and an ended order holds nothing."""
    rows = market.rows()
    held = {(order, product) for product, stock in rows["inventory"].items() for order in stock.holds}
    wanted = {
        (order, product)
        for order, saga in rows["order_sagas"].items()
        for product, holding in saga.products.items()
        if holding.status in WANTED
    }
    assert held == wanted
    assert not any(rows["order_sagas"][order].state in LOST_OR_WON for order, _ in held)
