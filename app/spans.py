"""Spans of what is done with each message, for OpenTelemetry: one tree, from the publisher's own span to the mail.

A span's id follows from its record's place, so a record that is taken again has the same, and it is told once its batch
is committed. Where nobody asks for spans nothing of this is loaded, and a traceparent is passed on as it came.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TypeVar

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app import topics
from app.domain import traces
from app.engine.declarations import Reducer
from app.engine.lanes import SKIPPED
from app.engine.records import Headers, Record

Row = TypeVar("Row")
Place = tuple[str, str, int, int]

SCOPE = InstrumentationScope("a4co")
BEGINS = "order.created"
"""The subjects (and those with a version) whose message is the first span of a trace that we began for an order."""
MOST_UNDER_WAY = 100_000
"""Records whose spans wait for their commit; of more than that, nothing is remembered."""


class Spans:
    """Reports to the OTLP endpoint (http://host:4318), by a thread of the SDK; what it can't reach is dropped."""

    def __init__(self, endpoint: str, service: str, instance: str) -> None:
        self._resource = Resource.create({"service.name": service, "service.instance.id": instance})
        self._report = BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))
        self._under_way: dict[Place, Headers] = {}

    def around(self, reducer: Reducer[Row]) -> Reducer[Row]:
        """The reducer, whose outputs name its span as the one they follow from."""
        return replace(reducer, carries=self._carries(reducer.name, reducer.carries))

    def _carries(
        self, lane: str, carries: Callable[[Record, Row | None], Headers]
    ) -> Callable[[Record, Row | None], Headers]:
        def carry(record: Record, row: Row | None) -> Headers:
            carried = carries(record, row)
            if not traces.is_sampled(carried):
                return carried
            if len(self._under_way) > MOST_UNDER_WAY:  # of transactions that were given up
                self._under_way.clear()
            self._under_way[lane, record.topic, record.partition, record.offset] = carried
            return traces.followed(carried, _span_id(record, lane))

        return carry

    def processed(self, lane: str, records: Sequence[Record], outcomes: Sequence[str]) -> None:
        """A batch is committed: its records have become whole spans, from their append until now."""
        now = time.time()
        for record, outcome in zip(records, outcomes, strict=True):
            carried = self._under_way.pop((lane, record.topic, record.partition, record.offset), ())
            carried = carried or traces.carried(record.headers)
            if traces.is_sampled(carried):
                self._tell(lane, record, outcome, carried, now)

    def _tell(self, lane: str, record: Record, outcome: str, carried: Headers, now: float) -> None:
        """What came from NATS was received, then processed; what we had said ourselves was published."""
        subject, trace, parent = topics.subject_of(record), traces.trace_id(carried), traces.span_id(carried)
        arrived = record.timestamp
        if outcome == SKIPPED:
            if topics.header(record.headers, "a4co-ours") is not None:
                place = _span_id(record, "publish")
                self._end(f"publish {subject}", SpanKind.PRODUCER, (trace, place, parent), record, arrived, "published")
            return
        if subject:
            begins = traces.began_here(carried) and subject.startswith(BEGINS)
            received = parent if begins else _span_id(record, "receive")
            above = "" if begins else parent
            self._end(f"receive {subject}", SpanKind.CONSUMER, (trace, received, above), record, arrived, "mirrored")
            parent = received
        self._end(
            f"{lane} {record.topic}", SpanKind.INTERNAL, (trace, _span_id(record, lane), parent), record, now, outcome
        )

    def _end(
        self, name: str, kind: SpanKind, ids: tuple[str, str, str], record: Record, until: float, outcome: str
    ) -> None:
        trace, span, parent = ids
        self._report.on_end(
            ReadableSpan(
                name,
                context=_context(trace, span),
                parent=_context(trace, parent) if parent else None,
                resource=self._resource,
                attributes={
                    "messaging.destination.name": record.topic,
                    "messaging.destination.partition.id": str(record.partition),
                    "messaging.message.id": str(record.offset),
                    "a4co.key": (record.key or b"").decode(errors="replace"),
                    "a4co.outcome": outcome,
                },
                kind=kind,
                instrumentation_scope=SCOPE,
                status=Status(StatusCode.ERROR if outcome == "dead-lettered" else StatusCode.UNSET),
                start_time=int(record.timestamp * 1e9),
                end_time=int(max(until, record.timestamp) * 1e9),
            )
        )

    def stop(self) -> None:
        """Report what is left; a few seconds at most."""
        self._report.shutdown()  # type: ignore[no-untyped-call]


def _span_id(record: Record, what: str) -> str:
    """Always the same for what is done with a record."""
    place = f"{what} {record.topic} {record.partition} {record.offset}".encode()
    return blake2b(place, digest_size=8, person=b"a4co-span", salt=(record.key or b"")[:16]).hexdigest()


def _context(trace: str, span: str) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
