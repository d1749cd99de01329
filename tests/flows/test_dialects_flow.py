"""Whoever asks in a dialect is answered in it, field by field: the same order told in A, B and C over the real log."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Opens
from tests.flows.market import Market

FIXTURES = Path(__file__).parents[2] / "app" / "asyncapi" / "samples"
AT_EIGHT = "2027-01-15T08:00:00.000Z"  # the market's NOW in the wire's form


def captured(dialect: str) -> list[tuple[str, dict[str, Any]]]:
    """(subject, payload) of what the marketplace's own services said."""
    lines = (FIXTURES / f"dialect-{dialect}.jsonl").read_text("utf-8").splitlines()
    return [(line["subject"], json.loads(line["payload"])) for line in map(json.loads, lines)]


CREATED_C, RESERVED_C, CONFIRMED_C, FAILED_C = (payload for _, payload in captured("c"))


def a_created_order_of_c(**changes: Any) -> dict[str, Any]:
    """The captured one, with an address for the mail."""
    envelope = CREATED_C["data"]
    return CREATED_C | {"data": envelope | {"data": envelope["data"] | {"customerEmail": "ana@jaen.example"} | changes}}


def heard_in_c(market: Market, subject: str) -> dict[str, Any]:
    """The data of our one message on the subject, once its envelope has been checked."""
    payload = market.only(subject)
    assert set(payload) == {"pattern", "data"}
    envelope = payload["data"]
    assert payload["pattern"] == envelope["eventType"] == subject
    assert set(envelope) == {"eventId", "eventType", "correlationId", "timestamp", "data", "payload", "metadata"}
    assert envelope["correlationId"] == CREATED_C["data"]["correlationId"]
    assert envelope["timestamp"] == AT_EIGHT
    assert envelope["data"] == envelope["payload"]
    return envelope["data"]  # type: ignore[no-any-return]


# ---- dialect A ------------------------------------------------------------------------------------------


async def test_an_order_of_a_is_answered_in_as_envelope(market: Market) -> None:
    await market.stock_is(aceite=50)
    created = await market.order("order-1", ("aceite", 2))
    paid = await market.paid("order-1")
    sources = {"inventory.stock.reserved": "inventory-service", "payment.initiated": "payment-service",
               "order.confirmed": "order-service", "notification.email.sent": "notification-service"}  # fmt: skip
    types = {"inventory.stock.reserved": "StockReservedEvent", "payment.initiated": "PaymentInitiatedEvent",
             "order.confirmed": "OrderConfirmedEvent", "notification.email.sent": "EmailSentEvent"}  # fmt: skip
    assert market.subjects() == list(sources)
    for subject, said in market.said():
        assert set(said) == {
            "eventId", "eventType", "aggregateId", "eventVersion", "occurredOn", "eventData", "metadata",
        }  # fmt: skip
        assert (said["eventType"], said["eventVersion"], said["occurredOn"]) == (types[subject], 1, AT_EIGHT)
        metadata = said["metadata"]
        cause = metadata.pop("causationId")
        assert metadata == {
            "eventId": said["eventId"], "correlationId": f"c-{created}", "publishedAt": AT_EIGHT, "version": "1.0",
            "source": sources[subject],
        }  # fmt: skip
        assert subject != "order.confirmed" or cause == paid
    reserved = market.only("inventory.stock.reserved")
    assert reserved["aggregateId"] == "aceite"
    assert reserved["eventData"] == {
        "orderId": "order-1", "quantityReserved": 2, "remainingStock": 48,
        "reservationExpiry": "2027-01-15T08:30:00.000Z", "reservedAt": AT_EIGHT, "artisanId": "artisan-1",
    }  # fmt: skip
    asked = market.only("payment.initiated")["eventData"]
    assert asked.pop("paymentId") == market.only("payment.initiated")["aggregateId"]
    assert asked == {
        "orderId": "order-1", "customerId": "customer-1", "amount": 25.0, "currency": "EUR", "paymentMethod": "card",
        "paymentGateway": "stripe", "initiatedAt": AT_EIGHT, "attempt": 1,
    }  # fmt: skip
    confirmed = market.only("order.confirmed")
    assert confirmed["aggregateId"] == "order-1"
    tracking = confirmed["eventData"].pop("trackingNumber")
    assert (tracking[:3], tracking[3:].isdigit(), len(tracking)) == ("TRK", True, 16)
    assert confirmed["eventData"] == {
        "confirmedAt": AT_EIGHT, "estimatedDelivery": "2027-01-18T08:00:00.000Z", "paymentReference": "txn-pay-1",
        "artisanNotified": True,
    }  # fmt: skip


