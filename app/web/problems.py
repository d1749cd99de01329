"""Every error as application/problem+json (RFC 9457). Decides which problems there are and what each says."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.engine.errors import PartitionElsewhere
from app.web.answers import PROBLEM_JSON, Answer, json_answer
from app.web.security import HEADERS


class Kind(NamedTuple):
    """A kind of problem: its status, its title, and what to do about it."""

    status: int
    title: str
    meaning: str


KINDS = {
    "invalid-request": Kind(422, "A parameter is wrong", "`errors` names each parameter and its cause."),
    "invalid-cursor": Kind(400, "The cursor is not valid", "Take nextCursor of the page before, or start without one."),
    "invalid-time": Kind(
        400, "The time is not valid", "from and to are ISO 8601 or milliseconds since the epoch; `detail` says which."
    ),
    "invalid-filter": Kind(400, "The filter is not valid", "`detail` says what there is not, and what there is."),
    "unknown-product": Kind(404, "Unknown product", "No stock was ever imported or announced for this product id."),
    "unknown-order": Kind(404, "Unknown order", "No event of this order has arrived."),
    "unknown-letter": Kind(404, "Unknown dead letter", "No dead letter has this id: take it from the list."),
    "letter-closed": Kind(409, "The dead letter is closed", "It was replayed or discarded: `acts` say by whom."),
    "letter-gone": Kind(410, "The message is gone", "Its record was removed from the topic dead-letters."),
    "still-unusable": Kind(
        422, "It would be a dead letter again", "`detail` says why: send a corrected `payload`, or discard it."
    ),
    "invalid-wish": Kind(422, "The body is wrong", "`errors` says how; nothing was done."),
    "no-filter": Kind(422, "Which dead letters?", "Name them in `letters`, give a filter, or say all=true."),
    "no-such-page": Kind(404, "There is nothing here", "The operations that there are stand on this page."),
    "method-not-allowed": Kind(405, "The method is not allowed", "The Allow header has those that are."),
    "body-too-large": Kind(413, "The body is too large", "Send at most 1 MiB; split a longer import by product."),
    "not-json": Kind(415, "The body is not JSON", "Send application/json in UTF-8."),
    "invalid-stock": Kind(422, "Lines of the import are wrong", "`errors` has every bad line; nothing was imported."),
    "invalid-cart": Kind(422, "The cart is wrong", 'Send {"items": [{"productId", "quantity"}]}, at most 200 lines.'),
    "not-ready": Kind(
        503, "Not ready", "Tables are being rebuilt or move to another worker; come back after Retry-After seconds."
    ),
    "too-many-clients": Kind(
        503, "Too many clients", "LIVE_CLIENTS listen to the live feed already; come back after Retry-After seconds."
    ),
    "not-yet": Kind(
        503, "Not yet", "What was waited for has not arrived; ask again, or look whether it was published."
    ),
    "http-error": Kind(400, "The request could not be answered", "`status` and `detail` say why."),
    "internal-error": Kind(500, "Something went wrong here", "The worker's log has the cause."),
}
"""The problems by the end of their type URL, which is an anchor of the page /docs."""

RETRY_AFTER = "2"  # seconds


class Fault(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong: in a line of the body (counted from 1) or in a parameter."""

    cause: str
    line: int | msgspec.UnsetType = msgspec.UNSET
    parameter: str | msgspec.UnsetType = msgspec.UNSET


class Problem(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[Fault] | msgspec.UnsetType = msgspec.UNSET
    ready: bool | msgspec.UnsetType = msgspec.UNSET
    reasons: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class ProblemError(Exception):
    """Raised by an endpoint to answer with a problem. `kind` is a key of KINDS."""

    def __init__(self, kind: str, detail: str, errors: list[Fault] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = errors


class NotReadyError(ProblemError):
    """The answer is not known yet. `reasons` as the readiness callback gave them."""

    def __init__(self, reasons: Mapping[str, Any]) -> None:
        super().__init__("not-ready", "The answer is not known yet.")
        self.reasons = dict(reasons)


def install_problems(api: FastAPI) -> None:
    """Make every error of the API a problem."""
    api.add_exception_handler(ProblemError, problem_answer)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(Exception, _internal)


def _answer(
    request: Request, kind: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    status, title, _ = KINDS[kind]
    body = Problem(
        type=f"/docs#{kind}",
        title=title,
        status=more.pop("status", status),
        detail=detail,
        instance=request.url.path,
        **more,
    )
    return json_answer(body, body.status, PROBLEM_JSON, headers)


async def problem_answer(request: Request, error: Exception) -> Response:
    """The answer that a ProblemError is."""
    if isinstance(error, NotReadyError):
        headers = {"retry-after": RETRY_AFTER}
        return _answer(request, error.kind, error.detail, headers, ready=False, reasons=error.reasons)
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for it
    later = {"retry-after": RETRY_AFTER} if error.kind == "too-many-clients" else None
    return _answer(request, error.kind, error.detail, later, errors=error.errors or msgspec.UNSET)


def not_here(request: Request, error: PartitionElsewhere, reasons: Mapping[str, str]) -> Response:
    """The key is another worker's, or moves: not known here, which is another thing than not there."""
    headers = {"retry-after": RETRY_AFTER}
    return _answer(request, "not-ready", f"{error}.", headers, ready=False, reasons=dict(reasons))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    kind = {404: "no-such-page", 405: "method-not-allowed"}.get(error.status_code, "http-error")
    detail = f"{request.method} {request.url.path}: {HTTPStatus(error.status_code).phrase.lower()}."
    return _answer(request, kind, detail, error.headers, status=error.status_code)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    # ("query", "state", 0): the first of a parameter that is given more than once.
    faults = [Fault(parameter=str([*found["loc"], ""][1]), cause=found["msg"]) for found in error.errors()]
    names = ", ".join(str(fault.parameter) for fault in faults)
    return _answer(request, "invalid-request", f"Wrong: {names}.", errors=faults)


async def _internal(request: Request, _error: Exception) -> Response:
    # This one is answered outside of the middleware, which therefore can't add its headers.
    return _answer(request, "internal-error", "The request failed; the log has the cause.", HEADERS)
