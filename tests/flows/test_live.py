"""The live feed over the real log: every committed change, resumed where a client has been, filtered, and bounded."""

import asyncio
import dataclasses
import json
from typing import Any

import httpx
import pytest

from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import LogFailed
from app.engine.records import Record
from app.metrics.worker import Metrics
from app.web.api import create_api
from app.web.live import feed as live_feed
from app.web.live import stream as live_stream
from app.web.live.events import TOPICS
from app.web.live.feed import LiveFeed
from tests.flows.conftest import Opens
from tests.flows.live_client import listening
from tests.flows.market import NOW, Market
from tests.waiting import wait_until


async def items(market: Market, path: str) -> list[dict[str, Any]]:
    """A list, as it is given over HTTP."""
    transport = httpx.ASGITransport(create_api(market.application.views))
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:

        async def answer() -> list[dict[str, Any]]:
            response = await client.get(path, params={"limit": 500})
            assert response.status_code == 200, response.text
            return response.json()["items"]  # type: ignore[no-any-return]

        return await wait_until(answer)


async def settle(market: Market) -> None:
    """Every client has got what was committed until now."""
    feed = market.application.views.live
    await market.settle()
    onlooker = feed.onlooker()
    ends = {place: end for place, (_, end) in (await onlooker.spans()).items()}
    await onlooker.close()

    def come() -> bool:
        there = feed.places.positions()
        read = all(there[place] >= end for place, end in ends.items())
        return read and not any(feed.has_more(listener) for listener in feed._listeners)

    await wait_until(come, within=20)


@pytest.mark.core
async def test_every_committed_change_of_a_row_is_told_as_the_lists_show_it(market: Market) -> None:
    async with listening(market.application.views) as client:
        hello = client.heard[0]
        assert client.headers["content-type"].startswith("text/event-stream")
        assert client.headers["cache-control"] == "no-store"
        assert client.headers["x-content-type-options"] == "nosniff"
        assert (hello.event, hello.data["resumed"], client.retry) == ("hello", False, "1000")
        assert hello.data["asOf"].startswith("2027-01-15T08:00:0")

        await market.stock_is(aceite=50)
        await market.order("order-1", ("aceite", 2))
        await market.paid("order-1")
        await client.hears("order", state="completed")
        await settle(market)

        assert {"awaiting_payment", "completed"} < set(client.told("order", "state"))
        assert client.told("stock", "available")[-1] == 48
        last = {each.event: each.data for each in client.heard}
        assert last["order"] == (await items(market, "/api/orders"))[0]
        assert last["stock"] == (await items(market, "/api/inventory"))[0]

        market.expects_dead_letters = True
        await market.hear("order.created", b"no json", "order-2")
        letter = await client.hears("dead-letter")
        assert [letter.data] == await items(market, "/api/dead-letters")


@pytest.mark.core
async def test_a_client_that_comes_back_lacks_nothing_not_even_over_a_restart(market: Market) -> None:
    await market.stock_is(aceite=50, queso=50)
    async with listening(market.application.views) as client:
        await market.order("order-1", ("aceite", 1))
        await client.hears("order", orderId="order-1", state="awaiting_payment")
        place = client.place
    seen = {(each.event, json.dumps(each.data)) for each in client.heard}

    await market.paid("order-1")
    await market.restart()
    await market.order("order-2", ("queso", 3))
    async with listening(market.application.views, place) as client:
        assert client.heard[0].data["resumed"] is True
        await market.order("order-3", ("queso", 1))
        await client.hears("order", orderId="order-3", state="awaiting_payment")
        await settle(market)
        seen |= {(each.event, json.dumps(each.data)) for each in client.heard}
        for path, event in (("/api/orders", "order"), ("/api/inventory", "stock")):
            for item in await items(market, path):
                assert (event, json.dumps(item)) in seen
        assert "completed" in client.told("order", "state")
        place = client.place

    async with listening(market.application.views, place) as client:  # there is nothing new
        await settle(market)
        assert [each.event for each in client.heard] == ["hello"]
    async with listening(market.application.views, after=client.place) as client:  # the id of hello is a place, too
        assert client.heard[0].data["resumed"] is True


