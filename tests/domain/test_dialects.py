"""The wire, read and written: the fixtures are what existing services really published."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.dialects import Outgoing, Undecodable, decode, encode, key_of
from app.domain.messages import (
    Announce,
    EmailSent,
    Line,
    Noted,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderDelivered,
    PaymentFailed,
    PaymentSucceeded,
    RefundProcessed,
    StockMoved,
)
from tests.domain.saga_story import (
    Story,
    a_confirmed_order,
    a_held_order,
    an_order,
    held,
    mail_delivered,
    ordered,
    refused,
)

FIXTURES = Path(__file__).parents[2] / "app" / "asyncapi" / "samples"
AT = 1_795_521_600.0


def fixtures() -> Iterator[tuple[str, bytes]]:
    for dialect in ("a", "c"):
        for line in (FIXTURES / f"dialect-{dialect}.jsonl").read_text().splitlines():
            sample = json.loads(line)
            yield sample["subject"], sample["payload"].encode()


def fixture(subject: str, having: str = "") -> dict[str, Any]:
    """The first sample of that subject that contains `having`."""
    return next(json.loads(payload) for name, payload in fixtures() if name == subject and having in payload.decode())


def a(subject: str, data: dict[str, Any], aggregate: str = "ORDER-1", **envelope: Any) -> tuple[str, bytes]:
    whole = {
        "eventId": "EVENT-1",
        "eventType": "SomeEvent",
        "aggregateId": aggregate,
        "eventVersion": 1,
        "occurredOn": "2026-11-24T12:00:00.000Z",
        "eventData": data,
        "metadata": {"correlationId": "CORR", "version": "1.0"},
    }
    return subject, orjson.dumps(whole | envelope)


def c(subject: str, data: dict[str, Any], *, wrapped: bool = True) -> tuple[str, bytes]:
    envelope = {"eventId": "EVENT-1", "eventType": subject, "correlationId": "CORR", "timestamp": "now", "data": data}
    return subject, orjson.dumps({"pattern": subject, "data": envelope} if wrapped else envelope)


ORDER_DATA: dict[str, Any] = {
    "customerId": "ANA",
    "customerEmail": "ana@jaen.example",
    "items": [{"productId": "HONEY", "quantity": 2, "unitPrice": 6.5, "productName": "Miel", "artisanId": "MARIA"}],
    "totalAmount": 13,
    "currency": "EUR",
}
ORDER_CREATED = OrderCreated(
    event_id="EVENT-1",
    key="ORDER-1",
    at=AT,
    source="order.created",
    customer_id="ANA",
    customer_email="ana@jaen.example",
    lines=(Line("HONEY", 2, 6.5, "Miel", "MARIA"),),
    total=13,
    correlation_id="CORR",
)


# ---- reading --------------------------------------------------------------------------------------------


def test_every_fixture_is_understood_and_keyed_as_it_is_mirrored() -> None:
    read = [(subject, decode(subject, payload, at=AT), key_of(subject, payload)) for subject, payload in fixtures()]
    assert len(read) == 16
    for subject, message, key in read:
        if subject.startswith("inventory."):
            assert message is None, "another service's hold is nothing for us"
            assert key in ("product_aceite_picual", "product_queso_cabra", "p1")
        else:
            assert message is not None
            assert message.key == key
            assert key.startswith("order")


def test_an_order_says_the_same_in_every_dialect() -> None:
    assert decode(*a("order.created", ORDER_DATA), at=AT) == ORDER_CREATED
    b = decode(*a("order.created.v1", ORDER_DATA), at=AT)
    assert b == replace(ORDER_CREATED, dialect="b", source="order.created.v1")
    spoken = {"orderId": "ORDER-1"} | ORDER_DATA
    for wrapped in (True, False):
        shared = decode(*c("order.created.v1", spoken, wrapped=wrapped), at=AT)
        assert shared == replace(ORDER_CREATED, dialect="c", source="order.created.v1")


def test_our_own_form_of_dialect_c_is_understood() -> None:
    data = {"orderId": "ORDER-1", "reason": "no stock"}
    envelope = {"eventId": "EVENT-1", "data": data, "payload": data}
    subject = "order.cancelled.v1"
    for body in ({"pattern": subject, "data": envelope}, {"eventId": "EVENT-1", "payload": data}):
        message = decode(subject, orjson.dumps(body), at=AT)
        assert isinstance(message, OrderCancelled)
        assert (message.key, message.reason, message.cancelled_by) == ("ORDER-1", "no stock", "system")


def test_a_flat_message_gets_its_id_from_its_content() -> None:
    flat = {"orderId": "ORDER-1", "timestamp": "now"} | ORDER_DATA
    subject = "order.created.v1"
    backwards = dict(reversed(list(flat.items())))
    told = [
        decode(subject, orjson.dumps(body), at=AT)
        for body in ({"pattern": subject, "data": flat}, flat, backwards, flat | {"timestamp": "later"})
    ]
    assert all(isinstance(message, OrderCreated) for message in told)
    ids = [message.event_id for message in told if message is not None]
    assert ids[0] == ids[1] == ids[2]
    assert ids[3] != ids[0]


PAID = {"orderId": "ORDER-1", "amount": 25.5, "currency": "EUR"}


@pytest.mark.parametrize(
    ("message", "kind", "fields"),
    [
        (
            a("payment.succeeded", PAID | {"transactionId": "TXN-1"}, "PAY-1"),
            PaymentSucceeded,
            {"payment_id": "PAY-1", "transaction_id": "TXN-1", "amount": 25.5, "dialect": "a"},
        ),
        (
            c("payment.confirmed.v1", PAID | {"paymentId": "PAY-1", "paymentIntentId": "PI-1"}),
            PaymentSucceeded,
            {"payment_id": "PAY-1", "transaction_id": "PI-1", "dialect": "c"},
        ),
        (
            c("payment.confirmed.v1", PAID | {"paymentId": "PAY-1"}),
            PaymentSucceeded,
            {"payment_id": "PAY-1", "transaction_id": "PAY-1"},
        ),
        (
            a("payment.failed", {"orderId": "ORDER-1", "errorMessage": "no", "retryable": True}, "PAY-1"),
            PaymentFailed,
            {"payment_id": "PAY-1", "error_message": "no", "retryable": True},
        ),
        (
            c("payment.failed.v1", {"orderId": "ORDER-1", "paymentId": "PAY-1", "reason": "declined"}),
            PaymentFailed,
            {"error_message": "declined", "retryable": False},
        ),
        (
            c("payment.failed.v1", {"orderId": "ORDER-1", "paymentId": "PAY-1", "retryable": True}),
            PaymentFailed,
            {"retryable": True},
        ),
        (c("order.failed.v1", {"orderId": "ORDER-1", "reason": "lost"}), OrderCancelled, {"reason": "lost"}),
        (a("order.confirmed", {"paymentReference": "TXN-1"}), OrderConfirmed, {"payment_reference": "TXN-1"}),
        (c("order.confirmed.v1", {"orderId": "ORDER-1", "paymentId": "P"}), OrderConfirmed, {"payment_reference": "P"}),
        (a("order.delivered", {"recipientName": "Ana"}), OrderDelivered, {"recipient": "Ana"}),
        (c("shipment.delivered.v1", {"orderId": "ORDER-1"}), OrderDelivered, {"recipient": None}),
        (c("payment.processing.v1", {"orderId": "ORDER-1"}), Noted, {"kind": "payment.processing"}),
        (a("order.updated", {}), Noted, {"kind": "order.updated"}),
        (a("payment.initiated", {"orderId": "ORDER-1"}, "PAY-1"), Noted, {"kind": "payment.initiated"}),
        (a("payment.cancelled.v1", {"orderId": "ORDER-1"}), Noted, {"kind": "payment.cancelled", "dialect": "b"}),
        (a("notification.sms.sent", {"orderId": "ORDER-1"}), Noted, {"kind": "notification.sms.sent"}),
        (
            a("payment.refund.processed", {"orderId": "ORDER-1", "originalPaymentId": "PAY-1", "amount": 1}, "R"),
            RefundProcessed,
            {"payment_id": "PAY-1", "amount": 1},
        ),
        (
            a("notification.email.sent", {"template": "t", "variables": {"orderId": "ORDER-1"}}, "MAIL"),
            EmailSent,
            {"template": "t"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_each_subject_has_its_meaning(message: tuple[str, bytes], kind: type, fields: dict[str, Any]) -> None:
    read = decode(*message, at=AT)
    assert type(read) is kind
    assert read is not None
    assert (read.key, read.event_id, read.at, read.source) == ("ORDER-1", "EVENT-1", AT, message[0])
    assert {name: getattr(read, name) for name in fields} == fields
    assert key_of(*message) == read.key


@pytest.mark.parametrize(
    ("message", "change", "new_stock"),
    [
        (a("inventory.stock.updated", {"newStock": 7, "changeAmount": -3}, "HONEY"), -3, 7),
        (a("inventory.stock.updated.v1", {"currentStock": 7}, "HONEY"), None, 7),
        (a("inventory.stock.replenished", {"quantityAdded": 5, "newStock": 12}, "HONEY"), 5, 12),
        (a("inventory.stock.replenished", {"changeAmount": 5}, "HONEY"), 5, None),
        (a("inventory.stock.depleted", {}, "HONEY"), None, 0),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_stock_that_moved_is_keyed_by_its_product(
    message: tuple[str, bytes], change: int | None, new_stock: int | None
) -> None:
    read = decode(*message, at=AT, ours=True)
    assert isinstance(read, StockMoved)
    assert (read.key, read.change, read.new_stock, read.ours) == ("HONEY", change, new_stock, True)
    assert key_of(*message) == "HONEY"


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (a("notification.email.sent", {"template": "welcome"}, "MAIL-1"), "MAIL-1"),
        (a("user.registered", {"email": "ana@jaen.example"}, "ANA"), "ANA"),
        (a("user.registered", {"userId": "ANA"}, None), "ANA"),  # type: ignore[arg-type]
        (a("inventory.stock.warning", {"currentStock": 1}, "HONEY"), "HONEY"),
        (a("inventory.stock.low", {"currentStock": 1}, "HONEY"), "HONEY"),
        (c("inventory.released.v1", {"orderId": "ORDER-1", "items": [{"productId": "HONEY"}]}), "HONEY"),
    ],
)
def test_what_is_nothing_for_the_rules_still_has_a_key(message: tuple[str, bytes], key: str) -> None:
    assert decode(*message, at=AT) is None
    assert key_of(*message) == key


def test_a_dead_letter_is_nothing_for_the_rules() -> None:
    assert decode("order.created.dlq", b"{}", at=AT) is None


def test_fields_that_nobody_named_do_no_harm() -> None:
    data = ORDER_DATA | {"giftWrap": {"ribbon": "red"}}
    assert decode(*a("order.created", data, sagaId="S", extra=[1]), at=AT) == ORDER_CREATED


# ---- what cannot be understood --------------------------------------------------------------------------


def order_with(**fields: Any) -> tuple[str, bytes]:
    return a("order.created", ORDER_DATA | fields)


def item_with(**fields: Any) -> tuple[str, bytes]:
    return order_with(items=[ORDER_DATA["items"][0] | fields])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (("order.created", b"not json"), "not-json"),
        (("order.created", b"[]"), "not-an-object"),
        (("order.created", b'{"a":' * 65 + b"1" + b"}" * 65), "too-deep"),
        (("order.created", b'{"eventId":"E"}'), "unknown-dialect"),
        (("order.created.v2", b"{}"), "unknown-version"),
        (("artisan.joined", orjson.dumps({"eventId": "E", "eventData": {}})), "unknown-subject"),
        (a("order.created", ORDER_DATA, eventVersion=2), "unknown-version"),
        (a("order.created", ORDER_DATA, eventVersion=True), "unknown-version"),
        (a("order.created", ORDER_DATA, metadata={"version": "2.1"}), "unknown-version"),
        (a("order.created", ORDER_DATA, eventId=None), "missing-event-id"),
        (a("order.created", ORDER_DATA, eventId=7), "wrong-type"),
        (a("order.created", ORDER_DATA, eventId="x" * 257), "wrong-type"),
        (a("order.created", ORDER_DATA, aggregateId=""), "missing-order-id"),
        (a("order.created", ORDER_DATA, aggregateId=["ORDER-1"]), "wrong-type"),
        (a("order.created", ORDER_DATA, eventData=[]), "wrong-type"),
        (order_with(items=[]), "wrong-type"),
        (order_with(items="HONEY"), "wrong-type"),
        (order_with(items=[{"productId": "HONEY"}]), "missing-field"),
        (order_with(items=[ORDER_DATA["items"][0]] * 10_001), "wrong-type"),
        (order_with(totalAmount=-1), "wrong-type"),
        (order_with(totalAmount="13"), "wrong-type"),
        (order_with(totalAmount=True), "wrong-type"),
        (order_with(customerId=""), "wrong-type"),
        (item_with(quantity=0), "wrong-type"),
        (item_with(quantity=-1), "wrong-type"),
        (item_with(quantity=1.0), "wrong-type"),
        (item_with(quantity=True), "wrong-type"),
        (item_with(quantity="2"), "wrong-type"),
        (item_with(quantity=1_000_001), "wrong-type"),
        (item_with(productId="p" * 257), "wrong-type"),
        (item_with(unitPrice=None), "wrong-type"),
        (a("payment.succeeded", {"amount": 1}, "PAY-1"), "missing-order-id"),
        (a("payment.succeeded", {"orderId": "ORDER-1", "amount": 1}, None), "missing-payment-id"),  # type: ignore[arg-type]
        (a("payment.succeeded", {"orderId": "ORDER-1"}, "PAY-1"), "missing-field"),
        (a("payment.failed", {"orderId": "ORDER-1", "retryable": "yes"}, "PAY-1"), "wrong-type"),
        (a("inventory.stock.updated", {}, "HONEY"), "missing-field"),
        (a("inventory.stock.updated", {"newStock": 1}, None), "missing-product-id"),  # type: ignore[arg-type]
        (a("inventory.stock.updated", {"newStock": -1}, "HONEY"), "wrong-type"),
        (a("user.registered", {}, None), "missing-user-id"),  # type: ignore[arg-type]
        (c("order.created.v1", ORDER_DATA), "missing-order-id"),
        (("order.created.v1", b'{"data":"text","orderId":"ORDER-1"}'), "wrong-type"),
        (("order.created.v1", orjson.dumps({"data": {"orderId": "ORDER-1"}})), "missing-event-id"),
    ],
)
def test_the_reason_is_a_stable_word(message: tuple[str, bytes], reason: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(*message, at=AT)
    assert caught.value.reason == reason


POISON = [
    b"",
    b" ",
    b"\x00",
    b"\xff\xfe\x00",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf{}",
    b"null",
    b"true",
    b"0",
    b"-0",
    b"1e400",
    b"-1e400",
    b"NaN",
    b"Infinity",
    b'"text"',
    b'"\\ud800"',
    b'{"\\udfff": 1}',
    b"[",
    b"{",
    b"{}",
    b"[]",
    b"[{}]",
    b"[" * 10_000,
    b"[" * 10_000 + b"]" * 10_000,
    b'{"data":' * 10_000,
    b'{"data":' * 500 + b"{}" + b"}" * 500,
    b'{"eventData":' + b"[" * 64 + b"]" * 64 + b"}",
    b'{"eventData": NaN}',
    b'{"eventData": null}',
    b'{"eventData": {}, "eventId": ""}',
    b'{"eventData": {}, "eventId": {}, "aggregateId": "x"}',
    b'{"eventData": {}, "eventId": "e", "aggregateId": "x"}',
    b'{"eventData": {}, "eventId": "\\u0000", "aggregateId": "\\u0000"}',
    b'{"eventData": {"orderId": "o", "amount": 1e308}, "eventId": "e", "aggregateId": "x"}',
    b'{"eventData": {"orderId": "o", "amount": 9' + b"9" * 400 + b'}, "eventId": "e", "aggregateId": "x"}',
    b'{"eventData": {"orderId": "o"}, "eventData": 1, "eventId": "e", "aggregateId": "x"}',
    b'{"eventData": {"variables": [1]}, "eventId": "e", "aggregateId": "x"}',
    b'{"eventData": {"items": {"productId": 1}}, "eventId": "e"}',
    b'{"eventData": {"items": [[[]]]}, "eventId": "e"}',
    b'{"eventData": {}, "eventVersion": [1], "eventId": "e"}',
    b'{"eventData": {}, "metadata": {"version": {"1": 1}}, "eventId": "e"}',
    b'{"eventData": {}, "metadata": {"version": null}, "eventId": "e"}',
    b'{"eventData": {}, "metadata": 7, "eventId": "e", "aggregateId": "x"}',
    b'{"pattern": null, "data": null}',
    b'{"pattern": {"cmd": 1}, "data": {"data": {"data": 1}}}',
    b'{"pattern": "p", "data": {"eventId": "e", "payload": [], "data": 1}}',
    b'{"orderId": 1}',
    b'{"orderId": "o"}',
    b'{"orderId": "o", "items": [null]}',
    b"'" * 1000,
]
SUBJECTS = [
    *("order.created", "order.created.v1", "order.confirmed.v1", "order.cancelled", "payment.succeeded"),
    *("payment.failed.v1", "inventory.stock.updated", "inventory.stock.depleted.v1", "inventory.reserved.v1"),
    *("notification.email.sent", "user.registered", "shipment.delivered.v1", "order.x.v99999999999999999999"),
    *("", ".", "order", "payment.", "$JS.API", "order.created.dlq"),
]


@pytest.mark.parametrize("payload", POISON, ids=lambda payload: repr(payload[:24]))
def test_poison_is_understood_or_named_and_nothing_else(payload: bytes) -> None:
    for subject in SUBJECTS:
        read_or_refuse(subject, payload)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SUBJECTS),
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["eventId", "eventData", "data", "payload", "pattern", "orderId", "items", "amount"]),
                inner,
            )
        ),
        max_leaves=12,
    ),
)
def test_any_json_is_understood_or_named_and_nothing_else(subject: str, body: Any) -> None:
    read_or_refuse(subject, json.dumps(body).encode())


def read_or_refuse(subject: str, payload: bytes) -> None:
    """Any other exception than Undecodable fails the test by itself."""
    message = key = None
    with suppress(Undecodable):
        message = decode(subject, payload, at=AT)
    with suppress(Undecodable):
        key = key_of(subject, payload)
    if message is not None:
        assert message.key == key


# ---- writing --------------------------------------------------------------------------------------------


def spoken(story: Story) -> list[tuple[str, dict[str, Any]]]:
    """Everything that the story announced, as it goes over the wire."""
    return [
        (outgoing.subject, json.loads(outgoing.payload))
        for output in story.history
        if isinstance(output, Announce)
        for outgoing in encode(output)
    ]


def shape(value: Any) -> Any:
    """Field names and JSON types, in no order; a whole number and a broken one are the same type."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name not in names}


