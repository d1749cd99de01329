"""Spans on two workers that share a Kafka log: an order's tree is whole, whoever worked on which part of it."""

import uuid
from pathlib import Path

import pytest

from app.domain import traces
from tests.live.kafka_broker import KafkaBroker
from tests.live.marketplace import MailServer, Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import PRODUCTS, plan_orders
from tests.live.otlp_collector import Collector, listening
from tests.live.worker_process import WorkerProcess
from tests.live.workers import Workers

pytestmark = [pytest.mark.live, pytest.mark.slow]

ORDERS = 12
NAMES = ("picual", "arbequina")


def faults(collector: Collector, trace: str) -> list[str]:
    """What a tree lacks to be whole: one root, and every span's parent."""
    spans = collector.of(trace)
    roots = [span.name for span in spans.values() if not span.parent_span_id]
    torn = [span.name for span in spans.values() if span.parent_span_id and span.parent_span_id.hex() not in spans]
    return ([f"roots: {roots}"] if roots != ["receive order.created"] else []) + [
        f"no parent of {name}" for name in torn
    ]


async def test_an_order_s_tree_is_whole_across_two_workers(
    nats_server: NatsServer, kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    mail = MailServer()
    smtp, prefix = await mail.start(), f"spans-{uuid.uuid4().hex[:8]}."
    orders = plan_orders(ORDERS, seed=5)
    market = Marketplace(orders)
    async with listening() as collector:
        workers = Workers(
            [
                WorkerProcess(
                    tmp_path / name, NATS_URL=nats_server.url, KAFKA_URL=kafka_broker.url, WORKER_NAME=name,
                    TOPIC_PREFIX=prefix, SMTP_URL=smtp,
                    PAYMENT_RETRY_DELAY="1", MAIL_RETRY_DELAY="0.5", MAIL_MAX_ATTEMPTS="20",
                    OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200",
                )
                for name in NAMES
            ]
        )  # fmt: skip
        try:
            workers.start()
            await workers.ready()
            await workers.until(workers.connected, what="nobody runs the bridge")
            async with market.connected(nats_server.url):
                await market.fill(workers.all[0], dict.fromkeys(PRODUCTS, 1000))
                for order in orders:
                    await market.order(order)

                async def ended() -> bool:
                    states = await workers.states()
                    return states["completed"] + states["closed"] == ORDERS and await workers.idle()

                await workers.until(ended, within=60, what="not every order has ended")
            found = {order.id: traces.trace_id(traces.begun(order.id)) for order in orders}

            async def whole() -> bool:
                return not any(faults(collector, trace) for trace in found.values())

            await workers.until(whole, within=20, what="a tree is not whole")
        finally:
            await workers.close()
            mail.close()
    shared = collector.by_worker["picual"] & collector.by_worker["arbequina"] & set(found.values())
    assert shared, "no order was worked on by both"
    assert any(collector.names(trace)["send_mails mails"] for trace in shared)
