"""A real embedded log, a real nats-server, and the bridges between them, one after the other."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nats.aio.client import Client

from app.engine.cancelling import end
from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import LogFailed
from app.engine.records import Record, Send, TopicPartition
from bridge.log_to_nats import GROUP
from bridge.service import Bridge
from tests.live.nats_server import NatsServer

STREAM = "A4CO_EVENTS"
TOPICS = ("orders", "payments", "stock", "notifications", "users", "outbound", "dead-letters")


# ---- builders and watchers --------------------------------------------------------------------------------


def order_created(order: str, number: int = 0) -> bytes:
    """An order.created in dialect A. The spaces are there to be kept."""
    event = {
        "eventId": f"{order}-{number}",
        "eventType": "OrderCreatedEvent",
        "aggregateId": order,
        "eventVersion": 1,
        "occurredOn": "2026-11-24T13:37:38.357Z",
        "eventData": {
            "orderId": order,
            "customerId": "señora-núñez",
            "items": [{"productId": "product_aceite_picual", "quantity": 1, "unitPrice": 25.5}],
            "totalAmount": 25.5,
            "number": number,
        },
        "metadata": {},
    }
    return json.dumps(event, indent=1, ensure_ascii=False).encode()


def announcement(order: str, number: int, subject: str = "order.confirmed", size: int = 0) -> Send:
    """What an agent puts into `outbound`."""
    event = {
        "eventId": f"{order}-{number}",
        "eventType": "OrderConfirmedEvent",
        "aggregateId": order,
        "occurredOn": "2026-11-24T13:37:38.357Z",
        "eventData": {"orderId": order, "number": number, "padding": "x" * size},
        "metadata": {},
    }
    headers = (
        ("a4co-subject", subject.encode()),
        ("Nats-Msg-Id", f"{order}-{number}".encode()),
        ("a4co-dialect", b"a"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    )
    return Send("outbound", order.encode(), json.dumps(event).encode(), headers)


async def wait_until(condition: Callable[[], Any], within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def records(log: EmbeddedLog, topic: str) -> list[Record]:
    return [r for p in range(log.partitions(topic)) for r in log.read(topic, p, 0, 1_000_000)]


def header(record: Record, name: str) -> str | None:
    return next((value.decode() for found, value in record.headers if found == name), None)


def numbers(found: Iterable[Record]) -> list[int]:
    return [json.loads(record.value or b"")["eventData"]["number"] for record in found]


def unsealed(headers: Mapping[str, str]) -> str:
    """The Nats-Msg-Id without the bridge's seal behind it."""
    return headers.get("Nats-Msg-Id", "").partition(":")[0]


class Ears:
    """A core subscriber, as existing services are: what it heard, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes, dict[str, str]]] = []

    async def hear(self, message: Any) -> None:
        self.heard.append((message.subject, message.data, message.headers or {}))

    def ids(self) -> list[str]:
        return [unsealed(headers) for _, _, headers in self.heard]


async def stored(client: Client, stream: str = STREAM) -> list[tuple[str, str]]:
    """(subject, Nats-Msg-Id) of everything in the stream."""
    subscription = await client.jetstream().subscribe("", stream=stream, ordered_consumer=True)
    found = []
    last = (await client.jetstream().stream_info(stream)).state.last_seq
    while True:
        message = await subscription.next_msg(5)
        found.append((message.subject, unsealed(message.headers or {})))
        if message.metadata.sequence.stream >= last:
            await subscription.unsubscribe()
            return found


class CrashingLog(EmbeddedLog):
    """Dies, when told to, at the moment when the bridge commits what it has published. `slow`: seconds of a commit."""

    dies = False
    slow = 0.0

    async def commit(
        self,
        sends: Iterable[Send],
        *,
        group: str = "",
        offsets: Mapping[TopicPartition, int] | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> int:
        if self.dies and group == GROUP and offsets:
            raise LogFailed("the process dies here")
        if self.slow:
            await asyncio.sleep(self.slow)
        return await super().commit(sends, group=group, offsets=offsets, notes=notes)


class Site:
    """A log and the bridges on it, one after the other."""

    def __init__(self, log: CrashingLog, server: NatsServer) -> None:
        self.log = log
        self.server = server
        self.failures: list[Exception] = []
        self.bridges: list[Bridge] = []

    async def start(self, **options: Any) -> Bridge:
        """A new bridge, ready."""
        bridge = await self.begin(**options)
        await wait_until(lambda: bridge.status()["problem"] is None)
        return bridge

    async def begin(self, *, server: NatsServer | None = None, **options: Any) -> Bridge:
        bridge = Bridge(self.log, [(server or self.server).url], on_failure=self.failures.append, **options)
        self.bridges.append(bridge)
        await bridge.start()
        return bridge

    async def crash(self, bridge: Bridge) -> None:
        """End its task without its grace."""
        assert bridge._task is not None
        await end([bridge._task])

    async def announce(self, sends: list[Send]) -> None:
        await self.log.commit(sends)