def happy(dialect: str) -> Story:
    return a_confirmed_order(dialect=dialect).when(mail_delivered())


def test_dialect_a_is_written_as_the_fixtures_have_it() -> None:
    said = dict(spoken(happy("a")))
    cancelled = dict(spoken(an_order().when(refused("CHEESE"))))["order.cancelled"]
    mail = said["notification.email.sent"]
    assert set(said) == {
        *("inventory.stock.reserved", "payment.initiated", "order.confirmed", "notification.email.sent"),
    }
    for subject, ours in (said | {"order.cancelled": cancelled}).items():
        if subject == "payment.initiated":
            continue  # nobody sent one where the samples were taken
        theirs = fixture(subject)
        assert shape(without(ours, "eventData", "metadata")) == shape(without(theirs, "eventData", "metadata"))
        assert ours["eventType"] == theirs["eventType"]
        assert shape(without(ours["metadata"], "causationId")) == shape(theirs["metadata"])
        if subject != "notification.email.sent":
            assert shape(ours["eventData"]) == shape(theirs["eventData"])
        if subject != "order.cancelled":
            assert ours["metadata"]["source"] == theirs["metadata"]["source"]
    theirs = fixture("notification.email.sent")["eventData"]
    assert shape(mail["eventData"]) == shape(without(theirs, "recipientName"))
    assert cancelled["eventData"]["reason"] == "Stock insuficiente para producto CHEESE"
    assert cancelled["metadata"]["source"] == "order-service"


