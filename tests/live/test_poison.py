"""The poison set through a real NATS into the real application: each as its row says, its neighbours undisturbed."""

import json
from collections import Counter
from pathlib import Path

import pytest

from app.domain.rows import SagaState
from app.engine.records import Record
from bridge.dead_letters import LONGEST_KEPT
from tests.live.market_site import MarketSite, market_site, order_created
from tests.live.nats_server import NatsServer
from tests.live.poison import KEPT, MEBIBYTE, POISON, Applied, Poison

pytestmark = [pytest.mark.live, pytest.mark.slow]

CASE = "x-case"


def test_the_poison_set_has_its_size_and_no_row_twice() -> None:
    assert len(POISON) >= 60
    assert len({poison.what for poison in POISON}) == len(POISON)


async def test_each_poison_becomes_what_its_row_says_and_its_neighbours_are_applied(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", max_payload=16 * MEBIBYTE)
    await server.start()
    try:
        async with market_site(server.url, tmp_path / "data") as site:
            for number, poison in enumerate(POISON):
                await site.publish("order.created", order_created(f"neighbour-{number}"))
                await site.publish(poison.subject, poison.payload, {**poison.headers, CASE: str(number)})
            await site.publish("order.created", order_created("neighbour-last"))
            await site.idle(within=60)
            found = [(poison, _became(site, number, poison)) for number, poison in enumerate(POISON)]
            assert not [(poison.what, poison.becomes, what) for poison, what in found if what != poison.becomes]
            for name in (*range(len(POISON)), "last"):
                saga = site.saga(f"neighbour-{name}")
                assert saga is not None, f"neighbour {name} is lost"
                assert saga.state is SagaState.AWAITING_PAYMENT
            _all_dead_letters_are_whole_and_told(site)
            assert site.application.ready() == (True, {})
    finally:
        server.stop()


def _became(site: MarketSite, number: int, poison: Poison) -> object:
    """What became of a row, in its own words; anything else when it is not one thing only."""
    reasons = [dict(letter.headers)["a4co-reason"].decode() for letter in _of(site, number, "dead-letters")]
    mirrored = _of(site, number, "orders", "payments", "stock", "notifications", "users")
    if reasons:
        return reasons[0] if len(reasons) == 1 else reasons
    if isinstance(poison.becomes, Applied) and site.saga(poison.becomes.order) is not None:
        return poison.becomes
    return KEPT if len(mirrored) == 1 else "lost"


def _of(site: MarketSite, number: int, *topics: str) -> list[Record]:
    return [record for topic in topics for record in site.records(topic) if (CASE, b"%d" % number) in record.headers]


def _all_dead_letters_are_whole_and_told(site: MarketSite) -> None:
    dead = {
        number: poison
        for number, poison in enumerate(POISON)
        if not isinstance(poison.becomes, Applied) and poison.becomes != KEPT
    }
    letters = {number: _of(site, number, "dead-letters")[0] for number in dead}
    assert len(site.records("dead-letters")) == len(dead)
    for number, poison in dead.items():
        headers = dict(letters[number].headers)
        assert letters[number].value == poison.payload[:LONGEST_KEPT], poison.what
        cut = b"%d" % len(poison.payload) if len(poison.payload) > LONGEST_KEPT else None
        assert headers.get("a4co-cut") == cut, poison.what
        assert headers["a4co-error"]
        assert headers["a4co-subject"].decode() == poison.subject
    told = Counter(message.subject for message in site.heard if message.subject.endswith(".dlq"))
    assert told == Counter(f"{poison.subject}.dlq" for poison in dead.values())
    for message in site.heard:
        if message.subject.endswith(".dlq"):
            word = json.loads(message.data)
            assert word["originalSubject"] + ".dlq" == message.subject
            assert word["error"]["message"]
