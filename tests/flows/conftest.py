"""Fixtures of the flow tests."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.flows import invariants
from tests.flows.market import Market


class Opens(Protocol):
    """Opens a marketplace with settings other than the defaults."""

    async def __call__(self, **settings: Any) -> Market: ...


@pytest.fixture
async def open_market(tmp_path: Path) -> AsyncIterator[Opens]:
    markets: list[Market] = []

    async def opens(**settings: Any) -> Market:
        market = Market(tmp_path / f"market-{len(markets)}", **settings)
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


@pytest.fixture
async def market(open_market: Opens) -> Market:
    return await open_market()
