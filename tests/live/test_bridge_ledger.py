"""The ledger of the way in, and repetitions: what was read is accounted for, exactly, over every crash."""

import asyncio
import json
import sqlite3
from typing import Any

import pytest
from click.testing import CliRunner, Result
from nats.aio.client import Client

from app.cli import main
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


async def test_what_is_repeated_while_the_first_of_it_is_being_committed_is_known(site: Site, client: Client) -> None:
    bridge = await site.start()
    await bridge.stop()
    blocks = [range(start, start + 400) for start in range(0, 2_000, 400)]
    for number in [number for block in blocks for number in (*block, *block)]:
        await client.publish("order.created", order_created("order-1", number))
    await client.flush()
    site.log.slow = 0.2
    bridge = await site.start()
    await wait_until(lambda: bridge.counters.mirrored + bridge.counters.repeated == 4_000, within=20)
    assert numbers(records(site.log, "orders")) == list(range(2_000))
    assert own(site)["routes"]["order.created"] == {"mirrored": 2_000, "repeated": 2_000, "dead-lettered": 0}
    assert own(site)["unaccounted"] == 0


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


# ---- compared from outside --------------------------------------------------------------------------------


async def verified(site: Site, *options: str) -> Result:
    """`a4co bridge verify`, as another process sees the two."""
    environment = {"BROKER": f"embedded://{site.log.path}", "NATS_URL": site.server.url}
    return await asyncio.to_thread(CliRunner().invoke, main, ["bridge", "verify", *options], env=environment)


async def crossed(site: Site, client: Client) -> None:
    """50 orders, 10 of them said again, 5 letters."""
    await site.start()
    for number in range(50):
        await client.publish("order.created", order_created("order-1", number))
        if number < 10:
            await client.publish("order.created", republished(order_created("order-1", number), 1))
        if number < 5:
            await client.publish("payment.failed", b"{")
    await wait_until(lambda: len(records(site.log, "orders")) == 50 and len(records(site.log, "dead-letters")) == 5)


async def test_verify_finds_all_of_what_crossed_beside_the_running_bridge(site: Site, client: Client) -> None:
    await crossed(site, client)
    result = await verified(site, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert (found["source"], found["balanced"], found["missing"], found["twice"]) == (STREAM, True, 0, 0)
    assert (found["mirrored"], found["repeated"], found["deadLettered"]) == (50, 10, 5)
    assert found["ledger"]["routes"]["order.created"] == {"mirrored": 50, "repeated": 10, "dead-lettered": 0}
    shown = await verified(site)
    assert "balanced" in shown.stdout
    assert "NOT BALANCED" not in shown.stdout
    assert "topics: " in shown.stderr


async def test_verify_names_what_is_missing_and_counts_what_is_twice(site: Site, client: Client) -> None:
    await crossed(site, client)
    await site.bridges[-1].stop()
    taken, copied = records(site.log, "orders")[20], records(site.log, "orders")[30]
    site.log.close()
    with sqlite3.connect(site.log.path) as log:
        for row, value in log.execute("SELECT id, value FROM records").fetchall():
            if value == taken.value:
                log.execute(
                    "UPDATE records SET value=?, headers=? WHERE id=?", (copied.value, _headers(log, copied), row)
                )
    site.log.open()
    result = await verified(site)
    assert result.exit_code == 1
    assert f"missing: {STREAM} {header(taken, 'a4co-seq')} order.created, stored 20" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith(STREAM)).split()
    assert row[-4:] == ["1", "1", "NOT", "BALANCED"]


def _headers(log: sqlite3.Connection, record: Any) -> bytes:
    found = log.execute("SELECT headers FROM records WHERE value=?", (record.value,)).fetchone()
    return bytes(found[0])


async def test_verify_says_what_it_cannot_compare(site: Site, client: Client) -> None:
    nothing = await verified(site)
    assert nothing.exit_code == 1
    assert "nothing has crossed the bridge yet" in nothing.output
    await crossed(site, client)
    await site.bridges[-1].stop()
    await client.jetstream().delete_stream(STREAM)
    gone = await verified(site)
    assert gone.exit_code == 1
    assert "the stream can't be read" in gone.output
    site.server.kill()
    away = await verified(site)
    assert away.exit_code == 1
    assert away.output.startswith("Error: NATS: no NATS at")
