"""Orders from the first message to the mail, over the real log."""

from tests.flows.market import Market


async def test_an_order_is_reserved_paid_confirmed_and_its_customer_told(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    assert market.saga("order-1").state == "awaiting_payment"
    assert market.shelf("aceite") == (50, 2, 48)
    assert market.subjects() == ["inventory.stock.reserved", "payment.initiated"]

    await market.paid("order-1")
    assert market.saga("order-1").state == "completed"
    assert market.shelf("aceite") == (48, 0, 48)
    assert market.subjects()[2:] == ["order.confirmed", "notification.email.sent"]
    [mail] = market.box.mails
    assert mail["To"] == "cliente@jaen.example"
