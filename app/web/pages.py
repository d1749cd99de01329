"""How a long list is cut into pages: in the order of keys, the cursor is the last key looked at. A page may be
short, even empty, and still have a cursor: a filter looks at a bounded number of rows a call.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from app.web.problems import ProblemError
from app.web.views import ReadTable

Row = TypeVar("Row")

SCANNED_ROWS = 50_000
"""Rows that one call looks at, at most."""

LONGEST_CURSOR = 1_400
"""Characters: an id of 256 characters has up to 1,024 bytes, which are 1,366 in base64."""

BREATH = 250
"""Rows between two breaths: the loop also runs the agents, and a row takes about 10 µs to decode."""


class Page(NamedTuple, Generic[Row]):
    """Rows of one page, and the cursor of the next one (None: this was the last)."""

    rows: list[Row]
    cursor: str | None


async def page(
    table: ReadTable[Row],
    *,
    cursor: str | None,
    limit: int,
    wanted: Callable[[Row], bool],
    scanned: int = SCANNED_ROWS,
) -> Page[Row]:
    """The next rows that are wanted, at most `limit`. ProblemError: the cursor is none of ours."""
    after = None if cursor is None else _key(cursor)
    rows: list[Row] = []
    last = ""
    for seen, (key, row) in enumerate(table.items(after)):
        if len(rows) == limit or seen == scanned:
            return Page(rows, _cursor(last))
        if seen % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        last = key
        if wanted(row):
            rows.append(row)
    return Page(rows, None)


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _key(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise ProblemError("invalid-cursor", "Take the nextCursor of the page before, as it is.") from None
