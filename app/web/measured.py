"""Tells the metrics of every HTTP request: how it ended, and how long it took. Paths are told as they are declared.

Of a stream of events, the time until it begins: it goes on for as long as the client likes.
"""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics.events import OTHER
from app.metrics.worker import Metrics

STREAM = (b"content-type", b"text/event-stream; charset=utf-8")

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class MeasuredRequests:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and tell when it is over; a request that ends without an answer is a 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began, seconds = 500, perf_counter(), 0.0

        async def send_and_look(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                if STREAM in message["headers"]:
                    seconds = perf_counter() - began
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            method = scope["method"] if scope["method"] in METHODS else OTHER
            route = getattr(scope.get("route"), "path", OTHER)
            self._metrics.requested(method, route, status, seconds or perf_counter() - began)
