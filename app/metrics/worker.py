"""What Prometheus is told: counters per event, gauges kept from the tables' changes. Decides names, labels and
their bounds, and nothing else: no order or product id is ever a label, and an unknown subject is "other".
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.metrics.bridge import LedgerMetrics
from app.metrics.events import OTHER, SUBJECTS, ByEvent, Cells, EventLabels, ProcessingTime
from app.metrics.other_names import WithOtherNames
from app.metrics.rows import RowMetrics, Summed

REASONS_PER_TOPIC = 16

COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Buckets of an HTTP request's time."""

READINGS = {
    "ready": ("Whether /ready says yes", None),
    "recovered_percent": ("How much of the tables' changelogs is done: 100 but while they recover", None),
    "table_rows": ("Rows of a table that are here", "table"),
    "table_partitions": ("Partitions of a table that are here", "table"),
    "bridge_connected": ("Whether this process runs the bridge and has NATS", None),
    "bridge_lag": ("Messages that wait to cross the bridge", "direction"),
    "bridge_active": ("1 in the process that runs the bridge, 0 in those that stand by", None),
    "events_lag": ("Records of its topics that a reducer or an effect has not applied yet", "reader"),
    "live_clients": ("Clients that listen to the live feed", None),
    "log_size_bytes": ("Bytes that the embedded log takes on disk", None),
}
"""Gauges that somebody else reads at each scrape (see `Metrics.watch`): name -> (help, label)."""


class Pace(NamedTuple):
    """Records that agents were done with, and orders that began and ended, since the process began."""

    processed: int
    started: int
    ended: int


