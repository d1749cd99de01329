"""The bridge's ledger as metrics: read at each scrape from where it is committed, so it goes on over restarts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Ledger = Iterable[Mapping[str, Any]]

GAUGES = (
    ("bridge_in_waiting", "Messages of a source that are not read yet", "waiting"),
    ("bridge_in_waiting_seconds", "Age of what was read last while more waits", "waitingSeconds"),
    ("bridge_in_kept_seconds", "Time after which the source drops what was not read; 0: never", "keptSeconds"),
    ("bridge_in_unaccounted", "Messages that were read and became nothing known; not 0 is a defect", "unaccounted"),
)


class LedgerMetrics(Collector):
    """bridge_in_*: by source, and by route and outcome. Labels are bounded by the routes."""

    def __init__(self) -> None:
        self.ledger: Callable[[], Ledger] = lambda: ()

    def collect(self) -> Iterator[Metric]:
        lines = list(self.ledger())
        crossed = CounterMetricFamily(
            "bridge_in", "Messages read from NATS since the first start, and their outcome", labels=("route", "outcome")
        )
        gone = CounterMetricFamily(
            "bridge_in_gone", "Messages that left a source before they were read", labels=("source",)
        )
        totals: dict[tuple[str, str], int] = {}
        for line in lines:
            for route, outcomes in line["routes"].items():
                for outcome, number in outcomes.items():
                    totals[route, outcome] = totals.get((route, outcome), 0) + number
            gone.add_metric((line["source"],), line["gone"])
        for labels, number in totals.items():
            crossed.add_metric(labels, number)
        yield crossed
        yield gone
        for name, text, field in GAUGES:
            family = GaugeMetricFamily(name, text, labels=("source",))
            for line in lines:
                family.add_metric((line["source"],), line[field])
            yield family
