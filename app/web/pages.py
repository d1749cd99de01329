"""How a long list is cut into pages: in the order of keys, the cursor is the last key looked at. A page may be
short, even empty, and still have a cursor: a filter looks at a bounded number of rows a call, and of what several
workers say, only that far counts which all of them have looked at.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.web.answers import Answer, json_answer
from app.web.freshness import tag, unchanged
from app.web.problems import ProblemError
from app.web.views import ReadTable

Row = TypeVar("Row")

SCANNED_ROWS = 50_000
"""Rows that one call looks at, at most."""

LONGEST_CURSOR = 1_400
"""Characters: an id of 256 characters has up to 1,024 bytes, which are 1,366 in base64."""

BREATH = 250
"""Rows between two breaths: the loop also runs the agents, and a row takes about 10 µs to decode."""


class PageAnswer(Answer, frozen=True, kw_only=True):
    """One page of a list. nextCursor is null on the last one; a page may be short, even empty, before that.

    partial: rows of the missing partitions are not in it, since no worker answered for them; ask again for the same
    page. lag: records that wait to be applied to what is shown; stale: it may be old because NATS is away, or because
    much is waiting.
    """

    items: list[Any]
    next_cursor: str | None
    partial: bool
    missing_partitions: list[int]
    as_of: str
    lag: int = 0
    stale: bool = False


AnyPage = TypeVar("AnyPage", bound=PageAnswer)


class Page(NamedTuple, Generic[Row]):
    """Rows of one page, and the last key looked at (None: there is nothing behind it)."""

    rows: list[Row]
    last: str | None


async def page(
    table: ReadTable[Row],
    partitions: Collection[int],
    *,
    after: str | None,
    limit: int,
    wanted: Callable[[Row], bool],
    scanned: int = SCANNED_ROWS,
    backwards: bool = False,
    until: str | None = None,
    most: int | None = None,
) -> Page[Row]:
    """The rows of the partitions that are wanted, from behind the key `after` on, at most `limit`.

    `backwards`: in the reverse order of the keys. Keys beyond `until` are not wanted. `most`: more than so many rows
    of the table are not wanted, which ends the search for them.
    """
    rows: list[Row] = []
    last = ""
    for seen, (key, row) in enumerate(table.items(after, partitions, backwards=backwards)):
        if len(rows) == most or (until is not None and (key < until if backwards else key > until)):
            break
        if len(rows) == limit or seen == scanned:
            return Page(rows, last)
        if seen % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        last = key
        if wanted(row):
            rows.append(row)
    return Page(rows, None)


def merged(
    pages: Sequence[AnyPage],
    missing: Collection[int],
    limit: int,
    key: Callable[[Any], str],
    *,
    backwards: bool = False,
) -> AnyPage:
    """One page of several with different keys of the same list, all from behind the same key on; at most `limit`."""
    stopped = [at for page in pages if (at := key_of(page.next_cursor)) is not None]
    # Behind the first key that one of them stopped at, it may have rows that the others know nothing of.
    bound = (max(stopped) if backwards else min(stopped)) if stopped else None
    items = sorted((item for page in pages for item in page.items), key=key, reverse=backwards)
    if bound is not None:
        items = [item for item in items if (key(item) >= bound if backwards else key(item) <= bound)]
    if len(items) > limit:
        items, bound = items[:limit], key(items[limit - 1])
    return msgspec.structs.replace(
        pages[0],
        items=items,
        next_cursor=cursor_of(bound),
        partial=bool(missing),
        missing_partitions=sorted(missing),
        as_of=min(page.as_of for page in pages),
        lag=sum(page.lag for page in pages),
        stale=any(page.stale for page in pages),
    )


def page_answer(request: Request, whole: PageAnswer) -> Response:
    """The page, or 304 where the client has all that is in it: then it is still so."""
    etag = tag(msgspec.structs.replace(whole, as_of=""))
    return unchanged(request, etag) or json_answer(whole, headers={"etag": etag})


def cursor_of(key: str | None) -> str | None:
    """The cursor of a key; None where there is no next page."""
    if key is None:
        return None
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def key_of(cursor: str | None) -> str | None:
    """The key of a cursor. ProblemError: it is none of ours."""
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise ProblemError("invalid-cursor", "Take the nextCursor of the page before, as it is.") from None
