"""Stops, restarts and lost tables in the middle of every state: nothing is forgotten, nothing is said twice."""

import shutil
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
import pytest

from app.domain.rows import OrderSaga, SagaState
from app.engine.records import Send
from tests.flows.conftest import Opens
from tests.flows.market import MAILS, NOW, STOCK, Market

Act = Callable[[Market], Awaitable[object]]
LATE = 3 * 24 * 3600.0
EVERY_LANE = ("advance_order_sagas", STOCK)


async def _ordered(market: Market) -> None:
    await market.order("order-1", ("aceite", 2), ("queso", 1))


async def _paid(market: Market) -> None:
    await _ordered(market)
    await market.paid("order-1")


async def _refused(market: Market) -> None:
    await _ordered(market)
    await market.payment_fails("order-1", retryable=False)


async def _retryable(market: Market) -> None:
    await _ordered(market)
    await market.payment_fails("order-1", retryable=True)


class Middle(NamedTuple):
    """How an order comes into a state, and how it ends from there: by what happens, or by its deadline alone."""

    reach: Act
    goes_on: Act
    end: str
    late: str  # its state when nothing happens for three days
    deadline: float | None = None  # seconds from the order
    without: tuple[str, ...] = ()
    settings: dict[str, str] = {}  # noqa: RUF012 - a tuple's default


MIDDLES = {
    "parked": Middle(lambda m: m.paid("order-1"), _ordered, "completed", "parked"),
    "reserving": Middle(_ordered, lambda m: m.restart(), "awaiting_payment", "closed", 1800, (STOCK,)),
    "awaiting_payment": Middle(_ordered, lambda m: m.paid("order-1"), "completed", "closed", 900),
    "payment_retry": Middle(_retryable, lambda m: m.paid("order-1"), "completed", "closed", 300),
    "confirming": Middle(
        _paid,
        lambda m: m.confirmed_elsewhere("order-1"),
        "completed",
        "confirming",
        900,
        (),
        {"role_confirm": "observe"},
    ),
    "confirmed": Middle(_paid, lambda m: m.restart(), "completed", "confirmed", None, (MAILS,)),
    "cancelling": Middle(
        _refused, lambda m: m.customer_cancels("order-1"), "closed", "cancelling", 900, (), {"role_cancel": "observe"}
    ),
    "cancelled": Middle(_refused, lambda m: m.restart(), "closed", "cancelled", None, (MAILS,)),
    "completed": Middle(_paid, lambda m: m.customer_cancels("order-1"), "closed", "completed"),
    "closed": Middle(_refused, lambda m: m.paid("order-1"), "closed", "closed"),
}


async def in_the_middle(open_market: Opens, state: str) -> Market:
    middle = MIDDLES[state]
    market = await open_market(**middle.settings)
    await market.stock_is(aceite=50, queso=25)
    if middle.without:
        await market.restart(without=middle.without)
    await middle.reach(market)
    saga = market.saga("order-1")
    assert saga.state == state
    assert saga.deadline == (None if middle.deadline is None else NOW + middle.deadline)
    return market


def test_every_state_is_restarted_in() -> None:
    assert set(MIDDLES) == {state.value for state in SagaState}


@pytest.mark.core
@pytest.mark.parametrize("state", MIDDLES)
async def test_a_restart_keeps_everything_and_the_order_goes_on(open_market: Opens, state: str) -> None:
    market = await in_the_middle(open_market, state)
    rows, said = market.rows(), market.said()
    await market.restart(without=MIDDLES[state].without)
    assert (market.rows(), market.said()) == (rows, said)
    await MIDDLES[state].goes_on(market)
    assert market.saga("order-1").state == MIDDLES[state].end


@pytest.mark.parametrize("state", [name for name, middle in MIDDLES.items() if middle.deadline])
async def test_a_deadline_that_passes_while_the_worker_is_down_is_kept(open_market: Opens, state: str) -> None:
    middle = MIDDLES[state]
    market = await in_the_middle(open_market, state)
    before = market.saga("order-1")
    await market.stop()
    assert before.deadline is not None
    market.now = before.deadline - 1
    await market.start(without=middle.without)
    await market.settle()
    assert market.saga("order-1") == before

    await market.stop()
    market.now = before.deadline
    await market.start(without=middle.without)
    await market.settle()
    assert market.saga("order-1") != before
    assert [step.what for step in market.saga("order-1").timeline].count("DeadlineReached") == 1


@pytest.mark.parametrize("state", MIDDLES)
async def test_nothing_is_forgotten_when_the_worker_is_down_for_days(open_market: Opens, state: str) -> None:
    market = await in_the_middle(open_market, state)
    await market.stop()
    market.now += LATE
    await market.start(without=MIDDLES[state].without)
    await market.settle()
    assert market.saga("order-1").state == MIDDLES[state].late


@pytest.mark.parametrize("state", MIDDLES)
async def test_lost_tables_are_rebuilt_from_the_changelog_as_they_were(open_market: Opens, state: str) -> None:
    market = await in_the_middle(open_market, state)
    rows, said = market.rows(), market.said()
    await market.stop()
    shutil.rmtree(market.directory / "tables")
    await market.start(without=MIDDLES[state].without)
    await market.settle()
    assert (market.rows(), market.said()) == (rows, said)
    await MIDDLES[state].goes_on(market)
    assert market.saga("order-1").state == MIDDLES[state].end


