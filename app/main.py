"""The composition root: read this first. Settings in, a running application out; every part is wired here only.

`a4co worker` and `faust -A app.main worker` both run what `create_app` makes.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import faust
import structlog
from fastapi import FastAPI
from faust.app.base import BootStrategy
from faust.contrib.asgi import serve_asgi
from mode import Service

from agents.analytics import count_orders
from agents.dead_letters import KEEP_DEAD_LETTERS, keep_dead_letters
from agents.notifications import Mailer, send_mails
from agents.orders import advance_order_sagas
from agents.stock import apply_stock_commands
from app import logs, topics
from app.bridging import APP_ID, BridgeProcess, bridge_alone, make_bridge, nats_check, watch_bridge
from app.build import COMPILED
from app.dead_letters import Letters
from app.domain.messages import StockImported
from app.domain.traces import trace_id
from app.engine.embedded_log import EmbeddedLog
from app.engine.engine import Application, Engine
from app.engine.errors import EngineError
from app.engine.kafka.log import KafkaLog
from app.engine.lanes import Hooks, Lane, ReducerLane
from app.engine.open_logs import log_at
from app.engine.records import Record, Send
from app.engine.standby import Standby
from app.engine.tables import Table
from app.log_wait import LogWait
from app.metrics.worker import Metrics
from app.setting_types import is_loopback, redact
from app.settings import Settings, SettingsError, load
from app.web.api import create_api, create_bridge_api
from app.web.freshness import Freshness
from app.web.http_protocol import HttpProtocol
from app.web.live.feed import LiveFeed
from app.web.stock_lines import StockLine
from app.web.views import Views
from bridge import backlog
from bridge.dead_letters import dead_letter
from bridge.routes import Routes
from bridge.routes_file import load_routes
from tables.analytics import ANALYTICS
from tables.dead_letters import DEAD_LETTERS
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS

BACKLOG = 1_000
"""Records that wait for a table from which on what it shows counts as old: they need more than a moment."""

if TYPE_CHECKING:
    from app.spans import Spans

logger = structlog.get_logger("a4co.main")


class Marketplace:
    """The whole application over one log: engine, bridge, metrics and what the web reads."""

    def __init__(self, settings: Settings, log: EmbeddedLog | KafkaLog, clock: Callable[[], float] = time.time) -> None:
        self.log = log
        self._settings = settings
        self._on_failure: Callable[[BaseException], None] = lambda _error: None
        self.metrics = Metrics(clock)
        self._spans = _spans(settings)
        routes = load_routes(settings.routes_file)
        self.bridge = make_bridge(settings, routes, log, self.metrics, self._failed, here=settings.bridge == "inside")
        self._telling: asyncio.Task[None] | None = None
        self._waiting = LogWait(log, self._begin)
        self._lanes: dict[str, Lane] = {}
        self.engine = Engine(self._application(settings, routes, clock), log, settings.data_dir / "tables", clock)
        self._standby: Standby | None = None
        if settings.standby and isinstance(log, KafkaLog):
            self._standby = Standby(self.engine.tables.values(), log, lambda: self.engine.ready)
        self.metrics.watch_tables(self.engine.tables)
        self.metrics.watch("ready", lambda: float(self.ready()[0]))
        self.metrics.watch("recovered_percent", lambda: float(self.engine.progress.percent))
        for table in self.engine.tables.values():
            self.metrics.watch("table_rows", table.count, table.name)
            self.metrics.watch("table_partitions", functools.partial(_partitions_here, table), table.name)
        self.views = Views(
            order_sagas=self.engine.tables[ORDER_SAGAS.name],
            inventory=self.engine.tables[INVENTORY.name],
            dead_letters=self.engine.tables[DEAD_LETTERS.name],
            analytics=self.engine.tables[ANALYTICS.name],
            letters=Letters(log, routes, settings.partitions, clock),
            live=LiveFeed(log, self.metrics, settings.live_clients, clock),
            metrics=self.metrics,
            ready=self.ready,
            checks=self.checks,
            crossing=lambda: (self.bridge.status(), self.bridge.ledger()),
            freshness=self.freshness,
            import_stock=self.import_stock,
            clock=clock,
            routes=routes,
            service=settings.service_name,
            worker=settings.worker_name,
        )

    def _application(self, settings: Settings, routes: Routes, clock: Callable[[], float]) -> Application:
        mailer = Mailer(settings.smtp_url, settings.mail_from, clock) if settings.smtp_url else None
        policy = settings.policy()
        reducers = (
            advance_order_sagas(policy),
            apply_stock_commands(policy),
            keep_dead_letters(),
            count_orders(settings.analytics_delay),
        )
        return Application(
            name=APP_ID,
            topics=routes.all_topics(),
            reducers=[self._spans.around(each) for each in reducers] if self._spans else reducers,
            effects=[send_mails(mailer)] if mailer else [],
            partitions=settings.partitions,
            retention=settings.log_retention,
            kept=(topics.DEAD_LETTERS,),
            hooks=Hooks(
                reject=self._reject,
                processed=self._processed,
                row_changed=self.metrics.row_changed,
                is_behind=self.bridge.is_behind,
            ),
        )

    # ---- running ---------------------------------------------------------------------------------------

    async def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Recover the tables, then run agents and bridge, once the log is there. `on_failure` hears why it ended."""
        self.log.on_failure = self._failed
        self.log.on_commit = self.metrics.committed
        self.engine.on_failure = self._failed
        self._on_failure = on_failure
        await self._waiting.start(on_failure)

    async def _begin(self) -> None:
        await self.engine.open()
        for lane in self.engine.lanes:
            self.metrics.watch("events_lag", lane.lag, lane.name)
            if isinstance(lane, ReducerLane):
                self._lanes[lane.table.name] = lane
        watch_bridge(self.metrics, self.bridge)
        if isinstance(self.log, EmbeddedLog):
            self.metrics.watch("log_size_bytes", self.log.size)
        await self.bridge.start()  # first, so that no deadline is acted on before what came meanwhile is heard
        self._telling = asyncio.create_task(backlog.tell(self.bridge.status), name="backlog")
        await self.engine.start()
        if self._standby is not None:
            self._standby.start()

    async def stop(self) -> None:
        """Stop taking, then stop working, then close: what was committed stays, what was not never was."""
        await self.views.live.stop()
        await self._waiting.stop()
        if self._telling is not None:
            self._telling.cancel()
        parts = [self.bridge.stop(), self.engine.stop(), *([self._standby.stop()] if self._standby else [])]
        # At once, for each may wait for a Kafka that does not answer.
        failures = [error for error in await asyncio.gather(*parts, return_exceptions=True) if error is not None]
        await self.log.disconnect()
        for failure in failures:
            raise failure

    # ---- what the web asks -----------------------------------------------------------------------------

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the tables are complete and NATS answers, and if not, why."""
        if self._waiting.problem:
            return False, {"kafka": self._waiting.problem}
        reasons: dict[str, Any] = {}
        if not self.engine.ready:
            reasons["tables"] = f"recovering, {self.engine.progress.percent} %"
        if self.engine.failure is not None:
            reasons["engine"] = str(self.engine.failure)
        if any(table.owners.silent for table in self.engine.tables.values()):
            reasons["kafka"] = f"no answer from {self.log.where}"
        problem = self.bridge.status()["problem"]
        if problem:
            reasons["nats"] = problem
        return not reasons, reasons

    def checks(self) -> dict[str, dict[str, Any]]:
        """The state of NATS and of the log, for /health. Without NATS the views are still answered: degraded."""
        failure = self.log.failure
        return {
            "nats": nats_check(self._settings, self.bridge),
            "database": {
                "status": "unhealthy" if failure else "healthy",
                "log": self.log.where,
                "lag": self.engine.lag(),
                **({"problem": str(failure)} if failure else {}),
            },
        }

    def freshness(self, table: str) -> Freshness:
        """How far a table is behind what has been said on NATS, as far as this worker knows."""
        lane = self._lanes.get(table)
        lag = 0 if lane is None else lane.lag()  # before the start, nothing is known
        return Freshness(lag, self.bridge.is_behind() or lag > BACKLOG)

    async def import_stock(self, lines: list[StockLine]) -> int:
        """Set the products, all or none; on disk when it returns. Returns how many."""
        sends: list[Send] = []
        for line in lines:
            imported = StockImported(
                event_id=str(uuid.uuid4()),
                key=line.product_id,
                at=self.views.clock(),
                source="stock import",
                on_hand=line.on_hand,
                threshold=line.threshold,
                name=line.name,
                category=line.category,
                artisan_id=line.artisan_id,
            )
            sends += topics.sends_of(imported)
        await self.log.synced(await self.log.commit(sends))
        return len(lines)

    def _failed(self, error: BaseException) -> None:
        self._on_failure(error)

    # ---- what engine and bridge tell -------------------------------------------------------------------

    def _reject(self, record: Record, reason: str, error: str) -> list[Send]:
        self.metrics.dead_lettered(record.topic, reason)
        self.metrics.failed(topics.subject_of(record))
        trace = trace_id(record.headers)
        logger.warning("dead letter", topic=record.topic, offset=record.offset, reason=reason, error=error, trace=trace)
        return dead_letter(record, reason, error)

    def _processed(self, lane: str, records: Sequence[Record], outcomes: Sequence[str], seconds: float) -> None:
        counts = Counter(zip((record.topic for record in records), outcomes, strict=True))
        for (topic, outcome), number in counts.items():
            self.metrics.processed_many(topic, outcome, number)
        if self._spans is not None:
            self._spans.processed(lane, records, outcomes)
        if lane == KEEP_DEAD_LETTERS:
            return  # what it took was taken as an event before
        subjects = Counter(topics.subject_of(record) for record in records if record.headers)
        each = seconds / len(records)
        for subject, number in subjects.items():
            if subject:
                self.metrics.took(subject, "", each, number)


def _spans(settings: Settings) -> Spans | None:
    """Loaded only where somebody asks for spans: OpenTelemetry takes 0.3 s and 20 MB."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    from app.spans import Spans  # noqa: PLC0415

    return Spans(settings.otel_exporter_otlp_endpoint, settings.service_name, settings.worker_name)


