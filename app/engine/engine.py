"""The engine: opens the log's topics and tables, recovers, and runs every lane until it is stopped or one fails."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from app.engine.cancelling import together
from app.engine.collecting import collect_briefly
from app.engine.declarations import Effect, Reducer, Topic
from app.engine.errors import EngineError
from app.engine.lanes import EffectLane, Hooks, Lane, ReducerLane
from app.engine.log import Log
from app.engine.progress import Progress
from app.engine.reader import Reader
from app.engine.tables import Table

STOPS = 25.0
"""Seconds in which everything has stopped. When Kafka does not answer, the last commit takes 20 of them: 15 until it
is given up, and 5 for giving it up (`COMMIT` and `ABORT` in app/engine/kafka/transactions.py)."""

TIDY_EVERY = 30.0
"""Seconds between two looks at what compaction and retention would drop."""

logger = structlog.get_logger("a4co.engine")


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
        log: Log,
        directory: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.log = log
        self.application = application
        self.progress = Progress()
        self.failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] = lambda _error: None
        self.tables: dict[str, Table[Any]] = {
            reducer.table.name: Table(
                reducer.table,
                log,
                directory,
                application.partitions,
                functools.partial(self.progress.told, reducer.table.name),
            )
            for reducer in application.reducers
        }
        self.lanes: list[Lane] = []
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Declare the topics and make the lanes.

        Raises:
            TopicMismatch: a topic exists with another number of partitions.
            LogFailed: the log can't be written.
        """
        application = self.application
        await self.log.prepare(
            {topic.name: topic.compacted for topic in application.topics}
            | {reducer.table.changelog: True for reducer in application.reducers},
            application.partitions,
        )
        for reducer in application.reducers:
            table = self.tables[reducer.table.name]
            reader = self._reader(reducer.name, reducer.reads, collects=reducer.collects)
            table.owners = reader.owners()
            self.lanes.append(ReducerLane(reducer, reader, table, application.hooks, self._clock))
        for effect in application.effects:
            reader = self._reader(effect.name, (effect.reads,), durable=True)
            self.lanes.append(EffectLane(effect, reader, application.hooks))

    def _reader(self, lane: str, topics: Sequence[Topic], *, durable: bool = False, collects: float = 0.0) -> Reader:
        names = [topic.name for topic in topics]
        return self.log.reader(f"{self.application.name}.{lane}", names, durable=durable, collects=collects)

    async def start(self) -> None:
        """Start every lane; on an embedded log, the tables are up to date when this returns. `open` comes first."""
        collect_briefly()
        await together(lane.reader.start(lane) for lane in self.lanes)
        works = {lane.name: lane.run for lane in self.lanes}
        if not self.log.keeps_itself_small:
            works["tidying"] = self._tidy
        self._tasks = [asyncio.create_task(self._run(work, name), name=name) for name, work in works.items()]

    @property
    def ready(self) -> bool:
        """Whether this process has partitions of every table, all of them up to date, or others have all of them."""
        return all(lane.ready for lane in self.lanes)

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
        """Stop all lanes at once: what they had committed stays, what they had not never was. The log stays open.

        Done within STOPS seconds, also when the log does not answer. What goes wrong is logged, and the rest stopped.
        """
        for lane in self.lanes:
            lane.reader.ending = True
        running, self._tasks = {task.get_name(): task for task in self._tasks}, []
        for task in running.values():
            task.cancel()
        stopping = [
            asyncio.create_task(self._stop_lane(lane, running.pop(lane.name, None)), name=lane.name)
            for lane in self.lanes
        ]
        stopping += running.values()
        ended, late = await asyncio.wait(stopping, timeout=STOPS) if stopping else (set(), set())
        for task in ended:
            self._report(task.get_name(), None if task.cancelled() else task.exception())
        for task in late:
            self._report(task.get_name(), TimeoutError(f"not done after {STOPS:g} s"))
        try:
            if self.log.failure is None:
                await self.log.synced()
        except Exception as error:  # noqa: BLE001 - the tables are closed whatever it is
            self._report("log", error)
        for table in self.tables.values():
            try:
                table.close()
            except Exception as error:  # noqa: BLE001 - so are the others
                self._report(table.name, error)

    async def _stop_lane(self, lane: Lane, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        await lane.reader.stop()

    def _report(self, what: str, error: BaseException | None) -> None:
        if error is not None:
            expected = isinstance(error, (EngineError, TimeoutError))
            logger.error("did not stop in order", what=what, cause=str(error), exc_info=None if expected else error)

    def lag(self) -> dict[str, int]:
        """Records that wait, by lane."""
        return {lane.name: lane.lag() for lane in self.lanes}

    def idle(self) -> bool:
        """Whether nothing waits anywhere: every record is done and no row is due."""
        now = self._clock()
        due = any(
            deadline is not None and deadline <= now
            for table in self.tables.values()
            for deadline in (part.next_due() for part in table.partitions.values())
        )
        return not due and not any(lane.lag() for lane in self.lanes)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY)
            await self.tidy()

    async def tidy(self) -> None:
        """Let the log drop what nobody needs: replaced rows, and old records that every reader is done with."""
        application = self.application
        rows = {
            table.spec.changelog: {partition: part.count for partition, part in table.partitions.items()}
            for table in self.tables.values()
        }
        await self.log.compact_grown(rows)
        if application.retention is not None:
            kept = {topic.name for topic in application.topics if topic.compacted or topic in application.kept}
            names = [topic.name for topic in application.topics if topic.name not in kept]
            await self.log.trim_old(names, self._clock() - application.retention)
