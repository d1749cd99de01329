"""Fixtures of the flow tests: marketplaces over the log that --log chose."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from app.web.api import create_api
from tests.flows import invariants
from tests.flows.kafka_log import KafkaMarketLog, accept_any_time
from tests.flows.market import Market
from tests.flows.market_log import EmbeddedMarketLog, MarketLog
from tests.flows.shop import Shop
from tests.live.kafka_broker import kafka_broker

__all__ = ["kafka_broker"]


class Opens(Protocol):
    """Opens a marketplace with settings other than the defaults."""

    async def __call__(self, **settings: Any) -> Market: ...


@pytest.fixture(scope="session")
def make_log(log_kind: str, request: pytest.FixtureRequest) -> Callable[[], MarketLog]:
    """Makes the log of one more marketplace."""
    if log_kind == "embedded":
        return EmbeddedMarketLog
    servers = request.getfixturevalue("kafka_broker").servers
    accept_any_time(servers)
    return lambda: KafkaMarketLog(servers)


@pytest.fixture
async def open_market(tmp_path: Path, make_log: Callable[[], MarketLog]) -> AsyncIterator[Opens]:
    markets: list[Market] = []

    async def opens(**settings: Any) -> Market:
        market = Market(tmp_path / f"market-{len(markets)}", make_log(), **settings)
        markets.append(market)
        await market.start()
        return market

    yield opens
    try:
        for market in markets:
            if market.running and not market.failures:
                await market.settle()
                invariants.hold(market)
    finally:
        for market in markets:
            if market.running:
                await market.stop()
            market.close()
            await market.log.drop()


@pytest.fixture
async def market(open_market: Opens) -> Market:
    return await open_market()


@pytest.fixture
def shop() -> Shop:
    """A worker as the web sees it."""
    return Shop()


@pytest.fixture
async def web(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shop."""
    transport = httpx.ASGITransport(create_api(shop.views()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
        yield client
