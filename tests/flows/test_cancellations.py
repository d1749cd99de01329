"""Cancellations, and who confirms and cancels (the roles), over the real log."""

import pytest

from tests.flows.conftest import Opens
from tests.flows.market import STOCK, Market

RELEASED = "inventory.stock.released"
REFUND = "payment.refund.initiated"


async def an_order_of_two(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))


# ---- the customer cancels -------------------------------------------------------------------------------


async def test_cancelled_while_stock_is_asked_releases_without_a_word(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.restart(without=[STOCK])
    await market.order("order-1", ("aceite", 2))
    await market.customer_cancels("order-1")
    assert market.saga("order-1").state == "closed"
    await market.restart()
    assert market.shelf("aceite") == (50, 0, 50)
    assert market.subjects() == ["notification.email.sent"]


@pytest.mark.core
async def test_cancelled_before_the_payment_releases_and_says_the_release(market: Market) -> None:
    await an_order_of_two(market)
    await market.customer_cancels("order-1")
    saga = market.saga("order-1")
    assert (saga.state, saga.cancelled_by, saga.cancel_reason) == ("closed", "customer", "Ya no lo quiero")
    assert market.shelf("aceite") == (50, 0, 50)
    assert [said["reason"] for said in market.facts(RELEASED)] == ["order-cancelled"]
    assert market.said("order.cancelled") == []  # the order service has said it
    assert market.said(REFUND) == []
    assert "Ya no lo quiero" in market.box.texts()[0]


async def test_cancelled_while_a_retry_is_waited_for_asks_for_no_payment_any_more(market: Market) -> None:
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=True)
    await market.customer_cancels("order-1")
    await market.later(10_000)
    assert market.saga("order-1").state == "closed"
    assert len(market.said("payment.initiated")) == 1
    assert market.shelf("aceite") == (50, 0, 50)


async def test_cancelled_while_paying_has_the_payment_refunded_when_it_comes(market: Market) -> None:
    await an_order_of_two(market)
    await market.customer_cancels("order-1")
    await market.paid("order-1")
    saga = market.saga("order-1")
    assert (saga.state, saga.refunds, saga.attention) == ("closed", ("pay-1",), "paid-after-cancel: pay-1")
    assert len(market.said(REFUND)) == 1
    assert market.said("order.confirmed") == []


@pytest.mark.core
async def test_cancelled_after_the_confirmation_refunds_and_takes_the_goods_back(market: Market) -> None:
    await market.stock_is(aceite=50, queso=25)
    await market.order("order-1", ("aceite", 2), ("queso", 1))
    await market.paid("order-1")
    assert (market.shelf("aceite"), market.shelf("queso")) == ((48, 0, 48), (24, 0, 24))
    await market.customer_cancels("order-1")
    assert market.saga("order-1").state == "closed"
    assert (market.shelf("aceite"), market.shelf("queso")) == ((50, 0, 50), (25, 0, 25))
    assert market.only(REFUND)["eventData"]["amount"] == 25.0
    assert sorted(said["quantityReleased"] for said in market.facts(RELEASED)) == [1, 2]
    assert market.box.subjects() == [
        "Confirmación de pedido #order-1",
        "Orden #order-1 cancelada",
    ]


async def test_cancelled_before_the_confirmation_mail_went_out_tells_of_the_cancellation_only(market: Market) -> None:
    await an_order_of_two(market)
    market.box.refusing = "450 later"
    await market.paid("order-1")
    assert market.saga("order-1").state == "confirmed"
    market.box.refusing = ""
    await market.customer_cancels("order-1")
    await market.later(10_000)
    assert market.saga("order-1").state == "closed"
    assert market.shelf("aceite") == (50, 0, 50)
    assert market.box.subjects() == ["Orden #order-1 cancelada"]


