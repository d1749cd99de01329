"""Services as the marketplace writes them, with the npm client `nats` and with NestJS: they order, and hear us."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.live.nats_server import NatsServer
from tests.live.node_services import installed, running
from tests.live.worker_process import WorkerProcess
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

PICUAL = "product_aceite_picual"


@pytest.fixture(autouse=True)
def node() -> Path:
    """Asked first, so that a machine without Node starts nothing."""
    return installed()


@pytest_asyncio.fixture
async def worker(node: Path, nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    """Running, with 50 units of one product."""
    del node
    worker = WorkerProcess(tmp_path / "worker", NATS_URL=nats_server.url)
    worker.start()
    await worker.ready()
    line = {"productId": PICUAL, "name": "Aceite", "category": "despensa", "artisanId": "olivares", "onHand": 50}
    async with httpx.AsyncClient(base_url=worker.web) as web:
        answer = await web.post("/api/stock/import", json=[line | {"threshold": 5}])
    assert answer.status_code == 200, answer.text
    await wait_until(lambda: worker.pages("/api/inventory"))
    yield worker
    worker.stop()
    await worker.close()


async def heard(program: str, worker: WorkerProcess, folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """What the program made of each of so many events, by subject."""
    with running(program, [worker.settings["NATS_URL"], PICUAL], folder) as services:
        lines = await wait_until(lambda: len(said := services.lines()) >= count and said, within=30)
    assert lines
    by_subject = {line.pop("heard"): line for line in lines}
    assert len(lines) == len(by_subject) == count, lines
    return by_subject


async def test_services_with_the_nats_client_order_are_answered_and_can_read_every_answer(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    said = await heard("domain_events.ts", worker, tmp_path, 4)
    payment = said["payment.initiated"].pop("aggregateId")
    assert payment
    assert said == {
        "inventory.stock.reserved": {
            "eventType": "StockReservedEvent", "aggregateId": PICUAL, "source": "inventory-service",
            "orderId": "node-bought", "left": 48, "reserved": "2", "minutes": 30,
        },
        "payment.initiated": {
            "eventType": "PaymentInitiatedEvent", "source": "payment-service", "orderId": "node-bought",
            "price": "25.00 EUR",
        },
        "order.confirmed": {
            "eventType": "OrderConfirmedEvent", "aggregateId": "node-bought", "source": "order-service",
            "paidBy": "txn-node-bought", "days": True,
        },
        "order.cancelled": {
            "eventType": "OrderCancelledEvent", "aggregateId": "node-too-many", "source": "order-service",
            "reason": f"Stock insuficiente para producto {PICUAL}", "by": "system", "refund": False,
        },
    }  # fmt: skip


async def test_services_with_nestjs_order_are_answered_and_can_read_every_answer(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    said = await heard("nest_services.ts", worker, tmp_path, 5)
    for subject, line in said.items():
        assert (line.pop("eventType"), line.pop("asPayload")) == (subject, True)
    assert said == {
        "inventory.reserved.v1": {"orderId": "nest-bought", "units": 2, "known": True, "later": True},
        "payment.requested.v1": {"orderId": "nest-bought", "price": "25.00 EUR"},
        "order.confirmed.v1": {
            "orderId": "nest-bought", "paymentReference": "pi-nest-bought", "total": "25.00",
        },
        "inventory.out_of_stock.v1": {"orderId": "nest-too-many", "tooFew": True},
        "order.cancelled.v1": {"orderId": "nest-too-many", "by": "system"},
    }  # fmt: skip
