"""The commands for analysts: a snapshot of the tables as Parquet files, or asked by SQL. Decides no column.

Both fill a DuckDB file in a temporary folder (TMPDIR). What is asked runs on that file, opened read only, and reaches
nothing else.
"""

import asyncio
import contextlib
import csv
import datetime as dt
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.commands.columns import aligned
from app.commands.log import looked_at
from app.commands.snapshot_tables import TABLES, SqlTable
from app.engine.errors import EngineError
from app.engine.progress import Progress
from app.engine.snapshot import Snapshot, rebuilt, taken
from app.settings import Settings

if TYPE_CHECKING:
    import duckdb

AT_ONCE = 5_000
"""Rows that are made and inserted at once."""

NO_EXTRA = "this needs DuckDB and pyarrow: pip install 'a4co-streams[analytics]'"


def export(settings: Settings, to: Path, *, from_log: bool) -> None:
    """Write every table under `to`, a file a day: table/day=2026-11-24/data.parquet. Each replaces that day's at once.

    Raises:
        EngineError: the tables or the log can't be read, or the files not be written.
    """
    _extra()
    with tempfile.TemporaryDirectory(prefix="a4co-export-") as folder, _snapshot(settings, TABLES, from_log) as found:
        file = Path(folder) / "snapshot.duckdb"
        _fill(file, found, TABLES)
        try:
            to.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".a4co-export-", dir=to) as written:
                _write(file, Path(written))
                _put_in_place(Path(written), to)
        except OSError as error:
            raise EngineError(f"{to} can't be written: {error}") from error


def sql(settings: Settings, query: str, *, form: str, memory: str, timeout: float, from_log: bool) -> None:
    """Print what the query answers, as a table, CSV or JSON (`form`).

    Raises:
        EngineError: the tables can't be read, the query is wrong, or has taken longer than `timeout` seconds.
    """
    duckdb = _extra()
    wanted = {name for name in TABLES if re.search(rf"\b{name}\b", query, re.IGNORECASE)}
    with tempfile.TemporaryDirectory(prefix="a4co-sql-") as folder:
        file = Path(folder) / "snapshot.duckdb"
        if wanted:
            with _snapshot(settings, wanted, from_log) as found:
                _fill(file, found, wanted)
        else:
            _fill(file, Snapshot({}, {}), ())
        late = threading.Event()
        try:
            with _asked(duckdb, file, memory) as connection, _in_time(connection, timeout, late):
                _print(connection.execute(query), form)
        except duckdb.Error as error:
            raise EngineError(f"not done after {timeout:g} s" if late.is_set() else str(error)) from error
        except RuntimeError as error:  # how DuckDB tells of a Ctrl-C
            raise KeyboardInterrupt from error


def _extra() -> Any:
    try:
        import duckdb
        import pyarrow  # noqa: F401, ICN001 - is it there?
    except ImportError:
        raise EngineError(NO_EXTRA) from None
    return duckdb


# ---- the snapshot ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _snapshot(settings: Settings, wanted: Collection[str], from_log: bool) -> Iterator[Snapshot]:
    specs = list({TABLES[name].source.name: TABLES[name].source for name in wanted}.values())
    changelogs = [spec.changelog for spec in specs]
    if from_log:
        progress = Progress(say=lambda line: click.echo(line, err=True))
        log = asyncio.run(looked_at(settings, changelogs))
        with rebuilt(specs, log, settings.partitions, progress.told) as found:
            yield found
        return
    folder = settings.data_dir / "tables"
    if not folder.is_dir():
        raise EngineError(f"there are no stores under {folder}: set DATA_DIR as the worker has it, or say --from-log")
    with taken(specs, folder, lambda: asyncio.run(looked_at(settings, changelogs)), settings.partitions) as found:
        for table, missing in found.missing.items():
            if missing:
                here = [part.partition for part in found.parts[table]]
                said = f"{table}: of {settings.partitions} partitions only {here or 'none'} are here"
                click.echo(f"{said}; the others are with other workers, --from-log has them too", err=True)
        yield found


