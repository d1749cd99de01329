"""Subjects that others keep are read in the way that takes nothing from anybody, and what isn't durable is said."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from bridge import service
from bridge.routes import ROUTES, Direction, Route, Routes
from tests.live.bridge_site import Ears, Site, announcement, numbers, order_created, records, stored, wait_until
from tests.live.nats_server import NatsServer

pytestmark = pytest.mark.live


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOKS", 0.3)


async def publish(client: Client, subject: str, *range_: int) -> None:
    for number in range(*range_):
        await client.publish(subject, order_created("order-1", number))
    await client.flush()


def ways(site: Site) -> dict[str, str]:
    return {line["source"]: line["way"] for line in site.bridges[-1].ledger()}


# ---- another's stream with limits -------------------------------------------------------------------------


async def test_another_streams_subjects_are_read_from_it_and_the_others_from_ours(site: Site, client: Client) -> None:
    await client.jetstream().add_stream(StreamConfig(name="LEGACY", subjects=["order.>", "chat.>"]))
    bridge = await site.start()
    assert ways(site) == {"A4CO_EVENTS": "own stream", "LEGACY": "another's stream"}
    await publish(client, "order.created", 10)
    await client.publish("chat.said", b"nothing for us")
    await publish(client, "payment.succeeded", 5)
    await wait_until(lambda: numbers(records(site.log, "orders")) == list(range(10)))
    await wait_until(lambda: numbers(records(site.log, "payments")) == list(range(5)))
    await bridge.stop()
    await publish(client, "order.created", 10, 20)
    await site.start()
    await wait_until(lambda: numbers(records(site.log, "orders")) == list(range(20)))
    legacy = next(line for line in site.bridges[-1].ledger() if line["source"] == "LEGACY")
    assert legacy["routes"] == {"order.created": {"mirrored": 20, "repeated": 0, "dead-lettered": 0}}
    assert (legacy["read"], legacy["unaccounted"], legacy["waiting"]) == (20, 0, 0)
    assert (await client.jetstream().stream_info("LEGACY")).config.subjects == ["order.>", "chat.>"]
    own = (await client.jetstream().stream_info("A4CO_EVENTS")).config.subjects or []
    assert not any(subject.startswith("order.") for subject in own)


@pytest.mark.parametrize(("history", "taken"), [("auto", [5]), ("skip", [5]), ("take", [0, 1, 2, 3, 4, 5])])
async def test_what_another_stream_had_before_we_met_it_is_left_out_unless_wanted(
    site: Site, client: Client, history: str, taken: list[int]
) -> None:
    await client.jetstream().add_stream(StreamConfig(name="LEGACY", subjects=["order.created"]))
    for number in range(5):
        await client.jetstream().publish("order.created", order_created("order-1", number))
    await (await site.start(history=history)).stop()
    await publish(client, "order.created", 5, 6)
    await site.start(history=history)
    await wait_until(lambda: numbers(records(site.log, "orders")) == taken)


async def test_our_answers_in_anothers_stream_are_published_once_over_a_crash(site: Site, client: Client) -> None:
    await client.jetstream().add_stream(StreamConfig(name="LEGACY", subjects=["order.confirmed"]))
    ears = Ears()
    await client.subscribe("order.confirmed", cb=ears.hear)
    await client.flush()
    site.log.dies = True
    for part in range(3):
        await site.announce([announcement("order-1", number) for number in range(part * 50, part * 50 + 50)])
        await site.begin()
        await wait_until(lambda count=part + 1: len(site.failures) == count)  # type: ignore[misc]
    site.log.dies = False
    bridge = await site.start()
    await wait_until(lambda: bridge.status()["lag_out"] == 0)
    await client.flush()
    assert ears.ids() == [f"order-1-{number}" for number in range(150)]
    assert [identity for _, identity in await stored(client, "LEGACY")] == ears.ids()


# ---- interest ---------------------------------------------------------------------------------------------


async def test_an_interest_stream_keeps_for_us_what_we_have_not_read_and_drops_what_we_have(
    site: Site, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="LIVE", subjects=["order.>"], retention=RetentionPolicy.INTEREST))
    with caplog.at_level(logging.WARNING, logger="a4co.bridge"):
        bridge = await site.start()
    assert "LIVE keeps what we have not read for as long as we are away" in caplog.text
    await publish(client, "order.created", 700)
    await wait_until(lambda: len(records(site.log, "orders")) == 700)
    await site.crash(bridge)
    await publish(client, "order.created", 700, 1_400)
    bridge = await site.start()
    await wait_until(lambda: len(records(site.log, "orders")) == 1_400)
    assert numbers(records(site.log, "orders")) == list(range(1_400))

    async def empty() -> bool:
        return (await js.stream_info("LIVE")).state.messages == 0

    for _ in range(100):
        if await empty():
            break
        await asyncio.sleep(0.05)
    assert await empty()
    names = [consumer.name for consumer in await js.consumers_info("LIVE")]
    assert len(names) == 1
    assert names[0].startswith("a4co-streams-")


# ---- work queues ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subjects", [["order.*"], ["order.>"], ["order.created", "order.confirmed"]], ids=str)
async def test_nothing_is_taken_from_a_work_queue_whoever_serves_it_gets_all(
    site: Site, client: Client, caplog: pytest.LogCaptureFixture, subjects: list[str]
) -> None:
    """The stream as a service makes it that shares its orders among its instances."""
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="ORDERS", subjects=subjects, retention=RetentionPolicy.WORK_QUEUE))
    with caplog.at_level(logging.WARNING, logger="a4co.bridge"):
        bridge = await site.start()
    assert "ORDERS is a work queue" in caplog.text
    assert "LOST" in caplog.text
    assert "order.created" in caplog.text
    assert bridge.status()["not_durable"]
    await publish(client, "order.created", 3_000)
    await wait_until(lambda: len(records(site.log, "orders")) == 3_000)
    await site.announce([announcement("order-1", 9)])
    await wait_until(lambda: bridge.status()["lag_out"] == 0)

    service = await js.pull_subscribe("", durable="order-service", stream="ORDERS", config=ConsumerConfig())
    served: list[str] = []
    while len(served) < 3_001:
        for message in await service.fetch(500, timeout=5):
            served.append(message.subject)
            await message.ack()
    assert served.count("order.created") == 3_000
    assert served.count("order.confirmed") == 1
    assert numbers(records(site.log, "orders"))[:3_000] == list(range(3_000))


async def test_a_work_queue_that_is_taken_away_makes_its_subjects_durable_without_a_restart(
    site: Site, client: Client
) -> None:
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="ORDERS", subjects=["order.*"], retention=RetentionPolicy.WORK_QUEUE))
    bridge = await site.start()
    assert ways(site)["core NATS"] == "as it comes"
    await js.delete_stream("ORDERS")
    await wait_until(lambda: "core NATS" not in ways(site) and bridge.status()["problem"] is None)
    await publish(client, "order.created", 5)
    await wait_until(lambda: numbers(records(site.log, "orders")) == list(range(5)))
    assert bridge.status()["not_durable"] == []


async def test_a_pattern_of_which_others_keep_a_part_is_read_once(site: Site, client: Client) -> None:
    site.log.declare("artisans", 4)
    routes = Routes([*ROUTES, Route("artisan.>", "artisans", Direction.IN, key="subject")])
    await client.jetstream().add_stream(StreamConfig(name="KEPT", subjects=["artisan.kept.*"]))
    bridge = await site.start(routes=routes)
    for number in range(20):
        await client.publish("artisan.kept.a", order_created("a", number))
        await client.publish("artisan.heard.b", order_created("b", number))
    await client.publish("artisan.heard.b.dlq", b"{}")
    await wait_until(lambda: len(records(site.log, "artisans")) == 40)
    kept = [record for record in records(site.log, "artisans") if record.key == b"artisan.kept.a"]
    assert numbers(kept) == list(range(20))
    assert "a part of it is in streams of others" in bridge.status()["not_durable"][0]


# ---- no JetStream -----------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def plain_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "plain", jetstream=False)
    await server.start()
    yield server
    server.stop()


async def test_without_jetstream_it_listens_and_says_so_and_uses_it_when_it_is_there(
    site: Site, plain_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="a4co.bridge"):
        bridge = await site.start(server=plain_server)
    assert "there is no JetStream" in caplog.text
    client = await nats.connect(plain_server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    ears = Ears()
    await client.subscribe("order.confirmed", cb=ears.hear)
    await publish(client, "order.created", 100)
    await site.announce([announcement("order-1", 1)])
    await wait_until(lambda: numbers(records(site.log, "orders"))[:100] == list(range(100)))
    await wait_until(lambda: ears.ids() == ["order-1-1"])
    assert not bridge.is_behind()
    plain_server.stop()
    plain_server.jetstream = True
    await plain_server.start()
    await wait_until(lambda: ways(site) == {"A4CO_EVENTS": "own stream"}, within=20)
    await wait_until(lambda: bridge.status()["problem"] is None)
    await client.close()


async def test_jetstream_that_was_there_is_waited_for(site: Site, nats_server: NatsServer) -> None:
    bridge = await site.start()
    client = await nats.connect(nats_server.url)
    await publish(client, "order.created", 1)
    await wait_until(lambda: len(records(site.log, "orders")) == 1)
    await client.close()
    nats_server.stop()
    nats_server.jetstream = False
    await nats_server.start()
    await wait_until(lambda: "JetStream is gone" in (bridge.status()["problem"] or ""))
    nats_server.stop()
    nats_server.jetstream = True
    await nats_server.start()
    await wait_until(lambda: bridge.status()["problem"] is None, within=20)