def test_the_envelope_of_dialect_a_is_complete() -> None:
    (said,) = encode(happy("a").history[-1])
    body = json.loads(said.payload)
    assert body["eventId"] == body["metadata"]["eventId"] == said.event_id
    assert body["eventVersion"] == 1
    assert body["metadata"]["version"] == "1.0"
    assert body["metadata"]["correlationId"] == "CORR"
    assert body["metadata"]["source"] == "notification-service"
    assert body["occurredOn"] == body["metadata"]["publishedAt"] == "2026-11-24T12:00:05.000Z"


def test_dialect_a_says_reserved_once_for_each_product() -> None:
    said = [body for subject, body in spoken(a_held_order()) if subject == "inventory.stock.reserved"]
    assert [(body["aggregateId"], body["eventData"]["quantityReserved"]) for body in said] == [
        ("CHEESE", 2),
        ("HONEY", 1),
    ]
    assert len({body["eventId"] for body in said}) == 2
    assert {body["metadata"]["source"] for body in said} == {"inventory-service"}


def test_dialect_b_is_dialect_a_on_v1_subjects() -> None:
    as_a, as_b = spoken(happy("a")), spoken(happy("b"))
    assert as_b == [(f"{subject}.v1", body) for subject, body in as_a]


def test_dialect_c_is_wrapped_and_has_the_data_twice() -> None:
    said = spoken(happy("c"))
    assert [subject for subject, _ in said] == [
        *("inventory.reserved.v1", "payment.requested.v1", "order.confirmed.v1", "notification.email.sent.v1"),
    ]
    for subject, body in said:
        envelope = body["data"]
        assert body["pattern"] == envelope["eventType"] == subject
        assert envelope["data"] == envelope["payload"]
        assert (
            without(envelope, "data", "payload", "metadata").keys()
            == without(fixture("payment.confirmed.v1")["data"], "data").keys()
        )
    ours, theirs = said[0][1]["data"]["data"], fixture("inventory.reserved.v1")["data"]["data"]
    assert shape(ours["items"][:1]) == shape(theirs["items"])
    assert shape(without(ours, "items")) == shape(without(theirs, "items"))
    assert len(ours["items"]) == 2


