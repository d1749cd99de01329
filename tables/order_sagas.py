"""One row an order. Key: order id."""

from app.domain.rows import OrderSaga
from app.engine.tables import TableSpec

ORDER_SAGAS = TableSpec("order_sagas", OrderSaga, deadline=lambda saga: saga.deadline)
