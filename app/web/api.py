"""Puts the HTTP face together: the routes of every subject, problems, headers and the OpenAPI document."""

from typing import Any

from fastapi import FastAPI

from app.web import health, inventory, orders, problems
from app.web.answers import schemas
from app.web.docs import docs_routes
from app.web.security import SecurityHeaders
from app.web.views import Views

ANSWERS = (*inventory.ANSWERS, *orders.ANSWERS, *health.ANSWERS, problems.Problem)


class Api(FastAPI):
    """FastAPI whose schemas are those of the Structs that are sent."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if not self.openapi_schema:
            document = super().openapi()
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas(ANSWERS))
        return self.openapi_schema or {}


def create_api(views: Views) -> FastAPI:
    """The ASGI application. It holds no state of its own and starts nothing."""
    api = Api(
        title="A4CO streams",
        description="Stock and orders of the marketplace, as the stream application sees them.",
        version="1",
        docs_url=None,  # FastAPI's own page loads scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
    )
    api.add_middleware(SecurityHeaders)
    problems.install_problems(api)
    api.include_router(inventory.inventory_routes(views))
    api.include_router(orders.order_routes(views))
    api.include_router(health.health_routes(views))
    api.include_router(docs_routes(api))
    return api