async def test_a_lost_order_of_a_is_answered_with_as_fields(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.payment_fails("order-1", retryable=False)
    await market.paid("order-1", "pay-2")
    assert market.only("order.cancelled")["eventData"] == {
        "reason": "Pago fallido: Tarjeta rechazada por el banco", "cancelledAt": AT_EIGHT, "cancelledBy": "system",
        "refundRequired": False, "notificationSent": True,
    }  # fmt: skip
    released = market.only("inventory.stock.released")
    assert released["aggregateId"] == "aceite"
    assert released["eventData"] == {
        "orderId": "order-1", "quantityReleased": 2, "reason": "payment-failed", "newStock": 50, "releasedAt": AT_EIGHT,
        "artisanId": "artisan-1",
    }  # fmt: skip
    assert market.only("payment.refund.initiated")["eventData"] == {
        "originalPaymentId": "pay-2", "orderId": "order-1", "amount": 25.0, "currency": "EUR",
        "reason": "Pago recibido tras la cancelación",
    }  # fmt: skip


async def test_the_captured_conversation_of_the_existing_services_plays_through(market: Market) -> None:
    await market.stock_is(product_aceite_picual=50, product_queso_cabra=25, product_jamon_iberico=15)
    for subject, payload in captured("a"):
        await market.hear(subject, payload)
    sagas = list(market.rows()["order_sagas"].values())
    assert sorted((saga.state.value, saga.attention or "") for saga in sagas) == [
        ("closed", ""),
        ("closed", ""),
        ("completed", "amount-differs: paid 25.5, total 25"),
    ]
    shelves = {product: market.shelf(product) for product in market.rows()["inventory"]}
    assert shelves == {
        "product_aceite_picual": (48, 0, 48),
        "product_queso_cabra": (25, 0, 25),
        "product_jamon_iberico": (15, 0, 15),
    }
    assert len(market.said("order.confirmed")) == 1
    assert len(market.said("order.cancelled")) == 1  # the other one was cancelled by the order service
    assert len(market.box.mails) == 3


# ---- dialect B ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["confirmed", "cancelled", "refused", "returned"])
async def test_an_order_of_b_is_answered_as_in_a_on_v1_subjects(open_market: Opens, end: str) -> None:
    async def story(market: Market) -> None:
        await market.shelves([("aceite", 5, 4)])
        await market.order("order-1", ("aceite", 9 if end == "refused" else 2), event_id="created")
        if end == "cancelled":
            await market.payment_fails("order-1", retryable=False, event_id="failed")
            await market.paid("order-1", event_id="paid")
        if end in ("confirmed", "returned"):
            await market.paid("order-1", event_id="paid")
        if end == "returned":
            await market.customer_cancels("order-1", event_id="cancelled")

    in_a, in_b = await open_market(), await open_market()
    in_b.suffix = ".v1"
    await story(in_a)
    await story(in_b)
    about_stock = "inventory.stock.warning"
    expected = [(subject if subject == about_stock else f"{subject}.v1", said) for subject, said in in_a.said()]
    assert in_b.said() == expected
    assert len(expected) >= 2


# ---- dialect C ------------------------------------------------------------------------------------------


async def test_an_order_of_c_is_answered_in_c_from_the_reservation_to_the_mail(market: Market) -> None:
    await market.stock_is(p1=50)
    await market.hear("order.created.v1", a_created_order_of_c())
    await market.hear("payment.confirmed.v1", CONFIRMED_C)
    assert market.saga("order-1").state == "completed"
    assert market.subjects() == [
        "inventory.reserved.v1", "payment.requested.v1", "order.confirmed.v1", "notification.email.sent.v1",
    ]  # fmt: skip

    reserved = heard_in_c(market, "inventory.reserved.v1")
    assert set(reserved) == set(RESERVED_C["data"]["data"])
    reservation = reserved["reservationId"]
    assert reservation.startswith("res-")
    assert reserved == {
        "reservationId": reservation, "orderId": "order-1",
        "expiresAt": "2027-01-15T08:30:00.000Z", "reservedAt": AT_EIGHT,
        "items": [{"reservationId": reservation, "productId": "p1", "quantity": 2, "reserved": 2}],
    }  # fmt: skip

    requested = heard_in_c(market, "payment.requested.v1")
    payment = requested.pop("paymentId")
    assert requested == {
        "orderId": "order-1", "customerId": "c1", "amount": 25, "currency": "EUR", "paymentMethod": "card",
        "paymentGateway": "stripe", "attempt": 1, "requestedAt": AT_EIGHT,
    }  # fmt: skip
    assert payment != "pay-1"

    confirmed = heard_in_c(market, "order.confirmed.v1")
    assert confirmed.items() >= {
        "orderId": "order-1", "customerId": "c1", "paymentId": "pay-1", "totalAmount": 25, "currency": "EUR",
        "paymentReference": "pi_1", "confirmedAt": AT_EIGHT,
    }.items()  # fmt: skip


async def test_a_lost_order_of_c_is_cancelled_and_released_in_c(market: Market) -> None:
    await market.stock_is(p1=50)
    await market.hear("order.created.v1", a_created_order_of_c())
    await market.hear("payment.failed.v1", FAILED_C)
    assert market.saga("order-1").state == "closed"
    cancelled = heard_in_c(market, "order.cancelled.v1")
    assert cancelled == {
        "orderId": "order-1", "customerId": "c1", "reason": "Pago fallido: card_declined", "cancelledAt": AT_EIGHT,
        "cancelledBy": "system", "refundRequired": False, "notificationSent": True,
    }  # fmt: skip
    [(_, payload)] = market.said("inventory.released.v1")
    released = payload["data"]["data"]
    assert payload["data"]["payload"] == released
    reservation = market.only("inventory.reserved.v1")["data"]["data"]["reservationId"]
    assert released == {
        "reservationId": reservation, "orderId": "order-1", "items": [{"productId": "p1", "quantity": 2}],
        "reason": "payment-failed", "releasedAt": AT_EIGHT,
    }  # fmt: skip
    assert not [subject for subject in market.subjects() if not subject.endswith(".v1")]


async def test_a_refused_order_of_c_hears_that_it_is_out_of_stock(market: Market) -> None:
    await market.stock_is(p1=1)
    await market.hear("order.created.v1", a_created_order_of_c())
    assert market.saga("order-1").state == "closed"
    assert heard_in_c(market, "inventory.out_of_stock.v1") == {
        "orderId": "order-1", "reason": "Stock insuficiente para producto p1", "failedAt": AT_EIGHT,
        "unavailableItems": [{"productId": "p1", "requestedQuantity": 2, "availableQuantity": 1}],
    }  # fmt: skip
    assert heard_in_c(market, "order.cancelled.v1")["reason"] == "Stock insuficiente para producto p1"


async def test_two_products_of_an_order_of_c_are_reserved_by_one_message(market: Market) -> None:
    await market.stock_is(p1=50, p2=50)
    items = [{"productId": product, "quantity": 1, "unitPrice": 12.5} for product in ("p1", "p2")]
    await market.hear("order.created.v1", a_created_order_of_c(items=items))
    items = heard_in_c(market, "inventory.reserved.v1")["items"]
    assert [(item["productId"], item["quantity"]) for item in items] == [("p1", 1), ("p2", 1)]


async def test_an_order_of_c_that_comes_unwrapped_or_as_payload_is_the_same_order(market: Market) -> None:
    await market.stock_is(p1=50)
    envelope = a_created_order_of_c()["data"]
    await market.hear("order.created.v1", envelope)
    saga, said = market.saga("order-1"), market.said()
    assert said[0][0] == "inventory.reserved.v1"
    await market.hear("order.created.v1", {"pattern": "order.created.v1", "data": envelope})
    data = envelope.pop("data")
    await market.hear("order.created.v1", envelope | {"payload": data})
    assert (market.saga("order-1"), market.said()) == (saga, said)


async def test_a_flat_order_of_c_has_no_event_id_and_is_still_heard_once(market: Market) -> None:
    await market.stock_is(p1=50)
    flat = {
        "pattern": "order.created.v1",
        "data": {"orderId": "order-7", "customerId": "c1", "totalAmount": 25, "timestamp": AT_EIGHT,
                 "items": [{"productId": "p1", "quantity": 2, "unitPrice": 12.5}]},
    }  # fmt: skip
    await market.hear("order.created.v1", flat)
    await market.hear("order.created.v1", flat)
    assert market.saga("order-7").state == "awaiting_payment"
    assert market.subjects() == ["inventory.reserved.v1", "payment.requested.v1"]
    requested = market.only("payment.requested.v1")["data"]
    assert (requested["correlationId"], requested["data"]["currency"]) == ("order-7", "EUR")

    paid = {"pattern": "payment.confirmed.v1", "data": {"orderId": "order-7", "paymentId": "pay-7", "amount": 25}}
    await market.hear("payment.confirmed.v1", paid)
    await market.hear("payment.confirmed.v1", paid)
    assert market.saga("order-7").state == "completed"
    assert market.subjects()[2:] == ["order.confirmed.v1"]


async def test_an_order_is_answered_in_its_own_dialect_whatever_the_payment_speaks(market: Market) -> None:
    await market.stock_is(p1=50)
    await market.hear("order.created.v1", a_created_order_of_c())
    await market.paid("order-1")
    await market.order("order-2", ("p1", 1))
    await market.hear(
        "payment.failed.v1", {"data": FAILED_C["data"]["data"] | {"orderId": "order-2"}, "eventId": "f-2"}
    )
    assert (market.saga("order-1").state, market.saga("order-2").state) == ("completed", "closed")
    assert {subject.endswith(".v1") for subject in market.subjects("order-1")} == {True}
    assert {subject.endswith(".v1") for subject in market.subjects("order-2")} == {False}


async def test_low_stock_is_said_in_a_whatever_the_order_speaks(market: Market) -> None:
    await market.shelves([("p1", 5, 4)])
    await market.hear("order.created.v1", a_created_order_of_c())
    assert market.only("inventory.stock.warning")["eventType"] == "LowStockWarningEvent"


async def test_a_retry_and_a_refund_of_an_order_of_c_are_in_c(market: Market) -> None:
    await market.stock_is(p1=50)
    await market.hear("order.created.v1", a_created_order_of_c())
    failed = FAILED_C["data"]
    await market.hear("payment.failed.v1", failed | {"data": failed["data"] | {"retryable": True}})
    assert market.saga("order-1").state == "payment_retry"
    await market.later(300)
    requests = [payload["data"]["data"] for _, payload in market.said("payment.requested.v1")]
    assert [request["attempt"] for request in requests] == [1, 2]
    await market.hear("payment.confirmed.v1", CONFIRMED_C)
    second = CONFIRMED_C["data"] | {"eventId": "second", "data": CONFIRMED_C["data"]["data"] | {"paymentId": "pay-2"}}
    await market.hear("payment.confirmed.v1", second)
    assert market.only("payment.refund.initiated.v1")["data"]["data"]["originalPaymentId"] == "pay-2"


async def test_an_order_that_another_service_of_c_gave_up_is_cancelled(market: Market) -> None:
    await market.stock_is(p1=50)
    await market.hear("order.created.v1", a_created_order_of_c())
    envelope = {"eventId": "f-1", "eventType": "order.failed.v1", "data": {"orderId": "order-1", "reason": "fraud"}}
    await market.hear("order.failed.v1", {"pattern": "order.failed.v1", "data": envelope})
    saga = market.saga("order-1")
    assert (saga.state, saga.cancel_reason) == ("closed", "fraud")
    assert market.shelf("p1") == (50, 0, 50)
