"""Dead letters over HTTP and the real log: found, shown, replayed and discarded, each once."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.engine.records import Send
from app.web.api import create_api
from tests.flows.market import Market
from tests.waiting import wait_until

LETTERS = "/api/dead-letters"


@asynccontextmanager
async def web_of(market: Market) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_api(market.application.views))
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
        yield client


@pytest.fixture
async def shop(market: Market) -> Market:
    """A market that expects dead letters, with an order that waits for its payment."""
    market.expects_dead_letters = True
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    return market


@pytest.fixture
async def web(shop: Market) -> AsyncIterator[httpx.AsyncClient]:
    async with web_of(shop) as client:
        yield client


def payment(**data: Any) -> bytes:
    """The payment of order-1, with these changes in its data."""
    said = {"orderId": "order-1", "transactionId": "txn-1", "amount": 25.0, "currency": "EUR"} | data
    envelope = {"eventId": "e-pay", "eventType": "PaymentSucceededEvent", "aggregateId": "pay-1", "eventData": said}
    return json.dumps(envelope).encode()


async def listed(web: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await web.get(LETTERS, params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def ids(web: httpx.AsyncClient, **query: Any) -> list[str]:
    return [letter["id"] for letter in (await listed(web, **query))["items"]]


async def replay(web: httpx.AsyncClient, letter: str, **body: Any) -> httpx.Response:
    return await web.post(f"{LETTERS}/{letter}/replay", json={"by": "ana", **body})


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix("/docs#")


# ---- looking --------------------------------------------------------------------------------------------


@pytest.mark.core
async def test_a_letter_is_listed_and_shown_with_everything(shop: Market, web: httpx.AsyncClient) -> None:
    payload = payment(amount="25")
    await shop.hear("payment.succeeded", payload, "order-1", ("traceparent", b"00-1"))
    page = await listed(web)
    [letter] = page["items"]
    assert (letter["state"], letter["reason"], letter["topic"]) == ("open", "wrong-type", "payments")
    assert (letter["subject"], letter["key"], letter["bytes"]) == ("payment.succeeded", "order-1", len(payload))
    assert (page["states"], page["reasons"]) == ({"open": 1, "replayed": 0, "discarded": 0}, {"wrong-type": 1})
    assert (page["nextCursor"], page["partial"], page["lag"]) == (None, False, 0)
    whole = (await web.get(f"{LETTERS}/{letter['id']}")).json()
    assert base64.b64decode(whole["payloadBase64"]) == payload
    assert whole["payload"] == json.loads(payload)
    assert {"name": "traceparent", "value": "00-1"} in whole["headers"]
    assert "amount" in whole["fullError"]
    [heard] = [record for record in shop.records("payments") if record.value == payload]
    assert whole["place"] == f"{heard.partition}-{heard.offset}"
    assert (whole["acts"], whole["gone"]) == ([], False)


async def test_what_is_not_json_is_shown_as_bytes(shop: Market, web: httpx.AsyncClient) -> None:
    await shop.hear("payment.succeeded", b"\xff\xfe\x00", "order-1")
    [letter] = await ids(web)
    whole = (await web.get(f"{LETTERS}/{letter}")).json()
    assert whole["payload"] is None
    assert base64.b64decode(whole["payloadBase64"]) == b"\xff\xfe\x00"


async def test_the_list_is_filtered_and_cut_into_pages_by_time(shop: Market, web: httpx.AsyncClient) -> None:
    for number in range(5):
        await shop.hear("payment.succeeded", b"rubbish %d" % number, f"order-{number}")
        await shop.later(60)
    await shop.hear("order.created", b"[]", "order-9")
    newest = await ids(web)
    assert newest == sorted(newest, reverse=True)
    assert len(newest) == 6
    assert await ids(web, order="oldest") == newest[::-1]
    for order, expected in (("newest", newest), ("oldest", newest[::-1])):
        found, cursor = [], None
        while True:
            page = await listed(web, order=order, limit=2, **({"cursor": cursor} if cursor else {}))
            found += [letter["id"] for letter in page["items"]]
            cursor = page["nextCursor"]
            if cursor is None:
                break
        assert found == expected
    assert await ids(web, reason="not-an-object") == newest[:1]
    assert await ids(web, subject="order.*") == newest[:1]
    assert await ids(web, topic="payments", text="RUBBISH 3") == [newest[2]]
    assert await ids(web, text="order-4") == [newest[1]]
    assert await ids(web, state="replayed") == []
    at = {letter["id"]: letter["at"] for letter in (await listed(web))["items"]}
    since, until = at[newest[3]], at[newest[1]]
    for order in ("newest", "oldest"):
        assert sorted(await ids(web, since=since, until=until, order=order)) == sorted(newest[2:4])


async def test_a_rare_reason_is_found_without_looking_further(shop: Market, web: httpx.AsyncClient) -> None:
    await shop.hear("order.created", b"[]", "order-9")
    await shop.later(1)
    subject = (("a4co-subject", b"payment.succeeded"),)
    await shop.log.append([Send("payments", b"order-1", b"rubbish", subject)] * 30)
    await shop.settle()
    page = await listed(web, reason="not-an-object", limit=10)
    assert (len(page["items"]), page["nextCursor"]) == (1, None)
    assert page["reasons"] == {"not-json": 30, "not-an-object": 1}


@pytest.mark.parametrize("letter", ["nobody", "0" * 18, "v" * 18])
async def test_an_unknown_letter_is_a_404(web: httpx.AsyncClient, letter: str) -> None:
    assert problem(await web.get(f"{LETTERS}/{letter}")) == (404, "unknown-letter")
    assert problem(await replay(web, letter)) == (404, "unknown-letter")


async def test_a_wrong_filter_is_a_problem(web: httpx.AsyncClient) -> None:
    for query in ({"state": "lost"}, {"since": "yesterday"}, {"limit": 0}, {"order": "any"}):
        assert problem(await web.get(LETTERS, params=query)) == (422, "invalid-request")
    assert problem(await web.get(LETTERS, params={"cursor": "%"})) == (400, "invalid-cursor")


# ---- replaying ------------------------------------------------------------------------------------------


@pytest.mark.core
async def test_a_corrected_payload_goes_through_with_the_same_event_id_and_once(
    shop: Market, web: httpx.AsyncClient
) -> None:
    await shop.hear("payment.succeeded", payment(amount="25"), "order-1")
    [letter] = await ids(web)
    answers = [await replay(web, letter, payload=json.loads(payment())) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200], answers[0].text
    await shop.settle()
    assert shop.saga("order-1").state == "completed"
    [again] = [record for record in shop.records("payments") if dict(record.headers).get("a4co-letter")]
    headers = dict(again.headers)
    assert json.loads(again.value or b"") == json.loads(payment())
    assert (again.key, headers["a4co-letter"]) == (b"order-1", letter.encode())
    assert not {"a4co-reason", "a4co-error", "a4co-topic"} & set(headers)
    whole = answers[-1].json()
    assert whole["state"] == "replayed"
    assert [(act["what"], act["by"]) for act in whole["acts"]] == [("replayed", "ana")]
    assert whole["acts"][0]["detail"].startswith("edited: ")
    assert whole["payload"]["eventData"]["amount"] == "25"  # the original is kept
    assert problem(await replay(web, letter, payload={"another": 1})) == (409, "letter-closed")


async def test_what_would_fail_again_is_left_alone_and_told(shop: Market, web: httpx.AsyncClient) -> None:
    await shop.hear("payment.succeeded", b"rubbish", "order-1")
    [letter] = await ids(web)
    answer = await replay(web, letter)
    assert problem(answer) == (422, "still-unusable")
    assert answer.json()["detail"].startswith("not-json")
    assert problem(await replay(web, letter, payload={"eventId": "x"})) == (422, "still-unusable")
    assert await ids(web, state="open") == [letter]
    assert len(shop.dead_letters()) == 1


async def test_a_message_that_had_no_key_gets_the_one_of_its_correction(shop: Market, web: httpx.AsyncClient) -> None:
    """As the bridge keeps what it can't find a key in."""
    headers = (("a4co-subject", b"payment.succeeded"), ("a4co-reason", b"not-json"), ("a4co-topic", b"payments"))
    await shop.log.append([Send("dead-letters", None, b"rubbish", headers)])
    await shop.settle()
    [letter] = await ids(web)
    assert (await replay(web, letter, payload=json.loads(payment()))).status_code == 200
    await shop.settle()
    assert shop.saga("order-1").state == "completed"


