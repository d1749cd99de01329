"""One row an order. Key: order id."""

from collections.abc import Mapping

import msgspec

from app.domain.rows import OrderSaga, SagaState
from app.engine.declarations import TableSpec

ATTENTION = "attention"
"""The sum that counts the orders which a person should look at."""

ONE = {state: {state.value: 1} for state in SagaState}
MARKED = {state: {state.value: 1, ATTENTION: 1} for state in SagaState}


class Glance(msgspec.Struct):
    """The fields that count."""

    state: SagaState
    deadline: float | None = None
    attention: str | None = None


def _sums(saga: OrderSaga | Glance) -> Mapping[str, int]:
    """How many orders stand in each state, and how many a person should look at."""
    return (ONE if saga.attention is None else MARKED)[saga.state]


ORDER_SAGAS = TableSpec(
    "order_sagas",
    OrderSaga,
    deadline=lambda saga: saga.deadline,
    sums=_sums,
    glance=Glance,
    version=2,
)