def test_dialect_c_has_its_own_words_for_a_refusal() -> None:
    said = spoken(an_order(dialect="c").when(held("HONEY"), refused("CHEESE")))
    assert [subject for subject, _ in said] == ["inventory.out_of_stock.v1", "order.cancelled.v1"]
    out, cancelled = (body["data"]["data"] for _, body in said)
    assert out["unavailableItems"] == [{"productId": "CHEESE", "requestedQuantity": 2, "availableQuantity": 1}]
    assert (cancelled["orderId"], cancelled["customerId"]) == ("ORDER-OF-ANA", "ANA")
    assert all(not subject.startswith("inventory") for subject, _ in spoken(an_order().when(refused("CHEESE"))))


def announcement(kind: str, dialect: str, **data: Any) -> Announce:
    return Announce(event_id="SAID-1", key="HONEY", at=AT, kind=kind, aggregate_id="HONEY", data=data, dialect=dialect)


@pytest.mark.parametrize(
    ("subject", "data"),
    [
        ("order.created", {"customerId": "ANA", "totalAmount": 1, "customerEmail": "x" * 9_000,
                           "items": [{"productId": "HONEY", "quantity": 1, "unitPrice": 1, "productName": "x" * 9_000,
                                      "artisanId": "x" * 9_000}]}),
        ("order.confirmed", {"paymentReference": "x" * 9_000}),
        ("order.confirmed", {"paymentId": "x" * 9_000}),
        ("order.cancelled", {"reason": "x" * 9_000, "cancelledBy": "x" * 9_000}),
        ("order.delivered", {"recipientName": "x" * 9_000}),
        ("payment.failed", {"orderId": "ORDER-1", "errorCode": "x" * 9_000, "errorMessage": "x" * 9_000}),
        ("notification.email.sent", {"orderId": "ORDER-1", "template": "x" * 9_000, "recipientEmail": "x" * 9_000}),
        ("inventory.stock.updated", {"newStock": 1, "artisanId": "x" * 9_000, "productName": "x" * 9_000,
                                     "category": "x" * 9_000}),
    ],
)  # fmt: skip
def test_no_text_that_is_kept_is_endless(subject: str, data: dict[str, Any]) -> None:
    """A row is written whole at each change."""
    message = decode(*a(subject, data), at=AT)
    assert "x" * 100 in repr(message)
    assert "x" * 501 not in repr(message)