@pytest.mark.core
async def test_rebuilt_tables_keep_the_deadlines(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.payment_fails("order-1", retryable=True)
    await market.stop()
    shutil.rmtree(market.directory / "tables")
    await market.start()
    await market.later(299)
    assert market.saga("order-1").state == "payment_retry"
    await market.later(1)
    assert [said["attempt"] for said in market.facts("payment.initiated")] == [1, 2]


@pytest.mark.core
async def test_a_store_that_is_damaged_is_rebuilt(market: Market) -> None:
    await market.stock_is(aceite=50)
    for number in range(8):
        await market.order(f"order-{number}", ("aceite", 2))
    rows = market.rows()
    await market.stop()
    for file in (market.directory / "tables" / "order_sagas" / "0").iterdir():
        if file.name.startswith(("CURRENT", "MANIFEST")):
            file.write_bytes(b"rubbish")
    await market.start()
    await market.settle()
    assert market.rows() == rows


@pytest.mark.core
async def test_tables_of_another_log_are_not_believed(open_market: Opens) -> None:
    market, other = await open_market(), await open_market()
    await market.stock_is(aceite=50)
    await other.stock_is(aceite=7)
    await market.stop()
    await other.stop()
    shutil.rmtree(market.directory / "tables")
    shutil.copytree(other.directory / "tables", market.directory / "tables")
    await market.start()
    await market.settle()
    assert market.shelf("aceite") == (50, 0, 50)


@pytest.mark.core
async def test_the_changelog_has_every_row_that_ever_was_in_its_order(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.payment_fails("order-1", retryable=True)
    await market.later(300)
    await market.paid("order-1")
    logged = [
        msgspec.json.decode(record.value or b"", type=OrderSaga) for record in market.records("order_sagas-changelog")
    ]
    assert [(saga.state.value, saga.attempt) for saga in logged] == [
        ("reserving", 0), ("awaiting_payment", 1), ("payment_retry", 1), ("awaiting_payment", 2), ("confirmed", 2),
        ("completed", 2),
    ]  # fmt: skip
    assert logged[-1] == market.saga("order-1")


@pytest.mark.core
async def test_what_arrives_while_the_worker_is_down_is_done_when_it_is_back(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.falls_silent()
    await market.paid("order-1")
    await market.order("order-1", ("aceite", 2))
    assert len(market.records("orders")) == 1
    await market.is_back()
    assert market.saga("order-1").state == "completed"
    assert market.shelf("aceite") == (48, 0, 48)


@pytest.mark.core
async def test_what_arrived_while_the_worker_was_down_counts_before_the_deadlines_that_passed(market: Market) -> None:
    no_news = Send("payments", b"order-1", b"{}", (("a4co-subject", b"payment.succeeded.dlq"),))
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.order("order-2", ("aceite", 1))
    await market.falls_silent()
    market.now += LATE
    await market.log.append([no_news] * 1_000)
    await market.paid("order-1")
    await market.is_back()
    assert (market.saga("order-1").state, market.saga("order-2").state) == ("completed", "closed")
    assert {record.key for record in market.records("timers")} == {b"order-2"}
    assert market.shelf("aceite") == (48, 0, 48)


@pytest.mark.embedded_only("a lane is stepped record by record")
async def test_restarts_after_every_single_record_end_as_an_undisturbed_run(open_market: Opens) -> None:
    undisturbed, market = await open_market(role_notify="observe"), await open_market(role_notify="observe")
    for each in (undisturbed, market):
        await each.stock_is(aceite=50, queso=25)
    await market.restart(without=EVERY_LANE)
    story: tuple[Act, ...] = (
        lambda m: m.order("order-1", ("aceite", 2), ("queso", 1), event_id="created"),
        lambda m: m.paid("order-1", event_id="paid"),
        lambda m: m.customer_cancels("order-1", event_id="cancelled"),
    )
    steps = 0
    for happens in story:
        await happens(undisturbed)
        await happens(market)
        while await a_step(market):
            steps += 1
            await market.restart(without=EVERY_LANE)
    # order.created, 2 Reserve, 2 Reserved; payment.succeeded, 2 Commit; order.cancelled, 2 Return
    assert steps == 11
    assert market.saga("order-1").state == undisturbed.saga("order-1").state == "cancelled"
    assert facts(market) == facts(undisturbed)
    assert [market.shelf(product) for product in ("aceite", "queso")] == [(50, 0, 50), (25, 0, 25)]


def facts(market: Market) -> list[str]:
    """What was said without the ids: those are made of the last reply's, and which one is the last may differ."""
    return sorted(f"{subject} {said['eventData']}" for subject, said in market.said())


async def a_step(market: Market) -> bool:
    """The first lane with something to do does one record. False: there is nothing left."""
    for lane in market.away.values():
        if lane.lag():
            lane.batch = 1
            await lane.step()
            return True
    return False
