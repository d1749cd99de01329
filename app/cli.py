"""The command line `a4co`: what can be said to the application. Decides nothing but exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage or a wrong setting. What a command needs is imported when it runs, so that
`--help` comes at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.commands.dlq import dlq

if TYPE_CHECKING:
    from app.settings import Settings
    from bridge.routes import Routes


class SettingError(click.ClickException):
    """A setting is wrong: exit code 2, as for a wrong option."""

    exit_code = 2


@click.group(name="a4co", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="a4co-streams", prog_name="a4co")
def main() -> None:
    """The order saga and the inventory of the A4CO marketplace, over NATS.

    Settings come from environment variables and the file .env: see `a4co config show`.
    """


@main.command(short_help="Run the whole application: bridge, agents and web.")
@click.option("--without-bridge", is_flag=True, help="Beside `a4co bridge`: the same as BRIDGE=apart.")
def worker(*, without_bridge: bool) -> None:
    """Run the whole application in one process: bridge, agents and web. Ctrl-C stops it."""
    if without_bridge:
        os.environ["BRIDGE"] = "apart"
    settings = _settings()
    _routes(settings)
    from app import logs
    from app.main import run_worker

    logs.configure(settings)
    run_worker(settings)


@main.group(invoke_without_command=True, short_help="Run the bridge alone, or check what crossed it.")
@click.pass_context
def bridge(context: click.Context) -> None:
    """Run the bridge between NATS and the topics alone; it needs Kafka, whose topics many processes share.

    Of several, inside workers or alone, one crosses messages, and the others stand by. Ctrl-C stops it.
    """
    if context.invoked_subcommand is not None:
        return
    settings = _settings()
    _routes(settings)
    from app import logs
    from app.main import run_bridge

    logs.configure(settings)
    run_bridge(settings)


@bridge.command(name="verify", short_help="Compare what the streams have with what is in the topics.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def verify_bridge(*, as_json: bool) -> None:
    """Compare every message of the streams with the topics: mirrored, repeated, a dead letter, or missing.

    The bridge may run or not: what it has not read yet is left out. Exits 1 when something is missing or twice there.
    """
    settings = _settings()
    _routes(settings)
    from app.commands import bridge
    from app.engine.errors import EngineError

    try:
        good = bridge.verify(settings, as_json=as_json)
    except EngineError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(not good)


@main.command(short_help="Run a whole marketplace on this machine.")
@click.option("--orders", type=click.IntRange(min=1), metavar="N", help="End when N orders are done, with a verdict.")
def demo(orders: int | None) -> None:
    """Run a whole marketplace on this machine: NATS, simulated services, a mail sink and the worker."""
    settings = _settings()
    from app.demo.run import main as run_demo

    sys.exit(run_demo(settings, orders))


@main.group()
def config() -> None:
    """Look at the settings."""


@config.command(short_help="Print every setting and where it came from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def show(*, as_json: bool) -> None:
    """Print every setting, its value and where that came from. Passwords are shown as ***."""
    from app.settings import shown

    rows = shown(_settings())
    if as_json:
        click.echo(json.dumps({row.name: {"value": row.value, "source": row.source} for row in rows}, indent=2))
        return
    from app.commands.columns import aligned

    for line in aligned(rows):
        click.echo(line)


@main.group(invoke_without_command=True)
@click.pass_context
def routes(context: click.Context) -> None:
    """List the routes from NATS subjects to topics, or test one."""
    if context.invoked_subcommand is None:
        from app.commands.columns import aligned

        rows = [("subject", "topic", "key", "dialect", "direction", "")]
        for route in _routes(_settings()):
            dialect = route.dialects.upper() or "any"
            off = "" if route.on else "off"
            rows.append((route.subject, route.topic, route.key, dialect, route.direction, off))
        for line in aligned(rows):
            click.echo(line)


@routes.command(short_help="Tell what the bridge does with a message.")
@click.argument("subject")
@click.argument("file", type=click.File("rb"), required=False)
def test(subject: str, file: click.utils.LazyFile | None) -> None:
    """Tell what the bridge does with a message on SUBJECT; FILE (- for stdin) holds its payload."""
    from bridge.routes import explain

    for line in explain(subject, file.read() if file else None, _routes(_settings())):
        click.echo(line)


@routes.command(short_help="Print what the bridge's user on NATS has to be let do.")
@click.option("--stream", "streams", multiple=True, metavar="NAME", help="Another stream that the bridge reads from.")
def accounts(streams: tuple[str, ...]) -> None:
    """Print the permissions of the bridge's user for nats-server's configuration: what it needs, and nothing else.

    They follow from the routes, NATS_STREAM and NATS_INBOX_PREFIX; deploy/nats/accounts.conf uses them.
    """
    from bridge.accounts import configuration, permissions

    settings = _settings()
    allowed = permissions(_routes(settings), settings.nats_stream, settings.nats_inbox_prefix, streams)
    command = " ".join(["a4co routes accounts", *(f"--stream {name}" for name in streams)])
    click.echo(configuration(allowed, command), nl=False)


@main.command(short_help="Print the AsyncAPI document of the events.")
@click.option("--yaml", "as_yaml", is_flag=True, help="As YAML.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, which it is anyway.")
def asyncapi(*, as_yaml: bool, as_json: bool) -> None:
    """Print, as AsyncAPI 3.1, what is read and published on NATS, by subject and dialect, and what is in the topics."""
    if as_yaml and as_json:
        raise click.UsageError("--yaml or --json, not both")
    from app.asyncapi.document import document, to_json, to_yaml

    made = document(_routes(_settings()))
    click.echo(to_yaml(made) if as_yaml else to_json(made), nl=False)


@main.group()
def stock() -> None:
    """Put stock on the shelves."""


@stock.command(name="import", short_help="Put the products of a file on the shelves, all or none.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_stock(file: Path) -> None:
    """Hand the products in FILE to the running worker: all of them, or none if a line is wrong.

    FILE is CSV or JSON with product_id, name, category, artisan, on_hand and threshold.
    """
    from app.stock_file import StockFileError, parse

    try:
        products = parse(file.read_bytes(), file.suffix)
    except StockFileError as error:
        for problem in error.problems:
            click.echo(f"{file}: {problem}", err=True)
        raise click.ClickException("nothing was imported") from None
    import msgspec

    answer = _post(_settings(), "/api/stock/import", msgspec.json.encode(products))
    click.echo(f"{answer['imported']} products imported")


@main.command(short_help="List the log's topics, and whether they are as they have to be.")
@click.option("--create", is_flag=True, help="Make the ones that are missing.")
def topics(*, create: bool) -> None:
    """List the application's topics on the log. Exits 1 when one is missing or other than the settings say."""
    settings = _settings()
    import asyncio

    from app.commands import log
    from app.engine.errors import EngineError

    try:
        good = asyncio.run(log.topics(settings, create=create))
    except EngineError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(not good)


