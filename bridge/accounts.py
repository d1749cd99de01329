"""What the bridge's user on NATS has to be let do, and nothing else, as permissions for nats-server's configuration.

It follows from the routes and from the requests that the bridge makes of JetStream. It decides nothing.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bridge.jetstream import BARRIER
from bridge.nats_to_log import QUEUE_GROUP
from bridge.routes import DLQ, Route, Routes

OWN_STREAM = ("STREAM.CREATE.{}", "STREAM.UPDATE.{}")
READING = (
    "STREAM.INFO.{}",
    "STREAM.MSG.GET.{}",
    "CONSUMER.CREATE.{}",
    "CONSUMER.MSG.NEXT.{}.*",
    "CONSUMER.DELETE.{}.*",
)
INTEREST = ("CONSUMER.DURABLE.CREATE.{}.*", "CONSUMER.NAMES.{}")
"""Requests of JetStream's API: for the stream that is ours, for each that is read, for each that is somebody else's."""


class Permissions(NamedTuple):
    """Subjects that may be published on, and heard (`subject group`: by that queue group only)."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(routes: Routes, stream: str, inbox_prefix: str, others: Iterable[str] = ()) -> Permissions:
    """Of the bridge with these routes. `others` are the streams that it reads from beside its own."""
    said = [route.subject for route in routes if route.published]
    letters = [_letters(route) for route in routes if route.mirrored]
    asked = ["$JS.API.STREAM.LIST", *_of(stream, *OWN_STREAM, *READING)]
    for other in others:
        asked += [*_of(other, *READING, *INTEREST), f"$JS.ACK.{other}.>"]
    heard = [f"{route.subject} {QUEUE_GROUP}" for route in routes if route.mirrored]
    return Permissions(
        tuple(dict.fromkeys([*said, *letters, BARRIER, *asked])), (f"{inbox_prefix}.>", *dict.fromkeys(heard))
    )


def _letters(route: Route) -> str:
    """Where a message's dead letter is told. After `>` nothing can stand."""
    return route.subject if route.subject.endswith(">") else route.subject + DLQ


def _of(stream: str, *requests: str) -> Iterator[str]:
    for request in requests:
        yield "$JS.API." + request.format(stream)


def configuration(allowed: Permissions, command: str) -> str:
    """The permissions as a variable BRIDGE of nats-server's configuration, to be included in it."""
    lines = [
        "# What the bridge's user has to be let do on NATS, and nothing else.",
        f"# Made by `{command}`: make it anew when the routes or the settings of NATS change.",
        "BRIDGE {",
    ]
    for name, subjects in (("publish", allowed.publish), ("subscribe", allowed.subscribe)):
        lines += [f"  {name} {{", "    allow: ["]
        lines += [f'      "{subject}"' for subject in subjects]
        lines += ["    ]", "  }"]
    return "\n".join([*lines, "}", ""])
