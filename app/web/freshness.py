"""How fresh an answer is, whether the client has it already, and how a client waits for what it has just said."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import msgspec
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.web.problems import ProblemError
from app.web.query import Word

Row = TypeVar("Row")

LONGEST_WAIT = 30.0
LOOKS = 0.005
"""Seconds between two looks at a row that is waited for: a row tells nobody that it changes."""


class Freshness(NamedTuple):
    """How far a table is behind: records that wait to be applied, and whether what is shown may be old because of more
    than the moment that they need (NATS is away, a backlog is read).
    """

    lag: int
    stale: bool


class Fresh(Protocol):
    """Who knows how fresh a table is: as `Views` has it."""

    @property
    def freshness(self) -> Callable[[str], Freshness]: ...


class Wait:
    """?wait_for=<eventId>&timeout=<seconds>: the answer comes when that event is in it."""

    def __init__(
        self,
        wait_for: Word = None,
        timeout: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 5.0,
    ) -> None:
        self._event = wait_for
        self._timeout = timeout

    async def until(self, get: Callable[[], Row | None], has: Callable[[Row, str], bool]) -> Row | None:
        """The row that `get` gives, once it has the event; at once where none is waited for.

        Raises:
            ProblemError: it has not come in time.
        """
        row = get()
        if self._event is None:
            return row
        deadline = time.monotonic() + min(self._timeout, LONGEST_WAIT)
        while row is None or not has(row, self._event):
            if time.monotonic() > deadline:
                raise ProblemError("not-yet", f"The event {self._event} has not arrived within {self._timeout:g} s.")
            await asyncio.sleep(LOOKS)
            row = get()
        return row


def waiting(request: Request) -> float:
    """Seconds that the answer of another worker may take beyond its usual time."""
    if "wait_for" not in request.query_params:
        return 0.0
    try:
        return min(LONGEST_WAIT, max(0.0, float(request.query_params.get("timeout", 5.0))))
    except ValueError:
        return 0.0


_encode = msgspec.json.Encoder().encode


def tag(row: msgspec.Struct) -> str:
    """The ETag of an answer that shows this row: another one whenever anything in the row is."""
    return f'"{hashlib.blake2b(_encode(row), digest_size=12).hexdigest()}"'


def unchanged(request: Request, etag: str) -> Response | None:
    """304 when the client says that it has this; how fresh it is may have changed meanwhile."""
    given = request.headers.get("if-none-match", "")
    if given.strip() != "*" and etag not in [each.strip().removeprefix("W/") for each in given.split(",")]:
        return None
    return Response(status_code=304, headers={"etag": etag, "cache-control": "no-cache"})


def fields(found: Freshness) -> dict[str, Any]:
    """Lag and stale, as every answer has them."""
    return found._asdict()
