"""`a4co dlq` beside a running worker, whose HTTP it asks, and on the embedded log of one that has ended."""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn
from click.testing import CliRunner, Result

from app.cli import main
from app.commands import dlq_work
from app.commands.dlq_pages import letter_lines, plain
from app.commands.worker_client import NoWorker, WorkerClient
from app.domain.dead_letters import LetterState
from app.engine.records import Record, Send
from app.web.api import create_api
from tests.flows.market import Market
from tests.waiting import wait_until

GOOD: dict[str, Any] = {
    "eventId": "e-pay", "eventType": "PaymentSucceededEvent", "aggregateId": "pay-1",
    "eventData": {"orderId": "order-1", "transactionId": "txn-1", "amount": 25.0, "currency": "EUR"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def market_s_own_lines() -> Iterator[None]:
    """They are not the command's, whose output is read while the market runs beside it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


class Site:
    """A market whose web is on a port, and the command line beside it."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.port = 1  # nobody listens there

    @asynccontextmanager
    async def web(self) -> AsyncIterator[None]:
        api = create_api(self.market.application.views)
        server = uvicorn.Server(uvicorn.Config(api, port=0, log_config=None, loop="none"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server.serve())
        await wait_until(lambda: server.started)
        self.port = server.servers[0].sockets[0].getsockname()[1]
        yield
        server.should_exit = True
        await task
        self.port = 1

    async def dlq(self, *arguments: str) -> Result:
        """The command on another process' account: with the market's settings, beside its loop."""
        environment = {"DATA_DIR": str(self.market.directory), "PARTITIONS": "2", "WEB_PORT": str(self.port)}
        result = await asyncio.to_thread(CliRunner().invoke, main, ("dlq", *arguments), env=environment)
        if self.market.running:
            await self.market.settle()
        return result

    async def letters(self, state: str = "open") -> list[dict[str, Any]]:
        """The oldest first."""
        listed = await self.dlq("list", "--state", state, "--oldest", "--json")
        return list(json.loads(listed.stdout)["items"])

    async def put(self, good: int, bad: int) -> None:
        """Letters: so many that can be read by now, and so many that can't."""
        place = (("a4co-subject", b"user.verified"), ("a4co-reason", b"KeyError"), ("a4co-topic", b"users"))
        for number in range(good + bad):
            event = {"eventId": f"u-{number}", "aggregateId": f"user-{number}", "eventData": {}}
            value = json.dumps(event).encode() if number < good else b"rubbish"
            key = None if number % 2 else f"user-{number}".encode()
            await self.market.log.append([Send("dead-letters", key, value, place)])
            self.market.now += 1
        await self.market.settle()

    def replayed(self, topic: str = "users") -> list[Record]:
        return [record for record in self.market.records(topic) if dict(record.headers).get("a4co-letter")]


@pytest.fixture
async def quiet(market: Market) -> Site:
    """A market that expects dead letters, with an order that waits for its payment; its web is not on."""
    market.expects_dead_letters = True
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    return Site(market)


@pytest.fixture
async def site(quiet: Site) -> AsyncIterator[Site]:
    async with quiet.web():
        yield quiet


@pytest.mark.core
async def test_a_letter_is_listed_shown_corrected_and_goes_through(site: Site, tmp_path: Path) -> None:
    await site.market.hear(
        "payment.succeeded", json.dumps(GOOD | {"eventData": {"orderId": "order-1"}}).encode(), "order-1"
    )
    [letter] = await site.letters()
    listed = (await site.dlq("list")).output.splitlines()
    assert listed[0] == "1 open, 0 replayed, 0 discarded  (1 missing-field)"
    assert listed[2].split()[0] == letter["id"]
    shown = await site.dlq("show", letter["id"])
    for text in ("reason        missing-field", "was in payments", '"orderId": "order-1"', "nobody has decided on it"):
        assert text in shown.output
    raw = await site.dlq("show", letter["id"], "--payload")
    corrected = tmp_path / "payment.json"
    corrected.write_text(json.dumps(json.loads(raw.stdout_bytes) | GOOD))
    refused = await site.dlq("replay", letter["id"])
    assert refused.exit_code == 1
    assert "It would be a dead letter again: missing-field" in refused.output
    for _ in range(2):
        result = await site.dlq("replay", letter["id"], "--edit", str(corrected), "--by", "ana")
        assert (result.exit_code, result.stdout) == (0, f"{letter['id']}  replayed\n")
    assert site.market.saga("order-1").state == "completed"
    [again] = site.replayed("payments")
    assert again.value == corrected.read_bytes()
    assert "replayed by ana: edited: " in (await site.dlq("show", letter["id"])).output


async def test_many_are_looked_at_first_and_replayed_oldest_first(site: Site) -> None:
    await site.put(good=5, bad=2)
    dry = await site.dlq("replay", "--reason", "KeyError", "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout.splitlines()[0] == "5 open letters to replay"
    assert dry.stdout.splitlines()[2].startswith("2 would fail again, and stay: not-json, as ")
    assert len(await site.letters()) == 7
    unasked = await site.dlq("replay", "--reason", "KeyError")
    assert unasked.exit_code == 2
    assert "say --yes" in unasked.output
    assert len(await site.letters()) == 7
    result = await site.dlq("replay", "--reason", "KeyError", "--yes")
    assert result.exit_code == 0
    assert result.stdout.startswith("5 of 5 letters replayed, in ")
    assert {dict(record.headers)["a4co-letter"].decode() for record in site.replayed()} == {
        letter["id"] for letter in await site.letters("replayed")
    }
    assert len(await site.letters()) == 2
    nothing = await site.dlq("replay", "--reason", "KeyError", "--yes")
    assert (nothing.exit_code, nothing.stdout) == (0, "")


async def test_discarding_needs_a_reason_and_keeps_it(site: Site) -> None:
    await site.put(good=0, bad=3)
    letters = [letter["id"] for letter in await site.letters()]
    assert (await site.dlq("discard", letters[0])).exit_code == 2
    assert (await site.dlq("discard", letters[0], "--because", "a test", "--by", "eva")).stdout == (
        f"{letters[0]}  discarded\n"
    )
    assert (await site.dlq("discard", "--all", "--yes", "--because", "tests")).stdout.startswith("2 of 2 letters disc")
    shown = json.loads((await site.dlq("show", letters[0], "--json")).stdout)
    assert [(act["what"], act["by"], act["detail"]) for act in shown["acts"]] == [("discarded", "eva", "a test")]
    closed = await site.dlq("replay", letters[0])
    assert closed.exit_code == 1
    assert "was discarded by eva" in closed.output


async def test_which_letters_must_be_said(site: Site) -> None:
    await site.put(good=1, bad=0)
    for wrong in (
        ("replay",),
        ("replay", "--yes"),
        ("discard", "--because", "x"),
        ("replay", "--edit", __file__),
        ("list", "--since", "yesterday"),
    ):
        assert (await site.dlq(*wrong)).exit_code == 2, wrong
    assert len(await site.letters()) == 1
    unknown = await site.dlq("show", "nobody")
    assert unknown.exit_code == 1
    assert "404: Unknown dead letter" in unknown.output


async def test_what_is_broken_off_goes_on_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.put(good=6, bad=0)
    monkeypatch.setattr(dlq_work, "STEP", 2)
    some, steps = dlq_work.Office.some, []

    def breaks_off(office: dlq_work.Office, act: str, body: Any, query: Any = None) -> Any:
        if query is None:
            steps.append(body["letters"])
            if len(steps) == 3:
                raise KeyboardInterrupt
        return some(office, act, body, query)

    with monkeypatch.context() as patched:
        patched.setattr(dlq_work.Office, "some", breaks_off)
        result = await site.dlq("replay", "--all", "--yes")
    assert result.exit_code == 130
    assert "broken off: 4 of 6 letters replayed" in result.stderr
    assert len(await site.letters()) == 2
    assert (await site.dlq("replay", "--all", "--yes")).stdout.startswith("2 of 2 letters replayed")
    assert len(site.replayed()) == 6


async def test_a_step_that_nobody_answered_is_said_again_and_has_its_effect_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker did it, and died before it could say so."""
    await site.put(good=3, bad=0)
    ask, posts = WorkerClient.ask, []

    def deaf(client: WorkerClient, method: str, path: str, query: Any = None, body: Any = None) -> Any:
        answer = ask(client, method, path, query, body)
        if method == "POST" and not query:
            posts.append(body)
            if len(posts) == 1:
                raise NoWorker("the connection was lost")
        return answer

    monkeypatch.setattr(WorkerClient, "ask", deaf)
    result = await site.dlq("replay", "--all", "--yes")
    assert result.stdout.startswith("3 of 3 letters replayed")
    assert posts == [posts[0]] * 2
    assert len(site.replayed()) == 3


@pytest.mark.embedded_only("without a worker, the command opens the log itself")
async def test_without_a_worker_the_embedded_log_is_opened_and_the_next_worker_goes_on(quiet: Site) -> None:
    market = quiet.market
    wrong = json.dumps(GOOD | {"eventVersion": 2}).encode()
    await market.hear("payment.succeeded", wrong, "order-1")
    await market.stop()
    [letter] = await quiet.letters()
    corrected = market.directory / "corrected.json"
    corrected.write_text(json.dumps(GOOD))
    result = await quiet.dlq("replay", letter["id"], "--edit", str(corrected))
    assert (result.exit_code, result.stdout) == (0, f"{letter['id']}  replayed\n"), result.output
    assert (await quiet.letters("replayed"))[0]["id"] == letter["id"]
    await market.start()
    await market.settle()
    assert market.saga("order-1").state == "completed"
    assert market.row("dead_letters", letter["id"]).state is LetterState.REPLAYED
    assert len(quiet.replayed("payments")) == 1


def test_on_kafka_a_worker_has_to_run() -> None:
    environment = {"KAFKA_URL": "kafka://127.0.0.1:1", "WEB_PORT": "1"}
    result = CliRunner().invoke(main, ("dlq", "list"), env=environment)
    assert result.exit_code == 1
    assert "no worker answers at http://127.0.0.1:1/" in result.output
    assert "start `a4co worker` first, or say --url" in result.output


@pytest.mark.embedded_only("a Kafka log belongs to nobody")
async def test_a_worker_that_has_the_log_and_is_not_found_is_told(quiet: Site) -> None:
    result = await quiet.dlq("list")
    assert result.exit_code == 1
    assert "no worker answers at http://127.0.0.1:1/" in result.output
    assert f"is in use by the process {os.getpid()}" in result.output


async def test_what_came_from_outside_does_nothing_to_a_terminal(site: Site) -> None:
    evil = b'"\x1b]0;owned\x07 \xc2\x9b31m \xe2\x80\xae"'
    await site.market.hear("payment.succeeded", evil, "order-\x1b[2J")
    [letter] = await site.letters()
    for output in ((await site.dlq("list")).output, (await site.dlq("show", letter["id"])).output):
        assert all(character.isprintable() or character == "\n" for character in output)
    assert plain("a\x1b\n\u202eb") == "a···b"


def test_what_is_not_json_is_dumped() -> None:
    letter: dict[str, Any] = dict.fromkeys(
        ("id", "state", "at", "reason", "topic", "place", "subject", "key", "replayOf", "cameBackAs", "fullError"), ""
    ) | {"acts": [], "headers": [], "gone": False, "payload": None, "payloadBase64": "eyJh/wB6"}
    assert list(letter_lines(letter))[-2:] == [
        "payload       6 bytes, not JSON",
        "  000000  7b 22 61 ff 00 7a" + " " * 32 + '{"a··z',
    ]


def test_a_rate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    times = [now[0] for _ in dlq_work.paced(range(21), 10)]
    assert times[-1] == pytest.approx(2.0)
    assert list(dlq_work.paced(range(3), None)) == [0, 1, 2]
    assert now[0] == pytest.approx(2.0)
