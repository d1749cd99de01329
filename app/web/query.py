"""What several endpoints take in a query: words, and moments."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BeforeValidator

from app.domain.events import MAX_ID

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
