"""Fixtures of the flow tests: marketplaces over the log that --log chose."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.flows import invariants
from tests.flows.kafka_log import KafkaMarketLog, broker
from tests.flows.market import Market
from tests.flows.market_log import EmbeddedMarketLog, MarketLog


class Opens(Protocol):
    """Opens a marketplace with settings other than the defaults."""

    async def __call__(self, **settings: Any) -> Market: ...


@pytest.fixture(scope="session")
def make_log(log_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], MarketLog]]:
    """Makes the log of one more marketplace."""
    if log_kind == "kafka":
        with broker(tmp_path_factory.mktemp("kafka")) as servers:
            yield lambda: KafkaMarketLog(servers)
    else:
        yield EmbeddedMarketLog


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
