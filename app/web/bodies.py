"""Reads what a client sends, up to a limit. Decides nothing about what is in it, but that 2.0 is a whole number."""

from typing import Any

from starlette.requests import Request

from app.web.problems import ProblemError

BODY_LIMIT = 1024 * 1024  # bytes


async def body_of(request: Request) -> bytes:
    """The request's body. ProblemError: it has more than BODY_LIMIT bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise ProblemError("body-too-large", f"At most {BODY_LIMIT} bytes.")
    return bytes(body)


async def json_body_of(request: Request) -> bytes:
    """The request's body. ProblemError: not JSON by its header, or too long.

    A page of another origin can't say that it is JSON without asking us first, which no answer of ours allows.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError("not-json", "Content-Type must be application/json.")
    return await body_of(request)


def whole(value: Any) -> Any:
    """The same JSON with 2 for 2.0: JSON knows no other integers, and some clients write them so."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [whole(each) for each in value]
        case dict():
            return {name: whole(each) for name, each in value.items()}
        case _:
            return value
