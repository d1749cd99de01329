"""What the tables' rows amount to, and what their changes mean: a scrape scans no table."""

from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterator, Mapping, Sized
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.dead_letters import LetterState
from app.domain.rows import OrderSaga, SagaState, Stock

ENDS = {SagaState.COMPLETED: "completed", SagaState.CLOSED: "cancelled"}

NONE = OrderSaga(order_id="", state=SagaState.PARKED)
"""In the place of a row that there is none of."""

REASONS = 32
"""Reasons of dead letters that are told; those beyond count as "other"."""

SAGA_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)


class Summed(Protocol):
    """A table with its sums, and how many of its rows are due."""

    def sums(self, partitions: Collection[int] | None = None) -> Mapping[str, int]: ...
    def due(self, now: float) -> int: ...


class RowMetrics(Collector):
    """The gauges and counters of the rows. `clock` gives seconds since the epoch, `tables` is set by who has them."""

    def __init__(self, clock: Callable[[], float], registry: CollectorRegistry) -> None:
        self._clock = clock
        self.tables: Mapping[str, Summed] = {}
        self._duration = Histogram(
            "saga_duration_seconds", "From the order to the saga's end", buckets=SAGA_BUCKETS, registry=registry
        )
        # Plain numbers, for three rows change an order: a counter of the client locks itself for each of its steps.
        self._started = self._compensations = self._expired = 0
        self._completed = dict.fromkeys(ENDS.values(), 0)
        self._payments = {"succeeded": 0, "failed": 0, "refund_requested": 0}
        self._again = {"payment": 0, "mail": 0}

    @property
    def started(self) -> int:
        """Orders whose saga began."""
        return self._started

    @property
    def ended(self) -> int:
        """Orders whose saga ended."""
        return sum(self._completed.values())

    def changed(self, table: str, old: Any, new: Any) -> None:
        if new is None:
            return
        if table == "order_sagas":
            self._saga_moved(old, new)
        elif table == "inventory" and old is not None and old.holds is not new.holds:
            self._expired += _expired(old, new)

    def states(self, partitions: Collection[int] | None = None) -> dict[str, int]:
        """How many orders (of the partitions given) stand in each state; every state is there."""
        sums = self._sums("order_sagas", partitions)
        return {state.value: sums.get(state.value, 0) for state in SagaState}

    def _sums(self, table: str, partitions: Collection[int] | None = None) -> Mapping[str, int]:
        return self.tables[table].sums(partitions) if table in self.tables else {}

    def _saga_moved(self, old: OrderSaga | None, new: OrderSaga) -> None:
        # Whatever a change leaves as it was is the same object in both rows, or nearly always.
        before = NONE if old is None else old
        was, state = before.state, new.state
        if was is not state:
            self._started += was is SagaState.PARKED
            if state in ENDS and was not in ENDS:
                self._completed[ENDS[state]] += 1
                self._duration.observe(max(0.0, new.updated_at - new.created_at))
        payments, again = self._payments, self._again
        if before.products is not new.products:
            self._compensations += _released(before, new)
        if before.refunds is not new.refunds:
            refunds = _grown(before.refunds, new.refunds)
            self._compensations += refunds
            payments["refund_requested"] += refunds
        if before.paid is not new.paid:
            payments["succeeded"] += _grown(before.paid, new.paid)
        payments["failed"] += _failures(before, new)
        if before.attempt != new.attempt:
            again["payment"] += _repeated(before.attempt, new.attempt)
        if before.mail_attempt != new.mail_attempt:
            again["mail"] += _repeated(before.mail_attempt, new.mail_attempt)

    def collect(self) -> Iterator[Metric]:
        yield from self._counted()
        states = GaugeMetricFamily("orders_by_state", "Orders that stand in a state", labels=("state",))
        numbers, stock = self.states(), self._sums("inventory")
        marked = self._sums("order_sagas").get("attention", 0)
        for state, number in numbers.items():
            states.add_metric((state,), number)
        yield states
        yield self._open_letters()
        due = sum(table.due(self._clock()) for table in self.tables.values())
        active = sum(n for state, n in numbers.items() if state not in ENDS and state != SagaState.PARKED)
        for name, text, value in (
            ("saga_active", "Sagas that have begun and not ended", active),
            ("orders_need_attention", "Orders that a person should look at", marked),
            ("timers_due", "Deadlines that have passed and are not acted on yet", due),
            ("inventory_reservations_active", "Reservations held", stock.get("holds", 0)),
            ("inventory_low_products", "Products at or below their threshold", stock.get("low", 0)),
            ("oversold", "Units reserved beyond what is on hand: must be 0", stock.get("oversold", 0)),
        ):
            yield GaugeMetricFamily(name, text, value)

    def _open_letters(self) -> GaugeMetricFamily:
        by_reason: Counts[str] = Counts()
        for counted, number in self._sums("dead_letters").items():
            state, _, reason = counted.split(" ", 2)
            if state == LetterState.OPEN and number:
                by_reason[reason] += number
        letters = GaugeMetricFamily("dead_letters_open", "Dead letters that nobody has decided on", labels=("reason",))
        told = by_reason.most_common(REASONS)
        for reason, number in told:
            letters.add_metric((reason,), number)
        letters.add_metric(("other",), by_reason.total() - sum(number for _, number in told))
        return letters

    def _counted(self) -> Iterator[Metric]:
        for name, text, number in (
            ("saga_started", "Orders whose saga began", self._started),
            ("saga_compensations", "Steps undone: a product released or a refund asked", self._compensations),
            ("inventory_reservations_expired", "Reservations that ran out", self._expired),
        ):
            yield CounterMetricFamily(name, text, number)
        for name, text, label, numbers in (
            ("saga_completed", "Sagas that ended", "outcome", self._completed),
            ("payments_processed", "What became of payments", "status", self._payments),
            ("saga_retries", "Steps tried once more", "step", self._again),
        ):
            family = CounterMetricFamily(name, text, labels=(label,))
            for value, number in numbers.items():
                family.add_metric((value,), number)
            yield family


def _grown(before: Sized, after: Sized) -> int:
    return max(0, len(after) - len(before))


def _repeated(before: int, after: int) -> int:
    """Attempts beyond the first."""
    return max(0, after - max(before, 1))


def _released(old: OrderSaga, new: OrderSaga) -> int:
    """Products of the order that were released between the two."""
    before = old.products
    return sum(
        held.status == "released" and (product not in before or before[product].status != "released")
        for product, held in new.products.items()
    )


def _failures(old: OrderSaga, new: OrderSaga) -> int:
    """Payments that failed since the old row: steps of the timeline, which is bounded, behind the old row's last."""
    last, failures = old.timeline[-1] if old.timeline else None, 0
    for step in reversed(new.timeline):
        if step is last:  # a new row is made of its old one's steps
            break
        if step.direction == "in" and step.what.startswith("payment.failed"):
            failures += 1
    return failures


def _expired(old: Stock, new: Stock) -> int:
    """Holds that ended by release at or after their time."""
    return sum(
        old.holds[order_id].expires_at <= new.updated_at and new.ended.get(order_id) == "released"
        for order_id in old.holds.keys() - new.holds.keys()
    )
