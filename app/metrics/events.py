"""Metrics with labels that come from outside, and how they are bounded: known subjects, a few event types of each."""

from bisect import bisect_left
from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

EVENT_TYPES = {
    "order.created": "OrderCreatedEvent",
    "order.confirmed": "OrderConfirmedEvent",
    "order.cancelled": "OrderCancelledEvent",
    "order.delivered": "OrderDeliveredEvent",
    "order.updated": "OrderUpdatedEvent",
    "order.failed": "OrderFailedEvent",
    "order.payment.requested": "OrderPaymentRequestedEvent",
    "inventory.stock.reserved": "StockReservedEvent",
    "inventory.stock.released": "StockReleasedEvent",
    "inventory.stock.updated": "StockUpdatedEvent",
    "inventory.stock.depleted": "StockDepletedEvent",
    "inventory.stock.replenished": "StockReplenishedEvent",
    "inventory.stock.warning": "LowStockWarningEvent",
    "inventory.stock.low": "LowStockWarningEvent",
    "inventory.reserved": "",
    "inventory.released": "",
    "inventory.out_of_stock": "",
    "payment.initiated": "PaymentInitiatedEvent",
    "payment.requested": "",
    "payment.succeeded": "PaymentSucceededEvent",
    "payment.confirmed": "",
    "payment.processing": "",
    "payment.failed": "PaymentFailedEvent",
    "payment.cancelled": "PaymentCancelledEvent",
    "payment.refund.initiated": "RefundInitiatedEvent",
    "payment.refund.processed": "RefundProcessedEvent",
    "payment.refund.failed": "RefundFailedEvent",
    "user.registered": "UserRegisteredEvent",
    "user.verified": "UserVerifiedEvent",
    "user.profile.updated": "UserProfileUpdatedEvent",
    "user.preferences.changed": "UserPreferencesChangedEvent",
    "notification.email.sent": "EmailSentEvent",
    "notification.email.delivered": "EmailDeliveredEvent",
    "notification.email.failed": "EmailFailedEvent",
    "notification.sms.sent": "SmsSentEvent",
    "notification.push.sent": "PushNotificationSentEvent",
    "shipment.delivered": "",
}
"""Dialect A's event type for each subject; "" where only dialect C has the subject. Dialect C's type is the subject."""

SUBJECTS = frozenset(EVENT_TYPES) | {f"{subject}.v1" for subject in EVENT_TYPES}
"""The subjects that may be a label: dialect A's, and the `.v1` subjects of dialects B and C."""

OTHER = "other"
EVENT_TYPES_PER_SUBJECT = 4  # a class name in dialect A, a subject in C, and room for a rename

PROCESSING_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


Kind = TypeVar("Kind", Counter, Histogram)


class Cells(Generic[Kind]):
    """A counter's or histogram's children by their label values, looked up once."""

    def __init__(self, parent: Kind) -> None:
        self._parent: Kind = parent
        self.cells: dict[tuple[str, ...], Kind] = {}

    def cell(self, *values: str) -> Kind:
        child = self.cells.get(values)
        if child is None:
            child = self.cells[values] = self._parent.labels(*values) if values else self._parent
        return child

    def total(self) -> int:
        """What a counter's children amount to."""
        samples = (sample for family in self._parent.collect() for sample in family.samples)
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))


class EventLabels:
    """Bounds what publishers say: known subjects, and the first few event types of each. No type: the subject's own."""

    def __init__(self, subjects: Collection[str]) -> None:
        self._types: dict[str, set[str]] = {subject: set() for subject in subjects}

    def bounded(self, subject: str, event_type: str) -> tuple[str, str]:
        types = self._types.get(subject)
        if types is None:
            return OTHER, OTHER
        event_type = event_type or EVENT_TYPES.get(subject) or subject
        if event_type not in types:
            if len(types) >= EVENT_TYPES_PER_SUBJECT:
                return subject, OTHER
            types.add(event_type)
        return subject, event_type


class ByEvent:
    """A counter with the labels subject and eventType."""

    def __init__(self, name: str, text: str, labels: EventLabels, registry: CollectorRegistry) -> None:
        self._cells = Cells(Counter(name, text, ("subject", "eventType"), registry=registry))
        self._labels = labels

    def cell(self, subject: str, event_type: str) -> Counter:
        return self._cells.cells.get((subject, event_type)) or self._cells.cell(
            *self._labels.bounded(subject, event_type)
        )


class ProcessingTime(Collector):
    """events_processing_time_seconds. A batch needs n observations at once; the client's own histogram takes one."""

    def __init__(self, labels: EventLabels) -> None:
        self._labels = labels
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def observe(self, subject: str, event_type: str, seconds: float, n: int) -> None:
        key = (subject, event_type)
        counts = self._counts.get(key)
        if counts is None:
            key = self._labels.bounded(subject, event_type)
            counts = self._counts.setdefault(key, [0] * (len(PROCESSING_BUCKETS) + 1))
        counts[bisect_left(PROCESSING_BUCKETS, seconds)] += n
        self._sums[key] = self._sums.get(key, 0.0) + seconds * n

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "events_processing_time_seconds", "Time to process an event", labels=("subject", "eventType")
        )
        bounds = [*(str(bound) for bound in PROCESSING_BUCKETS), "+Inf"]
        for key, counts in self._counts.items():
            total, buckets = 0, []
            for bound, count in zip(bounds, counts, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric(key, buckets, self._sums[key])
        yield family
