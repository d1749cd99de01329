"""Load for a bridge in both directions: who publishes on NATS, what is put into `outbound`, and a core subscriber.

Every message has its key and its number within it, so that what became of the order can be seen. A key belongs to one
publisher, of one of two kinds: with JetStream's ack, repeated until there is one, or plain core NATS.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.engine.records import Send

COMES = {
    "order.created": "OrderCreatedEvent",
    "order.updated": "OrderUpdatedEvent",
    "payment.succeeded": "PaymentSucceededEvent",
    "inventory.stock.updated": "StockUpdatedEvent",
    "user.verified": "UserVerifiedEvent",
    "notification.email.delivered": "EmailDeliveredEvent",
}
"""What others say, and its event type. A key has one of these subjects."""

GOES = {
    "order.confirmed": "OrderConfirmedEvent",
    "inventory.stock.reserved": "StockReservedEvent",
    "payment.initiated": "PaymentInitiatedEvent",
}
"""What we say; it comes back to us, too."""

ACKED = "acked-"
"""The keys of publishers that wait for the ack begin so."""

KEYS = 60
"""Keys of each kind of publisher."""

REPEATED = 0.02
"""Part of the events that their publisher says again, as the marketplace's bus does when a handler has thrown."""

AGAIN = 2.0
"""Seconds until it does so."""

TICK = 0.02
"""Seconds between two bursts of what is plainly published or put into `outbound`."""

NEVER_MIND = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError)


def event(subject: str, key: str, number: int, *, retry: int = 0) -> bytes:
    """One event in dialect A."""
    event_id = f"{key}-{number}"
    metadata: dict[str, Any] = {"eventId": event_id, "correlationId": key, "version": "1.0", "source": "storm"}
    return json.dumps(
        {
            "eventId": event_id,
            "eventType": COMES.get(subject) or GOES[subject],
            "aggregateId": key,
            "eventVersion": 1,
            "occurredOn": "2026-11-24T13:35:51.032Z",
            "eventData": {"orderId": key, "number": number, "padding": "aceite de oliva virgen extra " * 8},
            "metadata": metadata | ({"retryCount": retry} if retry else {}),
        }
    ).encode()


def outbound(numbers: range) -> Iterator[Send]:
    """What an agent would put there: with an id that nothing else has."""
    subjects = list(GOES)
    for number in numbers:
        key = f"out-{number % KEYS}"
        subject = subjects[number % KEYS % len(subjects)]
        headers = (("a4co-subject", subject.encode()), ("Nats-Msg-Id", b"%s-%d" % (key.encode(), number)))
        yield Send("outbound", key.encode(), event(subject, key, number), (*headers, ("a4co-dialect", b"a")))


@contextlib.asynccontextmanager
async def faithful(url: str) -> AsyncIterator[Client]:
    """A connection that comes back whatever becomes of the server."""

    async def heard(_error: Exception) -> None:
        """It is expected."""

    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=heard)
    try:
        yield client
    finally:
        with contextlib.suppress(*NEVER_MIND):
            await client.close()


class Publishers:
    """They publish `rate` messages/s until `stop`, half of them with acks."""

    def __init__(self, rate: float, seed: int) -> None:
        self.acked: set[str] = set()
        """Event ids that JetStream has acked."""
        self.plain = 0
        self.again = 0
        self._rate = rate
        self._chance = random.Random(seed)
        self._going = True
        self._repeats: deque[tuple[float, str, bytes]] = deque()

    def stop(self) -> None:
        self._going = False

    async def run(self, url: str) -> None:
        """Returns after `stop`, with every message acked that has to be."""
        async with faithful(url) as acking, faithful(url) as plain:
            subjects = list(COMES)
            keys = [
                self._say_until_acked(acking, f"{ACKED}{number}", subjects[number % len(subjects)])
                for number in range(KEYS)
            ]
            await asyncio.gather(self._say(plain), *keys)

    async def _say_until_acked(self, client: Client, key: str, subject: str) -> None:
        stream = client.jetstream(timeout=2)
        every = 2 * KEYS / self._rate
        await asyncio.sleep(self._chance.random() * every)
        for number in count():
            if not self._going:
                return
            began = asyncio.get_running_loop().time()
            payload, event_id = event(subject, key, number), f"{key}-{number}"
            while True:
                try:
                    await stream.publish(subject, payload, headers={"Nats-Msg-Id": event_id})
                except NEVER_MIND:
                    await asyncio.sleep(0.1)
                else:
                    break
            self.acked.add(event_id)
            await asyncio.sleep(max(0.0, began + every - asyncio.get_running_loop().time()))

    async def _say(self, client: Client) -> None:
        clock, subjects = asyncio.get_running_loop().time, list(COMES)
        began, said = clock(), 0
        while self._going:
            while said < (clock() - began) * self._rate / 2:
                key, number = said % KEYS, said // KEYS
                subject = subjects[key % len(subjects)]
                with contextlib.suppress(*NEVER_MIND):
                    await client.publish(subject, event(subject, f"plain-{key}", number))
                if self._chance.random() < REPEATED:
                    self._repeats.append((clock() + AGAIN, subject, event(subject, f"plain-{key}", number, retry=1)))
                said += 1
            while self._repeats and self._repeats[0][0] < clock():
                with contextlib.suppress(*NEVER_MIND):
                    await client.publish(*self._repeats.popleft()[1:])
                    self.again += 1
            self.plain = said
            await asyncio.sleep(TICK)
        with contextlib.suppress(*NEVER_MIND):
            await client.flush()


class Subscriber:
    """Counts what a core subscriber hears of us, by eventId."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()

    async def run(self, url: str) -> None:
        """Until cancelled."""

        async def hear(message: Msg) -> None:
            self.heard[json.loads(message.data)["eventId"]] += 1

        async with faithful(url) as client:
            for subject in GOES:
                await client.subscribe(subject, cb=hear)
            await asyncio.Event().wait()
