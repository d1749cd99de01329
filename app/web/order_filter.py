"""Which orders are wanted: by state, customer, product, reason, age, and whether a person should look."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Query

from app.domain.rows import OrderSaga, SagaState
from app.web.query import Moment, Word, seconds
from tables.order_sagas import ATTENTION


class OrderFilter:
    """A query's filter; what is given must all be true. `state` may be given more than once.

    `since` and `until` are when the order arrived; without a zone they are UTC. `idle_for`: seconds since anything has
    happened to it. `reason` is why it was cancelled.
    """

    def __init__(
        self,
        state: Annotated[list[SagaState] | None, Query()] = None,
        customer: Word = None,
        product: Word = None,
        reason: Word = None,
        attention: bool | None = None,
        since: Moment = None,
        until: Moment = None,
        idle_for: Annotated[float | None, Query(alias="idleFor", ge=0, le=1e9)] = None,
    ) -> None:
        self._states = frozenset(state or SagaState)
        self._customer = customer
        self._product = product
        self._reason = reason
        self._attention = attention
        self._since = seconds(since)
        self._until = seconds(until)
        self._idle_for = idle_for

    def most(self, sums: Mapping[str, int]) -> int:
        """How many orders can be wanted, by the table's sums of rows like these."""
        most = sum(sums.get(state, 0) for state in self._states)
        return min(most, sums.get(ATTENTION, 0)) if self._attention else most

    def wants(self, saga: OrderSaga, now: float) -> bool:
        """Whether the order is wanted. `now`: seconds since the epoch."""
        return (
            saga.state in self._states
            and self._customer in (None, saga.customer_id)
            and self._reason in (None, saga.cancel_reason)
            and (self._product is None or any(line.product_id == self._product for line in saga.lines))
            and (self._attention is None or self._attention == (saga.attention is not None))
            and (self._since is None or saga.created_at >= self._since)
            and (self._until is None or saga.created_at < self._until)
            and (self._idle_for is None or saga.updated_at <= now - self._idle_for)
        )
