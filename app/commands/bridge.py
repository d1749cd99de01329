"""What `a4co bridge verify` and `a4co bridge ledger` print: what crossed the bridge, and whether all of it is there."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from app.commands.columns import aligned
from app.commands.log import looked_at
from app.engine.errors import EngineError
from app.settings import Settings
from bridge.connection import BridgeError
from bridge.ledger import OUTCOMES
from bridge.routes_file import load_routes
from bridge.verify import Finding
from bridge.verify import verify as compare

EVERY = 20
"""Lines of progress in all, where there is no terminal."""


class Progress:
    """A bar on a terminal, some lines elsewhere; on stderr."""

    def __init__(self) -> None:
        self._what, self._said = "", 0
        self._terminal = sys.stderr.isatty()

    def told(self, what: str, done: int, total: int) -> None:
        """So many of so many records or messages are read."""
        part = EVERY if not total else done * EVERY // total
        if what != self._what:
            self._what, self._said = what, -1
        if self._terminal:
            filled = 30 if not total else 30 * done // total
            ending = "\n" if done >= total else "\r"
            click.echo(f"\x1b[K{what:<16}[{'#' * filled:<30}] {done:,} of {total:,}{ending}", err=True, nl=False)
        elif part > self._said:
            click.echo(f"{what}: {done:,} of {total:,}", err=True)
        self._said = max(self._said, part)


def verify(settings: Settings, *, as_json: bool) -> bool:
    """Compare streams and topics, and print what came of it. Returns whether everything is accounted for.

    Raises:
        EngineError: one of the two can't be read; the text says which, and why.
    """
    try:
        findings = asyncio.run(_compared(settings))
    except BridgeError as error:
        raise EngineError(f"NATS: {error}") from None
    if not findings:
        raise EngineError("nothing has crossed the bridge yet: there is nothing to compare")
    if as_json:
        click.echo(json.dumps([_as_json(finding) for finding in findings], indent=2))
    else:
        for line in _lines(findings):
            click.echo(line)
    return all(finding.balanced for finding in findings)


async def _compared(settings: Settings) -> list[Finding]:
    routes = load_routes(settings.routes_file)
    log = await looked_at(settings, ())
    try:
        place = settings.nats_servers, f"{settings.service_name}-verify", settings.nats
        return await compare(log, *place, routes, Progress().told)
    finally:
        await log.disconnect()


def _as_json(finding: Finding) -> dict[str, Any]:
    account = finding.account
    return {
        "source": finding.source,
        "balanced": finding.balanced,
        "problem": finding.problem,
        "first": finding.first,
        "last": account.seq,
        "mirrored": finding.mirrored,
        "repeated": finding.repeated,
        "deadLettered": finding.dead_lettered,
        "notRouted": finding.not_routed,
        "missing": finding.missing,
        "twice": finding.twice,
        "gaps": [gap._asdict() for gap in finding.gaps],
        "ledger": {
            "read": account.read,
            "ignored": account.ignored,
            "gone": account.gone,
            "unaccounted": account.unaccounted,
            "routes": {route: dict(zip(OUTCOMES, counts, strict=True)) for route, counts in account.routes.items()},
        },
    }


def _lines(findings: Sequence[Finding]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("source", "compared", "mirrored", "repeated", "dead", "no route", "missing", "twice", "")
    ]
    rows += [
        (
            finding.source,
            f"{finding.first:,}..{finding.account.seq:,}" if finding.account.stream_created else "-",
            *(f"{n:,}" for n in (finding.mirrored, finding.repeated, finding.dead_lettered, finding.not_routed)),
            f"{finding.missing:,}",
            f"{finding.twice:,}",
            finding.problem or ("balanced" if finding.balanced else "NOT BALANCED"),
        )
        for finding in findings
    ]
    lines = list(aligned(rows))
    for finding in findings:
        lines += [f"missing: {finding.source} {gap.seq} {gap.subject}, stored {gap.stored}" for gap in finding.gaps]
        if finding.missing > len(finding.gaps):
            lines.append(f"... and {finding.missing - len(finding.gaps):,} more of {finding.source}")
        lines += ["", *_ledger(finding)]
    return lines


def _ledger(finding: Finding) -> list[str]:
    account = finding.account
    rows: list[tuple[str, ...]] = [(f"ledger of {finding.source}", *OUTCOMES)]
    rows += [(route, *(f"{n:,}" for n in counts)) for route, counts in sorted(account.routes.items())]
    sums = f"read {account.read:,}, of which {account.ignored:,} without a route; gone unread {account.gone:,}"
    return [*aligned(rows), f"{sums}; unaccounted {account.unaccounted:,}"]
