"""Poison among good messages over the real log: it is kept with its reason and told, and its neighbours pass."""

import json
from typing import Any

import pytest

from app.engine.records import Send
from tests.flows.market import Market

GOOD: dict[str, Any] = {
    "eventId": "poison-1", "eventType": "PaymentSucceededEvent", "aggregateId": "pay-9", "eventVersion": 1,
    "eventData": {"orderId": "order-1", "transactionId": "txn-9", "amount": 25.0, "currency": "EUR"},
}  # fmt: skip


def but(**changes: Any) -> bytes:
    """The good payment with other fields; None takes a field away."""
    changed = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return json.dumps(changed).encode()


POISON: list[tuple[str, str, bytes]] = [
    ("not-json", "payment.succeeded", b'{"eventId": '),
    ("not-json", "payment.succeeded", b"\xff\xfe\x00"),
    ("not-json", "payment.succeeded", b""),
    ("not-an-object", "payment.succeeded", b"[1, 2]"),
    ("too-deep", "payment.succeeded", b'{"a":' * 70 + b"1" + b"}" * 70),
    ("unknown-dialect", "payment.succeeded", b'{"orderId": "order-1", "amount": 25}'),
    ("unknown-version", "payment.succeeded", but(eventVersion=2)),
    ("unknown-version", "payment.succeeded", but(metadata={"version": "2.0"})),
    ("missing-event-id", "payment.succeeded", but(eventId=None)),
    ("missing-order-id", "payment.succeeded", but(eventData={"transactionId": "t", "amount": 1})),
    ("missing-payment-id", "payment.succeeded", but(aggregateId=None)),
    ("missing-field", "payment.succeeded", but(eventData={"orderId": "order-1"})),
    ("wrong-type", "payment.succeeded", but(eventData={"orderId": "order-1", "amount": "25"})),
    ("wrong-type", "payment.succeeded", but(eventData={"orderId": "order-1", "amount": -1})),
    ("wrong-type", "payment.succeeded", but(eventData=[])),
    ("wrong-type", "order.created", but(eventData={"customerId": "c", "items": [], "totalAmount": 1})),
]


@pytest.fixture
async def shop(market: Market) -> Market:
    """A market that expects dead letters, with an order that waits for its payment."""
    market.expects_dead_letters = True
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    return market


@pytest.mark.parametrize(("reason", "subject", "payload"), POISON)
async def test_what_can_not_be_understood_is_kept_and_told_and_changes_nothing(
    shop: Market, reason: str, subject: str, payload: bytes
) -> None:
    rows = shop.rows()
    await shop.hear(subject, payload, "order-1", ("traceparent", b"00-1"))
    assert shop.rows() | {"dead_letters": {}} == rows
    [letter] = shop.records("dead-letters")
    assert (letter.key, letter.value) == (b"order-1", payload)
    [why] = shop.dead_letters()
    [heard] = [record for record in shop.records(why["a4co-topic"]) if record.value == payload]
    assert why["a4co-reason"] == reason
    assert why["a4co-error"].startswith(f"Undecodable: {reason}")
    assert (why["a4co-topic"], why["a4co-partition"], why["a4co-offset"]) == (
        heard.topic, str(heard.partition), str(heard.offset),
    )  # fmt: skip
    assert (why["a4co-subject"], why["traceparent"]) == (subject, "00-1")

    told = shop.only(f"{subject}.dlq")
    assert set(told) == {"originalSubject", "event", "error", "failedAt"}
    assert told["originalSubject"] == subject
    assert set(told["error"]) == {"message", "stack"}
    assert reason in told["error"]["message"]
    try:
        assert told["event"] == json.loads(payload)
    except ValueError:
        assert told["event"] == payload.decode(errors="replace")


@pytest.mark.core
async def test_the_neighbours_of_poison_are_undisturbed(shop: Market) -> None:
    """One batch of one partition: good, bad, good, bad, good."""
    await shop.order("order-2", ("aceite", 3))
    payments = {
        order: but(eventId=f"e-{order}", aggregateId=f"pay-{order}",
                   eventData={"orderId": order, "transactionId": "t", "amount": 25.0})
        for order in ("order-1", "order-2")
    }  # fmt: skip
    subject = (("a4co-subject", b"payment.succeeded"),)
    bad = Send("payments", b"order-1", b"rubbish", subject)
    good = [Send("payments", order.encode(), payload, subject) for order, payload in payments.items()]
    await shop.log.append([bad, good[0], bad, good[1], bad])
    await shop.settle()
    assert (shop.saga("order-1").state, shop.saga("order-2").state) == ("completed", "completed")
    assert shop.shelf("aceite") == (45, 0, 45)
    assert [letter["a4co-reason"] for letter in shop.dead_letters()] == ["not-json"] * 3
    assert len(shop.said("payment.succeeded.dlq")) == 3


