"""The page /asyncapi and the document /asyncapi.json: what can be published and heard, in HTML without scripts."""

import json
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from app.web.docs import prose

Node = dict[str, Any]


def asyncapi_routes(document: Callable[[], Node]) -> APIRouter:
    """/asyncapi and /asyncapi.json. The document is made at the first request."""
    router = APIRouter(include_in_schema=False)
    made: list[Node] = []

    def once() -> Node:
        if not made:
            made.append(document())
        return made[0]

    @router.get("/asyncapi")
    async def page() -> HTMLResponse:
        return HTMLResponse("".join(_page(once())))

    @router.get("/asyncapi.json")
    async def machine() -> Response:
        return Response(json.dumps(once(), ensure_ascii=False), media_type="application/json")

    return router


def _page(document: Node) -> Iterator[str]:
    title = escape(document["info"]["title"])
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: events</title>'
    yield '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/docs.css"></head><body>'
    yield f"<h1>{title}: events</h1><p>{prose(document['info']['description'])} "
    yield 'Machines read <a href="/asyncapi.json">asyncapi.json</a> (AsyncAPI 3.1); HTTP: <a href="/docs">docs</a>.</p>'
    for heading, server in (("Subjects on NATS", "nats"), ("Topics of the log", "log")):
        channels = {
            name: channel
            for name, channel in document["channels"].items()
            if channel["servers"] == [{"$ref": f"#/servers/{server}"}]
        }
        yield f"<h2>{heading}</h2><table><tr><th>Name</th><th>What happens</th><th>Messages</th></tr>"
        for name, channel in channels.items():
            yield _line(name, channel, document)
        yield "</table>"
    yield "<h2>Messages</h2>"
    for name, message in document["components"]["messages"].items():
        yield from _message(name, message, document)
    yield "</body></html>"


def _line(name: str, channel: Node, document: Node) -> str:
    actions = [action for action in ("receive", "send") if f"{action}.{name}" in document["operations"]]
    does = " ".join(prose(document["operations"][f"{action}.{name}"]["summary"]) for action in actions)
    links = "<br>".join(f'<a href="#{escape(each)}">{escape(_short(each, name))}</a>' for each in channel["messages"])
    letters = channel.get("x-dlq")
    dead = f" What can't be used: <code>{escape(letters['address'])}</code>." if letters else ""
    about = prose(channel["description"])
    return f"<tr><td><code>{escape(channel['address'])}</code></td><td>{about} {does}{dead}</td><td>{links}</td></tr>"


def _short(message: str, channel: str) -> str:
    """On its own subject a message is told by its dialect, and by whether it is ours."""
    dialect, _, ours = message.removeprefix(f"{channel}.").partition(".")
    if not message.startswith(f"{channel}.") or len(dialect) > len("any"):
        return message
    return f"{'any JSON' if dialect == 'any' else dialect.upper()}{', as we say it' if ours else ''}"


def _message(name: str, message: Node, document: Node) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(message["title"])} <code>{escape(name)}</code></h3>'
    yield f"<p>{prose(message['summary'])}</p>"
    fields = list(_fields(message["payload"], document))
    if fields:
        yield "<table><tr><th>Field</th><th>Type</th><th></th></tr>"
        for path, kind, note in fields:
            yield f"<tr><td><code>{escape(path)}</code></td><td>{escape(kind)}</td><td>{escape(note)}</td></tr>"
        yield "</table>"
    for example in message.get("examples", ()):
        text = json.dumps(example["payload"], indent=2, ensure_ascii=False)
        yield f"<details><summary>Example</summary><pre><code>{escape(text)}</code></pre></details>"


def _fields(schema: Node, document: Node, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Each field with its path, its type and whether it has to be there; of several forms the first."""
    flat = _flat(schema, document)
    for name, field in flat["properties"].items():
        inner = _flat(field, document)
        here = f"{path}{name}"
        yield here, _type(inner), "required" if name in flat["required"] else ""
        if inner["properties"]:
            yield from _fields(inner, document, f"{here}.")
        elif inner.get("items"):
            yield from _fields(inner["items"], document, f"{here}[].")


def _flat(schema: Node, document: Node) -> Node:
    """The schema with what it refers to, and its parts put together."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found: Node = {
        **schema,
        "properties": dict(schema.get("properties", {})),
        "required": list(schema.get("required", ())),
    }
    parts = schema.get("allOf", ()) or [part for part in schema.get("anyOf", ())[:1] if "properties" in part]
    for part in parts:
        inner = _flat(part, document)
        found["properties"] |= inner["properties"]
        found["required"] += inner["required"]
        found.setdefault("type", inner.get("type"))
    return found


def _type(schema: Node) -> str:
    """In a word or two."""
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    return str(schema.get("format") or schema.get("type") or "any")
