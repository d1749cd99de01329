"""Mails over the real log and a real mail server: delivered, refused for now, refused for good, no server at all."""

import pytest

from tests.flows.conftest import Opens
from tests.flows.market import MAILS, Market

SENT = "notification.email.sent"


async def a_paid_order(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.paid("order-1")


async def test_the_confirmation_says_what_was_bought_and_the_marketplace_hears_of_it(market: Market) -> None:
    await a_paid_order(market)
    [mail], [text] = market.box.mails, market.box.texts()
    assert market.box.subjects() == ["Confirmación de pedido #order-1"]
    assert (mail["From"], mail["To"]) == ("A4CO <no-reply@a4co.local>", "cliente@jaen.example")
    assert "2 x Aceite, 12,50 €" in text
    assert "Total: 25,00 €" in text
    confirmed = market.only("order.confirmed")["eventData"]
    assert confirmed["trackingNumber"] in text
    sent = market.only(SENT)["eventData"]
    assert sent["variables"] == {
        "orderId": "order-1",
        "trackingNumber": confirmed["trackingNumber"],
        "estimatedDelivery": confirmed["estimatedDelivery"],
    }
    assert (sent["template"], sent["recipientEmail"], sent["provider"]) == (
        "order-confirmation", "cliente@jaen.example", "smtp",
    )  # fmt: skip
    assert sent["messageId"] == mail["Message-ID"]


async def test_a_mail_refused_for_now_is_tried_again_twice_as_late_each_time_until_it_is_taken(market: Market) -> None:
    market.box.refusing = "450 mailbox busy"
    await a_paid_order(market)
    assert market.saga("order-1").state == "confirmed"
    for attempt, delay in [(2, 30), (3, 60), (4, 120)]:
        await market.later(delay - 1)
        assert market.saga("order-1").mail_attempt == attempt - 1
        await market.later(1)
        assert market.saga("order-1").mail_attempt == attempt
        assert market.said(SENT) == []

    market.box.refusing = ""
    await market.later(240)
    saga = market.saga("order-1")
    assert (saga.state, saga.attention, saga.deadline) == ("completed", None, None)
    assert len(market.said(SENT)) == len(market.box.mails) == 1


async def test_a_cancellation_that_was_refused_for_now_closes_the_order_once_it_is_taken(market: Market) -> None:
    market.box.refusing = "450 mailbox busy"
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 51))
    assert market.saga("order-1").state == "cancelled"
    market.box.refusing = ""
    await market.later(30)
    assert (market.saga("order-1").state, market.saga("order-1").attention) == ("closed", None)
    assert market.box.subjects() == ["Orden #order-1 cancelada"]


async def test_a_mail_refused_for_now_five_times_is_given_up_and_the_order_still_ends(market: Market) -> None:
    market.box.refusing = "450 mailbox busy"
    await a_paid_order(market)
    for delay in (30, 60, 120, 240):
        await market.later(delay)
    saga = market.saga("order-1")
    assert (saga.state, saga.mail_attempt) == ("completed", 5)
    assert saga.attention is not None
    assert saga.attention.startswith("mail-failed: ")
    assert "mailbox busy" in saga.attention
    assert market.said(SENT) == []


@pytest.mark.parametrize(("pays", "end", "template"), [(True, "completed", "order-confirmation"),
                                                       (False, "closed", "order-cancellation")])  # fmt: skip
async def test_a_mail_refused_for_good_calls_for_attention_and_the_order_still_ends(
    market: Market, *, pays: bool, end: str, template: str
) -> None:
    market.box.refusing = "550 no such mailbox"
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await (market.paid("order-1") if pays else market.payment_fails("order-1", retryable=False))
    saga = market.saga("order-1")
    assert (saga.state, saga.mail_attempt) == (end, 1)
    assert saga.attention is not None
    assert "no such mailbox" in saga.attention
    assert [step.detail for step in saga.timeline if step.what == "SendMail"] == [template]
    await market.later(10_000)
    assert market.saga("order-1") == saga
    assert market.said(SENT) == []


async def test_one_customers_bad_address_does_not_delay_another(market: Market) -> None:
    market.box.refusing_only = {"nobody@jaen.example": "550 no such mailbox"}
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2), email="nobody@jaen.example")
    await market.order("order-2", ("aceite", 2))
    await market.paid("order-1", "pay-1")
    await market.paid("order-2", "pay-2")
    assert (market.saga("order-1").attention is None, market.saga("order-2").attention) == (False, None)
    assert len(market.said(SENT)) == 1


