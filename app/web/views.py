"""What the web needs of the application: tables to read, and callbacks. It never writes a table."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from app.dead_letters import Letters
from app.domain.dead_letters import Letter
from app.domain.rows import Bucket, OrderSaga, Stock
from app.engine.owners import Owners
from app.metrics.worker import Metrics
from app.web.freshness import Freshness
from app.web.stock_lines import StockLine
from bridge.routes import ROUTES, Routes

if TYPE_CHECKING:
    from app.web.live.feed import LiveFeed

Row_co = TypeVar("Row_co", covariant=True)


class ReadTable(Protocol[Row_co]):
    """The reading side of a table: committed rows, `items` a snapshot in the order of keys, from behind `after` on.

    `sums` is what the rows of the partitions (or of all) amount to; `timers` counts those that wait for a deadline,
    `due` those that have passed it, and `upcoming` gives the soonest deadlines with their keys.

    `total` counts the partitions over all workers; `here` tells which this one answers for now. `get` raises
    PartitionElsewhere for the others' keys.
    """

    @property
    def name(self) -> str: ...
    @property
    def total(self) -> int: ...
    @property
    def owners(self) -> Owners: ...
    def here(self) -> set[int]: ...
    def get(self, key: str) -> Row_co | None: ...
    def items(
        self, after: str | None = None, partitions: Collection[int] | None = None, *, backwards: bool = False
    ) -> Iterator[tuple[str, Row_co]]: ...
    def sums(self, partitions: Collection[int] | None = None) -> Mapping[str, int]: ...
    def timers(self, partitions: Collection[int] | None = None) -> int: ...
    def due(self, now: float, partitions: Collection[int] | None = None) -> int: ...
    def upcoming(self, limit: int, partitions: Collection[int] | None = None) -> list[tuple[float, str]]: ...
    def count(self) -> int: ...


@dataclass(frozen=True)
class Views:
    """Everything that the endpoints answer from.

    `ready` tells whether the tables are complete, and why not ({"tables": "2 partitions recovering"}). `checks` gives
    {"nats": {"status": "healthy" | "degraded" | "unhealthy", ...}, "database": {...}, ...}; "memory" is added when it
    is missing. `crossing` gives the bridge's status and its ledger. `freshness` tells how far a table (by name) is
    behind. `import_stock` takes the whole list or raises; it returns when the lines are on disk. `clock` gives seconds
    since the epoch, UTC. `memory_limit` is in bytes.
    """

    order_sagas: ReadTable[OrderSaga]
    inventory: ReadTable[Stock]
    dead_letters: ReadTable[Letter]
    analytics: ReadTable[Bucket]
    letters: Letters
    live: "LiveFeed"
    metrics: Metrics
    ready: Callable[[], tuple[bool, Mapping[str, Any]]]
    checks: Callable[[], Mapping[str, Mapping[str, Any]]]
    crossing: Callable[[], tuple[Mapping[str, Any], list[dict[str, Any]]]]
    freshness: Callable[[str], Freshness]
    import_stock: Callable[[list[StockLine]], Awaitable[int]]
    clock: Callable[[], float]
    service: str = "a4co-streams"
    worker: str = "worker"
    routes: Routes = ROUTES
    memory_limit: int = 512 * 1024 * 1024
