"""Reads what a client sends, up to a limit. Decides nothing about what is in it."""

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