@pytest.mark.core
async def test_every_event_s_id_is_the_place_behind_it(market: Market) -> None:
    await market.stock_is(aceite=50, queso=50, miel=50)
    async with listening(market.application.views) as client:
        for number in range(6):
            await market.order(f"order-{number}", ("aceite", 1), ("queso", 1), ("miel", 1))
        await settle(market)
        told = client.heard[1:]
    assert len({each.place for each in told}) == len(told)

    def counted(heard: list[Any]) -> list[str]:
        return sorted(json.dumps([each.event, each.data]) for each in heard)

    for at in range(0, len(told), 7):
        async with listening(market.application.views, told[at].place) as again:
            await wait_until(lambda: len(again.heard) > len(told) - at - 1)  # noqa: B023
            await settle(market)
            assert counted(again.heard[1:]) == counted(told[at + 1 :])


# ---- what is wanted -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"kinds": "stock"}, {"aceite", "queso"}),
        ({"kinds": "order,dead-letter"}, {"order-1", "order-2", "order-3"}),
        ({"state": ["completed", "closed"]}, {"order-1"}),
        ({"state": "open"}, {"order-3"}),
        ({"orderId": "order-2"}, {"order-2"}),
        ({"orderId": "order-3"}, {"order-3"}),
        ({"productId": "queso"}, {"queso", "order-2"}),
        ({"customerId": "customer-1"}, {"order-1", "order-2"}),
        ({"customerId": "nobody"}, set()),
        ({"customerId": "customer-1", "kinds": "stock"}, set()),
    ],
)
async def test_a_filter_lets_through_what_is_all_of_it(market: Market, query: dict[str, Any], wanted: set[str]) -> None:
    market.expects_dead_letters = True
    begin = ""
    async with listening(market.application.views) as client:
        begin = client.place
    async with listening(market.application.views, **query) as client:
        await market.stock_is(aceite=50, queso=50)
        await market.order("order-1", ("aceite", 1))
        await market.order("order-2", ("queso", 1))
        await market.paid("order-1")
        await market.hear("order.created", b"no json", "order-3")
        await settle(market)
        live = client.heard[1:]
    about = {each.data.get("orderId") or each.data.get("productId") or each.data["key"] for each in live}
    assert about == wanted
    async with listening(market.application.views, begin, **query) as client:  # and what was missed as well
        await wait_until(lambda: len(client.heard) > len(live))
        await settle(market)
        assert sorted(map(str, (each.data for each in client.heard[1:]))) == sorted(
            map(str, (each.data for each in live))
        )


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ({"kinds": "order,mail"}, "there is no 'mail'"),
        ({"state": "lost"}, "there is no 'lost'"),
        ({"customer": "customer-1"}, "There is no parameter customer"),
    ],
)
async def test_a_filter_that_there_is_not_is_refused(market: Market, query: dict[str, Any], cause: str) -> None:
    async with listening(market.application.views, **query) as client:
        assert client.status == 400
        assert client.headers["content-type"] == "application/problem+json"
        assert cause in json.loads(client.body)["detail"]


async def test_a_heartbeat_takes_the_place_over_what_is_not_wanted(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_stream, "HEARTBEAT", 0.05)
    async with listening(market.application.views, kinds="order") as client:
        before = client.place
        await market.stock_is(aceite=50)
        await settle(market)
        await wait_until(lambda: client.place != before)
        assert len(client.heard) == 1
        place = client.place
    async with listening(market.application.views, place) as client:
        await settle(market)
        assert len(client.heard) == 1


# ---- places that lead nowhere ----------------------------------------------------------------------------


