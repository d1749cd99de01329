"""What happens when stock is asked for or moves: the product's row changes. domain/stock.py decides how."""

from app import topics
from app.domain import traces
from app.domain.messages import Message
from app.domain.outcome import Transition
from app.domain.policy import Policy
from app.domain.rows import Stock
from app.domain.stock import apply
from app.engine.declarations import Reducer
from tables.inventory import INVENTORY


def apply_stock_commands(policy: Policy) -> Reducer[Stock]:
    """The agent that owns `inventory`. Where another service reserves (shadow), it moves and says nothing."""
    quiet = policy.reserve == "shadow"

    def rule(stock: Stock | None, command: Message) -> Transition[Stock]:
        return apply(stock, command, quiet=quiet)

    return Reducer(
        name="apply_stock_commands",
        reads=(topics.STOCK_COMMANDS, topics.STOCK),
        table=INVENTORY,
        rule=rule,
        encode=topics.sends_of,
        carries=lambda command, _stock: traces.carried(command.headers),
    )
