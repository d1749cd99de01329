"""The bridge where many workers share a log: one of them at a time runs it, the others stand by."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from app.engine.kafka.log import LEASE, KafkaLog
from app.engine.kafka.reader import KafkaReader
from app.engine.kafka.sole import Lease, SoleLog
from bridge.dead_letters import OUTBOUND
from bridge.log_to_nats import GROUP
from bridge.service import Bridge

STANDS_BY = {"connected": False, "problem": None, "stands_by": True, "lag_in": 0, "lag_out": 0}
TOLD = 3.0
"""Seconds in which a worker that gets the lease is told so: where another one has it, nothing is said."""

EXPIRES = 8.0
"""The same where the former holder was killed and has to be missed first; for what can wait."""

UNDECIDED = STANDS_BY | {"problem": "waiting to be told which worker runs the bridge", "stands_by": False}


class LeasedBridge:
    """Starts, stops and tells of a bridge as `Bridge` does. `make` makes one over the log of whoever has the lease."""

    def __init__(
        self, log: KafkaLog, name: str, make: Callable[[SoleLog], Bridge], on_failure: Callable[[Exception], None]
    ) -> None:
        self._log = log
        self._name = name
        self._make = make
        self._on_failure = on_failure
        self._bridge: Bridge | None = None
        self._sole: SoleLog | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = 0.0
        self._reader: KafkaReader | None = None

    async def start(self) -> None:
        """Take part in the lease; it doesn't wait for it."""
        self._started = time.monotonic()
        self._reader = reader = self._log.reader(f"{self._name}.bridge", [LEASE], durable=False)
        self._task = asyncio.create_task(self._run(Lease(self._log, reader, self._begin, self._end)), name="bridge")

    async def _run(self, lease: Lease) -> None:
        try:
            await lease.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must not go on without
            self._on_failure(error)

    async def _begin(self) -> None:
        sole = SoleLog(self._log, f"{self._name}.bridge", OUTBOUND, f"{self._name}.{GROUP}")
        sole.on_failure = self._on_failure
        await sole.open()
        self._sole, self._bridge = sole, self._make(sole)
        await self._bridge.start()

    async def _end(self) -> None:
        bridge, self._bridge = self._bridge, None
        sole, self._sole = self._sole, None
        if bridge is not None:
            await bridge.stop()
        if sole is not None:
            await sole.close()

    async def stop(self) -> None:
        """End the bridge, if it is here, and give the lease back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def is_behind(self) -> bool:
        """Whether the bridge is here, or may come to be, and has not heard everything yet."""
        return self._undecided(EXPIRES) if self._bridge is None else self._bridge.is_behind()

    def status(self) -> dict[str, Any]:
        """How the bridge is, or that it is another worker's."""
        if self._bridge is None:
            return dict(UNDECIDED if self._undecided(TOLD) else STANDS_BY)
        return self._bridge.status()

    def _undecided(self, within: float) -> bool:
        if self._reader is None or self._reader.giving:
            return True
        return not self._reader.told and time.monotonic() < self._started + within
