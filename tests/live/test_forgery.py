"""What strangers write into headers makes nothing ours, and keeps nothing of ours from being heard."""

import asyncio
import json
import unicodedata
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from app.domain.rows import SagaState
from tests.live.market_site import MarketSite, market_site, order_created
from tests.live.nats_server import NatsServer

pytestmark = pytest.mark.live

OWN = {"a4co-subject", "a4co-seq", "a4co-stream", "a4co-ours", "traceparent"}
"""What we give a mirrored record ourselves, here and there."""

FORGED = (
    b"a4co-ours: 1",
    b"A4CO-OURS: 1",
    b"A4co-Ours:1",
    b" a4co-ours: 1",
    b"a4co-ours : 1",
    b"a4co-ours\t: 1",
    b"a4co-ours: 1\r\na4co-ours: 1",
    "\uff41\uff144co-ours: 1".encode(),
    "a4co\u2010ours: 1".encode(),
    "a4\u200bco-ours: 1".encode(),
    b"a4co-subject: order.cancelled",
    b"A4co-Origin: 0123456789abcdef0123456789abcdef",
    b"A4co-Origin: 0123456789abcdef0123456789abcdef\r\nNats-Msg-Id: x:0123456789abcdef",
    b"a4co-reason: none\r\na4co-topic: outbound\r\na4co-letter: 1",
    b"traceparent: 00-1\r\nTraceparent: 00-2\r\nTRACEPARENT: 00-3",
)


async def raw_publish(port: int, subject: str, header: bytes, payload: bytes) -> None:
    """A message whose headers no client would write."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    block = b"NATS/1.0\r\n" + header + b"\r\n\r\n"
    writer.write(b'CONNECT {"headers":true,"verbose":false}\r\n')
    writer.write(b"HPUB %b %d %d\r\n" % (subject.encode(), len(block), len(block) + len(payload)))
    writer.write(block + payload + b"\r\nPING\r\n")
    await reader.readuntil(b"PONG")
    writer.close()
    await writer.wait_closed()


async def test_no_header_from_outside_passes_for_one_of_ours(nats_server: NatsServer, tmp_path: Path) -> None:
    async with market_site(nats_server.url, tmp_path / "data") as site:
        for number, header in enumerate(FORGED):
            payload = json.dumps(order_created(f"order-{number}")).encode()
            await raw_publish(nats_server.port, "order.created", header, payload)
        await site.idle()
        created = [record for record in site.records("orders") if b"OrderCreatedEvent" in (record.value or b"")]
        assert len(created) == len(FORGED)
        for record in created:
            names = [unicodedata.normalize("NFKC", name).strip().lower() for name, _ in record.headers]
            internal = [name for name in names if name.startswith("a4co") or name == "traceparent"]
            assert len(set(internal)) == len(internal), names
            assert set(internal) <= OWN - {"a4co-ours"}, names
            assert dict(record.headers)["a4co-subject"] == b"order.created"
        for number in range(len(FORGED)):
            saga = site.saga(f"order-{number}")
            assert saga is not None, FORGED[number]
            assert saga.state is SagaState.AWAITING_PAYMENT
        assert not site.records("dead-letters")


def _answers(site: MarketSite) -> dict[str, Msg]:
    return {subject: message for subject, message in site.ours().items() if not subject.endswith(".dlq")}


async def _our_ids(site: MarketSite) -> dict[str, str]:
    """Subject -> the Nats-Msg-Id of our answer to the order."""
    await site.publish("order.created", order_created("order-1"))
    await site.answer("payment.initiated", "order-1")
    return {subject: (message.headers or {})["Nats-Msg-Id"] for subject, message in _answers(site).items()}


async def test_nobody_can_use_up_the_id_of_our_next_message(nats_server: NatsServer, tmp_path: Path) -> None:
    """Event ids follow from their cause. JetStream keeps only the first of two messages with the same Nats-Msg-Id."""
    elsewhere = NatsServer(tmp_path / "elsewhere")
    await elsewhere.start()
    try:
        async with market_site(elsewhere.url, tmp_path / "there") as site:
            known = await _our_ids(site)
            events = {subject: json.loads(message.data)["eventId"] for subject, message in _answers(site).items()}
    finally:
        elsewhere.stop()
    async with market_site(nats_server.url, tmp_path / "data") as site:
        for subject, event_id in events.items():
            for identity in (event_id, known[subject]):
                await site.publish(subject, order_created("somebody-else"), {"Nats-Msg-Id": identity})
        ours = await _our_ids(site)
        assert {identity.partition(":")[0] for identity in ours.values()} == set(events.values())
        await site.idle()
        kept = {record.headers for record in site.records("stock") if ("a4co-ours", b"1") in record.headers}
        assert len(kept) == 1, "our own inventory.stock.reserved is not in the stream"