def test_a_release_in_dialect_c_belongs_to_its_reservation() -> None:
    released = announcement(
        "inventory.stock.released", "c", orderId="ORDER-OF-ANA", quantityReleased=2, reason="r", releasedAt="t"
    )
    (said,) = encode(released)
    assert said.subject == "inventory.released.v1"
    data = json.loads(said.payload)["data"]["data"]
    assert data["items"] == [{"productId": "HONEY", "quantity": 2}]
    reserved = dict(spoken(a_held_order(dialect="c")))["inventory.reserved.v1"]["data"]["data"]
    assert data["reservationId"] == reserved["reservationId"]


@pytest.mark.parametrize("dialect", ["a", "b", "c"])
def test_a_warning_is_always_dialect_a(dialect: str) -> None:
    (said,) = encode(announcement("inventory.stock.warning", dialect, currentStock=1))
    assert said.subject == "inventory.stock.warning"
    assert json.loads(said.payload)["eventType"] == "LowStockWarningEvent"


@pytest.mark.parametrize(
    ("dialect", "subject"),
    [("a", "payment.refund.initiated"), ("b", "payment.refund.initiated.v1"), ("c", "payment.refund.initiated.v1")],
)
def test_a_refund_is_asked_for_in_the_orders_dialect(dialect: str, subject: str) -> None:
    assert encode(announcement("payment.refund.initiated", dialect, orderId="O"))[0].subject == subject


@pytest.mark.parametrize("dialect", ["a", "b", "c"])
def test_what_we_say_we_understand_ourselves(dialect: str) -> None:
    for output in happy(dialect).history:
        if isinstance(output, Announce):
            for said in encode(output):
                assert isinstance(said, Outgoing)
                heard = decode(said.subject, said.payload, at=AT, ours=True)
                assert heard is None or heard.event_id == said.event_id
                if not said.subject.startswith("inventory."):
                    assert heard is not None
                    assert heard.key == ordered().key
