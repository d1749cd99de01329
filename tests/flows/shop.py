"""A worker as the web sees it: plain tables in memory, and callbacks as a test sets them."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from app.dead_letters import Letters
from app.domain.dead_letters import Letter
from app.domain.messages import Line
from app.domain.rows import Bucket, Held, Hold, OrderSaga, SagaState, Step, Stock
from app.engine.declarations import TableSpec
from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import PartitionElsewhere
from app.engine.owners import Alone, Owners
from app.engine.partitioner import partition_for
from app.metrics.worker import Metrics
from app.web.freshness import Freshness
from app.web.live.feed import LiveFeed
from app.web.stock_lines import StockLine
from app.web.views import Views
from bridge.routes import ROUTES
from tables.analytics import ANALYTICS
from tables.dead_letters import DEAD_LETTERS
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS

Row = TypeVar("Row")

NOON = 1_795_521_600.0  # 2026-11-24T12:00:00Z
PARTITIONS = 4


def partition_of(key: str) -> int:
    return partition_for(key.encode(), PARTITIONS)


class MemoryTable(Generic[Row]):
    """A table's reading side over a dict."""

    total = PARTITIONS

    def __init__(self, spec: TableSpec[Row]) -> None:
        self.spec = spec
        self.name = spec.name
        self.rows: dict[str, Row] = {}
        self.owners: Owners = Alone()

    def here(self) -> set[int]:
        return {partition for partition in range(self.total) if self.owners.held(partition)}

    def partition_of(self, key: str) -> int:
        return self.spec.partition(key, self.total)

    def get(self, key: str) -> Row | None:
        if not self.owners.held(self.partition_of(key)):
            raise PartitionElsewhere(self.name, self.partition_of(key))
        return self.rows.get(key)

    def items(
        self, after: str | None = None, partitions: Collection[int] | None = None, *, backwards: bool = False
    ) -> Iterator[tuple[str, Row]]:
        for key, row in sorted(self.rows.items(), reverse=backwards):
            behind = after is None or (key < after if backwards else key > after)
            if behind and (partitions is None or self.partition_of(key) in partitions):
                yield key, row

    def count(self) -> int:
        return len(self.rows)

    def sums(self, partitions: Collection[int] | None = None) -> Mapping[str, int]:
        total: Counter[str] = Counter()
        for _, row in self.items(None, partitions):
            total.update(self.spec.sums(row))
        return total

    def upcoming(self, limit: int, partitions: Collection[int] | None = None) -> list[tuple[float, str]]:
        rows = [(self.spec.deadline(row), key) for key, row in self.items(None, partitions)]
        return sorted((deadline, key) for deadline, key in rows if deadline is not None)[:limit]

    def timers(self, partitions: Collection[int] | None = None) -> int:
        return len(self.upcoming(len(self.rows), partitions))

    def due(self, now: float, partitions: Collection[int] | None = None) -> int:
        return sum(deadline <= now for deadline, _ in self.upcoming(len(self.rows), partitions))


@dataclass
class Shop:
    """A worker's tables and callbacks, as a test sets them."""

    order_sagas: MemoryTable[OrderSaga] = field(default_factory=lambda: MemoryTable(ORDER_SAGAS))
    inventory: MemoryTable[Stock] = field(default_factory=lambda: MemoryTable(INVENTORY))
    dead_letters: MemoryTable[Letter] = field(default_factory=lambda: MemoryTable(DEAD_LETTERS))
    analytics: MemoryTable[Bucket] = field(default_factory=lambda: MemoryTable(ANALYTICS))
    metrics: Metrics = field(default_factory=lambda: Metrics(lambda: NOON))
    not_ready: dict[str, str] = field(default_factory=dict)
    crossing: dict[str, Any] = field(default_factory=lambda: {"problem": None, "lag_in": 0, "lag_out": 0})
    ledger: list[dict[str, Any]] = field(default_factory=list)
    freshness: Freshness = field(default_factory=lambda: Freshness(0, stale=False))
    checks: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"nats": {"status": "healthy"}, "database": {"status": "healthy"}}
    )
    worker: str = "worker"
    imports: list[list[StockLine]] = field(default_factory=list)
    log: EmbeddedLog = field(default_factory=lambda: EmbeddedLog(Path("nowhere")))

    def __post_init__(self) -> None:
        tables = (self.order_sagas, self.inventory, self.dead_letters, self.analytics)
        self.metrics.watch_tables({table.name: table for table in tables})

    def put(self, *rows: OrderSaga | Stock | Letter) -> None:
        for row in rows:
            if isinstance(row, Letter):
                self.dead_letters.rows[row.letter_id] = row
            elif isinstance(row, Stock):
                self.metrics.row_changed("inventory", self.inventory.rows.get(row.product_id), row)
                self.inventory.rows[row.product_id] = row
            else:
                self.metrics.row_changed("order_sagas", self.order_sagas.rows.get(row.order_id), row)
                self.order_sagas.rows[row.order_id] = row

    async def import_stock(self, lines: list[StockLine]) -> int:
        self.imports.append(lines)
        return len(lines)

    def views(self) -> Views:
        return Views(
            order_sagas=self.order_sagas,
            inventory=self.inventory,
            dead_letters=self.dead_letters,
            analytics=self.analytics,
            letters=Letters(self.log, ROUTES, PARTITIONS, lambda: NOON),
            live=LiveFeed(self.log, self.metrics, clock=lambda: NOON),
            metrics=self.metrics,
            ready=lambda: (not self.not_ready, self.not_ready),
            checks=lambda: self.checks,
            crossing=lambda: (self.crossing, self.ledger),
            freshness=lambda _table: self.freshness,
            import_stock=self.import_stock,
            clock=lambda: NOON,
            worker=self.worker,
            memory_limit=1 << 40,  # what all the tests before took is not the shop's
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


def cheese(**changes: Any) -> Stock:
    stock = Stock(
        product_id="product_queso_cabra",
        name="Queso de cabra",
        category="quesos",
        artisan_id="artisan_sierra",
        on_hand=25,
        threshold=5,
        holds={"order-1": Hold(2, NOON + 1800), "order-2": Hold(3, NOON + 60)},
        updated_at=NOON,
    )
    return msgspec.structs.replace(stock, **changes)


def order(order_id: str = "order-1", state: SagaState = SagaState.AWAITING_PAYMENT, **changes: Any) -> OrderSaga:
    saga = OrderSaga(
        order_id=order_id,
        state=state,
        customer_id="customer_123",
        customer_email="cliente@jaen.com",
        lines=(Line("product_queso_cabra", 2, 12.5, "Queso de cabra", "artisan_sierra"),),
        total=25,
        created_at=NOON - 10,
        updated_at=NOON,
        products={"product_queso_cabra": Held(2, "held", 23)},
        reserved_until=NOON + 1800,
        attempt=1,
        deadline=NOON + 900,
        timeline=(Step(NOON - 10, "order.created", "in", event_id="e-1"), Step(NOON, "Reserve", "out")),
    )
    return msgspec.structs.replace(saga, **changes)
