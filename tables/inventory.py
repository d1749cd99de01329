"""One row a product: what is on hand and who holds it. Key: product id."""

from app.domain.rows import Stock
from app.engine.tables import TableSpec

INVENTORY = TableSpec("inventory", Stock)
