"""What an operator looks at: a real Prometheus scrapes a real worker while a market trades, and is asked for every
panel, every alert, and what the marketplace's existing dashboards ask for.
"""

import itertools
import json
import runpy
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.live.marketplace import MailServer, Marketplace
from tests.live.nats_server import NatsServer
from tests.live.order_model import plan_orders
from tests.live.prometheus import DEPLOYED, Prometheus, operands
from tests.live.worker_process import WorkerProcess

pytestmark = pytest.mark.live

GRAFANA = DEPLOYED.parent / "grafana"
SHELVES = {
    "product_aceite_picual": 100_000,
    "product_miel_azahar": 100_000,
    "product_queso_cabra": 100_000,
    "product_jamon_iberico": 5,
}
"""The last is sold out soon: orders are refused, and it is low."""

EXISTING = (
    "sum(rate(event_published_total[5m])) by (event_type)",
    "sum(rate(event_processed_total[5m])) by (outcome)",
    "sum(rate(event_consumed_total[5m])) by (consumer)",
    "sum(rate(event_processing_errors_total[5m]))",
    "histogram_quantile(0.95, sum(rate(event_processing_duration_seconds_bucket[5m])) by (event_type, le))",
    "sum(rate(event_processing_duration_seconds_sum[5m])) / sum(rate(event_processing_duration_seconds_count[5m]))",
    "rate(saga_success_total[5m]) / rate(saga_started_total[5m]) * 100",
    "histogram_quantile(0.95, rate(saga_duration_seconds_bucket[5m]))",
    "saga_active_count",
    "rate(saga_compensation_total[5m]) / rate(saga_started_total[5m]) * 100",
    "order_status_count{status='completed'}",
    "saga_status_count{status='completed'}",
    "inventory_reservations_active",
    "rate(inventory_reservations_expired_total[5m])",
    "rate(payments_processed_total{status='succeeded'}[5m])",
    "rate(payments_processed_total{status='failed'}[5m])",
    "rate(saga_errors_total[5m])",
    "rate(nats_messages_published_total[5m])",
    "rate(nats_messages_consumed_total[5m])",
    "histogram_quantile(0.95, sum(rate(request_duration_seconds_bucket[5m])) by (le, job))",
    "100 * sum(rate(http_requests_total{status_class=~'4xx|5xx'}[5m])) / sum(rate(http_requests_total[5m]))",
    "histogram_quantile(0.99, sum(rate(http_request_duration_seconds_bucket[5m])) by (le)) * 1000",
)
"""What dashboards that the marketplace has already ask for."""


def dashboards() -> Iterator[dict[str, Any]]:
    for path in (GRAFANA / "dashboards").glob("*.json"):
        yield json.loads(path.read_text())


def panel_expressions() -> Iterator[str]:
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield target["expr"].replace("$__rate_interval", "5s").replace("$__range", "1m")


def alert_expressions() -> Iterator[str]:
    for path in DEPLOYED.glob("*.rules.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield from operands(rule["expr"])


@pytest_asyncio.fixture
async def market(
    tmp_path: Path, nats_server: NatsServer
) -> AsyncIterator[tuple[Marketplace, WorkerProcess, Prometheus]]:
    """A market that has begun to trade, its worker, and Prometheus beside."""
    mails = MailServer()
    worker = WorkerProcess(
        tmp_path / "worker", NATS_URL=nats_server.url, SMTP_URL=await mails.start(), PAYMENT_RETRY_DELAY="1"
    )
    prometheus = Prometheus(tmp_path / "prometheus", {"worker": [worker.web.removeprefix("http://")]})
    async with AsyncExitStack() as running:
        running.callback(mails.close)
        running.push_async_callback(worker.close)
        running.push_async_callback(prometheus.close)
        worker.start()
        await prometheus.start()
        await worker.ready()
        traders = Marketplace(plan_orders(2_000, seed=5))
        await running.enter_async_context(traders.connected(nats_server.url))
        await traders.fill(worker, SHELVES)
        yield traders, worker, prometheus


async def test_every_panel_and_every_alert_of_a_trading_market_has_data(
    market: tuple[Marketplace, WorkerProcess, Prometheus],
) -> None:
    traders, worker, prometheus = market
    orders = iter(traders.orders.values())
    asked = [*panel_expressions(), *alert_expressions(), *EXISTING]
    assert len(asked) > 100
    missing = asked

    async def all_have_data() -> bool:
        nonlocal missing
        for order in itertools.islice(orders, 2):
            await traders.order(order)
        await traders.client.publish("order.created", b'{"this is": no order')
        await worker.answer("/api/orders/nobody-ordered-this")
        missing = await prometheus.without_data(missing)
        return not missing

    try:
        await worker.until(all_have_data, within=45)
    except AssertionError:
        pytest.fail("\n".join(["without data:", *missing]))
    # Later they still have: none of them was there for a moment only.
    assert not await prometheus.without_data(asked)

    rules = (await prometheus.api("rules"))["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
    targets = (await prometheus.api("targets"))["activeTargets"]
    assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")]


def test_the_dashboards_are_those_that_are_written_in_short() -> None:
    written = {path.name: path.read_text() for path in (GRAFANA / "dashboards").glob("*.json")}
    assert written == runpy.run_path(str(GRAFANA / "dashboards.py"))["files"](), "run `make dashboards`"


def test_dashboards_are_found_by_fixed_uids_and_no_panel_covers_another() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "a4co.yaml").read_text())["datasources"]
    uids = {source["uid"]: source["type"] for source in sources}
    for dashboard in dashboards():
        covered: Counter[tuple[int, int]] = Counter()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            covered.update(
                itertools.product(
                    range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
                )
            )
            for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
                assert uids[source["uid"]] == source["type"]
        assert max(covered.values()) == 1, dashboard["title"]
        assert max(x for x, _ in covered) < 24
    assert len({dashboard["uid"] for dashboard in dashboards()}) == 5
