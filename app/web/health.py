"""Whether this process is well and ready, and its metrics. Decides the one word from the checks, not the checks."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Header
from starlette.responses import Response

from app.domain.causes import iso
from app.metrics.worker import Metrics
from app.web.answers import Answer, json_answer, problem_response, says
from app.web.problems import NotReadyError

WORDS = ("healthy", "degraded", "unhealthy")  # from best to worst


class Health(Answer, frozen=True, kw_only=True):
    """healthy, degraded or unhealthy: the worst of the checks, each of which has a status of its own."""

    service: str
    status: str
    timestamp: str
    checks: dict[str, dict[str, Any]]


class Ready(Answer, frozen=True, kw_only=True):
    """The tables are complete: answers can be trusted."""

    ready: bool


ANSWERS = (Health, Ready)


class Watched(Protocol):
    """What is told of a process: as `Views` has it."""

    @property
    def service(self) -> str: ...
    @property
    def memory_limit(self) -> int: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def ready(self) -> Callable[[], tuple[bool, Mapping[str, Any]]]: ...
    @property
    def checks(self) -> Callable[[], Mapping[str, Mapping[str, Any]]]: ...


def health_routes(views: Watched) -> APIRouter:
    """/health, /ready and /metrics."""
    router = APIRouter(tags=["health"], default_response_class=Response)

    @router.get("/health", responses=says(Health) | {503: says(Health)[200]})
    async def health() -> Response:
        """Tell how this worker is: 503 when it is unhealthy."""
        checks = {"memory": memory_check(views.memory_limit), **views.checks()}
        status = max((check["status"] for check in checks.values()), key=WORDS.index)
        answer = Health(
            service=views.service,
            status=status,
            timestamp=iso(views.clock()),
            checks={name: dict(check) for name, check in checks.items()},
        )
        return json_answer(answer, 503 if status == "unhealthy" else 200)

    @router.get("/ready", responses=says(Ready, 503))
    async def ready() -> Response:
        """Tell whether the tables are complete, or 503 with the reasons."""
        is_ready, reasons = views.ready()
        if not is_ready:
            raise NotReadyError(reasons)
        return json_answer(Ready(ready=True))

    @router.get(
        "/metrics",
        responses={
            200: {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}},
            "default": problem_response(),
        },
    )
    async def metrics(accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
        """Give Prometheus its metrics."""
        text, content_type = views.metrics.exposition(accept)
        return Response(text, headers={"content-type": content_type})

    return router


def memory_check(limit: int) -> dict[str, Any]:
    """Degraded above `limit` bytes of resident memory."""
    resident = _resident_bytes()
    return {
        "status": "degraded" if resident > limit else "healthy",
        "residentBytes": resident,
        "limitBytes": limit,
    }


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux: unknown, and no reason to alarm
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