class Metrics:
    """All metrics of one worker, in a registry of their own unless one is given.

    Counters start at 0 with the process, as Prometheus expects; gauges of rows are the tables' own sums (see
    `watch_tables`). `clock` gives seconds since the epoch. Not for use from several threads.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        registry: CollectorRegistry | None = None,
        subjects: Collection[str] = SUBJECTS,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series each
        self.registry = registry or CollectorRegistry()
        labels = EventLabels(subjects)
        self._published = ByEvent("events_published", "Events published on NATS", labels, self.registry)
        self._failed = ByEvent("events_failed", "Events that could not be applied or published", labels, self.registry)
        self._took = ProcessingTime(labels)
        self._processed = self._counter("events_processed", "Records that an agent was done with", "topic", "outcome")
        self._dead = self._counter("dead_letters", "Records put aside as dead letters", "topic", "reason")
        self._mirrored = self._counter("bridge_mirrored", "NATS messages mirrored into the log", "topic")
        self._sent = self._counter("bridge_published", "Outbound records published on NATS")
        self._gap = self._counter("bridge_gap", "NATS messages that left the stream before they were mirrored")
        self._commits = self._counter("log_commits", "Transactions of the log")
        self._appended = self._counter("log_records", "Records appended to the log")
        self._requests = self._counter("http_requests", "HTTP requests", "method", "route", "status", "status_class")
        self._request_seconds = Cells(
            Histogram(
                "http_request_duration_seconds",
                "Time of an HTTP request",
                ("method", "route"),
                buckets=SECONDS,
                registry=self.registry,
            )
        )
        self._live_sent = self._counter("live_events_sent", "Events sent to clients of the live feed")
        self._live_dropped = self._counter("live_clients_dropped", "Clients of the live feed that did not read")
        self._commit_seconds = self._histogram("log_commit_seconds", "Time of a commit, until it is on disk")
        self._rows = RowMetrics(clock, self.registry)
        self._readings = Readings()
        self.bridge = LedgerMetrics()
        for collector in (self._took, self._rows, self._readings, self.bridge):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)

    # ---- events ----------------------------------------------------------------------------------------

    def published(self, subject: str, event_type: str = "", n: int = 1) -> None:
        self._published.cell(subject, event_type).inc(n)

    def failed(self, subject: str, event_type: str = "", n: int = 1) -> None:
        self._failed.cell(subject, event_type).inc(n)

    def processed(self, topic: str, outcome: str, seconds: float, subject: str, event_type: str = "") -> None:
        """One record and its time. A batch is cheaper by `processed_many` and `took`."""
        self.processed_many(topic, outcome, 1)
        self._took.observe(subject, event_type, seconds, 1)

    def processed_many(self, topic: str, outcome: str, n: int) -> None:
        self._processed.cell(topic, outcome).inc(n)

    def took(self, subject: str, event_type: str, seconds: float, n: int = 1) -> None:
        """`n` events of a kind, `seconds` each (a batch: its time divided by its records)."""
        self._took.observe(subject, event_type, seconds, n)

    def dead_lettered(self, topic: str, reason: str, n: int = 1) -> None:
        """`reason` is one of a few words; beyond 16 of a topic they count as "other"."""
        self._dead.cell(topic, self._bounded_reason(topic, reason)).inc(n)

    def _bounded_reason(self, topic: str, reason: str) -> str:
        known = self._dead.cells
        full = (topic, reason) not in known and sum(topic == of for of, *_ in known) >= REASONS_PER_TOPIC
        return OTHER if full else reason

    # ---- bridge and log --------------------------------------------------------------------------------

    def mirrored(self, topic: str, n: int = 1) -> None:
        self._mirrored.cell(topic).inc(n)

    def bridge_published(self, n: int = 1) -> None:
        self._sent.cell().inc(n)

    def bridge_gap(self, n: int) -> None:
        self._gap.cell().inc(n)

    def committed(self, records: int, seconds: float) -> None:
        """One transaction of so many records; `seconds` from its start until it was on disk."""
        self._commits.cell().inc()
        self._appended.cell().inc(records)
        self._commit_seconds.observe(seconds)

    def watch(self, name: str, read: Callable[[], float], label: str = "") -> None:
        """Read a gauge at each scrape: `name` is one of READINGS, `label` its label's value ("in", a reducer's name).

        KeyError: no such gauge.
        """
        self._readings.watch(name, read, label)

    # ---- HTTP ------------------------------------------------------------------------------------------

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request; `route` is its path as it is declared, "other" for what is not."""
        self._requests.cell(method, route, str(status), f"{status // 100}xx").inc()
        self._request_seconds.cell(method, route).observe(seconds)

    def live_sent(self, n: int) -> None:
        """So many events to one client of the live feed."""
        self._live_sent.cell().inc(n)

    def live_dropped(self) -> None:
        """A client of the live feed was dropped."""
        self._live_dropped.cell().inc()

    # ---- tables ----------------------------------------------------------------------------------------

    def row_changed(self, table: str, old: Any, new: Any) -> None:
        """A committed change of a row: None for a row that was not there, or is no longer. Other tables are ignored."""
        self._rows.changed(table, old, new)

    def watch_tables(self, tables: Mapping[str, Summed]) -> None:
        """Read the rows' gauges from these tables (by name) at each scrape."""
        self._rows.tables = tables

    def orders_by_state(self, partitions: Collection[int]) -> dict[str, int]:
        """How many orders of the partitions stand in each state; every state is there."""
        return self._rows.states(partitions)

    def pace(self) -> Pace:
        """What has been done since the process began."""
        return Pace(self._processed.total(), self._rows.started, self._rows.ended)

    # ---- scrape ----------------------------------------------------------------------------------------

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The text for a scraper that accepts this, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(WithOtherNames(self.registry)), content_type

    def _counter(self, name: str, text: str, *labels: str) -> Cells[Counter]:
        return Cells(Counter(name, text, labels, registry=self.registry))

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=COMMIT_BUCKETS, registry=self.registry)


class Readings(Collector):
    """Gauges whose values belong to somebody else and are read at the scrape."""

    def __init__(self) -> None:
        self._reads: dict[str, dict[str, Callable[[], float]]] = {name: {} for name in READINGS}

    def watch(self, name: str, read: Callable[[], float], label: str) -> None:
        self._reads[name][label] = read

    def collect(self) -> Iterator[Metric]:
        for name, (text, label) in READINGS.items():
            family = GaugeMetricFamily(name, text, labels=(label,) if label else ())
            for value, read in self._reads[name].items():
                family.add_metric((value,) if label else (), read())
            yield family
