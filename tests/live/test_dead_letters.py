"""Dead letters with real servers and processes: from poison on NATS to an order that goes through, and under kills."""

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from app import topics
from app.engine.embedded_log import EmbeddedLog
from app.engine.records import Send
from tests.live.kill_checks import EVERYTHING, header
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess, environment

pytestmark = [pytest.mark.live]

LETTERS = 3_000
KILLS = 3


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with await nats.connect(nats_server.url) as connected:
        yield connected


@pytest.fixture
async def worker(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[WorkerProcess]:
    process = WorkerProcess(tmp_path / "worker", NATS_URL=nats_server.url)
    yield process
    await process.close()


def dlq(worker: WorkerProcess, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own, with the worker's settings."""
    return subprocess.Popen(
        [Path(sys.executable).parent / "a4co", "dlq", *arguments],
        cwd=worker.folder,
        env=environment(worker.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


async def said(worker: WorkerProcess, *arguments: str) -> str:
    """What the command prints; it has to succeed."""
    process = dlq(worker, *arguments)
    output, errors = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, output + errors
    return output


async def test_poison_on_nats_is_listed_corrected_and_the_order_goes_through(
    worker: WorkerProcess, client: Client, tmp_path: Path
) -> None:
    heard: Counter[str] = Counter()

    async def hear(message: Msg) -> None:
        heard[message.subject] += 1

    worker.start()
    await worker.ready()
    for subject in ("order.>", "inventory.>", "payment.>"):
        await client.subscribe(subject, cb=hear)
    stock = {"eventId": "s-1", "eventType": "StockUpdatedEvent", "aggregateId": "product_queso_cabra",
             "eventData": {"newStock": 5, "changeAmount": 5, "updateReason": "initial"}}  # fmt: skip
    items = [{"productId": "product_queso_cabra", "quantity": 2, "unitPrice": 12.5}]
    order: dict[str, Any] = {
        "eventId": "o-1", "eventType": "OrderCreatedEvent", "aggregateId": "order-queso",
        "eventData": {"customerId": "c-1", "totalAmount": "25", "items": items},
    }  # fmt: skip
    await client.publish("inventory.stock.updated", json.dumps(stock).encode())
    await client.publish("order.created", json.dumps(order).encode())  # the total is a text: understood by nobody
    await client.publish("order.created", b'{"eventId": "o-2", ')  # not even a key can be found

    async def two_letters() -> bool:
        return len(await worker.pages("/api/dead-letters")) == 2

    await worker.until(two_letters)
    listed = await said(worker, "list")
    assert listed.startswith("2 open, 0 replayed, 0 discarded")
    by_reason = {letter["reason"]: letter["id"] for letter in await worker.pages("/api/dead-letters")}
    assert set(by_reason) == {"wrong-type", "not-json"}

    order["eventData"]["totalAmount"] = 25.0
    corrected = tmp_path / "order.json"
    corrected.write_text(json.dumps(order))
    for _ in range(2):
        await said(worker, "replay", by_reason["wrong-type"], "--edit", str(corrected))
    await said(worker, "discard", by_reason["not-json"], "--because", "cut off; the service has said it again")

    async def asked_to_pay() -> bool:
        return heard["payment.initiated"] == 1

    await worker.until(asked_to_pay)
    await worker.until(worker.idle)
    assert (await worker.get("/api/orders/order-queso"))["state"] == "awaiting_payment"
    assert heard["order.created.dlq"] == 2
    assert heard["payment.initiated"] == heard["inventory.stock.reserved"] == 1
    states = (await worker.get("/api/dead-letters"))["states"]
    assert states == {"open": 0, "replayed": 1, "discarded": 1}
    worker.stop()


async def put(path: Path, sends: list[Send]) -> None:
    """What is in a log that nobody has yet."""
    log = EmbeddedLog(path)
    await log.connect()
    await log.prepare({topic.name: topic.compacted for topic in topics.ALL}, 4)
    await log.commit(sends)
    await log.disconnect()


async def test_what_nats_refused_is_published_when_it_was_made_shorter(
    worker: WorkerProcess, client: Client, tmp_path: Path
) -> None:
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    await put(worker.data / "log.db", [Send("outbound", b"order-1", b'"%s"' % (b"x" * 2_000_000), (
        ("a4co-subject", b"order.cancelled"), ("Nats-Msg-Id", b"said-1"), ("a4co-dialect", b"a")))])  # fmt: skip
    await client.subscribe("order.>", cb=hear)
    worker.start()

    async def refused() -> Any:
        answer = await worker.answer("/api/dead-letters?reason=too-large&topic=outbound")
        return answer is not None and answer.status_code == 200 and answer.json()["items"]

    [letter] = await worker.until(refused)
    shorter = tmp_path / "shorter.json"
    shorter.write_text('{"eventId": "said-1", "aggregateId": "order-1", "eventData": {"reason": "out of stock"}}')
    await said(worker, "replay", letter["id"], "--edit", str(shorter))

    async def published() -> bool:
        return bool(heard)

    await worker.until(published)
    await worker.until(worker.idle)
    [message] = heard
    assert (message.subject, message.data) == ("order.cancelled", shorter.read_bytes())
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"].startswith("said-1:")
    worker.stop()


async def put_letters(path: Path) -> None:
    """So many letters that can be replayed."""
    place = (("a4co-subject", b"user.verified"), ("a4co-reason", b"KeyError"), ("a4co-topic", b"users"))
    events = [{"eventId": f"u-{number}", "aggregateId": f"user-{number}", "eventData": {}} for number in range(LETTERS)]
    await put(
        path,
        [
            Send("dead-letters", str(event["aggregateId"]).encode(), json.dumps(event).encode(), place)
            for event in events
        ],
    )


async def states_of(worker: WorkerProcess) -> dict[str, int]:
    answer = await worker.answer("/api/dead-letters?limit=1")
    return dict(answer.json()["states"]) if answer is not None and answer.status_code == 200 else {}


@pytest.mark.slow
async def test_worker_and_command_are_killed_while_letters_are_replayed_and_each_goes_again_once(
    worker: WorkerProcess,
) -> None:
    dice = random.Random(seed := 5)
    print(f"seed {seed}")
    await put_letters(worker.data / "log.db")
    worker.start()

    async def all_kept() -> bool:
        return sum((await states_of(worker)).values()) == LETTERS

    await worker.until(all_kept)
    command = dlq(worker, "replay", "--all", "--yes", "--rate", "2000")
    for kill in range(KILLS):
        wanted = LETTERS * (kill + dice.random()) // KILLS

        async def so_far(wanted: float = wanted) -> bool:
            return (await states_of(worker)).get("replayed", 0) > wanted

        await worker.until(so_far)
        assert command.poll() is None, "it has to be killed in the midst of it"
        worker.kill()
        if kill == 1:
            command.kill()
            command.communicate()
        worker.start()
        await worker.until(all_kept)
        if kill == 1:
            command = dlq(worker, "replay", "--all", "--yes", "--rate", "2000")
    output, errors = await asyncio.to_thread(command.communicate)
    assert command.returncode == 0, output + errors
    assert await states_of(worker) == {"open": 0, "replayed": LETTERS, "discarded": 0}
    worker.stop()

    log = EmbeddedLog(worker.data / "log.db")
    log.open()
    again = [record for partition in range(4) for record in log.read("users", partition, 0, EVERYTHING)]
    log.close()
    assert len(again) == LETTERS
    assert len({header(record, "a4co-letter") for record in again}) == LETTERS
    assert {record.key for record in again} == {b"user-%d" % number for number in range(LETTERS)}
