"""The bridge where many processes share a log: one of them at a time runs it, the others stand by or look on."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from app.engine.cancelling import unbroken
from app.engine.errors import LogAway, LogFailed
from app.engine.kafka.lease import Lease
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.sole import SoleLog
from bridge.dead_letters import OUTBOUND
from bridge.log_to_nats import GROUP
from bridge.service import Bridge

logger = logging.getLogger("a4co.bridge")

AWAY = {"connected": False, "stands_by": True, "lag_in": 0, "lag_out": 0}
BEHIND = "behind"
"""What the holder's signs say until it has read what came during an absence."""

FAILURES, STEADY = 5, 60.0
"""So often may the log fail one time after the other, each time within so many seconds of the bridge's begin, while
Kafka has answered for as long. What fails when brokers go and come tells nothing of what will."""

AGAIN = 0.5
"""Seconds until the bridge begins anew."""

STARTS, NOBODY = "the bridge starts here", "no process runs the bridge"


class LeasedBridge:
    """Starts, stops and tells of a bridge as `Bridge` does.

    `make` makes one over the log of whoever has the lease; it hands why it ended to its second argument. None: this
    process never runs it, and only knows how it is.
    """

    def __init__(
        self,
        log: KafkaLog,
        name: str,
        make: Callable[[SoleLog, Callable[[Exception], None]], Bridge] | None,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._log = log
        self._name = name
        self._make = make
        self._on_failure = on_failure
        self._bridge: Bridge | None = None
        self._sole: SoleLog | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._failures, self._began = 0, 0.0
        self._problem = ""
        self._lease = Lease(log.cluster, claims=make is not None, says=self._note)

    async def start(self) -> None:
        """Take part in the lease; it doesn't wait for it."""
        self._task = asyncio.create_task(self._run(), name="bridge")

    async def _run(self) -> None:
        try:
            await self._lease.run(self._starts, self._ends)
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must not go on without
            self._on_failure(error)

    def _note(self) -> str:
        return BEHIND if self._bridge is None or self._bridge.is_behind() else ""

    async def _starts(self) -> None:
        async with self._changing:
            await self._begin()

    async def _ends(self) -> None:
        async with self._changing:
            await self._end()

    async def _begin(self) -> None:
        if self._make is None:
            return
        self._began = time.monotonic()
        logger.info("bridge: this process runs it")
        sole = SoleLog(self._log, f"{self._name}.bridge", OUTBOUND, f"{self._name}.{GROUP}", self._lease.certain)
        sole.on_failure = self._failed
        try:
            await sole.open()
            self._sole, bridge = sole, self._make(sole, self._failed)
            await bridge.start()
        except LogFailed as error:
            self._failed(error)
        else:
            self._bridge, self._problem = bridge, ""

    async def _end(self) -> None:
        logger.info("bridge: this process does not run it any more")
        bridge, self._bridge = self._bridge, None
        sole, self._sole = self._sole, None
        if bridge is not None:
            await bridge.stop()
        if sole is not None:
            await sole.close()

    def _failed(self, error: Exception) -> None:
        """The bridge or its log ended: because another process has the lease by now, or Kafka was away, or for good."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(error))

    async def _ask(self, error: Exception) -> None:
        try:
            await self._go_on(error)
        except Exception as failure:  # noqa: BLE001 - what can't be mended
            self._on_failure(failure)

    async def _go_on(self, error: Exception) -> None:
        if not isinstance(error, LogFailed):
            raise error
        if not await self._lease.still_ours():
            logger.warning("bridge: another process has it by now (%s)", error)
            return
        if self._lasts(error):
            raise error
        self._problem = str(error)
        logger.warning("bridge: begins anew (%s)", error)
        await asyncio.sleep(AGAIN)
        await self._begin_anew()

    def _lasts(self, error: LogFailed) -> bool:
        """Whether it has failed too often for what is over when Kafka is back."""
        if isinstance(error, LogAway) or not self._lease.answered_for(STEADY):
            self._failures = 0
        elif time.monotonic() < self._began + STEADY:
            self._failures += 1
        else:
            self._failures = 1
        return self._failures == FAILURES

    async def _begin_anew(self) -> None:
        """From what is committed, which is known then: a commit that had no answer was made, or is ended."""
        async with self._changing:
            await unbroken(self._end())
            self._asking = None  # what fails from here on is another failure
            if self._lease.held:
                await self._begin()

    async def stop(self) -> None:
        """End the bridge, if it is here, and let others have it."""
        for task in (self._asking, self._task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def is_behind(self) -> bool:
        """Whether messages may wait on NATS that are older than now: as the bridge says, wherever it runs."""
        if self._bridge is not None:
            return self._bridge.is_behind()
        sign = self._lease.sign
        return sign is None or sign.note == BEHIND

    def ledger(self) -> list[dict[str, Any]]:
        """What crossed the bridge since the first start, where it runs here."""
        return [] if self._bridge is None else self._bridge.ledger()

    def status(self) -> dict[str, Any]:
        """How the bridge is, or that it is another process's."""
        if self._bridge is not None:
            return self._bridge.status()
        sign = self._lease.sign
        problem = self._problem or STARTS if self._lease.held else None if sign else self._lease.problem or NOBODY
        return {**AWAY, "problem": problem, "holder": sign.holder.rpartition(".")[0] if sign else None}
