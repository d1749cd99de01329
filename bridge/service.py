"""The bridge as one thing to start and stop: connects, keeps both directions going, and says how it is.

It starts over with everything on any trouble with NATS, for as long as it takes; trouble of any other kind ends it and
is handed to `on_failure`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nats.errors

from app.engine.cancelling import end
from app.engine.errors import EngineError
from app.nats_settings import NatsOptions
from bridge.bridge_log import BridgeLog
from bridge.connection import BridgeError, Connection, Disconnected, connect, raise_if_refused
from bridge.counters import BridgeCounters
from bridge.jetstream import ensure_stream
from bridge.log_to_nats import Publisher
from bridge.nats_to_log import Mirror
from bridge.origin import Origin
from bridge.routes import ROUTES, Route

logger = logging.getLogger("a4co.bridge")

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
"""Seconds between two attempts: doubled each time, with a third of chance, so that many bridges don't come at once."""
STEADY = 10.0
"""Seconds that a session must have lasted for the next wait to be the first again."""
GRACE = 1.0
"""Seconds for the acks that are awaited when the bridge stops. What isn't acked then is looked up at the next start."""

TROUBLE = (BridgeError, nats.errors.Error, TimeoutError)


class Bridge:
    """Both directions between one log and one NATS. The topics must have been declared.

    `on_failure` gets the error that ended the bridge (the log failed, a defect); it is not called for trouble with
    NATS, which `status()["problem"]` tells.
    """

    def __init__(
        self,
        log: BridgeLog,
        servers: Sequence[str],
        *,
        stream: str = "A4CO_EVENTS",
        name: str = "a4co-streams",
        options: NatsOptions | None = None,
        routes: Mapping[str, Route] = ROUTES,
        counters: BridgeCounters | None = None,
        on_failure: Callable[[Exception], None] = lambda _error: None,
    ) -> None:
        self.counters = counters or BridgeCounters()
        self._log = log
        self._servers = servers
        self._stream = stream
        self._name = name
        self._options = options
        self._routes = routes
        self._on_failure = on_failure
        self._mirror: Mirror | None = None
        self._publisher: Publisher | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected = False
        self._problem = "not started"

    async def start(self) -> None:
        """Begin; it doesn't wait for NATS: `status` tells when it is there."""
        origin = await Origin.of(self._log)
        self._mirror = Mirror(self._log, self._stream, self._routes, origin, self.counters)
        self._publisher = Publisher(self._log, origin, self.counters)
        self._problem = "connecting"
        self._task = asyncio.create_task(self._run(self._mirror, self._publisher), name="bridge")

    async def stop(self) -> None:
        """End in less than 2 s, with what was published acked and committed where NATS still answers."""
        if self._task is None or self._publisher is None:
            return
        self._publisher.stop()
        await asyncio.wait({self._task}, timeout=GRACE if self._connected else 0)
        await end([self._task])
        self._problem = "stopped"

    def status(self) -> dict[str, Any]:
        """How it is now. `problem` is None when it is ready, else why it isn't; lags are in messages."""
        position = self._mirror.position if self._mirror else None
        pending = self._mirror.pending if self._mirror else 0
        seq = position.seq if position else 0
        return {
            "connected": self._connected,
            "problem": self._problem or None,
            "stream": self._stream,
            "position": seq,
            "stream_last_seq": seq + pending,
            "lag_in": pending,
            "lag_out": self._publisher.lag() if self._publisher else 0,
            "mirrored": self.counters.mirrored,
            "dead_lettered": self.counters.dead_lettered,
            "expired_unread": self.counters.expired_unread,
            "published": self.counters.published,
            "duplicates_skipped": self.counters.duplicates_skipped,
        }

    def is_behind(self) -> bool:
        """Whether messages may wait on NATS that are older than now: until it is connected and has read them."""
        return self._mirror is not None and not self._mirror.caught_up

    async def _run(self, mirror: Mirror, publisher: Publisher) -> None:
        wait = FIRST_WAIT
        while True:
            began = time.monotonic()
            try:
                await self._session(mirror, publisher)
                return
            except TROUBLE as trouble:
                self._say(str(trouble) or repr(trouble))
            except Exception as error:
                self._problem = f"failed: {error}"
                # A failed log says it all in one line; anything else is a defect to be traced.
                logger.log(logging.ERROR, "bridge: ended: %s", error, exc_info=not isinstance(error, EngineError))
                self._on_failure(error)
                return
            finally:
                self._connected = mirror.caught_up = False
            if time.monotonic() - began > STEADY:
                wait = FIRST_WAIT
            await asyncio.sleep(wait * random.uniform(0.7, 1.3))  # noqa: S311 - not a secret
            wait = min(2 * wait, LONGEST_WAIT)

    def _say(self, problem: str) -> None:
        """Once for each problem, not for each attempt."""
        if problem != self._problem:
            logger.warning("bridge: not ready, trying again: %s", problem)
        self._problem = problem

    async def _session(self, mirror: Mirror, publisher: Publisher) -> None:
        """From connect to the first trouble, or to the publisher's end after `stop`."""
        connection = await connect(self._servers, self._name, self._options)
        try:
            stream = await ensure_stream(connection.client, self._stream, self._routes)
            self.counters.sessions += 1
            logger.info(
                "bridge: connected to %s, stream %s at %d", self._server(connection), stream.name, stream.last_seq
            )
            self._connected = True
            self._problem = ""
            await _first_end(
                publisher.run(connection.client, stream), mirror.run(connection.client, stream), _ended(connection)
            )
        except TROUBLE:
            raise_if_refused(connection.client)  # of what it was silent about then
            raise
        finally:
            await connection.close()

    def _server(self, connection: Connection) -> str:
        url = connection.client.connected_url
        return url.netloc.rpartition("@")[2] if url else "NATS"


async def _ended(connection: Connection) -> None:
    await connection.lost()
    raise Disconnected("the connection to NATS was lost")


async def _first_end(*works: Any) -> None:
    """Run all until one ends; then end the others and raise the gravest error of all: one that isn't NATS' first."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, TROUBLE)):
        raise error
