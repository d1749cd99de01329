"""The tables that analysts see: their columns, and the rows that they are made of. Times are UTC, money is whole cents.

What tells who a customer is beyond an id (the mail address) is in none of them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from app.domain.analytics import BY_CURRENCY, SIZES, add, cents, seconds_at, start_of
from app.domain.messages import Counts
from app.domain.rows import SagaState
from app.engine.declarations import TableSpec
from app.engine.snapshot import Snapshot
from tables.analytics import ANALYTICS
from tables.dead_letters import DEAD_LETTERS
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS

ENDS = (SagaState.COMPLETED, SagaState.CLOSED)


class SqlTable(NamedTuple):
    """A table: its columns with their types, where its rows come from, and the column whose day a file is of."""

    columns: dict[str, str]
    source: TableSpec[Any]
    rows: Callable[[Snapshot], Iterator[tuple[Any, ...]]]
    day: str = ""


def _ms(at: float | None) -> int | None:
    return None if at is None else round(at * 1000)


def _orders(snapshot: Snapshot) -> Iterator[tuple[Any, ...]]:
    for partition, order_id, saga in snapshot.rows(ORDER_SAGAS):
        yield (
            order_id,
            saga.state.value,
            saga.state in ENDS,
            saga.customer_id,
            _ms(saga.created_at),
            _ms(saga.updated_at),
            _ms(saga.confirmed_at),
            _ms(saga.deadline),
            saga.currency,
            cents(saga.total),
            sum(cents(amount) for amount in saga.paid.values()),
            sum(line.quantity for line in saga.lines),
            saga.attempt,
            saga.payment_reference,
            len(saga.refunds),
            saga.cancelled_by,
            saga.cancel_reason,
            saga.attention,
            saga.dialect,
            saga.correlation_id,
            partition,
        )


def _lines(snapshot: Snapshot) -> Iterator[tuple[Any, ...]]:
    for partition, order_id, saga in snapshot.rows(ORDER_SAGAS):
        for number, line in enumerate(saga.lines, 1):
            held = saga.products[line.product_id]
            yield (
                order_id,
                number,
                _ms(saga.created_at),
                line.product_id,
                line.product_name or held.product_name,
                held.artisan_id,
                line.quantity,
                saga.currency,
                cents(line.unit_price),
                cents(line.unit_price * line.quantity),
                held.status,
                partition,
            )


def _stock(snapshot: Snapshot) -> Iterator[tuple[Any, ...]]:
    for partition, product_id, stock in snapshot.rows(INVENTORY):
        yield (
            product_id,
            stock.name,
            stock.category,
            stock.artisan_id,
            stock.on_hand,
            stock.reserved,
            stock.available,
            stock.threshold,
            stock.low,
            _ms(stock.last_restocked),
            _ms(stock.updated_at),
            partition,
        )


def _letters(snapshot: Snapshot) -> Iterator[tuple[Any, ...]]:
    for partition, letter_id, letter in snapshot.rows(DEAD_LETTERS):
        yield (
            letter_id,
            _ms(letter.at),
            letter.state.value,
            letter.reason,
            letter.error,
            letter.topic,
            letter.subject,
            letter.of,
            letter.size,
            partition,
        )


def _counts(size: str) -> Callable[[Snapshot], Iterator[tuple[Any, ...]]]:
    def rows(snapshot: Snapshot) -> Iterator[tuple[Any, ...]]:
        """One row for each name, partitions added up; of a step, one for each place of its histogram."""
        buckets: defaultdict[float, Counts] = defaultdict(dict)
        for _, key, bucket in snapshot.rows(ANALYTICS):
            if key.startswith(f"{size} "):
                add(buckets[start_of(key)], bucket.counts)
        for start in sorted(buckets):
            for measure, names in sorted(buckets[start].items()):
                for name, number in sorted(names.items()):
                    yield (_ms(start), measure, *_told(measure, name), number)

    return rows


def _told(measure: str, name: str) -> tuple[str, str | None, float | None]:
    """What is counted, its currency, and the seconds that it took."""
    head, _, rest = name.partition(" ")
    if measure == "steps":
        return head, None, round(seconds_at(int(rest)), 6)
    if measure in BY_CURRENCY:
        return rest, head, None
    return (name, name, None) if measure.endswith("revenue") else (name, None, None)


_COUNTS = {
    "time": "TIMESTAMP_MS",
    "measure": "VARCHAR",
    "name": "VARCHAR",
    "currency": "VARCHAR",
    "seconds": "DOUBLE",
    "number": "BIGINT",
}

TABLES = {
    "orders": SqlTable(
        {
            "order_id": "VARCHAR",
            "state": "VARCHAR",
            "ended": "BOOLEAN",
            "customer_id": "VARCHAR",
            "created_at": "TIMESTAMP_MS",
            "updated_at": "TIMESTAMP_MS",
            "confirmed_at": "TIMESTAMP_MS",
            "deadline": "TIMESTAMP_MS",
            "currency": "VARCHAR",
            "total_cents": "BIGINT",
            "paid_cents": "BIGINT",
            "units": "BIGINT",
            "payment_attempts": "BIGINT",
            "payment_reference": "VARCHAR",
            "refunds": "BIGINT",
            "cancelled_by": "VARCHAR",
            "cancel_reason": "VARCHAR",
            "attention": "VARCHAR",
            "dialect": "VARCHAR",
            "correlation_id": "VARCHAR",
            "partition": "BIGINT",
        },
        ORDER_SAGAS,
        _orders,
        day="created_at",
    ),
    "order_lines": SqlTable(
        {
            "order_id": "VARCHAR",
            "line": "BIGINT",
            "created_at": "TIMESTAMP_MS",
            "product_id": "VARCHAR",
            "product_name": "VARCHAR",
            "artisan_id": "VARCHAR",
            "quantity": "BIGINT",
            "currency": "VARCHAR",
            "unit_price_cents": "BIGINT",
            "price_cents": "BIGINT",
            "status": "VARCHAR",
            "partition": "BIGINT",
        },
        ORDER_SAGAS,
        _lines,
        day="created_at",
    ),
    "stock": SqlTable(
        {
            "product_id": "VARCHAR",
            "name": "VARCHAR",
            "category": "VARCHAR",
            "artisan_id": "VARCHAR",
            "on_hand": "BIGINT",
            "reserved": "BIGINT",
            "available": "BIGINT",
            "threshold": "BIGINT",
            "low": "BOOLEAN",
            "last_restocked": "TIMESTAMP_MS",
            "updated_at": "TIMESTAMP_MS",
            "partition": "BIGINT",
        },
        INVENTORY,
        _stock,
    ),
    "dead_letters": SqlTable(
        {
            "letter_id": "VARCHAR",
            "at": "TIMESTAMP_MS",
            "state": "VARCHAR",
            "reason": "VARCHAR",
            "error": "VARCHAR",
            "topic": "VARCHAR",
            "subject": "VARCHAR",
            "key": "VARCHAR",
            "size": "BIGINT",
            "partition": "BIGINT",
        },
        DEAD_LETTERS,
        _letters,
        day="at",
    ),
    **{f"analytics_{size}": SqlTable(_COUNTS, ANALYTICS, _counts(size), day="time") for size in SIZES},
}
"""By their names in SQL."""
