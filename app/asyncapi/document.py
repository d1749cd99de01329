"""The AsyncAPI 3.1 document, made of the routes, the topics and their types. It decides no name of any of them."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import yaml

from app import topics
from app.asyncapi import heard, said
from app.domain.dead_letters import LetterCommand
from app.domain.messages import BucketOutdated, DeadlineReached, OrdersCounted, SendMail
from app.engine.declarations import Topic
from app.metrics.events import EVENT_TYPES
from bridge.origin import MESSAGE_ID, ORIGIN
from bridge.routes import DLQ, Route, Routes

Node = dict[str, Any]

INTERNAL: dict[Topic, Any] = {
    topics.STOCK_COMMANDS: topics.StockCommand,
    topics.SAGA_REPLIES: topics.SagaReply,
    topics.TIMERS: DeadlineReached,
    topics.MAILS: SendMail,
    topics.ORDER_FACTS: OrdersCounted | BucketOutdated,
    topics.LETTER_COMMANDS: LetterCommand,
}
"""Topic of the domain's own messages -> their types."""

PACKED = {topics.LETTER_COMMANDS}
"""Those in MessagePack; all others are JSON."""

EXAMPLES = 2
"""Of each message, at most."""

ABOUT = (
    "The events that this application reads and publishes on NATS, and the topics of its log (Kafka, or the embedded "
    "one). To publish, nothing has to be set up: plain `nats pub` with the payload is enough, without headers."
)
DIALECTS = {
    "a": "dialect A: the domain event's envelope",
    "b": "dialect B: dialect A's envelope on `.v1` subjects",
    "c": "dialect C: shared-events v1, as NestJS's client wraps them",
    "": "any JSON object",
}
TRACE = {"traceparent": {"type": "string", "description": "W3C trace context: kept, or begun at the edge."}}
HEADERS: Node = {
    "type": "object",
    "properties": {
        MESSAGE_ID: {"type": "string", "description": "The eventId, and a seal: JetStream drops a second one."},
        ORIGIN: {"type": "string", "description": "A signature: the message is this application's."},
        "Content-Type": {"const": "application/json"},
        **TRACE,
    },
    "required": [MESSAGE_ID, ORIGIN],
}
"""Of what we publish on NATS."""

TOLD_OF: Node = {
    "type": "object",
    "description": "What is told on `<subject>.dlq` of a message that could not be used.",
    "properties": {
        "originalSubject": {"type": "string"},
        "event": {"description": "The event, if it was JSON, else its text."},
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "stack": {"type": "string"}},
            "required": ["message", "stack"],
        },
        "failedAt": {"type": "string", "format": "date-time"},
    },
    "required": ["originalSubject", "event", "error", "failedAt"],
}


def document(routes: Routes, version: str = "1") -> Node:
    """The document. Channels are subjects, and topics as `topic.NAME`; a message is `SUBJECT.DIALECT[.ours]`."""
    parts = _Parts()
    for route in routes:
        parts.add_subject(route)
    names = [topic for topic in topics.ALL if topic not in INTERNAL] + routes.more_topics()
    for topic in names:
        parts.add_mirror(topic.name, [route for route in routes if route.topic == topic.name])
    for topic, kind in INTERNAL.items():
        parts.add_internal(topic, kind)
    kinds = [*heard.TYPES, *(each for kind in INTERNAL.values() for each in types_of(kind))]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.1.0",
        "info": {"title": "A4CO streams", "version": version, "description": ABOUT},
        "defaultContentType": "application/json",
        "servers": {
            "nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "`NATS_URL`"},
            "log": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "`KAFKA_URL`; the embedded log has the same topics. `TOPIC_PREFIX` stands before names.",
            },
        },
        "channels": dict(sorted(parts.channels.items())),
        "operations": dict(sorted(parts.operations.items())),
        "components": {
            "messages": dict(sorted(parts.messages.items())),
            "schemas": dict(sorted(schemas.items())) | {"ToldOfDeadLetter": TOLD_OF},
        },
    }


