"""The ledger of the way in, and repetitions: what was read is accounted for, exactly, over every crash."""

import json
from typing import Any

import pytest
from nats.aio.client import Client

from bridge import seen
from bridge.nats_to_log import account_of
from tests.live.bridge_site import STREAM, Site, header, numbers, order_created, records, wait_until

pytestmark = pytest.mark.live


def own(site: Site) -> dict[str, Any]:
    """Our own stream's line of the ledger."""
    return next(line for line in site.bridges[-1].ledger() if line["source"] == STREAM)


def republished(payload: bytes, retry: int) -> bytes:
    """As a service's bus says an event again whose handler had thrown."""
    event = json.loads(payload)
    event["metadata"] |= {"retryCount": retry, "publishedAt": "2026-11-24T13:38:00.000Z"}
    return json.dumps(event, separators=(",", ":")).encode()


async def test_what_is_said_again_is_mirrored_once_also_after_a_restart(site: Site, client: Client) -> None:
    bridge = await site.start()
    said = [order_created("order-1", number) for number in range(200)]
    for payload in said:
        await client.publish("order.created", payload)
        await client.publish("order.created", republished(payload, 1))
    await wait_until(lambda: len(records(site.log, "orders")) == 200)
    await site.crash(bridge)
    for payload in said:
        await client.publish("order.created", republished(payload, 2))
    await client.publish("order.created", order_created("order-1", 200))
    bridge = await site.start()
    await wait_until(lambda: bridge.counters.repeated >= 200 and len(records(site.log, "orders")) == 201)
    assert numbers(records(site.log, "orders")) == list(range(201))
    assert own(site)["routes"]["order.created"] == {"mirrored": 201, "repeated": 400, "dead-lettered": 0}


async def test_the_same_id_with_other_words_of_another_order_or_on_another_subject_is_no_repetition(
    site: Site, client: Client
) -> None:
    await site.start()
    event = json.loads(order_created("order-1", 1))
    await client.publish("order.created", json.dumps(event).encode())
    await client.publish("order.cancelled", json.dumps(event).encode())
    await client.publish("order.created", json.dumps(event | {"aggregateId": "order-2"}).encode())
    event["eventData"]["number"] = 2
    await client.publish("order.created", json.dumps(event).encode())
    del event["eventId"]
    for _ in range(2):
        await client.publish("order.created", json.dumps(event).encode())
    await wait_until(lambda: len(records(site.log, "orders")) == 6)


async def test_of_the_flat_dialect_what_it_says_is_what_tells(site: Site, client: Client) -> None:
    await site.start()
    for number in (1, 2, 1):
        flat = {"pattern": "order.created.v1", "data": {"orderId": "order-1", "items": [], "totalAmount": number}}
        await client.publish("order.created.v1", json.dumps(flat).encode())
    await client.publish("order.created", order_created("order-1", 9))
    await wait_until(lambda: len(records(site.log, "orders")) == 3)
    assert own(site)["routes"]["order.created.v1"]["repeated"] == 1


async def test_it_remembers_so_many_and_forgets_the_oldest(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "IN_A_NOTE", 4)
    monkeypatch.setattr(seen, "NOTES", 5)
    bridge = await site.start()
    for number in range(50):
        await client.publish("order.created", order_created("order-1", number))
    await wait_until(lambda: len(records(site.log, "orders")) == 50)
    await site.crash(bridge)
    await site.start()
    for number in (49, 45, 40, 0):
        await client.publish("order.created", order_created("order-1", number))
    await client.publish("order.created", order_created("order-1", 50))
    await wait_until(lambda: numbers(records(site.log, "orders"))[-1] == 50)
    assert numbers(records(site.log, "orders"))[50:] == [0, 50]


async def test_the_ledger_is_balanced_over_crashes_poison_and_what_nobody_routes(site: Site, client: Client) -> None:
    bridge = await site.start()
    for part in range(4):
        for number in range(part * 100, part * 100 + 100):
            await client.publish("order.created", order_created("order-1", number))
            await client.publish("payment.failed", b"{" if number % 10 else order_created("order-1", number))
            if number % 20 == 0:
                await client.publish("order.created", order_created("order-1", number))
        await wait_until(lambda end=part * 100 + 30: len(records(site.log, "orders")) > end)  # type: ignore[misc]
        await site.crash(bridge)
        bridge = await site.begin()
    await wait_until(lambda: bridge.status()["problem"] is None and len(records(site.log, "dead-letters")) >= 360)
    await wait_until(lambda: bridge.status()["lag_in"] == 0 and len(records(site.log, "orders")) == 400)
    line = own(site)
    assert line["routes"]["order.created"] == {"mirrored": 400, "repeated": 20, "dead-lettered": 0}
    assert line["routes"]["payment.failed"]["dead-lettered"] == 360
    assert (line["unaccounted"], line["gone"]) == (0, 0)
    account = account_of(site.log, STREAM)
    assert account is not None
    assert account.seq == account.read  # from the first message on, every one


async def test_a_record_says_which_message_of_which_stream_it_was(site: Site, client: Client) -> None:
    await site.start()
    await client.publish("order.created", order_created("order-1"))
    await client.publish("order.created", b"{")
    await wait_until(lambda: records(site.log, "orders") and records(site.log, "dead-letters"))
    places = [
        (header(record, "a4co-stream"), int(header(record, "a4co-seq") or 0))
        for topic in ("orders", "dead-letters")
        for record in records(site.log, topic)
    ]
    assert places == [(STREAM, places[0][1]), (STREAM, places[0][1] + 1)]
