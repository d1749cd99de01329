"""The engine: opens the log's topics and tables, recovers, and runs every lane until it is stopped or one fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import EngineError
from app.engine.lanes import Effect, EffectLane, Hooks, Reducer, ReducerLane, Topic
from app.engine.tables import Table

TIDY_EVERY = 30.0
"""Seconds between two looks at what compaction and retention would drop."""

COMPACT_ABOVE = 20_000
"""A partition of a compacted topic is compacted when it has this many records more than keys (and twice as many)."""

logger = structlog.get_logger("a4co.engine")


@dataclass
class Progress:
    """How far the recovery is. `percent` is 100 when it is done or there was nothing to do."""

    table: str = ""
    done: int = 0
    total: int = 0
    finished: bool = False

    @property
    def percent(self) -> int:
        """0 to 100."""
        if self.finished:
            return 100
        return min(99, 100 * self.done // self.total) if self.total else 0


@dataclass(kw_only=True)
class Application:
    """What runs on the engine: declarations only."""

    name: str
    topics: Sequence[Topic]
    reducers: Sequence[Reducer[Any]] = ()
    effects: Sequence[Effect] = ()
    partitions: int = 4
    retention: float | None = None
    """Seconds that a record is kept in a topic that is not compacted, once every reader is done; None: for ever."""
    kept: Sequence[Topic] = ()
    """Topics whose records are kept for ever all the same."""
    hooks: Hooks = field(default_factory=lambda: Hooks(reject=lambda _record, _reason, _error: []))


class Engine:
    """Runs an application over a log. `failure` tells why it stopped by itself; `on_failure` is called with it."""

    def __init__(
        self,
        application: Application,
        log: EmbeddedLog,
        directory: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.log = log
        self.application = application
        self.progress = Progress()
        self.failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] = lambda _error: None
        self.tables: dict[str, Table[Any]] = {
            reducer.table.name: Table(reducer.table) for reducer in application.reducers
        }
        self.lanes: list[ReducerLane[Any] | EffectLane] = []
        self._directory = directory
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._compacted_at: dict[tuple[str, int], int] = {}

    def open(self) -> None:
        """Declare the topics and bring every table up to date. Blocks the loop: nothing runs before it is done.

        Raises:
            TopicMismatch: a topic exists with another number of partitions.
            LogFailed: the log can't be written.
        """
        application = self.application
        for topic in application.topics:
            self.log.declare(topic.name, application.partitions, topic.compacted)
        started = time.perf_counter()
        for reducer in application.reducers:
            self.log.declare(reducer.table.changelog, application.partitions, compacted=True)
            self._recover(reducer)
        self.progress.finished = True
        hooks = application.hooks
        for reducer in application.reducers:
            table = self.tables[reducer.table.name]
            self.lanes.append(ReducerLane(reducer, self.log, table, application.name, hooks, self._clock))
        self.lanes += [EffectLane(effect, self.log, application.name, hooks) for effect in application.effects]
        rows = {table.name: table.count() for table in self.tables.values()}
        logger.info("tables ready", rows=rows, seconds=round(time.perf_counter() - started, 3))

    def _recover(self, reducer: Reducer[Any]) -> None:
        table = self.tables[reducer.table.name]
        self.progress.table = table.name
        replayed = table.open(self.log, self._directory, self.application.partitions, self._progressed)
        for part in table.partitions:
            if part.store.rebuilt_because:
                reason = part.store.rebuilt_because
                logger.warning("store rebuilt", table=table.name, partition=part.partition, reason=reason)
            part.load(lambda row, name=table.name: self.application.hooks.row_loaded(name, row))  # type: ignore[misc]
        if replayed:
            logger.info("table recovered", table=table.name, records=replayed)

    def _progressed(self, done: int, total: int) -> None:
        self.progress.done, self.progress.total = done, total

    async def start(self) -> None:
        """Start every lane. `open` comes first."""
        works = {lane.name: lane.run for lane in self.lanes} | {"tidying": self._tidy}
        self._tasks = [asyncio.create_task(self._run(work, name), name=name) for name, work in works.items()]

    async def _run(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must not go on without the lane
            self._fail(error, name)

    def _fail(self, error: BaseException, name: str) -> None:
        if self.failure is None:
            self.failure = error
            expected = isinstance(error, EngineError)  # its text says all; anything else is a defect to be traced
            logger.error("stopped", lane=name, cause=str(error), exc_info=None if expected else error)
            self.on_failure(error)

    async def stop(self) -> None:
        """Stop the lanes: what they had committed stays, what they had not never was. The log stays open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self.log.failure is None:
            await self.log.synced()
        for table in self.tables.values():
            table.close()

    def lag(self) -> dict[str, int]:
        """Records that wait, by lane."""
        return {lane.name: lane.lag() for lane in self.lanes}

    def idle(self) -> bool:
        """Whether nothing waits anywhere: every record is done and no row is due."""
        now = self._clock()
        due = any(
            deadline is not None and deadline <= now
            for table in self.tables.values()
            for deadline in (part.next_due() for part in table.partitions)
        )
        return not due and not any(lane.lag() for lane in self.lanes)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY)
            await self.compact()
            await self.trim()

    async def compact(self) -> None:
        """Compact each changelog partition that has grown enough."""
        for table in self.tables.values():
            changelog = table.spec.changelog
            for part in table.partitions:
                end = self.log.end(changelog, part.partition)
                grown = end - self._compacted_at.get((changelog, part.partition), 0)
                if grown > max(COMPACT_ABOVE, part.count):
                    dropped = await self.log.compact(changelog, part.partition)
                    self._compacted_at[changelog, part.partition] = end
                    logger.info("changelog compacted", topic=changelog, partition=part.partition, dropped=dropped)

    async def trim(self) -> None:
        """Drop what is older than the retention and done with."""
        application = self.application
        if application.retention is None:
            return
        before = self._clock() - application.retention
        for topic in application.topics:
            if topic.compacted or topic in application.kept:
                continue
            for partition in range(application.partitions):
                dropped = await self.log.trim(topic.name, partition, before)
                if dropped:
                    logger.info("topic trimmed", topic=topic.name, partition=partition, dropped=dropped)
