"""The bridge between a real nats-server and a real embedded log, with the deaths that either may die."""

import asyncio
import json
import logging
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from app.engine.errors import LogFailed
from bridge.counters import BridgeCounters
from bridge.jetstream import nanoseconds, rfc3339
from bridge.origin import Origin
from bridge.routes import ROUTES, Routes
from tests.live.bridge_site import (
    STREAM,
    CrashingLog,
    Ears,
    Site,
    announcement,
    header,
    numbers,
    order_created,
    records,
    stored,
    wait_until,
)

pytestmark = pytest.mark.live

# ---- in ---------------------------------------------------------------------------------------------------


async def test_the_mirror_keeps_bytes_headers_and_order_and_tells_when_it_was(site: Site, client: Client) -> None:
    await site.start()
    before = time.time()
    for number in range(300):
        await client.publish("order.created", order_created("order-ñ", number), headers={"X-Trace": f"tränen {number}"})
    await client.publish("inventory.stock.updated", order_created("product_aceite_picual"))
    await wait_until(lambda: len(records(site.log, "orders")) == 300 and len(records(site.log, "stock")) == 1)

    found = records(site.log, "orders")
    assert [record.value for record in found] == [order_created("order-ñ", number) for number in range(300)]
    assert {record.key for record in found} == {"order-ñ".encode()}
    assert [header(record, "X-Trace") for record in found] == [f"tränen {number}" for number in range(300)]
    assert {header(record, "a4co-subject") for record in found} == {"order.created"}
    sequences = [int(header(record, "a4co-seq") or 0) for record in found]
    assert sequences == sorted(set(sequences))
    assert all(before - 1 < record.timestamp < time.time() + 1 for record in found)
    assert not any(header(record, "a4co-ours") for record in found)


async def test_nothing_is_lost_or_mirrored_twice_when_the_bridge_dies_again_and_again(
    site: Site, client: Client
) -> None:
    bridge = await site.start()
    for part in range(5):
        for number in range(part * 250, part * 250 + 250):
            await client.publish("order.created", order_created("order-1", number))
        await wait_until(lambda end=part * 250 + 60: len(records(site.log, "orders")) > end)  # type: ignore[misc]
        await site.crash(bridge)
        bridge = await site.begin()
    await wait_until(lambda: len(records(site.log, "orders")) >= 1_250)
    assert numbers(records(site.log, "orders")) == list(range(1_250))


async def test_a_backlog_of_many_and_of_large_messages_comes_in_one_go(site: Site, client: Client) -> None:
    await (await site.start()).stop()
    for number in range(2_000):
        await client.publish("order.created", order_created("order-1", number))
    for number in range(30):
        await client.publish("order.created", order_created("order-2", number) + b" " * 900_000)
    await wait_until(lambda: not client.pending_data_size)
    bridge = await site.start()
    await wait_until(lambda: len(records(site.log, "orders")) == 2_030, within=20)
    assert numbers(r for r in records(site.log, "orders") if r.key == b"order-1") == list(range(2_000))
    assert bridge.counters.sessions == 1


async def test_what_is_published_while_the_bridge_is_away_is_mirrored_when_it_comes_back(
    site: Site, client: Client
) -> None:
    await (await site.start()).stop()
    for number in range(20):
        await client.publish("payment.succeeded", order_created("order-1", number))
    await client.flush()
    assert not records(site.log, "payments")
    await site.start()
    await wait_until(lambda: numbers(records(site.log, "payments")) == list(range(20)))


async def test_our_own_come_back_marked_and_forged_marks_are_not(site: Site, client: Client) -> None:
    ears = Ears()
    await client.subscribe("order.confirmed", cb=ears.hear)
    await client.flush()
    await site.start()
    await site.announce([announcement("order-1", 1)])
    await wait_until(lambda: len(ears.heard) == 1)
    _, _, ours = ears.heard[0]

    copied = {**ours, "Nats-Msg-Id": "order-1-other"}
    await client.publish("order.confirmed", order_created("order-1", 2), headers=copied)
    await client.publish("order.cancelled", order_created("order-1", 3), headers=ours)
    await client.publish("order.confirmed", order_created("order-1", 4), headers={"A4co-Ours": "1", "a4co-ours": "1"})
    await client.publish("order.confirmed", order_created("order-1", 5), headers={"A4co-Origin": "ñ"})
    await client.publish("order.confirmed", order_created("order-1", 6))
    await wait_until(lambda: len(records(site.log, "orders")) == 5)  # JetStream knows the id of 3 and drops it

    marked = {number: header(r, "a4co-ours") for r in records(site.log, "orders") for number in numbers([r])}
    assert marked == {1: "1", 2: None, 4: None, 5: None, 6: None}
    assert not any(
        header(record, "A4co-Origin") or header(record, "A4co-Ours") for record in records(site.log, "orders")
    )


