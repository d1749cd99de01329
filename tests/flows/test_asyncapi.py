"""The AsyncAPI document says what the code does: its file is current, and its words are those that we read and say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from app import topics
from app.asyncapi import heard
from app.asyncapi.document import INTERNAL, document, to_json, types_of
from app.asyncapi.said import said, shape
from app.cli import main
from app.domain.dialects import Undecodable, decode
from app.domain.envelopes import EVENT_TYPES, ONLY_SHARED
from app.domain.events import Wire
from app.domain.messages import Announce
from app.web.api import create_api
from bridge.routes import ROUTES, Direction, Route, Routes
from tests.flows.shop import Shop

FILE = Path(__file__).parents[2] / "docs" / "asyncapi.json"
WHOSE = {"orderId": "order-1", "productId": "product-1", "paymentId": "payment-1"}
GOOD: dict[str, Any] = {
    "customerId": "customer-1", "items": [{"productId": "product-1", "quantity": 1, "unitPrice": 2.5}],
    "totalAmount": 2.5, "amount": 2.5, "newStock": 3,
}  # fmt: skip
"""Of each field that some data must have, a good value."""


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def published(dialect: str, data: dict[str, Any], event_type: str) -> bytes:
    """The payload in the dialect's envelope."""
    envelope = {"eventId": "event-1", "eventType": event_type}
    if dialect == "c":
        return json.dumps({"pattern": event_type, "data": envelope | {"data": data}}).encode()
    return json.dumps(envelope | {"aggregateId": "payment-1", "eventData": data}).encode()


def test_the_file_is_what_the_routes_and_types_say() -> None:
    assert FILE.read_text("utf-8") == to_json(document(ROUTES)), "run `make asyncapi`"


def test_every_reference_leads_somewhere() -> None:
    made = document(ROUTES)
    for reference in set(references(made)):
        node: Any = made
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        assert node


def test_every_subject_has_a_channel_with_a_message_for_each_dialect_and_its_letters() -> None:
    made = document(ROUTES)
    for route in ROUTES:
        channel = made["channels"][route.subject]
        names = {f"{route.subject}.{dialect}" for dialect in route.dialects}
        assert names <= channel["messages"].keys()
        assert channel["x-topic"] == route.topic
        assert channel["x-dlq"]["address"] == f"{route.subject}.dlq"
        assert f"receive.{route.subject}" in made["operations"]
        assert (f"send.{route.subject}" in made["operations"]) <= route.published
        mirror = made["channels"][f"topic.{route.topic}"]["messages"]
        assert names <= mirror.keys()


def test_every_topic_has_a_channel_and_every_message_of_the_domain_is_in_one() -> None:
    made = document(ROUTES)
    assert {f"topic.{topic.name}" for topic in topics.ALL} <= made["channels"].keys()
    told = {kind for kinds in INTERNAL.values() for kind in types_of(kinds)}
    assert told >= topics._SENDERS.keys() - {Announce} - {kind for kind in topics._SENDERS if kind.__name__ == "Resend"}


@pytest.mark.parametrize("name", heard.DATA)
def test_data_that_the_schema_takes_is_read_and_what_it_asks_for_is_needed(name: str) -> None:
    kind: type[Wire] = heard.DATA[name]
    routes = [route for route in ROUTES if route.subject.removesuffix(".v1") == name]
    spoken = [(route.subject, dialect) for route in routes for dialect in route.dialects]
    assert spoken
    required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    data = WHOSE | {field: GOOD[field] for field in required} | ({"newStock": 3} if "stock" in name else {})
    msgspec.convert(data, kind)
    for subject, dialect in spoken:
        decode(subject, published(dialect, data, subject), at=0)
        for field in msgspec.structs.fields(kind):
            wrong = data | {field.encode_name: {"no": "such type"}}
            with pytest.raises(Undecodable, match="wrong-type"):
                decode(subject, published(dialect, wrong, subject), at=0)
        for gone in required:
            with pytest.raises(Undecodable, match="missing-field"):
                decode(subject, published(dialect, {k: v for k, v in data.items() if k != gone}, subject), at=0)
        own = heard.IN_DATA.get(name.split(".", maxsplit=1)[0])
        if own:
            with pytest.raises(Undecodable, match="missing-order-id"):
                decode(subject, published(dialect, {k: v for k, v in data.items() if k != own}, subject), at=0)


@pytest.mark.parametrize("dialect", ["a", "b", "c"])
def test_all_that_we_can_say_is_shown_as_it_is_said(dialect: str) -> None:
    shown = said(dialect)
    if dialect != "c":
        suffix = ".v1" if dialect == "b" else ""
        spoken = {kind if kind == "inventory.stock.warning" else kind + suffix for kind in EVENT_TYPES}
        assert shown.keys() == spoken
    else:
        assert {f"{kind}.v1" for kind in ONLY_SHARED} <= shown.keys()
    for subject, payloads in shown.items():
        assert ROUTES[subject].published
        for payload in payloads:
            decode(subject, json.dumps(payload).encode(), at=0)
    cancelled = shape(said("a")["order.cancelled"])["properties"]["eventData"]
    assert "refundAmount" in cancelled["properties"]
    assert "refundAmount" not in cancelled["required"]


def test_routes_of_a_file_are_in_the_document_and_those_that_are_off_are_not() -> None:
    more = Route("artisan.>", "artisans", Direction.IN, key="aggregateId")
    off = Route("user.registered", "users", Direction.IN, "a", "user id", on=False)
    made = document(Routes([*ROUTES, more, off]))
    assert made["channels"]["artisan.>"]["messages"].keys() == {"artisan.>.any"}
    assert "topic.artisans" in made["channels"]
    assert "user.registered" not in made["channels"]


def test_the_command_prints_the_file_and_the_same_as_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    as_json = CliRunner().invoke(main, ["asyncapi"]).output
    assert as_json == FILE.read_text("utf-8")
    as_yaml = CliRunner().invoke(main, ["asyncapi", "--yaml"]).output
    assert "&id" not in as_yaml
    assert yaml.safe_load(as_yaml) == json.loads(as_json)


async def test_the_page_shows_every_channel_and_message_and_loads_nothing_from_elsewhere() -> None:
    transport = httpx.ASGITransport(create_api(Shop().views()))
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as web:
        made = (await web.get("/asyncapi.json")).json()
        answer = await web.get("/asyncapi")
    assert made == json.loads(FILE.read_text("utf-8"))
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    for channel in made["channels"].values():
        assert f"<code>{channel['address'].replace('>', '&gt;')}</code>" in answer.text
    for name in made["components"]["messages"]:
        assert f'id="{name}"' in answer.text
    assert "<code>eventData.items[].quantity</code></td><td>integer</td><td>required</td>" in answer.text
    for loads in ("<script", "<style", " src=", "style=", "http-equiv"):
        assert loads not in answer.text
