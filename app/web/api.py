"""Puts the HTTP face together: the routes of every subject, problems, headers and the OpenAPI document."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, FastAPI
from starlette.types import Receive, Scope, Send

from app.asyncapi.document import document as events_document
from app.engine.errors import PartitionElsewhere
from app.web import (
    analytics,
    bridge,
    cart,
    dead_letters,
    health,
    inventory,
    letter_wishes,
    orders,
    overview,
    problems,
    timers,
)
from app.web.answers import schemas
from app.web.asyncapi import asyncapi_routes
from app.web.docs import docs_routes
from app.web.elsewhere import Elsewhere
from app.web.live import routes as live_routes
from app.web.measured import MeasuredRequests
from app.web.page import page_routes
from app.web.point_reads import PointReads
from app.web.security import SecurityHeaders
from app.web.views import Views

ANSWERS: tuple[type[msgspec.Struct], ...] = (
    *inventory.ANSWERS,
    *cart.ANSWERS,
    *orders.ANSWERS,
    *dead_letters.ANSWERS,
    *letter_wishes.ANSWERS,
    *analytics.ANSWERS,
    *live_routes.ANSWERS,
    *bridge.ANSWERS,
    *overview.ANSWERS,
    *timers.ANSWERS,
    *health.ANSWERS,
    problems.Problem,
)


class BridgeProcess(health.Watched, bridge.Bridged, Protocol):
    """What a process without views shows."""


class Api(FastAPI):
    """FastAPI whose schemas are those of the Structs that are sent. `reads` has its turn before anything else."""

    reads: PointReads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if not await self.reads.answered(scope, send):
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if not self.openapi_schema:
            document = super().openapi()
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas(ANSWERS))
            for path in document["paths"].values():
                for operation in path.values():
                    _without_null(operation.get("parameters", ()))
        return self.openapi_schema or {}


def _without_null(parameters: Iterable[dict[str, Any]]) -> None:
    """A parameter is there or not: none can be null, as FastAPI says of those that may be left out."""
    for parameter in parameters:
        options = parameter["schema"].pop("anyOf", None)
        if options is not None:
            [option] = [option for option in options if option != {"type": "null"}]
            parameter["schema"] |= option


def create_api(views: Views) -> FastAPI:
    """The ASGI application. It holds no state of its own but connections to other workers, and starts nothing."""
    elsewhere = Elsewhere((views.order_sagas, views.inventory, views.dead_letters, views.analytics))

    @asynccontextmanager
    async def lifespan(_api: FastAPI) -> AsyncIterator[None]:
        yield
        await elsewhere.close()

    api = Api(
        title="A4CO streams",
        description="Stock and orders of the marketplace, as the stream application sees them.",
        version="1",
        docs_url=None,  # FastAPI's own page loads scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    api.reads = PointReads(views)
    api.add_middleware(SecurityHeaders)
    api.add_middleware(MeasuredRequests, metrics=views.metrics)
    problems.install_problems(api)
    api.add_exception_handler(PartitionElsewhere, elsewhere.answer)
    shown = dead_letters.ShownLetters(views.dead_letters, views.letters, elsewhere, views.freshness, views.clock)
    add_routes(
        api,
        cart.cart_routes(views, elsewhere),
        inventory.inventory_routes(views, elsewhere),
        orders.order_routes(views, elsewhere),
        dead_letters.letter_routes(shown),
        letter_wishes.wish_routes(shown),
        analytics.analytics_routes(views, elsewhere),
        live_routes.live_routes(views.live),
        bridge.bridge_routes(views),
        overview.overview_routes(views, elsewhere),
        timers.timer_routes(views, elsewhere),
        health.health_routes(views),
        docs_routes(api),
        page_routes(),
        asyncapi_routes(lambda: events_document(views.routes, api.version)),
    )
    return api


def create_bridge_api(process: BridgeProcess) -> FastAPI:
    """The ASGI application of the bridge alone: /api/bridge, /health, /ready, /metrics."""
    api = FastAPI(
        title="A4CO bridge", version="1", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    api.add_middleware(SecurityHeaders)
    api.add_middleware(MeasuredRequests, metrics=process.metrics)
    problems.install_problems(api)
    add_routes(api, bridge.bridge_routes(process), health.health_routes(process))
    return api


def add_routes(api: FastAPI, *routers: APIRouter) -> None:
    """The routers' routes become the API's own. One that is only included builds its routes again at its first request
    (35 ms for all of ours), and looks twice for the route of each request.
    """
    for router in routers:
        api.router.routes += router.routes