@main.command(short_help="List which positions Kafka has forgotten, or say where to go on.")
@click.option("--forgotten", "go_on_at", type=click.Choice(["start", "end"]), help="Set those that are forgotten.")
def offsets(go_on_at: str | None) -> None:
    """List what Kafka has forgotten of how far the workers have read; a worker does not start then.

    It forgets that when no worker runs for longer than the brokers' offsets.retention.minutes. With `--forgotten end`,
    what came since the last worker ended is left out; with `--forgotten start`, all that the topics hold is done again,
    and said again. No worker may run meanwhile. Exits 1 when something is forgotten.
    """
    settings = _settings()
    import asyncio

    from app.commands import log
    from app.engine.errors import EngineError

    try:
        good = asyncio.run(log.offsets(settings, go_on_at))
    except EngineError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(not good)


@main.group()
def tables() -> None:
    """Look at the tables on this machine."""


@tables.command(short_help="Compare the tables with their changelogs.")
@click.option("--table", "name", metavar="NAME", help="This table only.")
def verify(name: str | None) -> None:
    """Rebuild each partition from its changelog, in a temporary folder, and compare it with what is under DATA_DIR.

    The worker may run or not: nothing is changed, and what changes meanwhile is left out. Exits 1 on a difference.
    Each partition needs as much room in TMPDIR as it has in DATA_DIR.
    """
    settings = _settings()
    from app.commands import log
    from app.engine.errors import EngineError

    try:
        good = log.verify(settings, name)
    except EngineError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(not good)


@main.group()
def export() -> None:
    """Write the tables as files for analysts."""


@export.command(name="parquet", short_help="Write every table as Parquet files, one a day.")
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR")
@click.option("--from-log", is_flag=True, help="From the changelogs: every worker's partitions, also without a worker.")
def parquet(to: Path, *, from_log: bool) -> None:
    """Write orders, order_lines, stock, dead_letters and analytics_* to DIR, as they are at one moment.

    The worker may run or not. A file a day (UTC) takes the place of the former one of that day at once.
    """
    settings = _settings()
    from app.commands import analysis
    from app.engine.errors import EngineError

    try:
        analysis.export(settings, to, from_log=from_log)
    except EngineError as error:
        raise click.ClickException(str(error)) from None


@main.command(short_help="Ask the tables by SQL (DuckDB), read only.")
@click.argument("query")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--memory", default="1GB", show_default=True, help="What DuckDB may take; beyond, it spills to TMPDIR.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds.")
@click.option("--from-log", is_flag=True, help="From the changelogs: every worker's partitions, also without a worker.")
def sql(query: str, *, form: str, memory: str, timeout: float, from_log: bool) -> None:
    """Ask the tables as they are now: orders, order_lines, stock, dead_letters, analytics_minute, _hour and _day.

    The worker may run or not, and is not disturbed: QUERY sees a snapshot. Times are UTC, money is cents.
    """
    settings = _settings()
    from app.commands import analysis
    from app.engine.errors import EngineError

    try:
        analysis.sql(settings, query, form=form, memory=memory, timeout=timeout, from_log=from_log)
    except EngineError as error:
        raise click.ClickException(str(error)) from None


main.add_command(dlq)


def _settings() -> Settings:
    from app.settings import SettingsError, load

    try:
        return load()
    except SettingsError as error:
        raise SettingError(str(error)) from None


def _routes(settings: Settings) -> Routes:
    from bridge.routes_file import RoutesError, load_routes

    try:
        return load_routes(settings.routes_file)
    except RoutesError as error:
        raise SettingError(f"ROUTES_FILE: {error}") from None


def _post(settings: Settings, path: str, body: bytes) -> dict[str, int]:
    """Post JSON to the running worker and return its answer."""
    from app.commands.worker_client import NoWorker, WorkerClient

    worker = WorkerClient.of(settings)
    try:
        answer = worker.ask("POST", path, body=body)
    except NoWorker as error:
        raise click.ClickException(f"{error}: start `a4co worker` first") from None
    finally:
        worker.close()
    if answer.status >= 300:
        raise click.ClickException(f"{worker.url}{path} answered {answer.status}: {answer.cause}")
    return dict(answer.body)
