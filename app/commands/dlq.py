"""`a4co dlq`: dead letters on the command line. It asks the running worker; on an embedded log without one, it does it
itself. Decides what a person sees, and in which steps many letters are worked off.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from app.commands.dlq_work import Office

LIST, PATH = 20, "/api/dead-letters"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
STATES = ("open", "replayed", "discarded", "all")

Command = TypeVar("Command", bound=Callable[..., Any])


class Age(click.ParamType):
    """An age (90s, 15m, 2h, 7d) or a time (2026-11-25T08:00, UTC), as the time that is meant."""

    name = "age or time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The time as ISO 8601."""
        text = str(value)
        if text[-1:] in UNITS and text[:-1].isdigit():
            at = datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])
        else:
            try:
                at = datetime.fromisoformat(text)
            except ValueError:
                self.fail(f"{text!r} is neither an age like 2h nor a time like 2026-11-25T08:00", param, ctx)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at.isoformat().replace("+00:00", "Z")


def filters(command: Command) -> Command:
    """The options that say which letters."""
    for option in (
        click.option("--until", type=Age(), metavar="AGE|TIME", help="Dead before that: 2h ago, or a time (UTC)."),
        click.option("--since", type=Age(), metavar="AGE|TIME", help="Dead since then."),
        click.option("--text", metavar="TEXT", help="Found in id, key, subject, error, or the payload's beginning."),
        click.option("--topic", metavar="NAME", help="The topic that it was in, or was to go to."),
        click.option("--subject", metavar="SUBJECT", help="The NATS subject; `*` is anything."),
        click.option("--reason", metavar="WORD", help="Why it could not be used: not-json, wrong-type, ..."),
    ):
        command = option(command)
    return command


def place(command: Command) -> Command:
    """The option that says which worker is asked."""
    return click.option("--url", metavar="URL", help="The worker to ask; by default that of WEB_HOST and WEB_PORT.")(
        command
    )


def decides(command: Command) -> Command:
    """The options of a command that decides about letters."""
    for option in (
        click.option("--by", default=_me, metavar="NAME", help="Who you are: kept in the letter's history."),
        click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N a second."),
        click.option("--yes", is_flag=True, help="Don't ask."),
        click.option("--dry-run", is_flag=True, help="Only say what would happen."),
        click.option("--all", "everything", is_flag=True, help="All open letters, where no filter is given."),
    ):
        command = option(command)
    return filters(place(command))


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@click.group(name="dlq")
def dlq() -> None:
    """Look at dead letters, and decide about them: replay or discard.

    A dead letter is a message that could not be used. It is kept with its bytes until somebody decides.
    """


