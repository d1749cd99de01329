"""Orders from the first message to the mail, over the real log: what is reserved, refused, parked and told twice."""

import pytest

from app.domain.messages import Reserve
from app.domain.order_saga import MAX_PARKED
from tests.flows.conftest import Opens
from tests.flows.market import NOW, STOCK, Market

RESERVED = "inventory.stock.reserved"


@pytest.mark.core
async def test_an_order_is_reserved_paid_confirmed_and_its_customer_told(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    assert market.saga("order-1").state == "awaiting_payment"
    assert market.shelf("aceite") == (50, 2, 48)
    assert market.subjects() == [RESERVED, "payment.initiated"]

    await market.paid("order-1")
    assert market.saga("order-1").state == "completed"
    assert market.shelf("aceite") == (48, 0, 48)
    assert market.subjects()[2:] == ["order.confirmed", "notification.email.sent"]
    [mail] = market.box.mails
    assert mail["To"] == "cliente@jaen.example"


# ---- whole or not at all --------------------------------------------------------------------------------


@pytest.mark.embedded_only("a lane is stepped record by record")
async def test_an_order_of_several_products_is_announced_once_all_of_them_are_held(market: Market) -> None:
    await market.stock_is(aceite=50, queso=25, miel=3)
    await market.restart(without=[STOCK])
    await market.order("order-1", ("aceite", 2), ("queso", 1), ("miel", 3))
    assert market.saga("order-1").state == "reserving"
    for product in ("miel", "aceite"):
        await market.answers(STOCK, product)
        assert market.saga("order-1").state == "reserving"
        assert market.subjects() == []

    await market.answers(STOCK, "queso")
    assert market.saga("order-1").state == "awaiting_payment"
    assert market.subjects("order-1") == [RESERVED, RESERVED, RESERVED, "payment.initiated"]
    reserved = {payload["aggregateId"]: payload["eventData"] for _, payload in market.said(RESERVED)}
    assert {name: (said["quantityReserved"], said["remainingStock"]) for name, said in reserved.items()} == {
        "aceite": (2, 48), "queso": (1, 24), "miel": (3, 0),
    }  # fmt: skip
    assert market.only("payment.initiated")["eventData"]["amount"] == 25.0


@pytest.mark.core
async def test_one_refusal_releases_the_others_and_nothing_is_announced_as_reserved(market: Market) -> None:
    await market.stock_is(aceite=50, jamon=15, queso=25)
    await market.order("order-1", ("aceite", 2), ("jamon", 99), ("queso", 1))
    assert market.saga("order-1").state == "closed"
    assert [market.shelf(product) for product in ("aceite", "jamon", "queso")] == [
        (50, 0, 50),
        (15, 0, 15),
        (25, 0, 25),
    ]
    assert market.subjects() == ["order.cancelled", "notification.email.sent"]
    cancelled = market.only("order.cancelled")["eventData"]
    assert cancelled["reason"] == "Stock insuficiente para producto jamon"
    assert (cancelled["cancelledBy"], cancelled["refundRequired"], cancelled["notificationSent"]) == (
        "system",
        False,
        True,
    )
    [mail] = market.box.mails
    assert mail["Subject"] == "Orden #order-1 cancelada"


@pytest.mark.embedded_only("a lane is stepped record by record")
async def test_a_refusal_takes_back_what_was_held_before_it_and_what_is_held_after_it(market: Market) -> None:
    await market.stock_is(aceite=50, jamon=1, queso=25)
    await market.restart(without=[STOCK])
    await market.order("order-1", ("aceite", 2), ("jamon", 2), ("queso", 1))
    await market.answers(STOCK, "aceite")
    assert market.shelf("aceite") == (50, 2, 48)
    await market.answers(STOCK, "jamon")
    assert market.saga("order-1").state == "closed"

    await market.restart()  # queso's Reserve and both Releases come now
    assert market.shelf("aceite") == (50, 0, 50)
    assert market.shelf("queso") == (25, 0, 25)
    assert RESERVED not in market.subjects()
    assert "inventory.stock.released" not in market.subjects()


async def test_two_lines_of_one_product_are_one_reservation(market: Market) -> None:
    await market.stock_is(aceite=5)
    await market.order("order-1", ("aceite", 2), ("aceite", 3))
    assert market.shelf("aceite") == (5, 5, 0)
    assert [said["quantityReserved"] for said in market.facts(RESERVED)] == [5]


async def test_two_lines_of_one_product_are_refused_when_only_one_of_them_fits(market: Market) -> None:
    await market.stock_is(aceite=4)
    await market.order("order-1", ("aceite", 2), ("aceite", 3))
    assert market.saga("order-1").state == "closed"
    assert market.shelf("aceite") == (4, 0, 4)


async def test_an_unknown_product_cancels_the_order_and_makes_no_row(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2), ("perfume", 1))
    assert market.saga("order-1").state == "closed"
    assert market.only("order.cancelled")["eventData"]["reason"] == "Stock insuficiente para producto perfume"
    assert list(market.rows()["inventory"]) == ["aceite"]


