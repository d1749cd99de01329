"""What the rows of order_sagas and inventory amount to, kept up change by change: a scrape scans no table."""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.rows import OrderSaga, SagaState, Step, Stock

ENDS = {SagaState.COMPLETED: "completed", SagaState.CLOSED: "cancelled"}

SAGA_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)


class RowMetrics(Collector):
    """The gauges and counters of the rows. `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float], registry: CollectorRegistry) -> None:
        self._clock = clock
        self._states: defaultdict[int, Tally[SagaState]] = defaultdict(Tally)  # by partition
        self._deadlines: dict[str, float] = {}  # only of orders that have one: those under way
        self._holds = self._oversold = self._low = 0
        self._started = Counter("saga_started", "Orders whose saga began", registry=registry)
        self._completed = Counter("saga_completed", "Sagas that ended", ("outcome",), registry=registry)
        self._compensations = Counter(
            "saga_compensations", "Steps undone: a product released or a refund asked", registry=registry
        )
        self._duration = Histogram(
            "saga_duration_seconds", "From the order to the saga's end", buckets=SAGA_BUCKETS, registry=registry
        )
        payments = Counter("payments_processed", "What became of payments", ("status",), registry=registry)
        self._paid, self._failed, self._refunds = map(payments.labels, ("succeeded", "failed", "refund_requested"))
        self._expired = Counter("inventory_reservations_expired", "Reservations that ran out", registry=registry)
        for outcome in ENDS.values():
            self._completed.labels(outcome)  # a series that is 0 is there from the start

    def states(self, partitions: Iterable[int]) -> Tally[SagaState]:
        """How many orders of the partitions stand in each state."""
        return sum((self._states[partition] for partition in partitions), Tally())

    def changed(self, table: str, partition: int, old: Any, new: Any) -> None:
        if table == "order_sagas":
            self._add_saga(partition, old, new)
            if new is not None:
                self._saga_moved(old, new)
        elif table == "inventory":
            self._add_stock(old, -1)
            self._add_stock(new, 1)
            if old is not None and new is not None and old.holds is not new.holds:
                self._expired.inc(_expired(old, new))

    def loaded(self, table: str, partition: int, row: Any) -> None:
        if table == "order_sagas":
            self._add_saga(partition, None, row)
        elif table == "inventory":
            self._add_stock(row, 1)

    def _add_saga(self, partition: int, old: OrderSaga | None, new: OrderSaga | None) -> None:
        states = self._states[partition]
        if old is not None:
            states[old.state] -= 1
            self._deadlines.pop(old.order_id, None)
        if new is not None:
            states[new.state] += 1
            if new.deadline is not None:
                self._deadlines[new.order_id] = new.deadline

    def _add_stock(self, stock: Stock | None, sign: int) -> None:
        if stock is not None:
            self._holds += sign * len(stock.holds)
            self._oversold += sign * max(0, -stock.available)
            self._low += sign * stock.low

    def _saga_moved(self, old: OrderSaga | None, new: OrderSaga) -> None:
        before = SagaState.PARKED if old is None else old.state
        if before is SagaState.PARKED and new.state is not SagaState.PARKED:
            self._started.inc()
        if new.state in ENDS and before not in ENDS:
            self._completed.labels(ENDS[new.state]).inc()
            self._duration.observe(max(0.0, new.updated_at - new.created_at))
        refunds = _grown(old.refunds if old else (), new.refunds)
        failures = sum(step.direction == "in" and step.what.startswith("payment.failed") for step in _news(old, new))
        for counter, n in (
            (self._paid, _grown(old.paid if old else (), new.paid)),
            (self._failed, failures),
            (self._refunds, refunds),
            (self._compensations, refunds + _released(old, new)),
        ):
            if n:
                counter.inc(n)

    def collect(self) -> Iterator[Metric]:
        states = self.states(list(self._states))
        gauge = GaugeMetricFamily("orders_by_state", "Orders that stand in a state", labels=("state",))
        for state in SagaState:
            gauge.add_metric((state.value,), states[state])
        yield gauge
        now = self._clock()
        due = sum(deadline <= now for deadline in self._deadlines.values())
        active = sum(n for state, n in states.items() if state not in ENDS and state is not SagaState.PARKED)
        for name, text, value in (
            ("saga_active", "Sagas that have begun and not ended", active),
            ("timers_due", "Deadlines that have passed and are not acted on yet", due),
            ("inventory_reservations_active", "Reservations held", self._holds),
            ("inventory_low_products", "Products at or below their threshold", self._low),
            ("oversold", "Units reserved beyond what is on hand: must be 0", self._oversold),
        ):
            yield GaugeMetricFamily(name, text, value)


def _grown(before: Sized, after: Sized) -> int:
    return max(0, len(after) - len(before))


def _released(old: OrderSaga | None, new: OrderSaga) -> int:
    """Products of the order that were released between the two."""
    if old is not None and old.products is new.products:
        return 0
    before = {} if old is None else old.products
    return sum(
        held.status == "released" and (product not in before or before[product].status != "released")
        for product, held in new.products.items()
    )


def _news(old: OrderSaga | None, new: OrderSaga) -> Iterator[Step]:
    """The steps of the timeline (which is bounded) since the old row, newest first."""
    last = old.timeline[-1] if old is not None and old.timeline else None
    for step in reversed(new.timeline):
        if step == last:
            return
        yield step


def _expired(old: Stock, new: Stock) -> int:
    """Holds that ended by release at or after their time."""
    return sum(
        old.holds[order_id].expires_at <= new.updated_at and new.ended.get(order_id) == "released"
        for order_id in old.holds.keys() - new.holds.keys()
    )