async def test_an_address_that_only_fails_once_the_mail_is_written_out_ends_its_order_alone(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2), email="=?" + "a" * 70 + 'b.es@"')
    await market.order("order-2", ("aceite", 2))
    await market.paid("order-1", "pay-1")
    await market.paid("order-2", "pay-2")
    assert (market.saga("order-1").state, market.saga("order-1").mail_attempt) == ("completed", 1)
    assert (market.saga("order-1").attention or "").startswith("mail-failed: ")
    assert len(market.box.mails) == 1


async def test_an_endless_address_is_refused_before_it_is_parsed(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2), email='"' * 10_000)
    await market.paid("order-1")
    assert market.saga("order-1").attention == "mail-failed: ValueError: the address has 500 characters"


async def test_a_mail_server_that_is_down_blocks_no_order(market: Market) -> None:
    market.mail_server_goes_down()
    await market.stock_is(aceite=50)
    for number in range(5):
        await market.order(f"order-{number}", ("aceite", 2))
        await market.paid(f"order-{number}", f"pay-{number}")
    assert {saga.state.value for saga in market.rows()["order_sagas"].values()} == {"confirmed"}
    assert len(market.said("order.confirmed")) == 5
    assert market.shelf("aceite") == (40, 0, 40)

    await market.mail_server_comes_up()
    await market.later(30)
    assert {saga.state.value for saga in market.rows()["order_sagas"].values()} == {"completed"}
    assert len(market.box.mails) == 5


async def test_an_order_without_an_address_ends_without_a_mail(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2), email="")
    await market.paid("order-1", "pay-1")
    await market.order("order-2", ("aceite", 2), email="")
    await market.payment_fails("order-2", "pay-2", retryable=False)
    assert (market.saga("order-1").state, market.saga("order-2").state) == ("completed", "closed")
    assert market.only("order.cancelled")["eventData"]["notificationSent"] is False
    assert market.box.mails == []


# ---- another service's mails ----------------------------------------------------------------------------


async def test_without_a_mail_server_another_services_mail_ends_the_order(open_market: Opens) -> None:
    market = await open_market(smtp_url=None)
    await a_paid_order(market)
    await market.order("order-2", ("aceite", 2))
    await market.payment_fails("order-2", "pay-2", retryable=False)
    assert (market.saga("order-1").state, market.saga("order-2").state) == ("confirmed", "cancelled")
    assert market.only("order.cancelled")["eventData"]["notificationSent"] is False
    await market.later(10_000)
    assert market.records("mails") == []

    await market.mailed_elsewhere("order-1", "welcome")
    assert market.saga("order-1").state == "confirmed"
    await market.mailed_elsewhere("order-1", "order-confirmation")
    await market.mailed_elsewhere("order-2", "order-cancellation")
    assert (market.saga("order-1").state, market.saga("order-2").state) == ("completed", "closed")
    assert market.said(SENT) == []


async def test_a_mail_that_another_service_sent_before_the_confirmation_is_not_sent_again(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.mailed_elsewhere("order-1")
    await market.paid("order-1")
    assert market.saga("order-1").state == "completed"
    assert market.box.mails == []


async def test_a_mail_that_another_service_sent_while_ours_waits_ends_the_order_and_the_waiting(market: Market) -> None:
    market.box.refusing = "450 mailbox busy"
    await a_paid_order(market)
    await market.mailed_elsewhere("order-1")
    assert market.saga("order-1").state == "completed"
    market.box.refusing = ""
    await market.later(10_000)
    assert market.box.mails == []


async def test_a_mail_that_was_under_way_when_the_worker_stopped_is_sent_after_the_restart(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.restart(without=[MAILS])
    await market.order("order-1", ("aceite", 2))
    await market.paid("order-1")
    assert market.saga("order-1").state == "confirmed"
    await market.restart()
    assert market.saga("order-1").state == "completed"
    assert len(market.box.mails) == 1


@pytest.mark.core
async def test_a_mail_that_a_crash_sends_twice_is_announced_once_and_told_by_its_message_id(market: Market) -> None:
    await a_paid_order(market)
    [asked] = market.records("mails")
    await market.again("mails", asked)
    assert len(market.box.mails) == 2
    assert len({mail["Message-ID"] for mail in market.box.mails}) == 1
    assert len(market.said(SENT)) == 1