def _partitions_here(table: Table[Any]) -> int:
    return len(table.here())


# ---- the Faust application -----------------------------------------------------------------------------------


class PartService(Service):
    """Runs the marketplace, or the bridge alone, as a service of the Faust worker."""

    def __init__(self, part: Marketplace | BridgeProcess, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._part = part
        self._crashing: asyncio.Task[None] | None = None

    async def on_start(self) -> None:
        """Open and start everything."""
        await self._part.start(self._failed)

    def _failed(self, error: BaseException) -> None:
        if self._crashing is None:
            self._crashing = asyncio.get_running_loop().create_task(self.crash(error))

    async def on_stop(self) -> None:
        """Stop in order."""
        await self._part.stop()


class Worker(faust.Worker):
    """The Faust worker, which leaves logging as app/logs.py set it up, and does not sleep before it ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.spinner = None  # it writes terminal codes wherever stdout goes

    def _setup_logging(self) -> None:
        """Nothing: mode would replace every handler."""

    def _gather_all(self) -> None:
        for task in asyncio.all_tasks(loop=self.loop):
            task.cancel()

    async def _sentinel_task(self) -> None:
        """One turn of the loop, for what was cancelled."""


class Boot(BootStrategy):
    """What a worker of this application starts: nothing of Faust's own that reads or sends, the lanes do that."""

    enable_kafka_consumer = False
    enable_kafka_producer = False

    def tables(self) -> list[Any]:
        return []

    def agents(self) -> list[Any]:
        return []


class App(faust.App):
    """The Faust App with our boot order."""

    BootStrategy = Boot


def create_app(settings: Settings) -> faust.App:
    """The Faust App: its log opened, its services and web server declared, nothing running yet.

    Raises:
        EngineError: the log is in use or can't be opened.
    """
    kafka = settings.kafka
    if kafka and is_loopback(settings.web_url) and not is_loopback(settings.broker):
        logger.warning(
            "workers on other machines can't ask this one: set WEB_HOST or WEB_URL", web_url=settings.web_url
        )
    marketplace = Marketplace(settings, KafkaLog(kafka, APP_ID) if kafka else log_at(settings.broker))
    return _hosted(settings, marketplace, create_api(marketplace.views))


def create_bridge_app(settings: Settings) -> faust.App:
    """The Faust App of the bridge alone, nothing running yet.

    Raises:
        EngineError: the log belongs to one process.
    """
    process = bridge_alone(settings)
    return _hosted(settings, process, create_bridge_api(process))


def _hosted(settings: Settings, part: Marketplace | BridgeProcess, api: FastAPI) -> faust.App:
    """The App that runs the part and serves its API."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    faust_app = App(
        APP_ID,
        broker=f"a4co-{settings.broker}" if settings.kafka else settings.broker,
        store="memory://",
        datadir=str(settings.data_dir / "faust"),
        topic_partitions=settings.partitions,
        topic_disable_leader=True,
        web_bind=settings.web_host,
        web_host=settings.web_host,
        web_port=settings.web_port,
        Worker=Worker,
    )
    faust_app.service(PartService(part))  # type: ignore[arg-type]  # an instance is taken as well
    serve_asgi(
        faust_app,
        api,
        host=settings.web_host,
        port=settings.web_port,
        http=HttpProtocol,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    return faust_app


def run_worker(settings: Settings) -> None:
    """Run until a signal or a failure. Exits 0 after a signal, 1 with the cause after a failure."""
    _run(settings, "worker", create_app)


def run_bridge(settings: Settings) -> None:
    """The same for the bridge alone."""
    _run(settings, "bridge", create_bridge_app)


def _run(settings: Settings, what: str, create: Callable[[Settings], faust.App]) -> None:
    try:
        faust_app = create(settings)
    except EngineError as error:
        sys.exit(f"a4co: {error}")
    web = f"http://{settings.web_host}:{settings.web_port}/"
    logger.info("%s starting", what, log=redact(settings.broker), web=web, compiled=COMPILED)
    worker = faust_app.Worker(quiet=True, loglevel=settings.log_level, redirect_stdouts=False)
    try:
        worker.execute_from_commandline()
    except SystemExit as ended:
        if not ended.code:
            raise
        cause = worker.crash_reason or ended.__context__
        if isinstance(cause, SystemExit):  # uvicorn's way to tell that it could not listen
            why = str(cause.__context__).rpartition(": ")[2]
            place = f"{settings.web_host}:{settings.web_port} (WEB_HOST, WEB_PORT)"
            cause = EngineError(f"nothing can listen on {place}: {why}")
        sys.exit(f"a4co: {cause or 'failed'}")


def __getattr__(name: str) -> faust.App:
    """`app`, for `faust -A app.main`: made when asked for, so that importing this module opens nothing."""
    if name not in ("app", "faust_app"):
        raise AttributeError(name)
    try:
        settings = load()
    except SettingsError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None
    logs.configure(settings)
    try:
        globals()["app"] = globals()["faust_app"] = create_app(settings)
    except EngineError as error:
        sys.stderr.write(f"a4co: {error}\n")
        raise SystemExit(1) from None
    return globals()["app"]  # type: ignore[no-any-return]
