"""A W3C trace context goes through the whole application: NATS, topics, agents, NATS."""

from pathlib import Path

import pytest

from app.domain import traces
from tests.live.market_site import MarketSite, market_site, order_created, payment_succeeded
from tests.live.nats_server import NatsServer
from tests.waiting import wait_until

pytestmark = pytest.mark.live

SHOP = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_trace_is_kept_replaced_or_begun_at_the_edge_and_comes_out_again(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with market_site(nats_server.url, tmp_path / "data") as site:
        came = {
            "order-kept": {"traceparent": SHOP, "tracestate": "vendor=1"},
            "order-of-go": {"Traceparent": SHOP},  # Go's clients write names so
            "order-invalid": {"traceparent": "00-" + 32 * "0" + "-b7ad6b7169203331-01", "tracestate": "vendor=1"},
            "order-untraced": {},
        }
        expected = {
            "order-kept": SHOP,
            "order-of-go": SHOP,
            "order-invalid": traces.begun("order-invalid")[0][1].decode(),
            "order-untraced": traces.begun("order-untraced")[0][1].decode(),
        }
        for order, headers in came.items():
            await site.publish("order.created", order_created(order), headers)
            await site.answer("payment.initiated", order)
            await site.publish("payment.succeeded", payment_succeeded(order, f"payment-{order}"))
            await site.answer("order.confirmed", order)
        for order, trace in expected.items():
            said = {subject: (message.headers or {}) for subject, message in site.ours(order).items()}
            assert set(said) == {"inventory.stock.reserved", "payment.initiated", "order.confirmed"}
            assert {headers.get("traceparent") for headers in said.values()} == {trace}, order
            assert said["payment.initiated"].get("tracestate") == ("vendor=1" if order == "order-kept" else None)
        await _what_came_back_has_one_trace_only(site)


async def _what_came_back_has_one_trace_only(site: MarketSite) -> None:
    await site.idle()
    for record in (*site.records("orders"), *site.records("payments"), *site.records("stock")):
        names = [name.lower() for name, _ in record.headers]
        assert names.count("traceparent") == 1
        assert names[0] == "traceparent"


async def test_a_dead_letter_at_the_edge_has_a_trace_and_tells_it(nats_server: NatsServer, tmp_path: Path) -> None:
    async with market_site(nats_server.url, tmp_path / "data") as site:
        await site.publish("order.created", b"no json", {"traceparent": SHOP})
        await site.publish("order.created", b"no json either")
        await wait_until(lambda: len(site.records("dead-letters")) == 2)
        kept = [dict(record.headers)["traceparent"].decode() for record in site.records("dead-letters")]
        assert SHOP in kept
        assert all(traces.continued({"traceparent": trace}) for trace in kept)
        await wait_until(lambda: sum(message.subject == "order.created.dlq" for message in site.heard) == 2)
        told = [message.headers or {} for message in site.heard if message.subject == "order.created.dlq"]
        assert sorted(headers["traceparent"] for headers in told) == sorted(kept)