async def test_each_payment_is_refunded_once_also_when_one_was_refunded_before(market: Market) -> None:
    await an_order_of_two(market)
    await market.paid("order-1", "pay-1")
    await market.paid("order-1", "pay-2")
    await market.customer_cancels("order-1")
    assert [said["originalPaymentId"] for said in market.facts(REFUND)] == ["pay-2", "pay-1"]


async def test_a_second_cancellation_and_a_cancellation_of_what_we_cancelled_are_duplicates(market: Market) -> None:
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=False)
    rows, said = market.rows(), market.said()
    await market.customer_cancels("order-1")
    await market.customer_cancels("order-1")
    assert (market.rows(), market.said()) == (rows, said)


# ---- confirmed elsewhere --------------------------------------------------------------------------------


async def test_a_confirmation_by_another_service_is_adopted_and_not_said_again(market: Market) -> None:
    await an_order_of_two(market)
    await market.confirmed_elsewhere("order-1")
    saga = market.saga("order-1")
    assert (saga.state, saga.attention, saga.payment_reference) == ("completed", "confirmed-elsewhere", "txn-elsewhere")
    assert market.shelf("aceite") == (48, 0, 48)
    assert market.said("order.confirmed") == []
    assert len(market.box.mails) == 1
    await market.paid("order-1")  # its payment, which we heard of later
    assert market.said(REFUND) == []


async def test_a_confirmation_while_a_retry_is_waited_for_is_adopted(market: Market) -> None:
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=True)
    await market.confirmed_elsewhere("order-1")
    await market.later(10_000)
    assert market.saga("order-1").state == "completed"
    assert len(market.said("payment.initiated")) == 1


async def test_a_confirmation_while_stock_is_asked_is_adopted_once_all_is_held(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.restart(without=[STOCK])
    await market.order("order-1", ("aceite", 2))
    await market.confirmed_elsewhere("order-1")
    assert market.saga("order-1").state == "reserving"
    await market.restart()
    assert market.saga("order-1").state == "completed"
    assert market.subjects() == ["inventory.stock.reserved", "notification.email.sent"]
    assert market.shelf("aceite") == (48, 0, 48)


async def test_services_that_confirm_twice_change_nothing_the_second_time(market: Market) -> None:
    await an_order_of_two(market)
    await market.paid("order-1")
    rows, said = market.rows(), market.said()
    await market.confirmed_elsewhere("order-1")
    await market.confirmed_elsewhere("order-1")
    assert (market.rows(), market.said()) == (rows, said)


async def test_a_confirmation_after_the_cancellation_calls_for_attention(market: Market) -> None:
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=False)
    said = market.said()
    await market.confirmed_elsewhere("order-1")
    saga = market.saga("order-1")
    assert (saga.state, saga.attention) == ("closed", "confirmed-after-cancel")
    assert market.said() == said
    assert market.shelf("aceite") == (50, 0, 50)


# ---- another service's step: observe --------------------------------------------------------------------


async def test_who_observes_confirmations_waits_for_them(open_market: Opens) -> None:
    market = await open_market(role_confirm="observe")
    await an_order_of_two(market)
    await market.paid("order-1")
    assert market.saga("order-1").state == "confirming"
    assert market.shelf("aceite") == (50, 2, 48)
    assert market.said("order.confirmed") == []
    await market.confirmed_elsewhere("order-1")
    saga = market.saga("order-1")
    assert (saga.state, saga.attention) == ("completed", None)
    assert market.shelf("aceite") == (48, 0, 48)
    assert market.said("order.confirmed") == []


async def test_a_confirmation_that_never_comes_calls_for_attention_and_is_still_waited_for(open_market: Opens) -> None:
    market = await open_market(role_confirm="observe")
    await an_order_of_two(market)
    await market.paid("order-1")
    await market.later(10_000)
    saga = market.saga("order-1")
    assert (saga.state, saga.attention) == ("confirming", "overdue: confirming")
    await market.confirmed_elsewhere("order-1")
    assert market.saga("order-1").state == "completed"


