"""An order's spans, as an OTLP collector gets them: one tree from the publisher's own span to the mail."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.domain import traces
from tests.live.market_site import MarketSite, market_site, order_created, payment_succeeded
from tests.live.marketplace import MailServer
from tests.live.nats_server import NatsServer
from tests.live.otlp_collector import Collector, listening
from tests.waiting import wait_until

pytestmark = pytest.mark.live

TRACE, SHOP = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAMES = {
    "receive order.created": 1,
    "advance_order_sagas orders": 1,
    "apply_stock_commands stock-commands": 2,  # reserved, then taken off the shelf
    "publish inventory.stock.reserved": 1,
    "publish payment.initiated": 1,
    "receive payment.succeeded": 1,
    "advance_order_sagas payments": 1,
    "publish order.confirmed": 1,
    "send_mails mails": 1,
    "publish notification.email.sent": 1,
}
"""What is done about an order that is paid, and how often."""


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    async with listening() as collector:
        yield collector


@pytest_asyncio.fixture
async def site(
    nats_server: NatsServer, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MarketSite]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    mails = MailServer()
    smtp = await mails.start()
    settings = {"smtp_url": smtp, "otel_exporter_otlp_endpoint": collector.url}
    async with market_site(nats_server.url, tmp_path / "data", **settings) as site:
        yield site
    mails.close()


async def bought(site: MarketSite, order: str, headers: dict[str, str]) -> None:
    data = order_created(order)["eventData"] | {"customerEmail": "ana@jaen.example"}
    await site.publish("order.created", order_created(order, eventData=data), headers)
    await site.answer("payment.initiated", order)
    await site.publish("payment.succeeded", payment_succeeded(order, f"payment-{order}"))
    await site.answer("notification.email.sent", order)


def path(spans: dict[str, Span], name: str) -> list[str]:
    """From the root to the span of that name."""
    span: Span | None = next(span for span in spans.values() if span.name == name)
    names: list[str] = []
    while span is not None:
        names.append(span.name)
        span = spans.get(span.parent_span_id.hex())
    return names[::-1]


async def test_an_order_is_one_tree_from_the_publishers_span_to_the_mail(
    site: MarketSite, collector: Collector
) -> None:
    await bought(site, "order-traced", {"traceparent": f"00-{TRACE}-{SHOP}-01"})
    await wait_until(lambda: collector.names(TRACE) >= Counter(NAMES), within=20, what="every span to be reported")
    spans = collector.of(TRACE)
    for span in spans.values():
        assert span.parent_span_id.hex() in {SHOP, *spans}, span.name
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    asked = ["receive order.created", "advance_order_sagas orders", "apply_stock_commands stock-commands"]
    asked += ["advance_order_sagas saga-replies", "publish payment.initiated"]
    assert path(spans, "publish payment.initiated") == asked
    assert path(spans, "publish order.confirmed")[0] == "receive payment.succeeded"
    assert path(spans, "send_mails mails")[0] == "receive payment.succeeded"


async def test_where_nobody_traces_the_order_that_came_is_the_root(site: MarketSite, collector: Collector) -> None:
    await bought(site, "order-untraced", {})
    trace = traces.trace_id(traces.begun("order-untraced"))
    await wait_until(lambda: collector.names(trace) >= Counter(NAMES), within=20, what="every span to be reported")
    spans = collector.of(trace)
    assert [span.name for span in spans.values() if not span.parent_span_id] == ["receive order.created"]
    for span in spans.values():
        assert not span.parent_span_id or span.parent_span_id.hex() in spans, span.name


async def test_a_trace_that_its_publisher_does_not_record_is_not_reported(
    site: MarketSite, collector: Collector
) -> None:
    await bought(site, "order-unsampled", {"traceparent": f"00-{TRACE}-{SHOP}-00"})
    await bought(site, "order-untraced", {})
    trace = traces.trace_id(traces.begun("order-untraced"))
    await wait_until(lambda: collector.names(trace) >= Counter(NAMES), within=20, what="the other order's spans")
    assert not collector.of(TRACE)
    said = (await site.answer("payment.initiated", "order-unsampled")).headers or {}
    assert said["traceparent"] == f"00-{TRACE}-{SHOP}-00"


async def test_a_collector_that_is_away_disturbs_nobody(nats_server: NatsServer, tmp_path: Path) -> None:
    away = {"otel_exporter_otlp_endpoint": "http://127.0.0.1:9"}
    async with market_site(nats_server.url, tmp_path / "data", **away) as site:
        await site.publish("order.created", order_created("order-1"))
        await site.answer("payment.initiated", "order-1")
        stopping = asyncio.create_task(site.application.stop())
        await wait_until(stopping.done, within=20, what="the application to stop")
