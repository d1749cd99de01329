"""Which orders are wanted: by state, customer, product, reason, age, and whether a person should look."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BeforeValidator

from app.domain.events import MAX_ID
from app.domain.rows import OrderSaga, SagaState

Id = Annotated[str | None, Query(min_length=1, max_length=MAX_ID)]


def _moment(value: Any) -> Any:
    """Pydantic would take a number for seconds since the epoch."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("should be a date and time as 2026-11-24T12:00:00Z")
    return value


Moment = Annotated[datetime | None, BeforeValidator(_moment)]
"""RFC 3339; without a zone it is UTC."""


class OrderFilter:
    """A query's filter; what is given must all be true. `state` may be given more than once.

    `since` and `until` are when the order arrived; without a zone they are UTC. `idle_for`: seconds since anything has
    happened to it. `reason` is why it was cancelled.
    """

    def __init__(
        self,
        state: Annotated[list[SagaState] | None, Query()] = None,
        customer: Id = None,
        product: Id = None,
        reason: Id = None,
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


def seconds(at: datetime | None) -> float | None:
    """A moment as seconds since the epoch; without a zone it is UTC."""
    if at is None:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
