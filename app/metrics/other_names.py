"""The names that the marketplace's existing dashboards ask for, beside ours: the same numbers under a second name.

Decides names and labels only. A panel that was made for the services' own metrics finds ours without a change.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


class OtherName(NamedTuple):
    """A family under another name, with its labels renamed. `only`: labels a sample must have, and leaves behind."""

    ours: str
    name: str
    labels: Mapping[str, str] = {}
    only: Mapping[str, str] = {}


TYPE = {"eventType": "event_type"}

OTHER_NAMES = (
    OtherName("events_published", "event_published", TYPE),
    OtherName("events_processed", "event_processed"),
    OtherName("events_processed", "event_consumed", {"topic": "consumer"}),
    OtherName("events_failed", "event_processing_errors", TYPE),
    OtherName("events_processing_time_seconds", "event_processing_duration_seconds", TYPE),
    OtherName("saga_completed", "saga_success", only={"outcome": "completed"}),
    OtherName("saga_compensations", "saga_compensation"),
    OtherName("saga_active", "saga_active_count"),
    OtherName("orders_by_state", "saga_status_count", {"state": "status"}),
    OtherName("orders_by_state", "order_status_count", {"state": "status"}),
    OtherName("dead_letters", "saga_errors"),
    OtherName("bridge_published", "nats_messages_published"),
    OtherName("bridge_mirrored", "nats_messages_consumed"),
    OtherName("http_request_duration_seconds", "request_duration_seconds"),
)

_BY_FAMILY: dict[str, list[OtherName]] = {}
for _other in OTHER_NAMES:
    _BY_FAMILY.setdefault(_other.ours, []).append(_other)


class WithOtherNames(Collector):
    """What an encoder asks for its families: those of a registry, each collected once."""

    def __init__(self, registry: Collector) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Each family, and behind it the same under its other names."""
        for family in self._registry.collect():
            yield family
            for other in _BY_FAMILY.get(family.name, ()):
                yield _renamed(family, other)


def _renamed(family: Metric, other: OtherName) -> Metric:
    again = Metric(other.name, f"{family.documentation} (as {family.name})", family.type)
    for sample in family.samples:
        if other.only.items() <= sample.labels.items():
            labels = {
                other.labels.get(label, label): value
                for label, value in sample.labels.items()
                if label not in other.only
            }
            name = other.name + sample.name.removeprefix(family.name)
            again.samples.append(Sample(name, labels, sample.value))
    return again
