"""Wires the bridge: inside a worker, or as a process of its own. Decides where it runs, and nothing about messages."""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any

import structlog

from app.engine.collecting import collect_briefly
from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import EngineError, LogAway, LogFailed
from app.engine.kafka.log import KafkaLog
from app.log_wait import LogWait
from app.metrics.worker import Metrics
from app.settings import Settings
from bridge import backlog
from bridge.bridge_log import BridgeLog
from bridge.counters import BridgeCounters
from bridge.leased import LeasedBridge
from bridge.routes import Routes
from bridge.routes_file import load_routes
from bridge.service import Bridge

APP_ID = "a4co"
"""The name of everything that this application has on Kafka, and the Faust app's. Another would begin anew."""

Failed = Callable[[Exception], None]

AGAIN = 1.0
"""Seconds until Kafka is asked again for its topics."""

logger = structlog.get_logger("a4co.main")


def make_bridge(
    settings: Settings,
    routes: Routes,
    log: EmbeddedLog | KafkaLog,
    metrics: Metrics,
    on_failure: Failed,
    *,
    here: bool = True,
) -> Bridge | LeasedBridge:
    """The bridge as one process sees it; `here`: whether this process may be the one that runs it."""
    make = functools.partial(_bridge, settings, routes, metrics)
    if isinstance(log, KafkaLog):
        return LeasedBridge(log, APP_ID, make if here else None, on_failure)
    return make(log, on_failure)


def _bridge(settings: Settings, routes: Routes, metrics: Metrics, log: BridgeLog, on_failure: Failed) -> Bridge:
    return Bridge(
        log,
        settings.nats_servers,
        stream=settings.nats_stream,
        name=settings.service_name,
        options=settings.nats,
        routes=routes,
        history=settings.nats_history,
        counters=BridgeCounters(
            on_event=functools.partial(_bridged, metrics, routes),
            on_dead_letter=metrics.dead_lettered,
            on_gap=metrics.bridge_gap,
        ),
        on_failure=on_failure,
    )


def _bridged(metrics: Metrics, routes: Routes, subject: str, outcome: str, number: int) -> None:
    match outcome:
        case "published":
            metrics.published(subject, n=number)
            metrics.bridge_published(number)
        case "mirrored":
            metrics.mirrored(routes[subject].topic, number)
        case "dead-lettered" | "rejected":
            metrics.failed(subject, n=number)
        case _:
            pass


def watch_bridge(metrics: Metrics, bridge: Bridge | LeasedBridge) -> None:
    """Let a scrape read how far it is."""
    metrics.watch("bridge_connected", lambda: float(bool(bridge.status()["connected"])))
    metrics.watch("bridge_lag", lambda: float(bridge.status()["lag_in"]), "in")
    metrics.watch("bridge_lag", lambda: float(bridge.status()["lag_out"]), "out")
    metrics.watch("bridge_active", lambda: float(not bridge.status().get("stands_by", False)))
    metrics.bridge.ledger = bridge.ledger


def nats_check(settings: Settings, bridge: Bridge | LeasedBridge) -> dict[str, Any]:
    """The state of NATS, for /health. Without it what is known is still answered: degraded."""
    status = bridge.status()
    return {
        "status": "degraded" if status["problem"] else "healthy",
        "cluster": settings.nats_cluster_name,
        **status,
    }


class BridgeProcess:
    """The bridge alone, on a log that many processes share: no agents, no tables, no views."""

    memory_limit = 512 * 1024 * 1024

    def __init__(self, settings: Settings, log: KafkaLog, clock: Callable[[], float] = time.time) -> None:
        self.service = settings.service_name
        self.clock = clock
        self.metrics = Metrics(clock)
        self._settings = settings
        self._log = log
        self._on_failure: Failed = lambda _error: None
        self._routes = load_routes(settings.routes_file)
        self._bridge = make_bridge(settings, self._routes, log, self.metrics, self._failed)
        self.metrics.watch("ready", lambda: float(self.ready()[0]))
        self._telling: asyncio.Task[None] | None = None
        self._waiting = LogWait(log, self._begin)

    async def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Take part, once the log is there, with the topics that are missing. `on_failure` hears why it ended."""
        self._on_failure = self._log.on_failure = on_failure
        self._log.on_commit = self.metrics.committed
        await self._waiting.start(on_failure)

    async def _begin(self) -> None:
        every = {topic.name: topic.compacted for topic in self._routes.all_topics()}
        while True:  # Kafka may go again meanwhile
            try:
                await self._log.prepare(every, self._settings.partitions)
                break
            except LogAway as error:
                logger.warning("the topics are not there yet, trying again", cause=str(error))
                await asyncio.sleep(AGAIN)
        watch_bridge(self.metrics, self._bridge)
        collect_briefly()
        await self._bridge.start()
        self._telling = asyncio.create_task(backlog.tell(self._bridge.status), name="backlog")

    async def stop(self) -> None:
        """Let what is under way be acked and committed, and let others have the bridge."""
        await self._waiting.stop()
        if self._telling is not None:
            self._telling.cancel()
        await self._bridge.stop()
        await self._log.disconnect()

    def _failed(self, error: Exception) -> None:
        self._on_failure(error)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the bridge crosses messages, here or in another process; and if not, why."""
        if self._waiting.problem:
            return False, {"kafka": self._waiting.problem}
        problem = self._bridge.status()["problem"]
        return not problem, {"nats": problem} if problem else {}

    def crossing(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """How the bridge is, and what crossed it."""
        return self._bridge.status(), self._bridge.ledger()

    def checks(self) -> dict[str, dict[str, Any]]:
        """The state of NATS and of the log, for /health."""
        failure: LogFailed | None = self._log.failure
        log = {"status": "unhealthy" if failure else "healthy", "log": self._log.where}
        return {
            "nats": nats_check(self._settings, self._bridge),
            "database": log | ({"problem": str(failure)} if failure else {}),
        }


def bridge_alone(settings: Settings) -> BridgeProcess:
    """The process that `a4co bridge` runs.

    Raises:
        EngineError: the log belongs to one process.
    """
    if settings.kafka is None:
        raise EngineError(
            f"BROKER={settings.broker}: the embedded log belongs to one process, so the bridge runs inside the worker. "
            "Start `a4co worker`, or set KAFKA_URL."
        )
    return BridgeProcess(settings, KafkaLog(settings.kafka, APP_ID))