def test_a_mark_is_good_for_its_own_id_subject_and_payload_only() -> None:
    origin = Origin(b"s" * 32)
    headers = {"Nats-Msg-Id": "id-1", "A4co-Origin": origin.mark("id-1", "order.confirmed", b"{}")}
    assert origin.is_ours("order.confirmed", headers, b"{}")
    assert not origin.is_ours("order.confirmed", headers, b'{"eventData":1}')
    assert not origin.is_ours("order.cancelled", headers, b"{}")
    assert not origin.is_ours("order.confirmed", {**headers, "Nats-Msg-Id": "id-2"}, b"{}")
    assert not Origin(b"t" * 32).is_ours("order.confirmed", headers, b"{}")


async def test_poison_is_kept_and_told_and_its_neighbours_pass(site: Site, client: Client) -> None:
    ears = Ears()
    await client.subscribe("order.created.dlq", cb=ears.hear)
    await client.flush()
    reasons: list[tuple[str, str]] = []
    counters = BridgeCounters(on_dead_letter=lambda topic, reason: reasons.append((topic, reason)))
    poison = [b"", b"\xff\xfe", b"{", b"[1,2]", b"NaN", b"[" * 50_000, b'"\\ud800"']
    await site.start(counters=counters)
    await client.publish("order.created", order_created("before"))
    for payload in poison:
        await client.publish("order.created", payload, headers={"X-Trace": "t"})
    await client.publish("order.created", order_created("after"))
    await wait_until(lambda: len(records(site.log, "orders")) == 2 and len(ears.heard) == len(poison))

    letters = records(site.log, "dead-letters")
    assert Counter(reasons) == Counter(("orders", header(letter, "a4co-reason")) for letter in letters)
    assert Counter(letter.value for letter in letters) == Counter(poison)
    for letter in letters:
        assert header(letter, "a4co-reason")
        assert header(letter, "a4co-error")
        assert header(letter, "a4co-topic") == "orders"
        assert header(letter, "a4co-subject") == "order.created"
        assert header(letter, "X-Trace") == "t"
    told = [json.loads(payload) for _, payload, _ in ears.heard]
    assert {tuple(word) for word in told} == {("originalSubject", "event", "error", "failedAt")}
    assert {word["originalSubject"] for word in told} == {"order.created"}
    assert all(word["error"]["message"] for word in told)
    assert {repr(word["event"])[:20] for word in told} == {
        repr(t)[:20] for t in ("", "\ufffd\ufffd", "{", [1, 2], "NaN", "[" * 50_000, '"\\ud800"')
    }
    assert [record.key for record in records(site.log, "orders")] != []


async def test_headers_and_subjects_that_nobody_can_read_stop_nothing(site: Site, client: Client) -> None:
    """Such bytes end nats-py's reading, and a stream delivers them again to whoever comes back."""
    await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["order.>"]))
    bridge = await site.start()
    _, raw = await asyncio.open_connection("127.0.0.1", site.server.port)
    raw.write(b'CONNECT {"headers":true,"verbose":false}\r\n')
    payloads = [order_created("order-1", number) for number in range(5)]
    for headers, payload in zip(
        (b"\r\n\r\n", b"NATS/1.0", b"NATS/1.0 \xff\xff\xff\r\n\r\n", b"\xff" * 20), payloads, strict=False
    ):
        raw.write(
            b"HPUB order.created %d %d\r\n" % (len(headers), len(headers + payload)) + headers + payload + b"\r\n"
        )
    for subject in (b"order.\xff", "order.año".encode(), b"order." + b"x" * 3_000):
        raw.write(b"PUB %s 2\r\n{}\r\n" % subject)
    raw.write(b"PUB order.created %d\r\n" % len(payloads[-1]) + payloads[-1] + b"\r\n")
    await raw.drain()
    await wait_until(lambda: len(records(site.log, "orders")) == 5)
    assert [record.value for record in records(site.log, "orders")] == payloads
    assert bridge.counters.sessions == 1
    raw.close()