@dlq.command(name="list", short_help="List dead letters, the newest first.")
@click.option("--state", type=click.Choice(STATES), default="open", help="Default: open.")
@filters
@click.option("--oldest", is_flag=True, help="The oldest first.")
@click.option("--limit", type=click.IntRange(1, 1000), default=LIST, help=f"Default: {LIST}.")
@click.option("--cursor", help="Go on where another page ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@place
def list_letters(
    state: str, *, oldest: bool, limit: int, cursor: str | None, as_json: bool, url: str | None, **wanted: str | None
) -> None:
    """List dead letters: when, why, about what, and how their payload begins."""
    from app.commands.dlq_pages import page_lines

    query = _given(wanted) | {"limit": str(limit)} | ({} if state == "all" else {"state": state})
    query |= ({"order": "oldest"} if oldest else {}) | ({"cursor": cursor} if cursor else {})
    with _office(url) as office:
        page = office.filled(query)
    for line in [json.dumps(page, indent=2, ensure_ascii=False)] if as_json else page_lines(page):
        click.echo(line)


@dlq.command(short_help="Show everything about one dead letter.")
@click.argument("letter")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@click.option("--payload", is_flag=True, help="Write its bytes only, as they came: > file, to edit them.")
@place
def show(letter: str, *, as_json: bool, payload: bool, url: str | None) -> None:
    """Show one dead letter: bytes, headers, place, reason, and what was done with it by whom."""
    from app.commands.dlq_pages import letter_lines, payload_of

    with _office(url) as office:
        whole = office.letter(letter)
    if payload:
        click.get_binary_stream("stdout").write(payload_of(whole))
        return
    for line in [json.dumps(whole, indent=2, ensure_ascii=False)] if as_json else letter_lines(whole):
        click.echo(line)


@dlq.command(short_help="Let dead letters go again where they were to go.")
@click.argument("letters", nargs=-1)
@click.option("--edit", type=click.File("rb"), metavar="FILE", help="Send this JSON instead (one letter only).")
@decides
def replay(letters: tuple[str, ...], edit: IO[bytes] | None, *, by: str, url: str | None, **options: Any) -> None:
    """Let LETTERS (their ids), or the open ones of a filter, go again where they were to go: each of them once.

    A letter that would fail again is left as it is, and told. Break it off whenever you like: run again, it goes on.
    """
    if edit is not None and len(letters) != 1:
        raise click.UsageError("--edit sends one file in the place of one letter: name that one")
    with _office(url) as office:
        if letters:
            _each(letters, lambda letter: office.replay(letter, by, edit.read() if edit else None), options)
        else:
            _many(office, "replay", {"by": by}, options)


@dlq.command(short_help="Say that dead letters are not needed, and why.")
@click.argument("letters", nargs=-1)
@click.option("--because", required=True, metavar="TEXT", help="Why: it is kept in their history.")
@decides
def discard(letters: tuple[str, ...], because: str, *, by: str, url: str | None, **options: Any) -> None:
    """Say of LETTERS (their ids), or of the open ones of a filter, that they are not needed. Nothing is deleted."""
    with _office(url) as office:
        if letters:
            _each(letters, lambda letter: office.discard(letter, by, because), options)
        else:
            _many(office, "discard", {"by": by, "reason": because}, options)


# ---- steps ----------------------------------------------------------------------------------------------


def _given(wanted: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if value is not None}


def _office(url: str | None) -> Office:
    from app.commands.dlq_work import open_office
    from app.settings import SettingsError, load

    try:
        return open_office(load(), url)
    except SettingsError as error:
        failed = click.ClickException(str(error))
        failed.exit_code = 2
        raise failed from None


def _each(letters: tuple[str, ...], decide: Callable[[str], str], options: dict[str, Any]) -> None:
    """One after the other; what can't be done with one is told, and the others go on."""
    if options["dry_run"]:
        raise click.UsageError("--dry-run is for a filter: look at one letter with `a4co dlq show`")
    from app.commands.dlq_work import Refused, paced

    refused = 0
    for letter in paced(letters, options["rate"]):
        try:
            click.echo(f"{letter}  {decide(letter)}")
        except Refused as error:
            refused += 1
            click.echo(f"{letter}  {error}", err=True)
    sys.exit(refused > 0)


def _many(office: Office, act: str, body: dict[str, str], options: dict[str, Any]) -> None:
    """Look, ask, and do."""
    from app.commands.dlq_pages import preview_lines
    from app.commands.dlq_work import Work

    everything, dry_run, yes, rate = (options.pop(name) for name in ("everything", "dry_run", "yes", "rate"))
    wanted = _given(options)
    if not wanted and not everything:
        raise click.UsageError("name letters, give a filter, or say --all")
    work = Work(office, act, body, rate)
    plan = work.planned(wanted | ({} if wanted else {"all": "true"}))
    for line in preview_lines(act, plan):
        click.echo(line, err=not dry_run)
    if dry_run or not plan.letters:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here: say --yes, or --dry-run to see only")
        click.confirm(f"{act} {len(plan.letters):,} letters?", abort=True, err=True)
    try:
        work.run(plan)
    except KeyboardInterrupt:
        click.echo(f"broken off: {work.line}; run it again for the others", err=True)
        sys.exit(130)
    click.echo(work.line)
    sys.exit(work.refused > 0)
