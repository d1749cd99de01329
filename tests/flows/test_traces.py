"""A message's trace goes with everything that follows from it: commands, replies, announcements, timers, mails."""

from typing import Any

import pytest

from app.domain import traces
from app.engine.records import Record
from tests.flows.market import Market

SHOP = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BANK = "00-11111111111111111111111111111111-2222222222222222-01"
INTERNAL = ("stock-commands", "saga-replies", "mails", "outbound")


def parent(record: Record) -> str:
    return "".join(value.decode() for name, value in record.headers if name == traces.TRACEPARENT)


def parents(market: Market, *topics: str) -> set[str]:
    return {parent(record) for topic in topics for record in market.records(topic)}


def said(market: Market) -> dict[str, str]:
    """The traceparent of each subject that was said."""
    return {dict(record.headers)["a4co-subject"].decode(): parent(record) for record in market.records("outbound")}


def traced(trace: str, state: str = "") -> traces.Headers:
    """As the bridge hands it on."""
    return traces.continued({"traceparent": trace, "tracestate": state})


@pytest.fixture
async def shelf(market: Market) -> Market:
    await market.stock_is(aceite=50, queso=25)
    return market


@pytest.mark.core
async def test_an_order_and_what_follows_from_it_is_one_trace(shelf: Market) -> None:
    shelf.headers = traced(SHOP, "vendor=1")
    await shelf.order("order-1", ("aceite", 2), ("queso", 1))
    assert parents(shelf, "stock-commands", "saga-replies", "outbound") >= {SHOP}
    assert set(said(shelf)) == {"inventory.stock.reserved", "payment.initiated"}
    assert {dict(record.headers)["tracestate"] for record in shelf.records("outbound")} == {b"vendor=1"}
    await shelf.paid("order-1")
    assert set(said(shelf).values()) == {SHOP}
    assert "notification.email.sent" in said(shelf)
    assert shelf.saga("order-1").trace == SHOP


async def test_what_another_service_began_goes_on_as_its_own(shelf: Market) -> None:
    shelf.headers = traced(SHOP)
    await shelf.order("order-1", ("aceite", 2))
    shelf.headers = traced(BANK)
    await shelf.paid("order-1")
    assert said(shelf) == {
        "inventory.stock.reserved": SHOP, "payment.initiated": SHOP, "order.confirmed": BANK,
        "notification.email.sent": SHOP,
    }  # fmt: skip


async def test_what_came_without_one_belongs_to_the_orders_trace(shelf: Market) -> None:
    shelf.headers = traced(SHOP)
    await shelf.order("order-1", ("aceite", 2))
    shelf.headers = traces.begun("order-1")  # as the bridge begins it
    await shelf.paid("order-1")
    assert set(said(shelf).values()) == {SHOP}


async def test_a_timers_outputs_belong_to_the_orders_trace_also_after_a_restart(shelf: Market) -> None:
    shelf.headers = traced(SHOP)
    await shelf.order("order-1", ("aceite", 2))
    shelf.headers = traced(BANK)
    await shelf.payment_fails("order-1", retryable=True)
    await shelf.restart()
    await shelf.later(301)
    asked = [record for record in shelf.records("outbound") if b"payment.initiated" in dict(record.headers).values()]
    assert [parent(record) for record in asked] == [SHOP, SHOP]


async def test_where_nobody_traces_an_order_is_one_trace_by_its_id(shelf: Market) -> None:
    [(_, own)] = shelf.headers = traces.begun("order-1")
    await shelf.order("order-1", ("aceite", 2))
    await shelf.payment_fails("order-1", retryable=True)
    await shelf.later(301)
    await shelf.paid("order-1", "pay-2")
    assert parents(shelf, "saga-replies") == {own.decode(), ""}  # the mail server's answer has none
    assert set(said(shelf).values()) == {own.decode()}
    assert shelf.saga("order-1").trace == ""


async def test_a_dead_letter_has_its_trace_and_so_has_the_word_about_it(shelf: Market) -> None:
    shelf.expects_dead_letters = True
    wrong: dict[str, Any] = {"eventData": {"orderId": "order-1"}}
    shelf.headers = traced(SHOP)
    await shelf.hear("payment.succeeded", wrong, "order-1")
    assert parents(shelf, "dead-letters") == {SHOP}
    assert said(shelf) == {"payment.succeeded.dlq": SHOP}
