"""A collector of spans by OTLP over HTTP, in this process; Jaeger takes them alike."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.by_worker: dict[str, set[str]] = {}
        """The ids of the traces that each worker has told of."""
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert names["service.name"] == "a4co-streams"
            told = self.by_worker.setdefault(names["service.instance.id"], set())
            for scope in resource.scope_spans:
                self.spans += scope.spans
                told.update(span.trace_id.hex() for span in scope.spans)
        return web.Response()

    def of(self, trace: str) -> dict[str, Span]:
        """The trace's spans by their ids."""
        return {span.span_id.hex(): span for span in self.spans if span.trace_id.hex() == trace}

    def names(self, trace: str) -> Counter[str]:
        return Counter(span.name for span in self.of(trace).values())


@asynccontextmanager
async def listening() -> AsyncIterator[Collector]:
    """One that listens on a free port meanwhile."""
    collector = Collector()
    server = web.Application()
    server.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
