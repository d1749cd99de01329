"""Each dialect goes in over NATS, its answer comes out in the dialect of the question, and the mirror keeps every byte.

What each answer holds, field by field, is in test_fixtures.py; what can't be understood is in the poison set.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.live.market_site import PICUAL, market_site, order_created
from tests.live.nats_server import NatsServer

pytestmark = pytest.mark.live

UNKNOWN: dict[str, Any] = {"gift": {"wrapped": True, "note": "¡Feliz día!", "tags": ["a", None, 1.50]}}
DATA = {
    "orderId": "order-1", "customerId": "c1", "items": [{"productId": PICUAL, "quantity": 2, "unitPrice": 12.5}],
    "totalAmount": 25, "currency": "EUR",
}  # fmt: skip
SHARED = {
    "eventId": "e-1", "eventType": "order.created.v1", "correlationId": "c-1", "timestamp": "2026-11-24T13:37:38.357Z",
    "data": DATA | UNKNOWN,
}  # fmt: skip
A = order_created("order-1") | UNKNOWN
IN_A = {"inventory.stock.reserved", "payment.initiated"}
IN_B = {"inventory.stock.reserved.v1", "payment.initiated.v1"}
IN_C = {"inventory.reserved.v1", "payment.requested.v1"}


@pytest.mark.parametrize(
    ("subject", "message", "answers"),
    [
        pytest.param("order.created", A, IN_A, id="A"),
        pytest.param("order.created.v1", A, IN_B, id="B"),
        pytest.param("order.created.v1", SHARED, IN_C, id="C"),
        pytest.param("order.created.v1", {"pattern": "order.created.v1", "data": SHARED}, IN_C, id="C wrapped by Nest"),
        pytest.param(
            "order.created.v1", {"pattern": "order.created.v1", "data": DATA | UNKNOWN}, IN_C, id="C flat, no eventId"
        ),
    ],
)
async def test_whoever_asks_in_a_dialect_is_answered_in_it_and_mirrored_byte_by_byte(
    nats_server: NatsServer, tmp_path: Path, subject: str, message: dict[str, Any], answers: set[str]
) -> None:
    payload = json.dumps(message, indent=1, ensure_ascii=False).encode() + b"\n"
    async with market_site(nats_server.url, tmp_path / "data") as site:
        await site.publish(subject, payload)
        for answer in answers:
            await site.answer(answer, "order-1")
        await site.idle()
        assert set(site.ours()) == answers
        for said in site.ours().values():
            told = json.loads(said.data)
            assert ("pattern" in told) == ("eventData" not in told) == (answers is IN_C)
        [mirrored] = [
            record for record in site.records("orders") if (b"order-1", payload) == (record.key, record.value)
        ]
        assert dict(mirrored.headers)["a4co-subject"].decode() == subject
        assert not site.records("dead-letters")
