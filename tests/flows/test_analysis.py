"""`a4co sql` and `a4co export parquet` on the tables of a running application: what they say, and what they refuse."""

import csv
import io
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from app.commands.snapshot_tables import TABLES
from tests.flows.market import Market
from tests.flows.test_commands_log import a4co

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def trades(market: Market) -> None:
    """Three orders: confirmed, open, refused."""
    await market.stock_is(aceite=50, queso=20)
    await market.order("order-1", ("aceite", 2), ("queso", 1), total=31.25)
    await market.paid("order-1", amount=31.25)
    await market.order("order-2", ("aceite", 1))
    await market.order("order-3", ("queso", 100))


async def rows(market: Market, query: str, *options: str) -> list[dict[str, str]]:
    """What the query answers, from CSV."""
    answer = await a4co(market, "sql", query, "--format", "csv", *options)
    assert answer.exit_code == 0, answer.output
    return list(csv.DictReader(io.StringIO(answer.stdout)))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.is_dir()]


@pytest.mark.core
async def test_sql_answers_what_the_tables_say(market: Market) -> None:
    await trades(market)
    orders = await rows(market, "SELECT order_id, state, total_cents, created_at FROM orders ORDER BY order_id")
    assert [(row["order_id"], row["state"], row["total_cents"]) for row in orders] == [
        ("order-1", "completed", "3125"), ("order-2", "awaiting_payment", "2500"), ("order-3", "closed", "2500"),
    ]  # fmt: skip
    assert orders[0]["created_at"] == "2027-01-15 08:00:00"
    lines = await rows(market, "SELECT product_id, sum(quantity) AS units FROM order_lines GROUP BY ALL ORDER BY 1")
    assert lines == [{"product_id": "aceite", "units": "3"}, {"product_id": "queso", "units": "101"}]
    [stock] = await rows(market, "SELECT on_hand, reserved FROM stock WHERE product_id = 'aceite'")
    assert stock == {"on_hand": "48", "reserved": "1"}
    for size in ("minute", "hour", "day"):
        counted = await rows(market, f"SELECT name, number FROM analytics_{size} WHERE measure = 'orders'")
        assert Counter({row["name"]: int(row["number"]) for row in counted}) >= Counter(opened=3, confirmed=1)
    assert await rows(market, "SELECT count(*) AS n FROM dead_letters") == [{"n": "0"}]


async def test_answers_are_tables_csv_or_json(market: Market) -> None:
    await trades(market)
    query = "SELECT order_id, cancel_reason FROM orders WHERE order_id <> 'order-2' ORDER BY 1"
    table = await a4co(market, "sql", query)
    assert [line.split() for line in table.stdout.splitlines()][:2] == [["order_id", "cancel_reason"], ["order-1"]]
    answer = await a4co(market, "sql", query, "--format", "json")
    assert [json.loads(line) for line in answer.stdout.splitlines()] == [
        {"order_id": "order-1", "cancel_reason": None},
        {"order_id": "order-3", "cancel_reason": "Stock insuficiente para producto queso"},
    ]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM orders",
        "CREATE TABLE mine AS SELECT * FROM orders",
        "COPY orders TO 'stolen.csv'",
        "SELECT * FROM read_text('/etc/passwd')",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM customers",
        "SELEC 1",
    ],
)
async def test_what_would_change_or_reach_anything_is_refused_in_words(
    market: Market, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = await a4co(market, "sql", query)
    assert answer.exit_code == 1
    assert "Error: " in answer.stderr
    assert "Traceback" not in answer.output
    assert files(tmp_path) == []


async def test_a_query_that_takes_too_long_is_broken_off(market: Market) -> None:
    query = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"
    answer = await a4co(market, "sql", query, "--timeout", "0.2")
    assert (answer.exit_code, answer.stderr) == (1, "Error: not done after 0.2 s\n")


async def test_what_needs_more_memory_than_it_may_have_spills_to_disk(market: Market) -> None:
    query = "SELECT count(*) AS n FROM (SELECT DISTINCT range, md5(range::VARCHAR) FROM range(1500000))"
    assert await rows(market, query, "--memory", "60MB") == [{"n": "1500000"}]


async def test_without_the_extra_one_line_says_how_to_install_it(
    market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for command in (["sql", "SELECT 1"], ["export", "parquet", "--to", str(tmp_path / "out")]):
        answer = await a4co(market, *command)
        said = "Error: this needs DuckDB and pyarrow: pip install 'a4co-streams[analytics]'\n"
        assert (answer.exit_code, answer.output) == (1, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.core
async def test_an_export_has_a_file_a_day_and_another_one_takes_its_place(market: Market, tmp_path: Path) -> None:
    out = tmp_path / "it's out"
    await trades(market)
    await market.later(86400)
    await market.order("order-4", ("aceite", 1))
    first = await a4co(market, "export", "parquet", "--to", str(out))
    assert first.exit_code == 0, first.output
    assert {path.name for path in (out / "orders").iterdir()} == {"day=2027-01-15", "day=2027-01-16"}
    await market.paid("order-4", "p4")
    again = await a4co(market, "export", "parquet", "--to", str(out))
    assert again.exit_code == 0, again.output
    assert [path.name for path in out.glob(".*")] == []
    assert {path.name for path in out.rglob("*.parquet")} == {"data.parquet"}
    with duckdb.connect() as connection:

        def read(name: str, what: str) -> list[tuple[object, ...]]:
            files = str(out / name / "*/*.parquet").replace("'", "''")
            return connection.execute(f"SELECT {what} FROM read_parquet('{files}') ORDER BY ALL").fetchall()

        assert read("orders", "day::VARCHAR, order_id, state")[-1] == ("2027-01-16", "order-4", "completed")
        assert read("orders", "count(*)") == [(4,)]
        assert read("order_lines", "sum(quantity)") == [(105,)]
        assert read("stock", "sum(on_hand)") == [(50 + 20 - 2 - 1 - 1,)]
        [(opened,)] = connection.execute(
            f"SELECT sum(number) FROM read_parquet('{str(out / 'analytics_day').replace(chr(39), chr(39) * 2)}/*/*')"
            " WHERE measure = 'orders' AND name = 'opened'"
        ).fetchall()
        assert opened == 4


@pytest.mark.core
async def test_a_missing_partition_is_told_and_the_log_has_it(market: Market) -> None:
    await trades(market)
    await market.stop()
    everything = await rows(market, "SELECT order_id FROM orders ORDER BY 1")
    assert len(everything) == 3
    shutil.rmtree(market.directory / "tables" / "order_sagas" / "0")
    answer = await a4co(market, "sql", "SELECT order_id FROM orders ORDER BY 1", "--format", "csv")
    assert "order_sagas: of 2 partitions only [1] are here" in answer.stderr
    assert await rows(market, "SELECT order_id FROM orders ORDER BY 1", "--from-log") == everything


@pytest.mark.core
async def test_what_a_store_lacks_is_taken_from_its_changelog(market: Market, tmp_path: Path) -> None:
    await trades(market)
    await market.stop()
    shutil.copytree(market.directory / "tables", tmp_path / "then")
    await market.start()
    await market.paid("order-2")
    await market.order("order-5", ("aceite", 1))
    await market.stop()
    tables = {name: sorted(map(repr, await rows(market, f"SELECT * FROM {name}"))) for name in TABLES}
    shutil.rmtree(market.directory / "tables")
    shutil.move(tmp_path / "then", market.directory / "tables")
    assert {name: sorted(map(repr, await rows(market, f"SELECT * FROM {name}"))) for name in TABLES} == tables
