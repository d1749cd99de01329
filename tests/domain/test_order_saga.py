"""One test per row of the saga's table of transitions, in the table's order."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from app.domain.messages import Message
from app.domain.order_saga import MAX_PARKED, MAX_SEEN, MAX_TIMELINE
from app.domain.policy import Policy
from tests.domain.saga_story import (
    CANCELLATION,
    CONFIRMATION,
    ORDER,
    Story,
    a_cancelled_order,
    a_closed_order,
    a_completed_order,
    a_confirmed_order,
    a_held_order,
    an_order,
    cancelled_by,
    confirmed_by_others,
    deadline,
    delivered,
    held,
    mail_delivered,
    mail_failed,
    mail_sent_by_others,
    noted,
    ordered,
    paid,
    payment_failed,
    refund_processed,
    refused,
)

RELEASES = ["Release CHEESE", "Release HONEY"]
COMMITS = ["Commit CHEESE", "Commit HONEY"]
RETURNS = ["Return CHEESE", "Return HONEY"]
TELL = "SendMail order-confirmation"
TELL_CANCELLED = "SendMail order-cancellation"


# ---- the order arrives ----------------------------------------------------------------------------------


def test_a_created_order_reserves_each_product_with_its_lines_summed() -> None:
    story = an_order(("CHEESE", 2), ("HONEY", 1), ("CHEESE", 3)).expect("reserving", "Reserve CHEESE", "Reserve HONEY")
    cheese = story.outputs[0]
    assert (cheese.order_id, cheese.quantity, cheese.artisan_id) == (ORDER, 5, "MARIA")
    assert cheese.expires_at == story.now + 1800.0
    assert story.saga.deadline == story.saga.reserved_until == cheese.expires_at


def test_a_fact_of_an_unknown_order_is_parked_and_applied_when_the_order_arrives() -> None:
    story = Story().when(cancelled_by("customer")).expect("parked", outcome="parked")
    story.when(ordered()).expect("cancelled", "Reserve CHEESE", "Reserve HONEY", *RELEASES, TELL_CANCELLED)
    assert story.saga.cancelled_by == "customer"
    assert story.saga.parked == ()


def test_parked_facts_are_applied_in_the_order_they_came() -> None:
    story = Story().when(paid("PAY-1"), paid("PAY-2", transaction="TXN-2")).when(ordered())
    story.expect("reserving", "Reserve CHEESE", "Reserve HONEY", "payment.refund.initiated")
    assert list(story.saga.paid) == ["PAY-1", "PAY-2"]
    assert story.saga.refunds == ("PAY-2",)


def test_the_fifty_first_parked_fact_is_not_kept_and_calls_for_attention() -> None:
    story = Story().when(*(noted() for _ in range(MAX_PARKED)))
    assert story.saga.attention is None
    story.when(noted()).expect("parked", outcome="contradiction")
    assert len(story.saga.parked) == MAX_PARKED
    assert story.saga.attention == "too many facts before order.created"
    story.when(ordered())
    assert story.saga.attention == "too many facts before order.created"


def test_a_hold_that_no_order_owns_is_released() -> None:
    Story().when(held("CHEESE")).expect(None, "Release CHEESE", outcome="contradiction")


# ---- stock answers --------------------------------------------------------------------------------------


def test_nothing_is_said_until_every_product_is_held() -> None:
    an_order().when(held("CHEESE")).expect("reserving")


def test_when_all_is_held_it_says_so_and_asks_for_the_payment() -> None:
    story = a_held_order().expect("awaiting_payment", "inventory.stock.reserved", "payment.initiated")
    asked = story.only("payment.initiated")
    assert {"orderId": ORDER, "amount": 26.0, "currency": "EUR", "customerId": "ANA", "attempt": 1}.items() <= (
        asked.data.items()
    )
    assert asked.data["paymentMethod"] == "card"
    assert asked.data["paymentGateway"] == "stripe"
    items = story.only("inventory.stock.reserved").data["items"]
    assert [(item["productId"], item["quantityReserved"]) for item in items] == [("CHEESE", 2), ("HONEY", 1)]
    assert story.saga.deadline == story.now + 900.0


@pytest.mark.parametrize(
    ("request_by", "said"), [("order.payment.requested", ["order.payment.requested"]), ("none", [])], ids=str
)
def test_the_payment_is_asked_for_as_the_policy_says(request_by: str, said: list[str]) -> None:
    a_held_order(Policy(payment_request=request_by)).expect(  # type: ignore[arg-type]
        "awaiting_payment", "inventory.stock.reserved", *said
    )


def test_a_payment_that_came_early_confirms_without_asking() -> None:
    story = an_order().when(paid()).expect("reserving")
    story.when(held("CHEESE"), held("HONEY")).expect(
        "confirmed", "inventory.stock.reserved", *COMMITS, "order.confirmed", TELL
    )
    assert story.saga.payment_reference == "TXN-1"


def test_where_reserved_is_the_request_for_payment_it_is_not_said_to_who_has_paid() -> None:
    an_order(policy=Policy(payment_request="none")).when(paid()).when(held("CHEESE"), held("HONEY")).expect(
        "confirmed", *COMMITS, "order.confirmed", TELL
    )


def test_a_confirmation_that_came_early_is_adopted_when_all_is_held() -> None:
    story = an_order().when(confirmed_by_others()).expect("reserving").when(held("CHEESE"), held("HONEY"))
    story.expect("confirmed", "inventory.stock.reserved", *COMMITS, TELL)
    assert story.saga.attention == "confirmed-elsewhere"


def test_a_refusal_releases_the_others_and_cancels() -> None:
    story = an_order().when(held("HONEY")).when(refused("CHEESE"))
    story.expect("cancelled", "order.cancelled", "Release HONEY", TELL_CANCELLED)
    said = story.only("order.cancelled").data
    assert said["reason"] == "Stock insuficiente para producto CHEESE"
    assert (said["cancelledBy"], said["refundRequired"], said["notificationSent"]) == ("system", False, True)
    assert story.only("Release").announce is False


def test_a_refusal_also_releases_what_is_only_asked_for() -> None:
    an_order().when(refused("CHEESE")).expect("cancelled", "order.cancelled", "Release HONEY", TELL_CANCELLED)


def test_a_refused_order_of_dialect_c_says_out_of_stock_too() -> None:
    an_order(dialect="c").when(refused("CHEESE")).expect(
        "cancelled", "inventory.out_of_stock", "order.cancelled", "Release HONEY", TELL_CANCELLED
    )


def test_a_refusal_after_an_early_payment_refunds_it() -> None:
    story = an_order().when(paid()).when(refused("CHEESE"))
    story.expect("cancelled", "order.cancelled", "Release HONEY", "payment.refund.initiated", TELL_CANCELLED)
    assert story.only("order.cancelled").data["refundRequired"] is True
    assert story.only("order.cancelled").data["refundAmount"] == 26.0


def test_stock_that_never_answers_ends_as_an_expired_reservation() -> None:
    story = an_order().deadline_passes().expect("cancelled", "order.cancelled", *RELEASES, TELL_CANCELLED)
    assert story.only("order.cancelled").data["reason"] == "Reserva caducada"


def test_stock_that_never_answers_a_paid_order_calls_for_attention() -> None:
    story = an_order().when(paid()).deadline_passes().expect("reserving")
    assert story.saga.attention == "overdue: reserving"


# ---- payment --------------------------------------------------------------------------------------------


def test_a_payment_confirms_the_order() -> None:
    story = a_confirmed_order().expect("confirmed", *COMMITS, "order.confirmed", TELL)
    said = story.only("order.confirmed").data
    assert said["paymentReference"] == "TXN-1"
    assert said["artisanNotified"] is True
    assert said["trackingNumber"].startswith("TRK")
    assert said["trackingNumber"][3:].isdigit()
    assert said["estimatedDelivery"] > said["confirmedAt"]
    assert story.saga.attention is None
    assert story.saga.deadline is None


def test_what_is_said_names_its_cause_and_the_orders_correlation() -> None:
    said = a_confirmed_order().only("order.confirmed")
    assert (said.causation_id, said.correlation_id, said.key) == ("EVENT-4", "CORR", ORDER)


@pytest.mark.parametrize("amount", [25.5, 26.01, 0])
def test_a_payment_of_another_amount_confirms_and_calls_for_attention(amount: float) -> None:
    story = a_held_order().when(paid(amount=amount)).expect("confirmed", *COMMITS, "order.confirmed", TELL)
    assert story.saga.attention is not None
    assert story.saga.attention.startswith("amount-differs: ")


def test_half_a_cent_is_no_difference() -> None:
    assert a_held_order().when(paid(amount=26.005)).saga.attention is None


def test_a_payment_in_another_currency_calls_for_attention() -> None:
    assert a_held_order().when(paid(currency="USD")).saga.attention == "currency-differs: paid USD, order EUR"


def test_a_payment_counts_while_a_retry_is_waited_for() -> None:
    a_held_order().when(payment_failed()).when(paid()).expect("confirmed", *COMMITS, "order.confirmed", TELL)


def test_a_payment_waits_for_the_service_that_confirms() -> None:
    story = a_held_order(Policy(confirm="observe")).when(paid()).expect("confirming")
    story.when(confirmed_by_others()).expect("confirmed", *COMMITS, TELL)
    assert story.saga.attention is None


def test_a_confirmation_that_never_comes_calls_for_attention() -> None:
    story = a_held_order(Policy(confirm="observe")).when(paid()).deadline_passes().expect("confirming")
    assert story.saga.attention == "overdue: confirming"
    assert story.saga.deadline is None


def test_a_confirmation_by_another_service_is_adopted() -> None:
    story = a_held_order().when(confirmed_by_others()).expect("confirmed", *COMMITS, TELL)
    assert story.saga.attention == "confirmed-elsewhere"
    assert story.saga.payment_reference == "TXN-OF-OTHERS"
    story.when(paid()).expect("confirmed")
    assert story.saga.paid == {"PAY-1": 26.0}


def test_a_retryable_failure_is_asked_again_after_the_delay() -> None:
    story = a_held_order()
    first = story.only("payment.initiated")
    story.when(payment_failed()).expect("payment_retry")
    assert story.saga.deadline == story.now + 300.0
    story.deadline_passes().expect("awaiting_payment", "payment.initiated")
    again = story.only("payment.initiated")
    assert again.data["attempt"] == 2
    assert again.event_id != first.event_id
    assert again.aggregate_id != first.aggregate_id


def test_a_second_retryable_failure_while_waiting_changes_nothing_but_the_timeline() -> None:
    a_held_order().when(payment_failed()).when(payment_failed()).expect("payment_retry", outcome="ignored")


def test_a_final_failure_releases_and_cancels() -> None:
    story = a_held_order().when(payment_failed(retryable=False))
    story.expect("cancelled", "order.cancelled", *RELEASES, TELL_CANCELLED)
    said = story.only("order.cancelled").data
    assert said["reason"] == "Pago fallido: Tarjeta rechazada"
    assert said["refundRequired"] is False
    assert {(output.reason, output.announce) for output in story.outputs[1:3]} == {("payment-failed", True)}


def test_a_final_failure_while_a_retry_is_waited_for_cancels() -> None:
    a_held_order().when(payment_failed()).when(payment_failed(retryable=False)).expect(
        "cancelled", "order.cancelled", *RELEASES, TELL_CANCELLED
    )


def test_the_last_retryable_failure_cancels() -> None:
    story = a_held_order().when(payment_failed()).deadline_passes().when(payment_failed()).deadline_passes()
    story.when(payment_failed()).expect("cancelled", "order.cancelled", *RELEASES, TELL_CANCELLED)
    assert story.only("order.cancelled").data["reason"] == "Pago fallido: Tarjeta rechazada"


def test_a_retry_later_than_the_reservation_is_never_asked() -> None:
    story = a_held_order(Policy(payment_retry_delay=7200.0)).when(payment_failed())
    assert story.saga.deadline == story.saga.reserved_until
    story.deadline_passes().expect("cancelled", "order.cancelled", *RELEASES, TELL_CANCELLED)
    assert story.only("order.cancelled").data["reason"] == "Reserva caducada"
    assert story.outputs[1].reason == "reservation-expired"
    assert story.outputs[1].announce is True


def test_a_payment_without_an_answer_is_asked_again_at_once() -> None:
    story = a_held_order().deadline_passes().expect("awaiting_payment", "payment.initiated")
    assert story.only("payment.initiated").data["attempt"] == 2


def test_the_last_attempt_without_an_answer_cancels() -> None:
    story = a_held_order(Policy(payment_timeout=100.0, payment_max_attempts=2)).deadline_passes().deadline_passes()
    story.expect("cancelled", "order.cancelled", *RELEASES, TELL_CANCELLED)
    assert story.only("order.cancelled").data["reason"] == "Pago sin respuesta"


def test_a_deadline_that_moved_is_not_due() -> None:
    a_held_order().expect_nothing_new(deadline(), outcome="ignored")


def test_the_same_payment_told_twice_is_a_duplicate() -> None:
    a_confirmed_order().expect_nothing_new(paid(), outcome="duplicate")


@pytest.mark.parametrize("story", [a_confirmed_order, a_completed_order])
def test_a_second_payment_is_refunded(story: Callable[[], Story]) -> None:
    told = story()
    state = told.saga.state.value
    told.when(paid("PAY-2", 9.5, "TXN-2")).expect(state, "payment.refund.initiated")
    refund = told.only("payment.refund.initiated")
    assert refund.aggregate_id == "PAY-2"
    assert {"originalPaymentId": "PAY-2", "orderId": ORDER, "amount": 9.5, "currency": "EUR"}.items() <= (
        refund.data.items()
    )
    assert told.saga.attention == "paid-twice: PAY-2"
    told.expect_nothing_new(paid("PAY-2", 9.5, "TXN-2"), outcome="duplicate")


@pytest.mark.parametrize("story", [a_cancelled_order, a_closed_order])
def test_a_payment_after_the_cancellation_is_refunded_once(story: Callable[[], Story]) -> None:
    told = story()
    state = told.saga.state.value
    told.when(paid()).expect(state, "payment.refund.initiated")
    assert told.saga.attention == "paid-after-cancel: PAY-1"
    told.expect_nothing_new(paid(), outcome="duplicate")


def test_a_failure_after_the_payment_is_a_contradiction() -> None:
    a_confirmed_order().when(payment_failed(retryable=False)).expect("confirmed", outcome="contradiction")


def test_a_failure_before_anything_was_asked_is_kept_in_the_timeline() -> None:
    story = an_order().when(payment_failed()).expect("reserving", outcome="ignored")
    assert story.saga.timeline[-1].detail == "ignored: Tarjeta rechazada"


# ---- cancelled from outside -----------------------------------------------------------------------------


def test_cancelled_while_reserving_releases_without_a_word() -> None:
    story = an_order().when(cancelled_by("customer")).expect("cancelled", *RELEASES, TELL_CANCELLED)
    assert {output.announce for output in story.outputs[:2]} == {False}
    assert (story.saga.cancelled_by, story.saga.cancel_reason) == ("customer", "Ya no lo quiero")


def test_a_hold_that_comes_after_the_cancellation_changes_nothing() -> None:
    an_order().when(cancelled_by()).expect_nothing_new(held("CHEESE"), outcome="ignored")


@pytest.mark.parametrize("first", [[], [payment_failed()]])
def test_cancelled_while_paying_releases_and_says_the_release(first: list[Message]) -> None:
    story = a_held_order().when(*first).when(cancelled_by())
    story.expect("cancelled", *RELEASES, TELL_CANCELLED)
    assert {(output.reason, output.announce) for output in story.outputs[:2]} == {("order-cancelled", True)}


def test_cancelled_while_waiting_for_the_confirmation_releases_and_refunds() -> None:
    a_held_order(Policy(confirm="observe")).when(paid()).when(cancelled_by()).expect(
        "cancelled", *RELEASES, "payment.refund.initiated", TELL_CANCELLED
    )


@pytest.mark.parametrize("story", [a_confirmed_order, a_completed_order])
def test_cancelled_after_the_payment_refunds_and_takes_the_goods_back(story: Callable[[], Story]) -> None:
    told = story().when(cancelled_by())
    told.expect("cancelled", *RETURNS, "payment.refund.initiated", TELL_CANCELLED)
    assert [output.quantity for output in told.outputs[:2]] == [2, 1]
    told.when(mail_delivered(CANCELLATION)).expect("closed", "notification.email.sent")


def test_a_second_refund_of_the_same_payment_is_never_asked() -> None:
    story = a_confirmed_order().when(paid("PAY-2", transaction="TXN-2")).when(cancelled_by())
    assert [output.aggregate_id for output in story.outputs if "refund" in getattr(output, "kind", "")] == ["PAY-1"]


@pytest.mark.parametrize("story", [a_cancelled_order, a_closed_order])
def test_a_second_cancellation_is_a_duplicate(story: Callable[[], Story]) -> None:
    story().expect_nothing_new(cancelled_by(), outcome="duplicate")


@pytest.mark.parametrize("story", [a_cancelled_order, a_closed_order])
def test_a_confirmation_after_the_cancellation_is_a_contradiction(story: Callable[[], Story]) -> None:
    told = story()
    state = told.saga.state.value
    told.when(confirmed_by_others()).expect(state, outcome="contradiction")
    assert told.saga.attention == "confirmed-after-cancel"


@pytest.mark.parametrize("story", [a_confirmed_order, a_completed_order])
def test_a_second_confirmation_is_a_duplicate(story: Callable[[], Story]) -> None:
    story().expect_nothing_new(confirmed_by_others(), outcome="duplicate")


# ---- the customer is told -------------------------------------------------------------------------------


def test_a_delivered_mail_completes_the_order_and_is_announced() -> None:
    story = a_confirmed_order().when(mail_delivered()).expect("completed", "notification.email.sent")
    said = story.only("notification.email.sent").data
    assert said["subject"] == f"Confirmación de pedido #{ORDER}"
    assert (said["template"], said["provider"], said["messageId"]) == (CONFIRMATION, "smtp", "<MAIL-1@a4co>")
    assert said["variables"]["orderId"] == ORDER
    assert said["recipientEmail"] == "ana@jaen.example"


def test_a_delivered_cancellation_closes_the_order() -> None:
    story = a_cancelled_order().when(mail_delivered(CANCELLATION)).expect("closed", "notification.email.sent")
    assert story.only("notification.email.sent").data["subject"] == f"Orden #{ORDER} cancelada"


def test_a_mail_of_another_service_completes_too() -> None:
    a_confirmed_order().when(mail_sent_by_others()).expect("completed")
    a_cancelled_order().when(mail_sent_by_others("order_cancelled")).expect("closed")


def test_another_mail_does_not_complete() -> None:
    a_confirmed_order().when(mail_sent_by_others("welcome")).expect("confirmed")


def test_a_mail_that_went_out_early_is_not_sent_again() -> None:
    a_held_order().when(mail_sent_by_others()).when(paid()).expect("completed", *COMMITS, "order.confirmed")


def test_an_order_without_an_address_ends_at_once() -> None:
    a_held_order(email=None).when(paid()).expect("completed", *COMMITS, "order.confirmed")
    story = (
        a_held_order(email=None).when(payment_failed(retryable=False)).expect("closed", "order.cancelled", *RELEASES)
    )
    assert story.only("order.cancelled").data["notificationSent"] is False


def test_a_failed_mail_is_sent_again_twice_as_late_each_time() -> None:
    story = a_confirmed_order()
    for attempt, delay in [(1, 30.0), (2, 60.0), (3, 120.0), (4, 240.0)]:
        story.when(mail_failed(attempt)).expect("confirmed")
        assert story.saga.deadline == story.now + delay
        story.deadline_passes().expect("confirmed", TELL)
        assert story.only("SendMail").attempt == attempt + 1
    story.when(mail_failed(5)).expect("completed")
    assert story.saga.attention == "mail-failed: no such mailbox"
    assert story.saga.deadline is None


def test_a_mail_that_can_never_arrive_ends_the_saga_with_attention() -> None:
    story = a_cancelled_order().when(mail_failed(permanent=True, template=CANCELLATION)).expect("closed")
    assert story.saga.attention == "mail-failed: no such mailbox"


def test_the_failure_of_another_mail_or_attempt_is_ignored() -> None:
    story = a_confirmed_order()
    story.expect_nothing_new(mail_failed(template=CANCELLATION), outcome="ignored")
    story.expect_nothing_new(mail_failed(attempt=2), outcome="ignored")


# ---- roles ----------------------------------------------------------------------------------------------


def test_who_observes_notifications_sends_no_mail_and_ends_with_the_others() -> None:
    story = a_held_order(Policy(notify="observe")).when(paid()).expect("confirmed", *COMMITS, "order.confirmed")
    story.when(mail_sent_by_others()).expect("completed")


def test_who_observes_cancellations_releases_and_waits() -> None:
    story = a_held_order(Policy(cancel="observe")).when(payment_failed(retryable=False)).expect("cancelling", *RELEASES)
    story.when(cancelled_by("system")).expect("cancelled", TELL_CANCELLED)


def test_a_cancellation_that_never_comes_calls_for_attention() -> None:
    story = a_held_order(Policy(cancel="observe")).when(payment_failed(retryable=False)).deadline_passes()
    story.expect("cancelling")
    assert story.saga.attention == "overdue: cancelling"


def test_a_payment_while_the_cancellation_is_waited_for_is_refunded() -> None:
    story = a_held_order(Policy(cancel="observe")).when(payment_failed(retryable=False)).when(paid())
    story.expect("cancelling", "payment.refund.initiated")


def test_in_the_shadow_everything_is_decided_and_nothing_said() -> None:
    shadow = Policy(reserve="shadow", confirm="shadow", cancel="shadow", notify="shadow", payment_request="none")
    story = a_held_order(shadow).expect("awaiting_payment", outcome="shadow")
    story.when(paid()).expect("completed", *COMMITS, outcome="shadow")
    withheld = [step.what for step in story.saga.timeline if step.detail == "shadow"]
    assert withheld == ["inventory.stock.reserved", "order.confirmed", "SendMail"]
    story.expect_nothing_new(confirmed_by_others(), outcome="duplicate")
    lost = a_held_order(shadow).when(payment_failed(retryable=False)).expect("closed", *RELEASES, outcome="shadow")
    assert {output.announce for output in lost.outputs} == {False}


# ---- duplicates, echoes, the record ---------------------------------------------------------------------


def test_an_event_seen_before_changes_nothing() -> None:
    story = a_confirmed_order()
    story.expect_nothing_new(replace(noted(), event_id="EVENT-1"), outcome="duplicate")


def test_a_second_order_created_is_a_duplicate() -> None:
    an_order().expect_nothing_new(ordered(("HONEY", 9)), outcome="duplicate")


def test_our_own_echo_changes_nothing() -> None:
    for ours in (confirmed_by_others(), cancelled_by(), mail_sent_by_others(), noted()):
        echo = replace(ours, ours=True)
        a_held_order().expect_nothing_new(echo, outcome="ignored")
        Story().expect_nothing_new(echo, outcome="ignored")


def test_facts_that_change_nothing_stand_in_the_timeline() -> None:
    story = a_confirmed_order().when(delivered(), refund_processed(), noted("payment.initiated")).expect("confirmed")
    assert [step.what for step in story.saga.timeline[-3:]] == [
        "order.delivered",
        "payment.refund.processed",
        "payment.initiated",
    ]


def test_what_is_remembered_is_bounded() -> None:
    story = a_held_order().when(*(noted() for _ in range(300)))
    assert len(story.saga.seen) == MAX_SEEN
    assert len(story.saga.timeline) == MAX_TIMELINE
    assert story.saga.seen[-1] == "EVENT-303"


def test_the_same_messages_say_the_same_with_the_same_ids() -> None:
    assert a_completed_order().history == a_completed_order().history
