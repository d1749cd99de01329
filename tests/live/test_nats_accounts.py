"""The accounts of deploy/nats on a server that enforces them: the whole application works, and more is refused."""

import json
import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from app.nats_settings import NatsOptions
from bridge.connection import Disconnected, LenientClient, connect
from tests.live.market_site import PICUAL, order_created, payment_succeeded
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.live

DEPLOY = Path(__file__).parents[2] / "deploy" / "nats"
BRIDGE, SERVICES = "PRESSED", "SHIPPED"


def _included(folder: Path) -> str:
    """nats-server takes an absolute path for one below the folder."""
    return f'include "{os.path.relpath(DEPLOY / "accounts.conf", folder)}"'


@pytest_asyncio.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NatsServer]:
    monkeypatch.setenv("BRIDGE_PASSWORD", BRIDGE)
    monkeypatch.setenv("SERVICES_PASSWORD", SERVICES)
    server = NatsServer(tmp_path / "nats", more=_included(tmp_path / "nats"))
    await server.start()
    yield server
    server.stop()


class User:
    """A connection of one of the users; `refused` is what the server said that it may not do."""

    def __init__(self) -> None:
        self.client = LenientClient()  # whose flush is one
        self.refused: list[str] = []

    async def connect(self, server: NatsServer, name: str, password: str, inbox: str) -> "User":
        async def on_error(error: Exception) -> None:
            self.refused.append(str(error))

        await self.client.connect(server.url, user=name, password=password, inbox_prefix=inbox, error_cb=on_error)
        return self

    async def may(self, attempt: Awaitable[Any]) -> bool:
        """Whether the server lets it pass."""
        before = len(self.refused)
        await attempt
        await self.client.flush()
        return len(self.refused) == before

    async def may_hear(self, subject: str, queue: str = "") -> bool:
        return await self.may(self.client.subscribe(subject, queue))

    async def may_say(self, subject: str) -> bool:
        return await self.may(self.client.publish(subject, b"{}"))


@pytest_asyncio.fixture
async def bridge(server: NatsServer) -> AsyncIterator[User]:
    user = await User().connect(server, "bridge", BRIDGE, "_INBOX_A4CO")
    yield user
    await user.client.close()


@pytest_asyncio.fixture
async def services(server: NatsServer) -> AsyncIterator[User]:
    user = await User().connect(server, "services", SERVICES, "_INBOX")
    yield user
    await user.client.close()


async def test_the_whole_application_works_as_the_bridges_user_also_after_a_restart(
    server: NatsServer, services: User, tmp_path: Path
) -> None:
    worker = WorkerProcess(tmp_path / "worker", NATS_URL=server.url, NATS_USER="bridge", NATS_PASSWORD=BRIDGE)
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    async def told(subject: str, about: str) -> None:
        await wait_until(
            lambda: any(m.subject == subject and about.encode() in m.data for m in heard), within=20, what=subject
        )

    for family in ("order.>", "payment.>", "inventory.>"):
        await services.client.subscribe(family, cb=hear)
    worker.start()
    try:
        await worker.ready()
        await _stock(worker)
        for order in ("order-1", "order-2"):
            await _say(services, "order.created", order_created(order))
            await told("payment.initiated", order)
            await _say(services, "payment.succeeded", payment_succeeded(order, f"payment-{order}"))
            await told("order.confirmed", order)
            await _say(services, "order.created", {"eventData": {"no": order}})
            await told("order.created.dlq", order)
            await wait_until(worker.idle)
            worker.stop()
            worker.start()
            await worker.ready()
        await wait_until(worker.idle)
        assert "permissions violation" not in worker.output(1_000_000).lower()
        assert not services.refused
        worker.stop()
    finally:
        await worker.close()


async def _say(user: User, subject: str, event: dict[str, Any]) -> None:
    await user.client.publish(subject, json.dumps(event).encode())


async def _stock(worker: WorkerProcess) -> None:
    line = {
        "productId": PICUAL,
        "name": "p",
        "category": "aceite",
        "artisanId": "artisan-1",
        "onHand": 50,
        "threshold": 0,
    }
    async with httpx.AsyncClient(base_url=worker.web) as web:
        answer = await web.post("/api/stock/import", json=[line])
    assert answer.status_code == 200


async def test_the_bridge_may_say_what_it_has_to_and_nothing_else(bridge: User) -> None:
    for subject in ("order.confirmed", "order.created.dlq", "$JS.API.STREAM.INFO.A4CO_EVENTS"):
        assert await bridge.may_say(subject), subject
    for subject in (
        "order.created", "payment.succeeded", "user.registered", "inventory.stock.low", "order.confirmed.more",
        "order.created.dlq.more", "anything", "a4co.bridge", "_INBOX.abc", "_INBOX_A4CO.abc", "$SYS.REQ.SERVER.PING",
        "$JS.API.STREAM.DELETE.A4CO_EVENTS", "$JS.API.STREAM.PURGE.A4CO_EVENTS", "$JS.API.STREAM.CREATE.OTHER",
        "$JS.API.STREAM.MSG.DELETE.A4CO_EVENTS", "$JS.API.STREAM.INFO.OTHER", "$JS.API.CONSUMER.CREATE.OTHER",
        "$JS.API.CONSUMER.DURABLE.CREATE.A4CO_EVENTS.x", "$JS.API.STREAM.SNAPSHOT.A4CO_EVENTS", "$JS.API.INFO",
    ):  # fmt: skip
        assert not await bridge.may_say(subject), subject


async def test_the_bridge_hears_its_inbox_and_its_share_of_the_subjects_that_no_stream_keeps(bridge: User) -> None:
    assert await bridge.may_hear("_INBOX_A4CO.abc.*")
    assert await bridge.may_hear("order.created", "a4co-streams")
    for subject, queue in [
        (">", ""), ("order.>", ""), ("order.created", ""), ("order.created", "others"), ("order.>", "a4co-streams"),
        ("_INBOX.>", ""), ("_INBOX.abc", ""), ("$JS.>", ""), ("$SYS.>", ""), ("order.created.dlq", ""),
    ]:  # fmt: skip
        assert not await bridge.may_hear(subject, queue), f"{subject} {queue}"


async def test_the_services_may_do_all_of_theirs_and_neither_touch_streams_nor_hear_the_bridge(
    services: User, bridge: User
) -> None:
    for subject in ("order.created", "artisan.verified", "anything.of.theirs", "_INBOX.abc"):
        assert await services.may_say(subject)
        assert await services.may_hear(subject)
    for subject in ("$JS.API.STREAM.DELETE.A4CO_EVENTS", "$JS.API.STREAM.PURGE.A4CO_EVENTS", "_INBOX_A4CO.abc"):
        assert not await services.may_say(subject)
        assert not await services.may_hear(subject)
    # A wildcard is let through, and what is denied does not come by it.
    overheard: list[Msg] = []

    async def overhear(message: Msg) -> None:
        overheard.append(message)

    await services.client.subscribe(">", cb=overhear)
    await services.client.flush()
    await bridge.client.request("$JS.API.STREAM.LIST", b"{}")
    await bridge.client.publish("order.confirmed", b"{}")
    await wait_until(lambda: overheard)
    assert {message.subject for message in overheard} == {"order.confirmed"}


async def test_nobody_comes_in_without_the_right_password(server: NatsServer) -> None:
    for options in (NatsOptions(), NatsOptions(user="bridge", password=SERVICES), NatsOptions(token=BRIDGE)):
        with pytest.raises(Disconnected, match="it refuses"):
            await connect([server.url], "stranger", options)
