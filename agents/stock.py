"""What happens when stock is asked for or moves: the product's row changes. domain/stock.py decides how."""

from app import topics
from app.domain.rows import Stock
from app.domain.stock import apply
from app.engine.lanes import Reducer
from tables.inventory import INVENTORY


def apply_stock_commands() -> Reducer[Stock]:
    """The agent that owns `inventory`."""
    return Reducer(
        name="apply_stock_commands",
        reads=(topics.STOCK_COMMANDS, topics.STOCK),
        table=INVENTORY,
        rule=apply,
        encode=topics.sends_of,
    )
