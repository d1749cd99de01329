"""The bridge as this process sees it: how it is, and the ledger of what crossed it. Decides nothing."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.web.answers import Answer, json_answer, says
from app.web.freshness import tag, unchanged


class CrossedSource(Answer, frozen=True, kw_only=True):
    """One source of messages since the first start: read = mirrored + repeated + dead-lettered + ignored.

    `way` is how it is read. `waiting` messages are there and not read, the oldest known one for `waiting_seconds`;
    messages leave the stream after `kept_seconds` (0: never). `gone` left it unread. `unaccounted` must be 0.
    """

    source: str
    way: str
    position: int
    waiting: int
    waiting_seconds: float
    kept_seconds: float
    read: int
    ignored: int
    gone: int
    unaccounted: int
    routes: dict[str, dict[str, int]]


class Crossing(Answer, frozen=True, kw_only=True):
    """The bridge: whether it runs in this process, why it isn't ready (null: it is), its lags and its ledger."""

    here: bool
    problem: str | None
    lag_in: int
    lag_out: int
    not_durable: list[str]
    sources: list[CrossedSource]


ANSWERS = (Crossing, CrossedSource)


class Bridged(Protocol):
    """Who knows the bridge: as `Views` has it. `crossing` gives its status and its ledger."""

    @property
    def crossing(self) -> Callable[[], tuple[Mapping[str, Any], list[dict[str, Any]]]]: ...


def bridge_routes(process: Bridged) -> APIRouter:
    """/api/bridge."""
    router = APIRouter(tags=["bridge"], default_response_class=Response)

    @router.get("/api/bridge", responses=says(Crossing))
    async def bridge(request: Request) -> Response:
        """Tell how the bridge is, and what crossed it. Where another process runs it, `here` is false."""
        status, ledger = process.crossing()
        found = Crossing(
            here=not status.get("stands_by", False),
            problem=status["problem"],
            lag_in=status["lag_in"],
            lag_out=status["lag_out"],
            not_durable=list(status.get("not_durable", ())),
            sources=msgspec.convert(ledger, list[CrossedSource]),
        )
        etag = tag(found)
        return unchanged(request, etag) or json_answer(found, headers={"etag": etag})

    return router