async def test_the_last_piece_goes_to_one_of_two_orders(market: Market) -> None:
    await market.stock_is(aceite=1)
    await market.order("order-1", ("aceite", 1))
    await market.order("order-2", ("aceite", 1))
    assert (market.saga("order-1").state, market.saga("order-2").state) == ("awaiting_payment", "closed")
    assert market.shelf("aceite") == (1, 1, 0)


async def test_a_hold_that_no_order_owns_is_released(market: Market) -> None:
    await market.stock_is(aceite=50)
    reserve = Reserve(event_id="r-1", key="aceite", at=NOW, order_id="nobody", quantity=2, expires_at=NOW + 1800)
    await market.tell(reserve)
    assert market.shelf("aceite") == (50, 0, 50)
    assert market.stock("aceite").ended == {"nobody": "released"}
    assert market.rows()["order_sagas"] == {}
    assert market.subjects() == []


async def test_stock_that_never_answers_ends_as_an_expired_reservation(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.restart(without=[STOCK])
    await market.order("order-1", ("aceite", 2))
    await market.later(1799)
    assert market.saga("order-1").state == "reserving"
    await market.later(1)
    assert market.saga("order-1").state == "closed"
    assert market.only("order.cancelled")["eventData"]["reason"] == "Reserva caducada"

    await market.restart()
    assert market.shelf("aceite") == (50, 0, 50)
    assert market.subjects() == ["order.cancelled", "notification.email.sent"]


# ---- earlier than the order -----------------------------------------------------------------------------


async def test_facts_before_the_order_wait_and_are_applied_when_it_comes(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.paid("order-1")
    await market.mailed_elsewhere("order-1")
    saga = market.saga("order-1")
    assert (saga.state, len(saga.parked)) == ("parked", 2)
    assert market.subjects() == []

    await market.order("order-1", ("aceite", 2))
    saga = market.saga("order-1")
    assert (saga.state, saga.parked, saga.paid) == ("completed", (), {"pay-1": 25.0})
    assert market.shelf("aceite") == (48, 0, 48)
    assert market.subjects() == [RESERVED, "order.confirmed"]
    assert market.box.mails == []  # another service had sent it


async def test_a_parked_cancellation_leaves_nothing_reserved(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.customer_cancels("order-1")
    await market.order("order-1", ("aceite", 2))
    saga = market.saga("order-1")
    assert (saga.state, saga.cancelled_by, saga.cancel_reason) == ("closed", "customer", "Ya no lo quiero")
    assert market.shelf("aceite") == (50, 0, 50)
    assert market.subjects() == ["notification.email.sent"]


async def test_a_parked_payment_of_a_refused_order_is_refunded(market: Market) -> None:
    await market.stock_is(aceite=1)
    await market.paid("order-1")
    await market.order("order-1", ("aceite", 2))
    assert market.saga("order-1").state == "closed"
    assert market.only("payment.refund.initiated")["eventData"]["originalPaymentId"] == "pay-1"
    cancelled = market.only("order.cancelled")["eventData"]
    assert (cancelled["refundRequired"], cancelled["refundAmount"]) == (True, 25.0)


async def test_fifty_facts_wait_for_an_order_and_the_next_calls_for_attention(market: Market) -> None:
    await market.stock_is(aceite=50)
    for number in range(MAX_PARKED + 1):
        await market.updated("order-1", event_id=f"update-{number}")
    saga = market.saga("order-1")
    assert (saga.state, len(saga.parked)) == ("parked", MAX_PARKED)
    assert saga.attention == "too many facts before order.created"

    await market.order("order-1", ("aceite", 2))
    assert market.saga("order-1").state == "awaiting_payment"


# ---- told again -----------------------------------------------------------------------------------------


async def test_every_fact_told_twice_changes_nothing_the_second_time(market: Market) -> None:
    await market.stock_is(aceite=50)

    async def twice(tell: str, **details: object) -> None:
        event_id = await getattr(market, tell)("order-1", **details)
        rows, said = market.rows(), market.said()
        await getattr(market, tell)("order-1", **details, event_id=event_id)
        assert market.rows() == rows, tell
        assert market.said() == said, tell

    event_id = await market.order("order-1", ("aceite", 2))
    rows, said = market.rows(), market.said()
    await market.order("order-1", ("aceite", 2), event_id=event_id)
    assert (market.rows(), market.said()) == (rows, said)

    await twice("payment_fails", retryable=True)
    await twice("paid")
    await twice("confirmed_elsewhere")
    await twice("delivered")
    await twice("updated")
    await twice("customer_cancels")
    await twice("refunded")
    assert market.saga("order-1").state == "closed"
    assert len(market.box.mails) == 2


async def test_an_order_told_again_with_another_event_id_is_the_same_order(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    saga = market.saga("order-1")
    await market.order("order-1", ("aceite", 7))
    assert market.saga("order-1") == saga
    assert market.shelf("aceite") == (50, 2, 48)


@pytest.mark.parametrize("again", [1, 2])
async def test_a_command_that_stock_hears_twice_is_answered_twice_and_done_once(market: Market, again: int) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    [asked] = [record for record in market.records("stock-commands") if b"Reserve" in (record.value or b"")]
    rows, said = market.rows(), market.said()
    for _ in range(again):
        await market.again("stock-commands", asked)
    answers = market.records("saga-replies")
    assert len(answers) == 1 + again
    assert len({answer.value for answer in answers}) == 1
    assert (market.rows(), market.said()) == (rows, said)


async def test_our_own_echo_changes_nothing(open_market: Opens) -> None:
    market = await open_market(role_notify="shadow")
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.paid("order-1")
    await market.order("order-2", ("aceite", 1))
    await market.payment_fails("order-2", retryable=False)
    rows, said = market.rows(), market.said()
    for record in [record for record in market.records("outbound") if record.value]:
        subject = dict(record.headers)["a4co-subject"].decode()
        await market.hear(subject, record.value or b"", (record.key or b"").decode(), ("a4co-ours", b"1"))
    assert (market.rows(), market.said()) == (rows, said)
    assert {subject for subject, _ in said} >= {"order.confirmed", "order.cancelled", "inventory.stock.released"}


async def test_an_echo_of_ours_about_an_order_that_is_unknown_here_makes_no_row(market: Market) -> None:
    await market.customer_cancels("order-1")
    [record] = market.records("orders")
    await market.hear("order.cancelled", record.value or b"", "order-2", ("a4co-ours", b"1"))
    assert list(market.rows()["order_sagas"]) == ["order-1"]


# ---- what changes nothing -------------------------------------------------------------------------------


async def test_deliveries_refunds_and_updates_stand_in_the_timeline_only(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.paid("order-1")
    said = market.said()
    await market.updated("order-1")
    await market.delivered("order-1")
    await market.refunded("order-1")
    saga = market.saga("order-1")
    assert saga.state == "completed"
    assert [step.what for step in saga.timeline[-3:]] == [
        "order.updated",
        "order.delivered",
        "payment.refund.processed",
    ]
    assert market.said() == said


async def test_users_and_other_services_words_about_stock_are_mirrored_and_change_nothing(market: Market) -> None:
    await market.stock_is(aceite=50)
    rows = market.rows()
    await market.say("user.registered", "UserRegisteredEvent", "user-1", {"email": "ana@jaen.example"})
    await market.say(RESERVED, "StockReservedEvent", "aceite", {"orderId": "order-9", "quantityReserved": 3})
    await market.say("inventory.stock.warning", "LowStockWarningEvent", "aceite", {"currentStock": 3})
    await market.say("inventory.stock.low", "LowStockWarningEvent", "aceite", {"currentStock": 3})
    assert (market.rows(), market.said()) == (rows, [])
    assert len(market.records("users")) == 1
    assert len(market.records("stock")) == 3