async def test_a_thousand_poisoned_messages_hold_nobody_up(shop: Market) -> None:
    subject = (("a4co-subject", b"payment.succeeded"),)
    await shop.log.append([Send("payments", b"order-1", b"rubbish %d" % number, subject) for number in range(1000)])
    await shop.paid("order-1")
    assert shop.saga("order-1").state == "completed"
    assert len(shop.dead_letters()) == 1000


async def test_poison_about_stock_is_kept_and_the_shelf_stays(shop: Market) -> None:
    await shop.stock_moves("updated", "aceite", newStock="many")
    await shop.stock_moves("updated", "aceite", updatedBy="nobody")
    await shop.stock_moves("updated", "aceite", newStock=-1)
    assert shop.shelf("aceite") == (50, 2, 48)
    assert [letter["a4co-reason"] for letter in shop.dead_letters()] == ["wrong-type", "missing-field", "wrong-type"]
    assert len(shop.said("inventory.stock.updated.dlq")) == 3


@pytest.mark.parametrize("topic", ["stock-commands", "saga-replies", "timers"])
async def test_poison_in_an_internal_topic_is_kept_and_told_to_nobody(shop: Market, topic: str) -> None:
    said = shop.said()
    await shop.log.append([Send(topic, b"order-1", b"rubbish"), Send(topic, b"order-1", b'{"type":"Unheard"}')])
    await shop.settle()
    assert [letter["a4co-topic"] for letter in shop.dead_letters()] == [topic, topic]
    assert shop.said() == said
    await shop.paid("order-1")
    assert shop.saga("order-1").state == "completed"


@pytest.mark.core
async def test_poison_among_the_mails_is_kept_and_the_next_mail_goes_out(shop: Market) -> None:
    await shop.log.append([Send("mails", b"order-1", b"rubbish")])
    await shop.paid("order-1")
    assert shop.saga("order-1").state == "completed"
    assert [letter["a4co-topic"] for letter in shop.dead_letters()] == ["mails"]
    assert len(shop.box.mails) == 1


async def test_a_dead_letter_survives_a_restart_and_is_not_made_again(shop: Market) -> None:
    await shop.hear("payment.succeeded", b"rubbish", "order-1")
    letters, said = shop.records("dead-letters"), shop.said()
    await shop.restart()
    assert (shop.records("dead-letters"), shop.said()) == (letters, said)


async def test_what_other_services_could_not_use_is_no_news_for_us(shop: Market) -> None:
    rows = shop.rows()
    headers = (("a4co-subject", b"payment.succeeded.dlq"),)
    await shop.log.append([Send("payments", b"order-1", b"rubbish", headers)])
    await shop.settle()
    assert (shop.rows(), shop.dead_letters()) == (rows, [])


# ---- well formed and hostile ----------------------------------------------------------------------------


ADDRESSES = {
    "header-injected": "ana@jaen.example\r\nBcc: everybody@jaen.example",
    "line-break": "ana@jaen.example\nX-Evil: 1",
    "angle": "<",
    "name-and-angle": "ana <",
    "no-domain": "ana@",
    "quote": '"',
    "words": "not an address",
    "at": "@",
    "long": "a" * 5000 + "@jaen.example",
    "not-ascii": "añá@jaén.example",
    "two": "ana@jaen.example, eva@jaen.example",
    "nul": "\x00",
    "encoded": "=?utf-8?q?=",
    "angle-behind": "ana@jaen.example>",
}


@pytest.mark.parametrize("kind", list(ADDRESSES))
async def test_an_address_that_is_none_ends_the_order_and_stops_nobodys_mail(shop: Market, kind: str) -> None:
    await shop.order("order-2", ("aceite", 1), email=ADDRESSES[kind])
    await shop.paid("order-2", "pay-2")
    await shop.paid("order-1")
    await shop.later(30 + 60 + 120 + 240)
    assert shop.saga("order-1").state == "completed"
    assert shop.saga("order-2").state in ("completed", "confirmed")
    assert "cliente@jaen.example" in [mail["To"] for mail in shop.box.mails]
    assert not any(mail["Bcc"] or mail["X-Evil"] for mail in shop.box.mails)


async def test_names_of_any_kind_are_only_names(shop: Market) -> None:
    order, product = "order/../ñ\r\n€", "Aceite <b>'; DROP TABLE--"
    await shop.stock_is(**{product: 5})
    await shop.order(order, (product, 2))
    await shop.paid(order, "pay-2")
    assert shop.saga(order).state == "completed"
    assert shop.shelf(product) == (3, 0, 3)
    assert shop.dead_letters() == []
