"""What several endpoints take in a query: words, and moments."""

import inspect
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import BeforeValidator

from app.domain.events import MAX_ID

T = TypeVar("T")

Word = Annotated[str | None, Query(min_length=1, max_length=MAX_ID)]
"""An id, or any other word; None: not given."""


def _moment(value: Any) -> Any:
    """Pydantic would take a number for seconds since the epoch."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("should be a date and time as 2026-11-24T12:00:00Z")
    return value


Moment = Annotated[datetime | None, BeforeValidator(_moment)]
"""RFC 3339; without a zone it is UTC."""


def seconds(at: datetime | None) -> float | None:
    """A moment as seconds since the epoch; without a zone it is UTC."""
    if at is None:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def given(kind: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """What makes a `kind` of the query's parameters, for Depends.

    FastAPI makes what is no coroutine on a thread, which waits for whatever the loop is about to do.
    """

    async def make(**parameters: Any) -> T:
        return kind(**parameters)

    make.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    return make
