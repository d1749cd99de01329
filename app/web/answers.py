"""How an answer is written: camelCase JSON from Structs, ISO times, and the same Structs as OpenAPI schemas."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from app.domain.causes import iso

SCHEMAS = "#/components/schemas/{name}"
PROBLEM_JSON = "application/problem+json"

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an endpoint says. Its fields, in camelCase, are the contract; there is no other model of it."""


def iso_or_none(at: float | None) -> str | None:
    """As `iso`; None where there is no such moment."""
    return None if at is None else iso(at)


def json_answer(
    body: msgspec.Struct,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The Struct as JSON. Rows change at any moment: a cache must ask again."""
    return Response(_encode(body), status, {"cache-control": "no-cache", **(headers or {})}, media_type)


def says(answer: type[msgspec.Struct], *errors: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of an endpoint: its answer, and the problems it may give."""
    return {
        200: {"description": _first_line(answer), "content": _content("application/json", answer.__name__)},
        **{status: problem_response() for status in errors},
        "default": problem_response(),
    }


def accepts(answer: type[msgspec.Struct], *errors: int) -> dict[int | str, dict[str, Any]]:
    """The same of an endpoint that may have begun something only: 202."""
    answers = says(answer, *errors)
    return {**answers, 202: answers[200]}


def problem_response(description: str = "A problem (RFC 9457)") -> dict[str, Any]:
    """The OpenAPI response of any error."""
    return {"description": description, "content": _content(PROBLEM_JSON, "Problem")}


def schemas(answers: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    """The JSON schemas of these Structs and of all that is in them, by name."""
    return msgspec.json.schema_components(answers, ref_template=SCHEMAS)[1]


def _content(media_type: str, name: str) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": SCHEMAS.format(name=name)}}}


def _first_line(answer: type[msgspec.Struct]) -> str:
    return (answer.__doc__ or answer.__name__).strip().partition("\n")[0]
