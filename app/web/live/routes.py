"""The live feed over HTTP: what changes in the tables, as server-sent events."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from app.web.answers import SCHEMAS, problem_response
from app.web.dead_letters import LetterSummary
from app.web.inventory import ProductSummary
from app.web.live.events import Dropped, Hello, Kind, Restart
from app.web.live.feed import LiveFeed
from app.web.live.filter import LiveFilter
from app.web.live.stream import LiveStream
from app.web.orders import OrderSummary
from app.web.query import given

ANSWERS = (Hello, Restart, Dropped)

SAID = (Hello, OrderSummary, ProductSummary, LetterSummary, Restart, Dropped)

LONGEST_PLACE = 8_000
"""Characters; the place of 256 partitions has some 5,000."""

Place = Annotated[str | None, Query(max_length=LONGEST_PLACE)]

EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["hello", *Kind, "restart", "dropped"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": [{"$ref": SCHEMAS.format(name=said.__name__)} for said in SAID]},
        },
        "id": {"type": "string", "description": "the place behind it: an opaque word"},
        "retry": {"type": "integer"},
    },
}

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events, each as its list has it",
        "content": {"text/event-stream": {"schema": EVENT}},
    },
    **{status: problem_response() for status in (400, 422, 503)},
    "default": problem_response(),
}


def live_routes(feed: LiveFeed) -> APIRouter:
    """/api/live."""
    router = APIRouter(tags=["live"], default_response_class=Response)

    @router.get("/api/live", responses=RESPONSES)
    async def live(
        wanted: Annotated[LiveFilter, Depends(given(LiveFilter))],
        after: Place = None,
        last_event_id: Annotated[str | None, Header(max_length=LONGEST_PLACE)] = None,
    ) -> Response:
        """Follow what changes, from now on or from the last id on."""
        return LiveStream(feed, wanted.wants, last_event_id or after)

    return router
