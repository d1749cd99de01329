"""Routes from a file: changes to the marketplace's table, and subjects that it doesn't have.

[[route]]
subject = "user.registered"       # a row of the table: what is given here replaces what it says
on = false

[[route]]
subject = "artisan.>"             # one that it doesn't have: `*` is a token, `>` all that follow
topic = "artisans"
key = "aggregateId | eventData.artisanId"
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app import topics
from app.engine.errors import EngineError
from bridge.keys import DEFAULT, key_expression
from bridge.routes import DLQ, FAMILIES, ROUTES, Direction, Route, Routes, covers, overlap

TOKEN = re.compile(r"[^\s.*>]+")
WILDCARDS = {("*", False), ("*", True), (">", True)}
"""A token, and whether it is the last one."""
TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class RoutesError(EngineError):
    """The file can't be used; the text says which row, and what is wrong with it."""


class Row(BaseModel):
    """One `[[route]]`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    subject: str
    topic: str | None = None
    key: str | None = None
    dialect: Literal["a", "b", "c", "ab", "bc", "any"] | None = None
    direction: Literal["in", "out", "both"] | None = None
    on: bool = True


def load_routes(path: Path | None) -> Routes:
    """The table, changed by the file; without one, as it is.

    Raises:
        RoutesError: the file can't be read, or says something that can't be.
    """
    if path is None:
        return ROUTES
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RoutesError(f"{path}: {error}") from None
    if unknown := sorted(set(content) - {"route"}):
        raise RoutesError(f"{path}: {unknown[0]!r} is unknown: rows begin with [[route]]")
    changed = {route.subject: route for route in ROUTES}
    seen: set[str] = set()
    for number, given in enumerate(_rows(path, content), 1):
        where = f"{path}: route {number}"
        try:
            row = Row.model_validate(given)
            if row.subject in seen:
                raise ValueError(f"{row.subject} is there twice")
            seen.add(row.subject)
            changed[row.subject] = _changed(row, changed.get(row.subject))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise RoutesError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except ValueError as error:
            raise RoutesError(f"{where}: {error}") from None
    _check_patterns(path, changed.values())
    return Routes(changed.values())


def _check_patterns(path: Path, routes: Iterable[Route]) -> None:
    """A stream can't have two of which neither is the wider one."""
    for one, other in combinations([route.subject for route in routes if route.is_pattern], 2):
        if overlap(one, other) and not covers(one, other) and not covers(other, one):
            raise RoutesError(f"{path}: {one} and {other} both cover the same subjects: make them one, or apart")


def _rows(path: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    rows = content.get("route", [])
    if not isinstance(rows, list):
        raise RoutesError(f"{path}: rows begin with [[route]], in double brackets")
    return rows


def _changed(row: Row, known: Route | None) -> Route:
    for problem in _problems(row, known):
        raise ValueError(problem)
    if known is not None:
        direction = known.direction if row.direction is None else Direction(row.direction)
        return replace(known, direction=direction, on=row.on)
    family = FAMILIES.get(row.subject.split(".", 1)[0])
    direction = Direction(row.direction or "in")
    if family is not None:
        dialects = _dialects(row.subject) if row.dialect in (None, "any") else row.dialect
        return Route(row.subject, family[0], direction, dialects, family[1], row.on)
    key = row.key or DEFAULT
    key_expression(key)
    return Route(row.subject, row.topic or "", direction, "", key, row.on)


def _dialects(subject: str) -> str:
    """What our own families may be spoken in."""
    return "bc" if subject.endswith(".v1") else "a" if "*" not in subject and ">" not in subject else "abc"


def _problems(row: Row, known: Route | None) -> Iterator[str]:
    tokens = row.subject.split(".")
    for position, token in enumerate(tokens):
        if not TOKEN.fullmatch(token) and (token, position == len(tokens) - 1) not in WILDCARDS:
            yield f"{row.subject!r} is no subject: tokens between points, `*` for one, `>` at the end for the rest"
    if tokens[0] in ("*", ">") or tokens[0].startswith(("$", "_")):
        yield f"{row.subject!r} would take what is not the marketplace's: its first token must be a word"
    if row.subject.endswith(DLQ):
        yield f"{row.subject!r}: dead letters are not mirrored"
    if overlap(row.subject, "a4co.>"):
        yield f"{row.subject!r}: a4co.> is the bridge's own"
    family = FAMILIES.get(tokens[0])
    topic = known.topic if known else family[0] if family else None
    if topic is not None and (row.topic not in (None, topic) or row.key is not None):
        yield f"{row.subject}: our tables rely on the topic {topic} and its key: leave topic and key out"
    if known is not None and row.dialect not in (None, known.dialects):
        yield f"{row.subject} is spoken in dialect {known.dialects}: leave dialect out"
    if row.direction is not None and Direction(row.direction) not in _possible(known):
        yield f"{row.subject} can't be {row.direction}: we have nothing to say on it"
    if topic is None:
        yield from _topic_problems(row)


def _topic_problems(row: Row) -> Iterator[str]:
    own = {topic.name for topic in topics.ALL}
    if row.topic is None:
        yield f"{row.subject} needs a topic"
    elif not TOPIC.fullmatch(row.topic):
        yield f"topic {row.topic!r}: letters, digits, - and _, at most 100"
    elif row.topic in own:
        yield f"topic {row.topic!r} is the application's own: name another"
    if row.dialect not in (None, "any"):
        yield f"{row.subject}: dialects are known of {', '.join(FAMILIES)} only: leave dialect out"


def _possible(known: Route | None) -> set[Direction]:
    return {Direction.IN} if known is None or known.direction is Direction.IN else set(Direction)
