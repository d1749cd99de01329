"""The commands that look at the log: which topics there are, and whether the tables are what their changelogs say."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import click

from app import topics as declared
from app.commands.columns import aligned
from app.engine.declarations import TableSpec
from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import EngineError
from app.engine.kafka.lease import LEASE
from app.engine.kafka.log import NOTES, KafkaLog
from app.engine.log import TopicState
from app.engine.progress import Progress
from app.engine.verify import Verdict
from app.engine.verify import verify as compare
from app.settings import Settings
from bridge.routes_file import load_routes
from tables.analytics import ANALYTICS
from tables.dead_letters import DEAD_LETTERS
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS

TABLES: tuple[TableSpec[Any], ...] = (ORDER_SAGAS, INVENTORY, DEAD_LETTERS, ANALYTICS)


class Wanted(NamedTuple):
    """How a topic is to be."""

    compacted: bool
    partitions: int
    copies: int
    kept: bool
    log_s_own: bool = False
    """The log makes it by itself."""


MISSING = "missing"


# ---- topics ---------------------------------------------------------------------------------------------


async def topics(settings: Settings, *, create: bool) -> bool:
    """Print the application's topics. Returns whether all of them are as they have to be.

    Raises:
        EngineError: the log can't be read.
    """
    wanted, there = _wanted(settings), await _there(settings)
    missing = {name: how.compacted for name, how in wanted.items() if name not in there and not how.log_s_own}
    if create and any(name not in there for name in wanted):
        log = _log(settings)
        await log.connect()
        await log.prepare(missing, settings.partitions)
        await log.disconnect()
        there = await _there(settings)
    lines: list[tuple[str, ...]] = [("topic", "partitions", "policy", "copies", "kept", "records", "")]
    wrong = {name: _difference(wanted[name], there.get(name)) for name in wanted}
    for name, how in wanted.items():
        state = there.get(name)
        lines.append((name, *(_shown(state, how, settings) if state else ("-",) * 5), wrong[name] or "ok"))
    for line in aligned(lines):
        click.echo(line)
    if any(problem == MISSING for problem in wrong.values()):
        click.echo("a topic is missing: `a4co topics --create` or the next start of a worker makes it", err=True)
    return not any(wrong.values())


def _wanted(settings: Settings) -> dict[str, Wanted]:
    every = load_routes(settings.routes_file).all_topics()
    single = {NOTES: True, LEASE: False} if settings.kafka else {}
    compacted = {topic.name: topic.compacted for topic in every} | {spec.changelog: True for spec in TABLES}
    copies = settings.topic_replication if settings.kafka else 1
    kept = {declared.DEAD_LETTERS.name} | {name for name in compacted if compacted[name]}
    return {
        **{name: Wanted(how, settings.partitions, copies, name in kept) for name, how in compacted.items()},
        **{name: Wanted(how, 1, copies, kept=True, log_s_own=True) for name, how in single.items()},
    }


def _difference(wanted: Wanted, state: TopicState | None) -> str:
    """In words; "": it is as it has to be."""
    if state is None:
        return MISSING
    policy = "compact" if wanted.compacted else "delete"
    return ", ".join(
        f"{what} {is_} and not {should}"
        for what, is_, should in (
            ("partitions", state.partitions, wanted.partitions),
            ("policy", state.policy, policy),
            ("copies", state.copies, wanted.copies),
        )
        if is_ != should and not (what == "policy" and wanted.compacted and "compact" in state.policy)
    )


def _shown(state: TopicState, wanted: Wanted, settings: Settings) -> tuple[str, ...]:
    kept = state.retention if settings.kafka or wanted.kept else settings.log_retention
    duration = "for ever" if kept is None else f"{kept / 86400:g} d"
    return str(state.partitions), state.policy, str(state.copies), duration, f"{state.records:,}"


async def _there(settings: Settings) -> Mapping[str, TopicState]:
    if not settings.kafka and not settings.log_path.exists():
        return {}
    log = await looked_at(settings, ())
    try:
        return await log.describe()
    finally:
        await log.disconnect()


# ---- tables ---------------------------------------------------------------------------------------------


def verify(settings: Settings, name: str | None) -> bool:
    """Compare the stores under DATA_DIR with their changelogs, and print what came of it. Returns whether all agree.

    Raises:
        EngineError: there is nothing to compare, or it can't be read.
    """
    specs = [spec for spec in TABLES if name in (None, spec.name)]
    if not specs:
        raise EngineError(f"there is no table {name!r}: there are {', '.join(spec.name for spec in TABLES)}")
    places = {
        spec: sorted(int(path.name) for path in (settings.data_dir / "tables" / spec.name).glob("[0-9]*"))
        for spec in specs
    }
    if not any(places.values()):
        raise EngineError(f"there are no stores under {settings.data_dir}/tables: set DATA_DIR as the worker has it")
    log = asyncio.run(looked_at(settings, [spec.changelog for spec in specs]))
    agree = True
    for spec, partitions in places.items():
        for partition in partitions:
            agree = _verified(spec, partition, settings, log) and agree
    return agree


def _verified(spec: TableSpec[Any], partition: int, settings: Settings, log: EmbeddedLog | KafkaLog) -> bool:

    progress = Progress(say=lambda line: click.echo(f"partition {partition}: {line}", err=True))
    where = f"{spec.name}-{partition}"
    try:
        verdict = compare(
            spec,
            partition,
            settings.data_dir / "tables" / spec.name / str(partition),
            log,
            lambda done, total: progress.told(spec.name, partition, done, total),
        )
    except EngineError as error:
        click.echo(f"{where:<20}FAIL   {error}")
        return False
    click.echo(f"{where:<20}{_said(verdict)}")
    return verdict.equal


def _said(verdict: Verdict) -> str:
    newer = f", {verdict.newer:,} changing just now or behind left out" if verdict.newer else ""
    rows = f"{verdict.rows:,} rows  live {verdict.live}  rebuilt {verdict.rebuilt}{newer}"
    if verdict.equal:
        return f"equal  {rows}"
    more = ", ..." if verdict.wrong > len(verdict.keys) else ""
    differ = f"; {verdict.wrong:,} keys differ: {', '.join(verdict.keys)}{more}" if verdict.wrong else ""
    sums = "; its sums are not those of its rows" if verdict.sums_differ else ""
    ahead = f"; the store is {verdict.ahead:,} records ahead of its changelog" if verdict.ahead else ""
    return f"FAIL   {rows}{differ}{sums}{ahead}"


# ---- offsets --------------------------------------------------------------------------------------------


async def offsets(settings: Settings, go_on_at: str | None) -> bool:
    """Print what Kafka has forgotten of how far the lanes have read, or set it ("start", "end").

    Returns whether nothing is forgotten any more.

    Raises:
        EngineError: Kafka does not answer, or a worker runs.
    """
    log = _log(settings)
    if isinstance(log, EmbeddedLog):
        click.echo("the embedded log forgets nothing")
        return True
    await log.connect()
    try:
        forgotten = await log.forgotten()
        for group, places in forgotten.items():
            if go_on_at is not None:
                await log.go_on(group, places, at_end=go_on_at == "end")
            named = ", ".join(f"{topic}-{partition}" for topic, partition in places)
            click.echo(f"{group}: {named} {'go on at the ' + go_on_at if go_on_at else 'forgotten'}")
        if not forgotten:
            click.echo("nothing is forgotten")
    finally:
        await log.disconnect()
    return go_on_at is not None or not forgotten


# ---- both -----------------------------------------------------------------------------------------------


def _log(settings: Settings) -> EmbeddedLog | KafkaLog:

    return KafkaLog(settings.kafka, "a4co") if settings.kafka else EmbeddedLog(settings.log_path)


async def looked_at(settings: Settings, changelogs: Collection[str]) -> EmbeddedLog | KafkaLog:
    """The log, opened without making anything; a worker may have it."""
    log = _log(settings)
    if settings.kafka:
        await log.connect()
    await log.look(changelogs)
    return log
