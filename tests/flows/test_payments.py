"""Payments over the real log: asked for, asked again, too late, too many, of another amount."""

import pytest

from tests.flows.conftest import Opens
from tests.flows.market import NOW, STOCK, Market
from tests.waiting import wait_until

RELEASED = "inventory.stock.released"


async def an_order_that_waits_for_its_payment(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    assert market.saga("order-1").state == "awaiting_payment"


def is_cancelled_and_released(market: Market, reason: str, released: str) -> None:
    assert market.saga("order-1").state == "closed"
    assert market.shelf("aceite") == (50, 0, 50)
    cancelled = market.only("order.cancelled")["eventData"]
    assert cancelled["reason"] == reason
    assert (cancelled["cancelledBy"], cancelled["refundRequired"]) == ("system", False)
    [given_back] = market.facts(RELEASED)
    assert (given_back["orderId"], given_back["quantityReleased"]) == ("order-1", 2)
    assert (given_back["reason"], given_back["newStock"]) == (released, 50)
    assert market.box.subjects() == ["Orden #order-1 cancelada"]


# ---- asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["payment.initiated", "order.payment.requested"])
async def test_the_payment_is_asked_for_on_the_chosen_subject(open_market: Opens, subject: str) -> None:
    market = await open_market(payment_request=subject)
    await an_order_that_waits_for_its_payment(market)
    assert market.subjects() == ["inventory.stock.reserved", subject]
    asked = market.only(subject)
    assert asked["eventData"].items() >= {"orderId": "order-1", "amount": 25.0, "currency": "EUR", "attempt": 1}.items()
    payment_id = asked["eventData"]["paymentId"]
    assert asked["aggregateId"] == ("order-1" if subject.startswith("order") else payment_id)


async def test_where_reserved_is_the_request_nothing_else_asks_for_the_payment(open_market: Opens) -> None:
    market = await open_market(payment_request="none")
    await an_order_that_waits_for_its_payment(market)
    assert market.subjects() == ["inventory.stock.reserved"]
    await market.paid("order-1")
    assert market.saga("order-1").state == "completed"


async def test_where_reserved_is_the_request_it_is_not_said_to_who_has_paid(open_market: Opens) -> None:
    market = await open_market(payment_request="none")
    await market.stock_is(aceite=50)
    await market.paid("order-1")
    await market.order("order-1", ("aceite", 2))
    assert market.saga("order-1").state == "completed"
    assert market.subjects() == ["order.confirmed", "notification.email.sent"]


async def test_a_payment_while_stock_is_asked_confirms_without_asking_for_it(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.restart(without=[STOCK])
    await market.order("order-1", ("aceite", 2))
    await market.paid("order-1")
    assert market.saga("order-1").state == "reserving"
    await market.restart()
    assert market.saga("order-1").state == "completed"
    assert market.subjects() == ["inventory.stock.reserved", "order.confirmed", "notification.email.sent"]


async def test_a_paid_order_whose_stock_is_late_is_not_cancelled_but_calls_for_attention(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.restart(without=[STOCK])
    await market.order("order-1", ("aceite", 2))
    await market.paid("order-1")
    await market.later(1800)
    saga = market.saga("order-1")
    assert (saga.state, saga.attention, saga.deadline) == ("reserving", "overdue: reserving", None)
    await market.restart()
    assert market.saga("order-1").state == "completed"
    assert market.shelf("aceite") == (48, 0, 48)


# ---- refused --------------------------------------------------------------------------------------------


async def test_a_retryable_failure_is_asked_again_after_five_minutes_in_the_same_way(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=True)
    assert market.saga("order-1").state == "payment_retry"
    assert market.shelf("aceite") == (50, 2, 48)
    await market.later(299)
    assert len(market.said("payment.initiated")) == 1
    await market.later(1)
    assert market.saga("order-1").state == "awaiting_payment"
    first, second = (payload for _, payload in market.said("payment.initiated"))
    assert (first["eventData"]["attempt"], second["eventData"]["attempt"]) == (1, 2)
    assert first["eventId"] != second["eventId"]
    assert first["aggregateId"] != second["aggregateId"]
    for changed in ("attempt", "initiatedAt", "paymentId"):
        del first["eventData"][changed], second["eventData"][changed]
    assert first["eventData"] == second["eventData"]

    await market.paid("order-1")
    assert market.saga("order-1").state == "completed"
    assert market.shelf("aceite") == (48, 0, 48)


@pytest.mark.core
async def test_the_third_retryable_failure_cancels_and_releases(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    for _ in range(2):
        await market.payment_fails("order-1", retryable=True)
        await market.later(300)
    assert [said["attempt"] for said in market.facts("payment.initiated")] == [1, 2, 3]
    await market.payment_fails("order-1", retryable=True)
    is_cancelled_and_released(market, "Pago fallido: Tarjeta rechazada por el banco", "payment-failed")
    await market.later(10_000)
    assert len(market.said("payment.initiated")) == 3


async def test_a_failure_that_is_not_retryable_cancels_and_releases_at_once(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=False)
    is_cancelled_and_released(market, "Pago fallido: Tarjeta rechazada por el banco", "payment-failed")


async def test_a_final_failure_while_a_retry_is_waited_for_cancels(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=True)
    await market.payment_fails("order-1", retryable=False)
    is_cancelled_and_released(market, "Pago fallido: Tarjeta rechazada por el banco", "payment-failed")


async def test_the_same_failure_with_another_event_id_costs_no_second_attempt(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=True)
    deadline = market.saga("order-1").deadline
    await market.later(10)
    await market.payment_fails("order-1", retryable=True)
    assert market.saga("order-1").state == "payment_retry"
    assert market.saga("order-1").deadline == deadline == NOW + 300


async def test_a_payment_counts_while_a_retry_is_waited_for(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=True)
    await market.paid("order-1")
    assert market.saga("order-1").state == "completed"
    await market.later(10_000)
    assert len(market.said("payment.initiated")) == 1


async def test_a_failure_after_the_payment_is_a_contradiction_that_changes_nothing(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.paid("order-1")
    said = market.said()
    await market.payment_fails("order-1", "pay-0", retryable=False)
    saga = market.saga("order-1")
    assert (saga.state, saga.timeline[-1].detail[:13]) == ("completed", "contradiction")
    assert market.said() == said


async def test_a_deadline_is_noticed_though_nothing_arrives(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=True)
    market.now += 300
    await wait_until(lambda: len(market.said("payment.initiated")) == 2)


# ---- no answer ------------------------------------------------------------------------------------------


async def test_a_payment_without_an_answer_is_asked_again_until_the_reservation_expires(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.later(899)
    assert len(market.said("payment.initiated")) == 1
    await market.later(1)
    assert [said["attempt"] for said in market.facts("payment.initiated")] == [1, 2]
    await market.later(899)
    assert market.saga("order-1").state == "awaiting_payment"
    await market.later(1)
    assert market.now == NOW + 1800
    is_cancelled_and_released(market, "Reserva caducada", "reservation-expired")


async def test_the_last_attempt_without_an_answer_cancels(open_market: Opens) -> None:
    market = await open_market(payment_timeout=100)
    await an_order_that_waits_for_its_payment(market)
    await market.later(100)
    await market.later(100)
    assert [said["attempt"] for said in market.facts("payment.initiated")] == [1, 2, 3]
    await market.later(100)
    is_cancelled_and_released(market, "Pago sin respuesta", "payment-failed")


async def test_a_reservation_expires_after_thirty_minutes_however_late_a_retry_would_be(open_market: Opens) -> None:
    market = await open_market(payment_retry_delay=7200)
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=True)
    await market.later(1799)
    assert market.saga("order-1").state == "payment_retry"
    await market.later(1)
    is_cancelled_and_released(market, "Reserva caducada", "reservation-expired")


async def test_a_clock_that_jumps_over_every_deadline_cancels_once(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.later(100_000)
    is_cancelled_and_released(market, "Reserva caducada", "reservation-expired")
    assert len(market.said("payment.initiated")) == 1


@pytest.mark.core
async def test_many_orders_expire_together_and_each_once(market: Market) -> None:
    await market.stock_is(aceite=50)
    for number in range(20):
        await market.order(f"order-{number}", ("aceite", 2))
    assert market.shelf("aceite") == (50, 40, 10)
    await market.later(1800)
    assert {saga.state.value for saga in market.rows()["order_sagas"].values()} == {"closed"}
    assert len(market.said("order.cancelled")) == 20
    assert len(market.said(RELEASED)) == 20
    assert market.shelf("aceite") == (50, 0, 50)


# ---- too many, too late ---------------------------------------------------------------------------------


async def test_the_same_payment_with_another_event_id_is_a_duplicate(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.paid("order-1", "pay-1")
    saga, said = market.saga("order-1"), market.said()
    await market.paid("order-1", "pay-1")
    assert market.saga("order-1") == saga
    assert market.said() == said


async def test_an_order_of_two_items_that_is_charged_twice_has_the_second_refunded(market: Market) -> None:
    await market.stock_is(aceite=50, queso=25)
    await market.order("order-1", ("aceite", 1), ("queso", 1))
    await market.paid("order-1", "pay-of-aceite")
    await market.paid("order-1", "pay-of-queso")
    saga = market.saga("order-1")
    assert (saga.state, saga.refunds) == ("completed", ("pay-of-queso",))
    assert saga.attention == "paid-twice: pay-of-queso"
    refund = market.only("payment.refund.initiated")
    assert refund["aggregateId"] == "pay-of-queso"
    assert refund["eventData"].items() >= {
        "originalPaymentId": "pay-of-queso", "orderId": "order-1", "amount": 25.0, "currency": "EUR",
    }.items()  # fmt: skip
    assert len(market.said("order.confirmed")) == 1
    assert market.shelf("aceite") == (49, 0, 49)


async def test_a_payment_after_the_cancellation_is_refunded_once(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.payment_fails("order-1", retryable=False)
    await market.paid("order-1", "pay-2")
    await market.paid("order-1", "pay-2")
    saga = market.saga("order-1")
    assert (saga.state, saga.attention) == ("closed", "paid-after-cancel: pay-2")
    assert market.only("payment.refund.initiated")["eventData"]["originalPaymentId"] == "pay-2"
    assert market.shelf("aceite") == (50, 0, 50)


# ---- another amount -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount", "attention"), [(25.5, "amount-differs: paid 25.5, total 25.0"), (25.005, None)])
async def test_money_that_differs_confirms_and_calls_for_attention(
    market: Market, amount: float, attention: str | None
) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.paid("order-1", amount=amount)
    saga = market.saga("order-1")
    assert (saga.state, saga.attention) == ("completed", attention)
    assert market.engine.tables["order_sagas"].sums().get("attention", 0) == (attention is not None)


async def test_money_in_another_currency_confirms_and_calls_for_attention(market: Market) -> None:
    await an_order_that_waits_for_its_payment(market)
    await market.paid("order-1", currency="USD")
    saga = market.saga("order-1")
    assert (saga.state, saga.attention) == ("completed", "currency-differs: paid USD, order EUR")
