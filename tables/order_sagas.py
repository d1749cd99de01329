"""One row an order. Key: order id."""

import msgspec

from app.domain.rows import OrderSaga, SagaState
from app.engine.tables import TableSpec

ONE = {state: {state.value: 1} for state in SagaState}


class Glance(msgspec.Struct):
    """The fields that count."""

    state: SagaState
    deadline: float | None = None


ORDER_SAGAS = TableSpec(
    "order_sagas",
    OrderSaga,
    deadline=lambda saga: saga.deadline,
    sums=lambda saga: ONE[saga.state],  # how many orders stand in each state
    glance=Glance,
)