async def test_a_subject_that_is_switched_off_is_not_mirrored(site: Site, client: Client) -> None:
    await site.start(routes=Routes(replace(route, on=route.subject != "user.registered") for route in ROUTES))
    await client.publish("user.registered", order_created("user-1"))
    await client.publish("order.created", order_created("order-1"))
    await wait_until(lambda: records(site.log, "orders"))
    assert not records(site.log, "users")


# ---- out --------------------------------------------------------------------------------------------------


async def test_outbound_is_published_whole_and_in_order_with_its_id(site: Site, client: Client) -> None:
    ears = Ears()
    await client.subscribe("order.confirmed", cb=ears.hear)
    await client.flush()
    sends = [announcement(f"order-{number % 7}", number) for number in range(1_200)]
    await site.announce(sends)
    await site.start()
    await wait_until(lambda: len(ears.heard) >= 1_200)
    payloads = {send.value for send in sends}
    assert {payload for _, payload, _ in ears.heard} == payloads
    assert len(ears.heard) == 1_200
    for order in range(7):
        mine = [identity for identity in ears.ids() if identity.startswith(f"order-{order}-")]
        assert mine == [f"order-{order}-{number}" for number in range(order, 1_200, 7)]
    _, _, headers = ears.heard[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["traceparent"].startswith("00-0af7")
    assert not any(name.startswith("a4co-") for name in headers)
    await wait_until(lambda: site.bridges[0].status()["lag_out"] == 0)


async def test_a_crash_between_publish_and_commit_repeats_nothing_to_a_core_subscriber(
    site: Site, client: Client
) -> None:
    ears = Ears()
    await client.subscribe("order.>", cb=ears.hear)
    await client.flush()
    site.log.dies = True
    for part in range(3):
        await site.announce([announcement(f"order-{n % 5}", n) for n in range(part * 200, part * 200 + 200)])
        bridge = await site.begin()
        await wait_until(lambda count=part + 1: len(site.failures) == count)  # type: ignore[misc]
        assert bridge.status()["problem"] == "failed: the process dies here"
        site.log.dies = False
        bridge = await site.start()
        await wait_until(lambda: bridge.status()["lag_out"] == 0)  # noqa: B023
        await bridge.stop()
        site.log.dies = True
    site.log.dies = False
    await client.flush()
    assert sorted(Counter(ears.ids()).items()) == sorted((f"order-{n % 5}-{n}", 1) for n in range(600))
    assert site.bridges[1].status()["duplicates_skipped"] == 200


async def test_what_went_out_long_before_its_commit_is_not_said_again(site: Site, client: Client) -> None:
    """While a commit waits for others, or for a slow log, many batches go out."""
    ears, many = Ears(), 3_000
    await client.subscribe("order.>", cb=ears.hear)
    await client.flush()
    site.log.commit_seconds = 60.0
    await site.announce([announcement("order-1", n) for n in range(many)])
    bridge = await site.start()
    await wait_until(lambda: len(ears.heard) == many)
    await site.crash(bridge)
    site.log.commit_seconds = 0.0
    again = await site.start()
    await wait_until(lambda: again.status()["lag_out"] == 0)
    await client.flush()
    assert len(ears.heard) == many
    assert again.status()["duplicates_skipped"] == many


async def test_a_crash_leaves_a_hole_behind_no_message_that_went_out_plainly(site: Site, client: Client) -> None:
    """`.dlq` subjects are in no stream: what can be said is that they are not lost, and nothing around them is."""
    ears = Ears()
    await client.subscribe("order.>", cb=ears.hear)
    await client.flush()
    site.log.dies = True
    subjects = ["order.confirmed.dlq", "order.confirmed", "order.confirmed.dlq"]
    await site.announce([announcement("order-1", n, subjects[n % 3]) for n in range(30)])
    await site.begin()
    await wait_until(lambda: site.failures)
    site.log.dies = False
    bridge = await site.start()
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    await wait_until(lambda: len(ears.heard) >= 31)
    counted = Counter(ears.ids())
    assert set(counted) == {f"order-1-{n}" for n in range(30)}
    # Only the last one has nothing after it in the stream that would tell.
    assert [identity for identity, count in counted.items() if count > 1] == ["order-1-29"]


async def test_a_message_too_large_for_the_server_becomes_a_dead_letter_and_the_next_ones_go_out(
    site: Site, client: Client
) -> None:
    ears = Ears()
    await client.subscribe("order.confirmed", cb=ears.hear)
    await client.flush()
    within = 1_048_576 - 50 - len(announcement("order-1", 0).value or b"")  # the payload alone would pass
    sizes = [0, 2_000_000, 0, within, 0]
    await site.announce([announcement("order-1", n, size=size) for n, size in enumerate(sizes)])
    bridge = await site.start()
    await wait_until(lambda: len(ears.heard) == 3 and bridge.status()["lag_out"] == 0)
    assert ears.ids() == ["order-1-0", "order-1-2", "order-1-4"]
    letters = records(site.log, "dead-letters")
    assert [(header(r, "a4co-reason"), header(r, "a4co-topic")) for r in letters] == [("too-large", "outbound")] * 2
    assert max(len(letter.value or b"") for letter in letters) > 2_000_000
    assert bridge.counters.sessions == 1


# ---- the server dies --------------------------------------------------------------------------------------


async def test_a_server_killed_while_both_ways_are_busy_loses_nothing(site: Site, client: Client) -> None:
    bridge = await site.start()
    acked: list[int] = []
    js = client.jetstream()

    async def order() -> None:
        number = 0
        while number < 600:
            try:
                await js.publish("order.created", order_created("order-1", number), timeout=1)
            except (nats.errors.Error, TimeoutError):  # not acked: it may be there or not
                await asyncio.sleep(0.01)
            else:
                acked.append(number)
            number += 1

    def out() -> int:
        counters = bridge.counters
        return counters.published + counters.duplicates_skipped  # what had been stored before the server died

    publishing = asyncio.create_task(order())
    announced = 0
    for _ in range(3):
        for _ in range(4):
            await site.announce([announcement("order-9", announced + n) for n in range(100)])
            announced += 100
            await wait_until(lambda end=announced - 300: out() > end)  # type: ignore[misc]
        site.server.kill()
        await site.server.start()
    await publishing
    await wait_until(lambda: bridge.status()["problem"] is None and bridge.status()["lag_out"] == 0, within=20)
    await wait_until(lambda: set(acked) <= set(numbers(r for r in records(site.log, "orders") if r.key == b"order-1")))

    mirrored = [r for r in records(site.log, "orders") if r.key == b"order-1"]
    assert len({header(r, "a4co-seq") for r in mirrored}) == len(mirrored)
    assert len(acked) > 300
    ours = Counter(identity for subject, identity in await stored(client) if subject == "order.confirmed")
    assert ours == Counter(f"order-9-{n}" for n in range(announced))
    await wait_until(lambda: sum(1 for r in records(site.log, "orders") if header(r, "a4co-ours")) == announced)
    await wait_until(lambda: bridge.counters.sessions == 4)
    assert not site.failures


async def test_what_a_killed_server_has_stored_is_not_said_again(site: Site) -> None:
    bridge = await site.start()
    await site.announce([announcement("order-1", n) for n in range(8_000)])
    await wait_until(lambda: bridge.counters.published > 100)
    site.server.kill()
    await site.crash(bridge)
    await site.server.start()

    client = await nats.connect(site.server.url)
    held = {identity for _, identity in await stored(client) if identity}
    ears = Ears()
    await client.subscribe("order.confirmed", cb=ears.hear)
    await client.flush()
    bridge = await site.start()
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    await client.flush()
    everything = {f"order-1-{n}" for n in range(8_000)}
    assert sorted(ears.ids()) == sorted(everything - held)
    assert 100 < len(held) < 8_000
    await client.close()


async def test_a_server_that_is_not_there_yet_is_waited_for(site: Site, log: CrashingLog) -> None:
    site.server.kill()
    bridge = await site.begin()
    await wait_until(lambda: "no NATS at nats://127.0.0.1" in bridge.status()["problem"])
    assert bridge.status()["connected"] is False
    await site.server.start()
    await wait_until(lambda: bridge.status()["problem"] is None)
    assert not site.failures


async def test_it_stops_at_once_with_and_without_a_server(site: Site) -> None:
    for kill in (False, True):
        bridge = await site.start()
        if kill:
            site.server.kill()
            await wait_until(lambda: bridge.status()["problem"])  # noqa: B023
        began = time.monotonic()
        await bridge.stop()
        assert time.monotonic() - began < 2
        assert bridge.status()["connected"] is False


async def test_a_log_that_fails_ends_the_bridge_and_is_told(site: Site, client: Client) -> None:
    bridge = await site.start()
    site.log._failed(OSError("disk full"))
    await client.publish("order.created", order_created("order-1"))
    await wait_until(lambda: site.failures)
    assert isinstance(site.failures[0], LogFailed)
    assert "disk full" in bridge.status()["problem"]


# ---- the stream is not as it was --------------------------------------------------------------------------


async def test_a_stream_that_was_deleted_is_made_again_and_mirrored_from_its_start(
    site: Site, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await site.start()
    for number in range(5):
        await client.publish("order.created", order_created("order-1", number))
    await wait_until(lambda: len(records(site.log, "orders")) == 5)
    with caplog.at_level(logging.ERROR, logger="a4co.bridge"):
        await client.jetstream().delete_stream(STREAM)
        await wait_until(lambda: "ANOTHER STREAM" in caplog.text)
    await wait_until(lambda: site.bridges[0].status()["problem"] is None)
    await site.announce([announcement("order-1", 7)])
    await client.publish("order.created", order_created("order-1", 8))
    await wait_until(lambda: sorted(numbers(records(site.log, "orders"))) == [0, 1, 2, 3, 4, 7, 8])
    assert site.bridges[0].counters.streams_replaced == 1


@pytest.mark.parametrize("later", [2, 20], ids=["and is still shorter", "and has grown past the position"])
async def test_a_stream_that_lost_its_newest_messages_is_followed_by_time(
    site: Site, later: int, tmp_path: Path
) -> None:
    bridge = await site.start()

    async def publish(first: int, last: int) -> None:
        client = await nats.connect(site.server.url)
        for number in range(first, last):
            await client.publish("order.created", order_created("order-1", number))
        await client.flush()
        await client.close()

    await publish(0, 5)
    await wait_until(lambda: len(records(site.log, "orders")) == 5)
    site.server.stop()
    shutil.copytree(site.server.store, tmp_path / "old")
    await site.server.start()
    await publish(5, 10)
    await wait_until(lambda: len(records(site.log, "orders")) == 10)
    await bridge.stop()
    site.server.stop()
    shutil.rmtree(site.server.store)
    shutil.move(tmp_path / "old", site.server.store)
    await site.server.start()
    await publish(10, 10 + later)

    bridge = await site.start()
    await wait_until(lambda: len(records(site.log, "orders")) >= 10 + later)
    assert numbers(records(site.log, "orders")) == list(range(10 + later))
    assert bridge.counters.resumed_by_time == 1


async def test_messages_that_expired_unread_are_counted(site: Site, client: Client) -> None:
    bridge = await site.start()
    await wait_until(lambda: bridge.status()["position"] == 1)  # the barrier
    await bridge.stop()
    for number in range(10):
        await client.jetstream().publish("order.created", order_created("order-1", number))
    await client.jetstream().purge_stream(STREAM, keep=3)
    bridge = await site.start()
    await wait_until(lambda: numbers(records(site.log, "orders")) == [7, 8, 9])
    assert bridge.status()["expired_unread"] == 7


async def test_a_stream_of_the_users_own_gets_the_missing_subjects_and_keeps_the_rest(
    site: Site, client: Client
) -> None:
    await client.jetstream().add_stream(StreamConfig(name="MINE", subjects=["order.>", "chat.>"], max_msgs=1_000))
    await client.publish("order.created", order_created("order-1", 1))
    await site.start(stream="MINE")
    await site.announce([announcement("order-1", 2)])
    await wait_until(lambda: sorted(numbers(records(site.log, "orders"))) == [1, 2])
    config = (await client.jetstream().stream_info("MINE")).config
    assert set(config.subjects or ()) >= {"order.>", "chat.>", "payment.succeeded"}
    assert "order.created" not in (config.subjects or ())
    assert config.max_msgs == 1_000


async def test_a_stream_that_deletes_what_was_read_is_refused(site: Site, client: Client) -> None:
    await client.jetstream().add_stream(name=STREAM, subjects=["order.>"], retention="workqueue")
    bridge = await site.begin()
    await wait_until(lambda: "workqueue retention" in bridge.status()["problem"])


def test_times_are_exact_to_the_nanosecond() -> None:
    text = "2026-11-24T13:37:38.123456789Z"
    assert rfc3339(nanoseconds(text)) == text
    assert nanoseconds("1970-01-01T00:00:01Z") == 1_000_000_000
    assert nanoseconds("1970-01-01T00:00:00.5Z") == 500_000_000