async def test_cancelled_while_the_confirmation_is_waited_for_releases_and_refunds(open_market: Opens) -> None:
    market = await open_market(role_confirm="observe")
    await an_order_of_two(market)
    await market.paid("order-1")
    await market.payment_fails("order-1", retryable=False)  # a contradiction: it is paid
    assert market.saga("order-1").state == "confirming"
    await market.customer_cancels("order-1")
    assert market.saga("order-1").state == "closed"
    assert market.shelf("aceite") == (50, 0, 50)
    assert len(market.said(REFUND)) == 1


async def test_who_observes_cancellations_gives_the_stock_back_and_waits_for_them(open_market: Opens) -> None:
    market = await open_market(role_cancel="observe")
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=False)
    assert market.saga("order-1").state == "cancelling"
    assert market.shelf("aceite") == (50, 0, 50)
    assert len(market.said(RELEASED)) == 1
    assert market.box.mails == []
    await market.customer_cancels("order-1")
    assert market.saga("order-1").state == "closed"
    assert market.said("order.cancelled") == []
    assert len(market.said(RELEASED)) == 1
    assert len(market.box.mails) == 1


async def test_a_cancellation_that_never_comes_calls_for_attention(open_market: Opens) -> None:
    market = await open_market(role_cancel="observe")
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=False)
    await market.later(10_000)
    saga = market.saga("order-1")
    assert (saga.state, saga.attention) == ("cancelling", "overdue: cancelling")


async def test_while_the_cancellation_is_waited_for_a_payment_is_refunded_and_a_confirmation_contradicts(
    open_market: Opens,
) -> None:
    market = await open_market(role_cancel="observe")
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=False)
    await market.paid("order-1")
    await market.confirmed_elsewhere("order-1")
    saga = market.saga("order-1")
    assert (saga.state, saga.refunds) == ("cancelling", ("pay-1",))
    assert saga.attention == "paid-after-cancel: pay-1; confirmed-after-cancel"
    assert len(market.said(REFUND)) == 1


# ---- decided, not said: shadow --------------------------------------------------------------------------


async def test_who_shadows_confirmations_moves_and_does_not_say_so(open_market: Opens) -> None:
    market = await open_market(role_confirm="shadow")
    await an_order_of_two(market)
    await market.paid("order-1")
    assert market.saga("order-1").state == "completed"
    assert market.shelf("aceite") == (48, 0, 48)
    assert market.said("order.confirmed") == []
    assert [step.detail for step in market.saga("order-1").timeline if step.what == "order.confirmed"] == ["shadow"]


async def test_who_shadows_cancellations_moves_and_does_not_say_so(open_market: Opens) -> None:
    market = await open_market(role_cancel="shadow")
    await an_order_of_two(market)
    await market.payment_fails("order-1", retryable=False)
    await market.paid("order-1")
    saga = market.saga("order-1")
    assert (saga.state, saga.refunds) == ("closed", ("pay-1",))
    assert market.shelf("aceite") == (50, 0, 50)
    assert market.said("order.cancelled") == []
    assert market.said(REFUND) == []


@pytest.mark.parametrize("end", ["paid", "refused"])
async def test_who_shadows_everything_says_nothing_and_sends_nothing(open_market: Opens, end: str) -> None:
    shadow = dict.fromkeys(("role_reserve", "role_confirm", "role_cancel", "role_notify"), "shadow")
    market = await open_market(**shadow, payment_request="none")
    await market.shelves([("aceite", 2, 1)])
    await market.order("order-1", ("aceite", 2))
    await (market.paid("order-1") if end == "paid" else market.payment_fails("order-1", retryable=False))
    await market.customer_cancels("order-1")
    assert market.saga("order-1").state == "closed"
    assert market.shelf("aceite") == (2, 0, 2)
    assert market.said() == []
    assert market.box.mails == []