def to_json(made: Node) -> str:
    """As it is in docs/asyncapi.json."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def to_yaml(made: Node) -> str:
    """The same as YAML, without anchors."""
    return yaml.safe_dump(json.loads(to_json(made)), sort_keys=False, allow_unicode=True, width=120)


def types_of(kind: Any) -> tuple[type[Any], ...]:
    """The members of a union; a type alone is the only one."""
    return get_args(kind) or (kind,)


class _Parts:
    """The channels, operations and messages so far."""

    def __init__(self) -> None:
        self.channels: Node = {}
        self.operations: Node = {}
        self.messages: Node = {}

    def add_subject(self, route: Route) -> None:
        subject = route.subject
        inbound = [self._heard(subject, dialect) for dialect in route.dialects or ("",)] if route.mirrored else []
        outbound = list(self._said(route)) if route.published else []
        if not inbound and not outbound:
            return
        self._channel(
            subject,
            [*inbound, *outbound],
            server="nats",
            description=f"In the topic `{route.topic}`, by {route.key}." if inbound else "Published only.",
            extensions={"x-topic": route.topic, "x-key": route.key}
            | ({"x-dlq": {"address": subject + DLQ, "payload": _schema("ToldOfDeadLetter")}} if inbound else {}),
        )
        self._operation("receive", subject, inbound, "We read it.")
        self._operation("send", subject, outbound, "We publish it, in the dialect of the question.")

    def _heard(self, subject: str, dialect: str) -> str:
        return self._message(
            f"{subject}.{dialect or 'any'}",
            _event_type(subject, dialect),
            DIALECTS[dialect],
            heard.payload(subject, dialect),
            heard.samples(dialect).get(subject, []) if dialect else [],
            headers={"type": "object", "properties": TRACE},
        )

    def _said(self, route: Route) -> Iterator[str]:
        for dialect in route.dialects:
            payloads = said.said(dialect).get(route.subject)
            if payloads:
                about = f"{DIALECTS[dialect]}, as we say it"
                name, kind = f"{route.subject}.{dialect}.ours", _event_type(route.subject, dialect)
                yield self._message(name, kind, about, said.shape(payloads), payloads, headers=HEADERS)

    def add_mirror(self, name: str, routes: list[Route]) -> None:
        """A topic of NATS messages: as they came, or as they are to go."""
        going = name == topics.OUTBOUND.name
        messages = [
            message
            for message in self.messages
            if (message.endswith(".ours") if going else any(message in self._of(route) for route in routes))
        ]
        if name == topics.DEAD_LETTERS.name:
            about = "What could not be used: the original's key, bytes and headers, with the reason, error and place."
            messages = [
                self._message(
                    "dead-letter", "dead letter", "the original's bytes", {}, [], content="application/octet-stream"
                )
            ]
        else:
            about = "What is to be published on NATS." if going else "NATS messages with their bytes and headers."
        channel = f"topic.{name}"
        keys = ", ".join(dict.fromkeys(route.key for route in routes))
        extensions = {"x-key": keys} if keys else {}
        self._channel(channel, messages, address=name, server="log", description=about, extensions=extensions)
        self._operation("send", channel, messages, "Agents write it." if going else "The bridge writes it.")
        self._operation("receive", channel, messages, "The bridge reads it." if going else "Agents read it.")

    def _of(self, route: Route) -> set[str]:
        return (
            {f"{route.subject}.{dialect or 'any'}" for dialect in route.dialects or ("",)} if route.mirrored else set()
        )

    def add_internal(self, topic: Topic, kind: Any) -> None:
        """A topic of the domain's own messages."""
        content = "application/msgpack" if topic in PACKED else None
        messages = [
            self._message(each.__name__, each.__name__, _first_line(each), _schema(each.__name__), [], content=content)
            for each in types_of(kind)
        ]
        channel = f"topic.{topic.name}"
        about = "Between the agents. It may change with any version."
        self._channel(channel, messages, address=topic.name, server="log", description=about, extensions={})
        self._operation("send", channel, messages, "Agents write it.")
        self._operation("receive", channel, messages, "Agents read it.")

    def _message(
        self,
        name: str,
        title: str,
        summary: str,
        payload: Node,
        examples: list[Any],
        *,
        headers: Node | None = None,
        content: str | None = None,
    ) -> str:
        self.messages[name] = {
            "title": title,
            "summary": summary,
            "payload": payload,
            **({"headers": headers} if headers else {}),
            **({"contentType": content} if content else {}),
            **({"examples": [{"payload": example} for example in examples[:EXAMPLES]]} if examples else {}),
        }
        return name

    def _channel(
        self, name: str, messages: list[str], *, server: str, description: str, extensions: Node, address: str = ""
    ) -> None:
        self.channels[name] = {
            "address": address or name,
            "servers": [{"$ref": f"#/servers/{server}"}],
            "description": description,
            "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
            **extensions,
        }

    def _operation(self, action: str, channel: str, messages: list[str], summary: str) -> None:
        if messages:
            self.operations[f"{action}.{channel}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
                "summary": summary,
            }


def _event_type(subject: str, dialect: str) -> str:
    """What its eventType is: a class name in dialects A and B, the subject in C."""
    return subject if dialect == "c" else EVENT_TYPES.get(subject.removesuffix(".v1")) or subject


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or kind.__name__).partition("\n")[0]


def _schema(name: str) -> Node:
    return {"$ref": f"#/components/schemas/{name}"}
