"""One row a product: what is on hand and who holds it. Key: product id."""

from collections.abc import Mapping

from app.domain.rows import Stock
from app.engine.declarations import TableSpec


def _sums(stock: Stock) -> Mapping[str, int]:
    """Reservations held, units reserved beyond what is on hand, and whether the product is low."""
    return {"holds": len(stock.holds), "oversold": max(0, -stock.available), "low": int(stock.low)}


INVENTORY = TableSpec("inventory", Stock, sums=_sums)
