"""The way out in batches of JetStream's fast ingest: what nats-server makes of repetitions, refusals and limits."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from bridge.log_to_nats import BATCH, COMMIT
from bridge.origin import Origin
from bridge.outgoing import outgoing
from tests.live.bridge_site import (
    STREAM,
    CrashingLog,
    Ears,
    Site,
    announcement,
    header,
    records,
    stored,
    unsealed,
    wait_until,
)
from tests.live.nats_server import NatsServer

pytestmark = pytest.mark.live


async def api(client: Client, request: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await client.request(f"$JS.API.STREAM.{request}", json.dumps(config).encode() if config else b"")
    found: dict[str, Any] = json.loads(answer.data)
    assert "error" not in found, found
    return found


async def changed(client: Client, **settings: Any) -> None:
    """Our stream, with some of its configuration changed."""
    config = (await api(client, f"INFO.{STREAM}"))["config"]
    await api(client, f"UPDATE.{STREAM}", config | settings)


async def listening(client: Client) -> Ears:
    ears = Ears()
    await client.subscribe("order.>", cb=ears.hear)
    await client.flush()
    return ears


async def test_our_stream_is_made_for_batches_and_one_that_is_there_stays_as_it_is(site: Site, client: Client) -> None:
    await (await site.start()).stop()
    assert (await api(client, f"INFO.{STREAM}"))["config"]["allow_batched"] is True
    await changed(client, allow_batched=False)
    await (await site.start()).stop()
    assert not (await api(client, f"INFO.{STREAM}"))["config"].get("allow_batched")


@pytest.mark.parametrize("batched", [True, False], ids=["in batches", "with an ack for each"])
async def test_everything_goes_out_once_and_in_order_also_where_the_stream_takes_no_batches(
    site: Site, client: Client, *, batched: bool
) -> None:
    await (await site.start()).stop()
    await changed(client, allow_batched=batched)
    said: list[tuple[str, str]] = []

    async def hear(message: Any) -> None:
        said.append((unsealed(message.headers), message.reply))

    await client.subscribe("order.confirmed", cb=hear)
    await client.flush()
    many = 3 * BATCH + 7
    await site.announce([announcement("order-1", number) for number in range(many)])
    bridge = await site.start()
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    await client.flush()
    assert [identity for identity, _ in said] == [f"order-1-{number}" for number in range(many)]
    assert {reply.endswith(".$FI") for _, reply in said} == {batched}
    assert bridge.counters.published == many
    assert bridge.counters.sessions == 1
    assert [identity for _, identity in await stored(client) if identity] == [identity for identity, _ in said]


async def test_what_the_stream_has_already_is_not_stored_twice_and_ends_no_batch(site: Site, client: Client) -> None:
    """As after a crash from which the bridge could not learn what is out: without its note."""
    await (await site.start()).stop()
    origin = await Origin.of(site.log)
    await site.announce([announcement("order-1", number) for number in range(30)])
    there = {0, 7, 8, 29}
    [partition] = {record.partition for record in records(site.log, "outbound")}
    for record in site.log.read("outbound", partition, 0, 100):
        if record.offset in there:
            message = outgoing(record, origin)
            headers = {"Nats-Msg-Id": message.message_id}
            await client.jetstream().publish(message.subject, message.payload, headers=headers)
    note = json.dumps({"streams": {}}).encode()
    await site.log.commit([], notes={"bridge-out": note})
    bridge = await site.start()
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    mine = Counter(identity for _, identity in await stored(client) if identity)
    assert mine == Counter(f"order-1-{number}" for number in range(30))
    await site.announce([announcement("order-1", 0)])  # a batch of nothing else
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    assert mine == Counter(identity for _, identity in await stored(client) if identity)
    assert bridge.counters.sessions == 1


async def test_what_is_too_large_for_the_stream_is_a_dead_letter_also_when_that_is_new_to_us(
    site: Site, client: Client
) -> None:
    ears = await listening(client)
    bridge = await site.start()
    await changed(client, max_msg_size=5_000)
    sizes = [0, 0, 6_000, 0, 0]
    await site.announce([announcement("order-1", number, size=size) for number, size in enumerate(sizes)])
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    await client.flush()
    assert [identity for _, identity in await stored(client) if identity] == [f"order-1-{n}" for n in (0, 1, 3, 4)]
    assert [header(letter, "a4co-reason") for letter in records(site.log, "dead-letters")] == ["too-large"]
    assert bridge.counters.sessions == 2
    await site.announce([announcement("order-1", 5, size=6_000), announcement("order-1", 6)])
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    assert bridge.counters.sessions == 2  # from now on it knows
    assert len(records(site.log, "dead-letters")) == 2
    assert set(ears.ids()) == {f"order-1-{n}" for n in range(5)} | {"order-1-6"}


async def test_a_full_stream_is_waited_for_and_the_rest_goes_out_in_order_once_it_has_room(
    site: Site, client: Client
) -> None:
    bridge = await site.start()
    filled = (await api(client, f"INFO.{STREAM}"))["state"]["messages"]
    await changed(client, discard="new", max_msgs=filled + 120)
    await site.announce([announcement("order-1", number) for number in range(2 * BATCH)])
    await wait_until(lambda: "maximum messages" in (bridge.status()["problem"] or ""))
    assert 0 < bridge.status()["lag_out"] <= 2 * BATCH
    await changed(client, max_msgs=-1)
    await wait_until(lambda: bridge.status()["lag_out"] == 0, within=30)
    mine = [identity for _, identity in await stored(client) if identity]
    assert mine == [f"order-1-{number}" for number in range(2 * BATCH)]
    assert not site.failures


async def test_as_many_as_are_worth_a_commit_are_committed_without_waiting_for_others(
    site: Site, client: Client
) -> None:
    del client
    site.log.commit_seconds = 600.0
    await site.announce([announcement("order-1", number) for number in range(COMMIT + 2 * BATCH)])
    bridge = await site.start()
    await wait_until(lambda: bridge.status()["lag_out"] <= 2 * BATCH, within=20)
    assert bridge.counters.published >= COMMIT
    site.log.commit_seconds = 0.0


NEIGHBOURS = """
accounts {
  SHOP { jetstream: enabled, users: [{ user: shop, password: shop }], exports: [{ stream: "order.>" }] }
  BOOKS { jetstream: enabled, users: [{ user: books, password: books }]
          imports: [{ stream: { account: SHOP, subject: "order.>" } }] }
}
no_auth_user: shop
"""


async def test_where_there_are_accounts_no_batches_are_made_for_another_ones_stream_would_refuse_them(
    log: CrashingLog, tmp_path: Path
) -> None:
    server = NatsServer(tmp_path / "accounts", more=NEIGHBOURS)
    await server.start()
    site = Site(log, server)
    try:
        books = await nats.connect(server.url, user="books", password="books")
        await books.jetstream().add_stream(name="BOOKS", subjects=["order.>"])
        bridge = await site.start()
        await site.announce([announcement("order-1", number) for number in range(100)])
        await wait_until(lambda: bridge.status()["lag_out"] == 0)
        assert [identity for _, identity in await stored(books, "BOOKS")] == [f"order-1-{n}" for n in range(100)]
        await bridge.stop()
        await books.close()
    finally:
        server.stop()
