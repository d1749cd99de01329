"""The page /docs: the operations of openapi.json and the kinds of problems, as plain HTML without scripts."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse, Response

from app.web.problems import KINDS

STYLE = """\
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8885 }
code { font-size: .9em; overflow-wrap: anywhere }
tr:target, h3:target { background: #fc04 }
pre { overflow-x: auto }
"""


def docs_routes(api: FastAPI) -> APIRouter:
    """/docs and its style sheet."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse("".join(_page(api.openapi())))

    @router.get("/docs.css")
    async def style() -> Response:
        return Response(STYLE, media_type="text/css")

    return router


def _page(schema: dict[str, Any]) -> Iterator[str]:
    title = escape(schema["info"]["title"])
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/docs.css"></head><body>'
    yield f"<h1>{title}</h1><p>{escape(schema['info']['description'])} "
    yield 'Machines read <a href="/openapi.json">openapi.json</a>; <a href="/asyncapi">events on NATS</a>.</p>'
    yield "<h2>Operations</h2><table><tr><th>Operation</th><th>Parameters</th><th>Answers</th></tr>"
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            yield _operation(method, path, operation)
    yield "</table><h2>Problems</h2><p>Every error is <code>application/problem+json</code>; its type leads here.</p>"
    yield "<table><tr><th>Type</th><th>Status</th><th>Title</th><th>What to do</th></tr>"
    for kind, (status, heading, meaning) in KINDS.items():
        yield f'<tr id="{kind}"><td><code>{kind}</code></td><td>{status}</td>'
        yield f"<td>{escape(heading)}</td><td>{prose(meaning)}</td></tr>"
    yield "</table></body></html>"


def prose(text: str) -> str:
    """A sentence as HTML; what stands between backticks is code."""
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text))


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = ", ".join(f"<code>{escape(parameter['name'])}</code>" for parameter in operation.get("parameters", ()))
    answers = ", ".join(escape(str(status)) for status in operation["responses"] if status != "default")
    about = escape(operation.get("description", ""))
    return (
        f"<tr><td><code>{method.upper()} {escape(path)}</code><br>{about}</td>"
        f"<td>{parameters}</td><td>{answers}</td></tr>"
    )