@pytest.mark.core
async def test_what_fails_again_is_a_new_letter_that_names_the_former_and_is_not_told_again(
    shop: Market, web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.hear("payment.succeeded", payment(amount=-1), "order-1")
    [letter] = await ids(web)
    monkeypatch.setattr("app.dead_letters.again", _unchecked)
    assert (await replay(web, letter)).status_code == 200
    await shop.settle()
    [newer, older] = (await listed(web))["items"]
    assert (newer["replayOf"], newer["state"], older["cameBackAs"]) == (letter, "open", newer["id"])
    assert len(shop.said("payment.succeeded.dlq")) == 1
    acts = (await web.get(f"{LETTERS}/{letter}")).json()["acts"]
    assert [act["what"] for act in acts] == ["replayed", "came back"]


def _unchecked(letter: Any, identity: str, key_of: Any, payload: bytes | None = None) -> Send:
    """What can't be read is sent all the same, as by a worker that could read it."""
    headers = tuple(pair for pair in letter.headers if not pair[0].startswith("a4co-") or pair[0] == "a4co-subject")
    return Send("payments", letter.key, letter.value, (*headers, ("a4co-letter", identity.encode())))


async def test_what_nats_refused_is_published_again_with_its_id(shop: Market, web: httpx.AsyncClient) -> None:
    headers = (("a4co-subject", b"order.confirmed"), ("Nats-Msg-Id", b"said-9"), ("a4co-dialect", b"a"))
    place = (("a4co-reason", b"too-large"), ("a4co-topic", b"outbound"))
    await shop.log.append([Send("dead-letters", b"order-9", b"{}", (*headers, *place))])
    await shop.settle()
    [letter] = await ids(web)
    before = len(shop.records("outbound"))
    assert (await replay(web, letter)).status_code == 200
    await shop.settle()
    assert len(shop.records("outbound")) == before + 1
    [again] = [record for record in shop.records("outbound") if dict(record.headers).get("a4co-letter")]
    assert (again.key, again.value) == (b"order-9", b"{}")
    assert again.headers == (*headers, ("a4co-letter", letter.encode()))


async def test_an_internal_message_goes_to_its_agent_again(shop: Market, web: httpx.AsyncClient) -> None:
    place = (("a4co-reason", b"KeyError"), ("a4co-topic", b"mails"))
    await shop.paid("order-1")
    mail = shop.records("mails")[0]
    await shop.log.append([Send("dead-letters", mail.key, mail.value, place)])
    await shop.settle()
    [letter] = await ids(web)
    assert (await replay(web, letter)).status_code == 200
    await shop.settle()
    assert len(shop.box.mails) == 2


@pytest.mark.parametrize("topic", [b"nowhere", b"letter-commands", b"dead-letters", b""])
async def test_a_letter_that_no_topic_may_get_stays(shop: Market, web: httpx.AsyncClient, topic: bytes) -> None:
    await shop.log.append([Send("dead-letters", b"k", b"{}", (("a4co-reason", b"x"), ("a4co-topic", topic)))])
    await shop.settle()
    [letter] = await ids(web)
    assert problem(await replay(web, letter)) == (422, "still-unusable")
    await shop.later(1)
    assert await ids(web, state="open") == [letter]


# ---- discarding -----------------------------------------------------------------------------------------


@pytest.mark.core
async def test_a_letter_is_discarded_with_a_reason_and_stays_in_the_list(shop: Market, web: httpx.AsyncClient) -> None:
    await shop.hear("payment.succeeded", b"rubbish", "order-1")
    [letter] = await ids(web)
    url = f"{LETTERS}/{letter}/discard"
    assert problem(await web.post(url, json={"by": "eva"})) == (422, "invalid-wish")
    assert problem(await web.post(url, json={"by": "eva", "reason": ""})) == (422, "invalid-wish")
    for _ in range(2):
        answer = await web.post(url, json={"by": "eva", "reason": "a test"})
        assert (answer.status_code, answer.json()["state"]) == (200, "discarded")
        assert [(act["by"], act["detail"]) for act in answer.json()["acts"]] == [("eva", "a test")]
    assert problem(await replay(web, letter)) == (409, "letter-closed")
    page = await listed(web)
    assert (page["states"]["discarded"], page["states"]["open"]) == (1, 0)
    assert await ids(web, state="open") == []


# ---- many -----------------------------------------------------------------------------------------------


async def some_letters(shop: Market, good: int, bad: int) -> None:
    """So many that can be read by now, and so many that can't."""
    place = (("a4co-subject", b"order.updated"), ("a4co-reason", b"KeyError"), ("a4co-topic", b"orders"))
    for number in range(good + bad):
        order = f"order-{number}"
        event = {"eventId": f"u-{number}", "aggregateId": order, "eventData": {"note": "x"}}
        value = json.dumps(event).encode() if number < good else b"rubbish"
        await shop.log.append([Send("dead-letters", order.encode(), value, place)])
        shop.now += 1
    await shop.settle()


async def test_many_are_replayed_by_a_filter_after_a_dry_run(shop: Market, web: httpx.AsyncClient) -> None:
    await some_letters(shop, 5, 2)
    oldest = await ids(web, order="oldest")
    query: dict[str, Any] = {"reason": "KeyError", "limit": 4, "dryRun": True}
    dry = (await web.post(f"{LETTERS}/replay", params=query, json={})).json()
    assert [item["id"] for item in dry["items"]] == oldest[:4]
    assert {item["outcome"] for item in dry["items"]} == {"accepted"}
    assert (dry["dryRun"], (await listed(web))["states"]["open"]) == (True, 7)
    outcomes: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await web.post(f"{LETTERS}/replay", params=query | {"dryRun": False} | cursor, json={"by": "ana"})
        assert answer.status_code == 202
        outcomes += [item["outcome"] for item in answer.json()["items"]]
        if answer.json()["nextCursor"] is None:
            break
        cursor = {"cursor": answer.json()["nextCursor"]}
    assert outcomes == ["accepted"] * 5 + ["still-unusable"] * 2
    await shop.settle()
    assert [record.key for record in shop.records("orders") if dict(record.headers).get("a4co-letter")]
    assert (await listed(web))["states"] == {"open": 2, "replayed": 5, "discarded": 0}
    replayed = [dict(record.headers)["a4co-letter"] for record in shop.records("orders")[1:] if record.headers]
    assert len(set(replayed)) == len(replayed) == 5


async def test_named_letters_are_discarded_at_once(shop: Market, web: httpx.AsyncClient) -> None:
    await some_letters(shop, 3, 0)
    some = (await ids(web))[:2]
    body = {"letters": [*some, "v" * 18], "reason": "old", "by": "eva"}
    answer = await web.post(f"{LETTERS}/discard", json=body)
    assert [item["outcome"] for item in answer.json()["items"]] == ["accepted", "accepted", "gone"]
    await shop.settle()
    assert sorted(await ids(web, state="discarded")) == sorted(some)


async def test_a_wish_about_many_must_say_which(shop: Market, web: httpx.AsyncClient) -> None:
    await some_letters(shop, 1, 0)
    assert problem(await web.post(f"{LETTERS}/replay", json={})) == (422, "no-filter")
    assert problem(await web.post(f"{LETTERS}/discard", json={"reason": "all", "letters": []})) == (422, "no-filter")
    answer = await web.post(f"{LETTERS}/discard", params={"all": True}, json={"reason": "all"})
    assert len(answer.json()["items"]) == 1


async def test_a_wish_must_be_json_by_its_header(shop: Market, web: httpx.AsyncClient) -> None:
    """A page of another origin can't send that without asking first."""
    await shop.hear("payment.succeeded", b"rubbish", "order-1")
    [letter] = await ids(web)
    for path in (f"/{letter}/replay", f"/{letter}/discard", "/replay", "/discard"):
        answer = await web.post(LETTERS + path, content=b'{"reason":"x"}', headers={"content-type": "text/plain"})
        assert problem(answer) == (415, "not-json")
    assert await ids(web, state="open") == [letter]


# ---- restarts -------------------------------------------------------------------------------------------


@pytest.mark.core
async def test_states_survive_a_restart_and_a_lost_store(shop: Market) -> None:
    await some_letters(shop, 3, 0)
    async with web_of(shop) as web:
        oldest = await ids(web, order="oldest")
        await replay(web, oldest[0])
        await web.post(f"{LETTERS}/{oldest[1]}/discard", json={"reason": "old"})
        before = await listed(web)
    await shop.restart()
    async with web_of(shop) as web:
        await wait_until(lambda: shop.engine.ready)
        after = await listed(web)
        assert after | {"asOf": ""} == before | {"asOf": ""}
        assert (await replay(web, oldest[0])).status_code == 200
    await shop.settle()
    replayed = [record for record in shop.records("orders") if dict(record.headers).get("a4co-letter")]
    assert len(replayed) == 1


@pytest.mark.embedded_only("a lane can be stepped there")
async def test_letters_of_before_the_agent_get_their_rows(shop: Market) -> None:
    """As when an older version has written them: it begins at the topic's start."""
    await shop.restart(without=("keep_dead_letters",))
    await some_letters(shop, 2, 0)
    assert shop.rows()["dead_letters"] == {}
    await shop.restart()
    async with web_of(shop) as web:
        assert len(await ids(web)) == 2


async def test_open_letters_are_a_gauge_by_reason(shop: Market, web: httpx.AsyncClient) -> None:
    await shop.hear("payment.succeeded", b"rubbish", "order-1")
    await some_letters(shop, 2, 0)
    text = (await web.get("/metrics")).text
    assert 'dead_letters_open{reason="not-json"} 1.0' in text
    assert 'dead_letters_open{reason="KeyError"} 2.0' in text
    [letter] = await ids(web, reason="not-json")
    await web.post(f"{LETTERS}/{letter}/discard", json={"reason": "x"})
    assert 'dead_letters_open{reason="not-json"}' not in (await web.get("/metrics")).text
