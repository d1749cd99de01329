"""`a4co tables verify` and `a4co topics`, beside a worker that runs and after one that has ended."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from app.cli import main
from app.engine.kafka.log import KafkaLog
from app.engine.partitioner import partition_for
from app.engine.records import Send
from app.engine.store import Store
from tables.inventory import INVENTORY
from tests.flows.market import Market


async def a4co(market: Market, *arguments: str, **settings: str) -> Result:
    """The command on another process' account: with the market's settings, beside its loop."""
    log = market.application.log
    environment = {"DATA_DIR": str(market.directory), "PARTITIONS": "2", **settings}
    if isinstance(log, KafkaLog):
        environment |= {"KAFKA_URL": log.where, "TOPIC_PREFIX": log.cluster.options.prefix}
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)


def store_of(market: Market, product: str) -> Store:
    """The store in which the product's row is; the market has ended."""
    partition = partition_for(product.encode(), 2)
    identity = market.application.log.identity(INVENTORY.changelog)
    return Store(market.directory / "tables" / "inventory" / str(partition), identity)


def lines(result: Result) -> dict[str, str]:
    """Partition -> what was said of it."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines()}


@pytest.mark.core
async def test_the_tables_of_a_running_worker_and_of_one_that_ended_equal_their_cold_rebuild(market: Market) -> None:
    await market.stock_is(aceite=50, queso=20)
    await market.order("order-1", ("aceite", 2), ("queso", 1))
    running = await a4co(market, "tables", "verify")
    await market.paid("order-1")
    await market.stop()
    ended = await a4co(market, "tables", "verify", "--table", "inventory")
    assert (running.exit_code, ended.exit_code) == (0, 0), running.output + ended.output
    tables = ("analytics", "dead_letters", "inventory", "order_sagas")
    assert sorted(lines(running)) == [f"{table}-{partition}" for table in tables for partition in (0, 1)]
    assert sorted(lines(ended)) == ["inventory-0", "inventory-1"]
    for line in [*lines(running).values(), *lines(ended).values()]:
        assert line.startswith("equal ")
        live, rebuilt = line.split("live ")[1].split(" rebuilt ")
        assert live == rebuilt.split(",")[0]
    rows = [int(line.split()[1]) for line in lines(running).values()]
    assert sum(rows) == 3 + 3  # an order, two products; a minute, an hour, a day


async def test_rows_that_were_changed_lost_or_added_are_named(market: Market) -> None:
    await market.stock_is(aceite=50, queso=20, miel=10)
    await market.stop()
    for product, row in (("aceite", b'{"product_id":"aceite"}'), ("queso", None), ("stranger", b"{}")):
        store = store_of(market, product)
        store.write([(product.encode(), row)], store.offset, store.note)
        store.close()
    result = await a4co(market, "tables", "verify")
    assert result.exit_code == 1
    wrong = " ".join(line for line in lines(result).values() if line.startswith("FAIL"))
    for product in ("aceite", "queso", "stranger"):
        assert product in wrong
    assert "miel" not in wrong


async def test_sums_that_are_not_those_of_the_rows_are_told(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.stop()
    store = store_of(market, "aceite")
    note = msgspec.json.decode(store.note)
    store.write((), store.offset, msgspec.json.encode(note | {"sums": {"holds": 7}}))
    store.close()
    result = await a4co(market, "tables", "verify")
    assert result.exit_code == 1
    assert "its sums are not those of its rows" in result.stdout


async def test_what_the_store_has_not_seen_yet_is_left_out(market: Market) -> None:
    await market.stock_is(aceite=50, queso=20)
    await market.falls_silent()
    known = next(record.value or b"" for record in market.records(INVENTORY.changelog) if record.key == b"aceite")
    row = known.replace(b'"on_hand":50', b'"on_hand":60')
    assert row != known
    partition = partition_for(b"aceite", 2)
    await market.log.append([Send(INVENTORY.changelog, b"aceite", row, (), None, partition)])
    result = await a4co(market, "tables", "verify", "--table", "inventory")
    assert result.exit_code == 0
    assert "1 changing just now or behind left out" in lines(result)[f"inventory-{partition}"]
    await market.is_back()


async def test_a_store_of_another_log_is_told(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.stop()
    path = store_of(market, "aceite").path
    store = Store(path, "another")
    store.write((), 1)
    store.close()
    result = await a4co(market, "tables", "verify")
    assert result.exit_code == 1
    assert "will be rebuilt: it belongs to another log" in result.stdout


def test_without_stores_there_is_nothing_to_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(main, ["tables", "verify"])
    assert result.exit_code == 1
    assert result.output == f"Error: there are no stores under {tmp_path}/tables: set DATA_DIR as the worker has it\n"
    result = CliRunner().invoke(main, ["tables", "verify", "--table", "orders"])
    assert (
        result.output
        == "Error: there is no table 'orders': there are order_sagas, inventory, dead_letters, analytics\n"
    )


@pytest.mark.core
async def test_topics_are_listed_as_they_are(market: Market) -> None:
    await market.stock_is(aceite=50)
    result = await a4co(market, "topics")
    assert result.exit_code == 0, result.output
    said = lines(result)
    assert said["topic"] == "partitions policy copies kept records"
    assert said["inventory-changelog"].startswith("2 compact 1 for ever ")
    assert said["inventory-changelog"].endswith(" ok")
    assert int(said["inventory-changelog"].split()[-2]) > 0
    assert said["orders"].startswith("2 delete 1 ")
    other = await a4co(market, "topics", PARTITIONS="3")
    assert other.exit_code == 1
    assert lines(other)["orders"].endswith("partitions 2 and not 3")


def test_topics_that_are_missing_are_made_when_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    run = CliRunner()
    before = run.invoke(main, ["topics"])
    assert before.exit_code == 1
    assert "`a4co topics --create`" in before.stderr
    assert not (tmp_path / "data").exists()
    made = run.invoke(main, ["topics", "--create"])
    assert made.exit_code == 0
    assert {line.split()[-1] for line in made.stdout.splitlines()[1:]} == {"ok"}
    assert run.invoke(main, ["topics"]).stdout == made.stdout


async def test_topics_are_not_made_beside_a_running_worker(market: Market) -> None:
    if isinstance(market.application.log, KafkaLog):
        pytest.skip("Kafka's topics can be made by anybody")
    for table, column in (("topics", "name"), ("places", "topic")):
        market.application.log._db.execute(f"DELETE FROM {table} WHERE {column} = 'users'")
    result = await a4co(market, "topics", "--create")
    assert result.exit_code == 1
    assert "in use by the process" in result.output
