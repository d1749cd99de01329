"""A whole list as one flat file, for spreadsheets, pandas and Grafana: CSV, or a JSON object a line.

It decides no order and no filter: it goes through the pages of the list, and never leaves rows out in silence.
"""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from app.web.answers import problem_response
from app.web.pages import PageAnswer
from app.web.problems import NotReadyError

ROWS = 500
"""Rows of a page; each is one question to every worker."""

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins so for a formula: publishers' words get a ' before."""


class Form(StrEnum):
    """CSV with a line of names, or NDJSON."""

    CSV = "csv"
    NDJSON = "ndjson"


Fetch = Callable[[str | None, str], Awaitable[PageAnswer]]
"""Gives the page behind a cursor; its second argument is the list's own URL for that page, for other workers."""

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Every row of the list",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    },
    "default": problem_response(),
}


async def flat(request: Request, path: str, form: Form, kind: type[msgspec.Struct], fetch: Fetch) -> StreamingResponse:
    """Every row of the list at `path`, by the request's own filters. A connection that breaks off is not the whole.

    Raises:
        NotReadyError: some rows are on no worker just now.
    """
    query = [pair for pair in request.query_params.multi_items() if pair[0] not in ("limit", "cursor")]

    async def page(cursor: str | None) -> PageAnswer:
        asked = [*query, ("limit", str(ROWS)), *([("cursor", cursor)] if cursor else [])]
        found = await fetch(cursor, f"{path}?{urlencode(asked)}")
        if found.partial:
            raise NotReadyError({"partitions": f"{found.missing_partitions} are not ready on any worker"})
        return found

    first = await page(None)
    names = [field.encode_name for field in msgspec.structs.fields(kind)]

    async def lines() -> AsyncIterator[bytes]:
        if form is Form.CSV:
            yield _csv([names])
        found = first
        while True:
            yield _csv(_cells(found.items)) if form is Form.CSV else _ndjson(found.items)
            if found.next_cursor is None:
                return
            found = await page(found.next_cursor)

    media = "text/csv; charset=utf-8; header=present" if form is Form.CSV else "application/x-ndjson"
    return StreamingResponse(lines(), media_type=media, headers={"cache-control": "no-cache"})


def _ndjson(items: Iterable[Any]) -> bytes:
    encoder = msgspec.json.Encoder()
    return b"".join(encoder.encode(item) + b"\n" for item in items)


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cells(items: Iterable[Any]) -> Iterable[list[Any]]:
    for item in items:
        yield [_cell(getattr(item, name)) for name in item.__struct_fields__]


def _cell(value: Any) -> Any:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value}" if value.startswith(FORMULAS) else value
        case int() | float() | None:
            return value
        case _:
            return msgspec.json.encode(value).decode()