async def test_a_place_of_another_log_or_beyond_its_end_begins_anew(market: Market, open_market: Opens) -> None:
    other = await open_market()
    await other.stock_is(aceite=50)
    async with listening(other.application.views) as client:
        elsewhere = client.place
    async with listening(market.application.views) as client:
        here = client.place
    feed = market.application.views.live
    ahead = feed.places.copy()
    ahead.move(0, 1_000)
    for place, cause in (
        (elsewhere, "of another log"),
        ("nonsense", "of another log"),
        (here[:-4], "of another log"),
        ("%%%", "of another log"),
        (ahead.word(), "not in the log any more"),
    ):
        async with listening(market.application.views, place) as client:
            restart = await client.hears("restart")
            assert cause in restart.data["reason"]
            assert client.heard[0].data["resumed"] is False
            await market.stock_is(**{f"queso{place[:2].strip('%')}": 1})
            await client.hears("stock")


async def test_from_too_far_behind_one_begins_anew(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "FAR", 3)
    async with listening(market.application.views) as client:
        place = client.place
    await market.stock_is(aceite=1, queso=1, miel=1, jamon=1)
    async with listening(market.application.views, place) as client:
        assert "too far behind" in (await client.hears("restart")).data["reason"]


@pytest.mark.embedded_only("Kafka compacts when it likes")
async def test_of_rows_that_were_compacted_the_latest_comes_once(market: Market) -> None:
    async with listening(market.application.views) as client:
        place = client.place
    for on_hand in range(1, 9):
        await market.stock_is(aceite=on_hand, queso=on_hand)
    log = market.application.log
    assert isinstance(log, EmbeddedLog)
    for partition in range(2):
        await log.tidying.compact("inventory-changelog", partition)
    async with listening(market.application.views, place) as client:
        await settle(market)
        await wait_until(lambda: len(client.heard) > 2)
        assert [each.data["onHand"] for each in client.heard[1:]] == [8, 8]