def _fill(file: Path, snapshot: Snapshot, wanted: Collection[str]) -> None:
    """Make every table, and fill those that are wanted."""
    import duckdb

    with duckdb.connect(str(file)) as connection:
        for name, table in TABLES.items():
            columns = ", ".join(f'"{column}" {kind}' for column, kind in table.columns.items())
            connection.execute(f'CREATE TABLE "{name}" ({columns})')
            if name in wanted:
                _fill_table(connection, name, table, snapshot)


def _fill_table(connection: "duckdb.DuckDBPyConnection", name: str, table: SqlTable, snapshot: Snapshot) -> None:
    import pyarrow as pa

    kinds = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}
    kinds["TIMESTAMP_MS"] = pa.timestamp("ms")
    schema = pa.schema([(column, kinds[kind]) for column, kind in table.columns.items()])
    rows = table.rows(snapshot)
    with click.progressbar(length=snapshot.about(table.source), label=f"{name:<17}", file=sys.stderr) as bar:
        while piece := list(islice(rows, AT_ONCE)):
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*piece, strict=True), schema, strict=True)
            ]
            connection.register("piece", pa.Table.from_arrays(columns, schema=schema))
            connection.execute(f'INSERT INTO "{name}" SELECT * FROM piece')  # noqa: S608 - names of ours
            connection.unregister("piece")
            bar.update(len(piece))


# ---- files ----------------------------------------------------------------------------------------------


def _write(file: Path, folder: Path) -> None:
    """A file for each table and day."""
    import duckdb

    today = dt.datetime.now(dt.UTC).date()
    with duckdb.connect(str(file), read_only=True, config={"threads": 1}) as connection:  # one file a day
        for name, table in TABLES.items():
            day = f'CAST("{table.day}" AS DATE)' if table.day else f"DATE '{today}'"
            key = ", ".join(f'"{column}"' for column in list(table.columns)[:3])
            connection.execute(
                f'COPY (SELECT *, {day} AS day FROM "{name}" ORDER BY day, {key}) '  # noqa: S608 - names of ours
                f"TO '{str(folder / name).replace(chr(39), chr(39) * 2)}' (FORMAT parquet, PARTITION_BY (day))"
            )
            days = len(list((folder / name).glob("day=*"))) if (folder / name).is_dir() else 0
            [number] = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone() or [0]  # noqa: S608
            click.echo(f"{name:<17}{number:>12,} rows  {days:>5,} days")


def _put_in_place(written: Path, to: Path) -> None:
    """Each file takes the place of the former one of its day, at once."""
    for file in sorted(written.glob("*/day=*/*.parquet")):
        place = to / file.parent.relative_to(written)
        place.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as synced:
            os.fsync(synced.fileno())
        file.replace(place / "data.parquet")


# ---- questions ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _asked(duckdb: Any, file: Path, memory: str) -> Iterator[Any]:
    """The file, to be read only; nothing outside of it can be reached, nor can that be changed."""
    config = {"memory_limit": memory, "enable_external_access": "false"}  # it spills beside the file
    with duckdb.connect(str(file), read_only=True, config=config) as connection:
        connection.execute("SET lock_configuration = true")
        yield connection


@contextlib.contextmanager
def _in_time(connection: Any, timeout: float, late: threading.Event) -> Iterator[None]:
    def end() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(timeout, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _print(found: Any, form: str) -> None:
    names = [column[0] for column in found.description or ()]
    if form == "csv":
        written = csv.writer(sys.stdout, lineterminator="\n")
        written.writerow(names)
        while rows := found.fetchmany(AT_ONCE):
            written.writerows(rows)
    elif form == "json":
        while rows := found.fetchmany(AT_ONCE):
            for row in rows:
                click.echo(json.dumps(dict(zip(names, row, strict=True)), default=str, ensure_ascii=False))
    else:
        rows = [tuple("" if value is None else str(value) for value in row) for row in found.fetchall()]
        for line in aligned([tuple(names), *rows]):
            click.echo(line)
