"""Dead letters as a person reads them in a terminal. What came from outside is shown without control characters."""

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.commands.dlq_work import Plan

DUMPED = 4_096
"""Bytes that are shown of a payload that is not JSON."""

COLUMNS = ("id", "dead since", "reason", "subject", "key", "bytes", "begins")
WIDEST = {"reason": 24, "subject": 32, "key": 24, "begins": 48}


def plain(text: str) -> str:
    """The text on one line, with `·` for whatever a terminal would not print."""
    return "".join(character if character.isprintable() else "·" for character in text)


def page_lines(page: dict[str, Any]) -> Iterator[str]:
    """A page of the list: counts, a table, and where to go on."""
    states = ", ".join(f"{number:,} {state}" for state, number in page["states"].items())
    reasons = ", ".join(f"{number:,} {plain(reason)}" for reason, number in page["reasons"].items())
    yield states + (f"  ({reasons})" if reasons else "")
    if page["items"]:
        yield from _table([COLUMNS, *map(_row, page["items"])])
    if page["partial"]:
        yield f"partitions {page['missingPartitions']} are not in it: no worker answers for them just now"
    if page["nextCursor"]:
        yield f"more: --cursor {page['nextCursor']}"


def _row(letter: dict[str, Any]) -> tuple[str, ...]:
    about = letter["subject"] or letter["topic"]
    cells = (
        letter["id"],
        letter["at"],
        letter["reason"],
        about,
        letter["key"],
        f"{letter['bytes']:,}",
        letter["excerpt"],
    )
    return tuple(_cut(plain(cell), WIDEST.get(column, 99)) for column, cell in zip(COLUMNS, cells, strict=True))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def letter_lines(letter: dict[str, Any]) -> Iterator[str]:
    """One letter with everything."""
    partition, _, offset = letter["place"].partition("-")
    place = f"was in {letter['topic']}, partition {partition}, offset {offset}" if offset else f"for {letter['topic']}"
    for name, value in (
        ("id", letter["id"]),
        ("state", letter["state"]),
        ("dead since", letter["at"]),
        ("reason", letter["reason"]),
        ("error", letter["fullError"]),
        ("place", place),
        ("subject", letter["subject"]),
        ("key", letter["key"]),
        ("replay of", letter["replayOf"]),
        ("came back as", letter["cameBackAs"]),
    ):
        if value:
            yield f"{name:<14}{plain(value)}"
    yield "history"
    for act in letter["acts"]:
        detail = f": {plain(act['detail'])}" if act["detail"] else ""
        yield f"  {act['at']}  {act['what']} by {plain(act['by'])}{detail}"
    if not letter["acts"]:
        yield "  nobody has decided on it"
    yield "headers"
    for header in letter["headers"]:
        yield f"  {plain(header['name'])}: {plain(header['value'])}"
    yield from _payload_lines(letter)


def payload_of(letter: dict[str, Any]) -> bytes:
    """The letter's bytes."""
    return base64.b64decode(letter["payloadBase64"] or "")


def _payload_lines(letter: dict[str, Any]) -> Iterator[str]:
    if letter["gone"]:
        yield "payload       its record was removed from the topic"
        return
    payload = payload_of(letter)
    if letter["payload"] is not None or payload.strip() == b"null":
        yield f"payload       {len(payload):,} bytes, JSON"
        yield from map(plain, json.dumps(letter["payload"], indent=2, ensure_ascii=False).splitlines())
        return
    yield f"payload       {len(payload):,} bytes, not JSON"
    for start in range(0, min(len(payload), DUMPED), 16):
        piece = payload[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in piece)
        yield f"  {start:06x}  {piece.hex(' '):<47}  {text}"
    if len(payload) > DUMPED:
        yield f"  ... and {len(payload) - DUMPED:,} more: --payload writes all of them"


def preview_lines(act: str, plan: "Plan") -> Iterator[str]:
    """What would come of a wish about many."""
    yield f"{len(plan.letters):,} open letters to {act}"
    if plan.letters:
        yield f"  from {plan.letters[0]} to {plan.letters[-1]}"
    for reason, number in plan.unusable.most_common():
        yield f"{number:,} would fail again, and stay: {plain(reason)}, as {plan.examples[reason]}"
    if plan.missing:
        yield f"partitions {sorted(plan.missing)} are not in it: no worker answers for them; run it again later"