async def test_who_has_been_further_on_another_worker_is_not_told_of_the_same_again(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    await market.stock_is(aceite=50)
    views = market.application.views
    feed, faster = views.live, LiveFeed(market.application.log, Metrics(lambda: NOW))
    tells, held = feed._tell, list[Any]()
    async with listening(views) as client:
        monkeypatch.setattr(feed, "_tell", lambda *read: held.append(read))
        async with listening(dataclasses.replace(views, live=faster)) as there:
            await market.stock_is(aceite=40)
            await there.hears("stock")
        async with listening(views, there.place) as returned:
            assert returned.heard[0].data["resumed"] is True
            monkeypatch.setattr(feed, "_tell", tells)
            for read in held:
                tells(*read)
            await market.stock_is(aceite=30)
            await returned.hears("stock", onHand=30)
            assert returned.told("stock", "onHand") == [30]
            assert client.told("stock", "onHand") == [40, 30]
    await faster.stop()


# ---- bounds ---------------------------------------------------------------------------------------------


@pytest.mark.core
async def test_who_does_not_read_is_dropped_with_notice_and_may_come_back_while_others_go_on(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_feed, "BEHIND", 10)
    await market.stock_is(aceite=500)
    views = market.application.views
    async with listening(views) as other, listening(views) as slow:
        slow.reads.clear()
        for number in range(8):
            await market.order(f"order-{number}", ("aceite", 1))
            await other.hears("order", orderId=f"order-{number}", state="awaiting_payment")
        assert views.metrics.registry.get_sample_value("live_clients_dropped_total") == 1
        assert len(views.live._events) <= 10
        slow.reads.set()
        dropped = await slow.hears("dropped")
        assert dropped.data["behind"] > 10
        await wait_until(lambda: slow.ended)
        await other.hears("order", orderId="order-7", state="awaiting_payment")
        assert not other.ended
    async with listening(views, slow.place) as back:
        await settle(market)
        await back.hears("order", orderId="order-7", state="awaiting_payment")
        heard = slow.heard + back.heard
        for item in await items(market, "/api/orders"):
            assert any(each.data == item for each in heard)


async def test_what_comes_at_once_is_kept_whatever_its_size_and_no_more(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_feed, "BEHIND_BYTES", 300)
    async with listening(market.application.views) as client:
        for on_hand in (1, 2, 3):
            await market.stock_is(aceite=on_hand, queso=on_hand)
            await client.hears("stock", productId="queso", onHand=on_hand)
            await client.hears("stock", productId="aceite", onHand=on_hand)
            assert len(market.application.views.live._events) <= 2
        assert not market.application.metrics.registry.get_sample_value("live_clients_dropped_total")


async def test_who_does_not_take_what_was_missed_in_time_is_dropped(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_stream, "CATCHES_UP", 0.2)
    async with listening(market.application.views) as client:
        place = client.place
    await market.stock_is(aceite=1)
    async with listening(market.application.views, place) as client:
        await client.hears("stock")
    hindered = asyncio.Event()
    original = live_stream.LiveStream._read

    async def never(*arguments: Any) -> None:
        await hindered.wait()
        await original(*arguments)

    monkeypatch.setattr(live_stream.LiveStream, "_read", never)
    async with listening(market.application.views, place) as client:
        await client.hears("dropped")
        await wait_until(lambda: client.ended)


async def test_no_more_than_so_many_may_listen(open_market: Opens) -> None:
    market = await open_market(live_clients=2)
    views = market.application.views
    async with listening(views), listening(views):
        assert views.metrics.registry.get_sample_value("live_clients") == 2
        async with listening(views) as third:
            assert third.status == 503
            assert third.headers["retry-after"] == "2"
            assert json.loads(third.body)["type"] == "/docs#too-many-clients"
    async with listening(views) as third:
        assert third.status == 200


# ---- beginning and ending --------------------------------------------------------------------------------


@pytest.mark.embedded_only("it looks into that log")
async def test_while_nobody_listens_nothing_is_read_or_kept(market: Market) -> None:
    log = market.application.log
    assert isinstance(log, EmbeddedLog)
    places = {log.place(topic, partition) for topic in TOPICS for partition in range(2)}

    def nothing() -> bool:
        return not set(TOPICS) & set(log._watchers) and not places & set(log._tails._tails)

    for _ in range(2):
        async with listening(market.application.views):
            await market.stock_is(aceite=1)
            assert not nothing()
        await wait_until(nothing)
        assert market.application.views.live._reading is None


async def test_the_end_of_the_worker_ends_every_stream(market: Market) -> None:
    async with listening(market.application.views) as client:
        await market.application.views.live.stop()
        await wait_until(lambda: client.ended)


async def test_a_stream_counts_as_long_as_it_takes_to_begin(market: Market) -> None:
    async with listening(market.application.views):
        await asyncio.sleep(0.3)
    read = market.application.metrics.registry.get_sample_value
    labels = {"method": "GET", "route": "/api/live"}
    assert await wait_until(lambda: read("http_request_duration_seconds_count", labels)) == 1
    assert (read("http_request_duration_seconds_sum", labels) or 0) < 0.25


async def test_a_log_that_can_t_be_read_is_read_again_and_clients_are_told_to_begin_anew(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_feed, "AGAIN", 0.05)
    feed = market.application.views.live
    onlooker = feed.onlooker()

    async def gone(_limit: int, _wait: float) -> list[Record]:
        raise LogFailed("the place is gone")

    monkeypatch.setattr(onlooker, "take", gone)
    monkeypatch.setattr(feed, "onlooker", iter([onlooker, feed.onlooker()]).__next__)
    async with listening(market.application.views, kinds="stock") as client:
        await client.hears("restart", reason="the log could not be read")
        await market.stock_is(aceite=1)
        await client.hears("stock")


async def test_without_a_log_that_answers_it_is_503(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = market.application.views.live
    onlooker = feed.onlooker()

    async def silent() -> Any:
        raise LogFailed("no answer")

    monkeypatch.setattr(onlooker, "spans", silent)
    monkeypatch.setattr(feed, "onlooker", lambda: onlooker)
    async with listening(market.application.views) as client:
        assert client.status == 503
        assert client.headers["retry-after"] == "2"
        assert json.loads(client.body)["reasons"] == {"log": "no answer"}
    assert not feed._listeners
