"""The bridge as one thing to start and stop: connects, keeps both directions going, and says how it is.

It starts over with everything on any trouble with NATS, for as long as it takes; trouble of any other kind ends it and
is handed to `on_failure`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import nats.errors

from app.engine.cancelling import end
from app.engine.errors import EngineError
from app.nats_settings import NatsOptions
from bridge.bridge_log import BridgeLog
from bridge.connection import BridgeError, Connection, Disconnected, connect, raise_if_refused
from bridge.counters import BridgeCounters
from bridge.frames import FrameClient
from bridge.ledger import OUTCOMES
from bridge.log_to_nats import Publisher
from bridge.nats_to_log import CoreMirror, Mirror, StreamMirror, account_of
from bridge.origin import Origin
from bridge.routes import ROUTES, Routes
from bridge.sources import Source, Sources, SourcesChanged, Way, find_sources, look, say

logger = logging.getLogger("a4co.bridge")

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
"""Seconds between two attempts: doubled each time, with a third of chance, so that many bridges don't come at once."""
STEADY = 10.0
"""Seconds that a session must have lasted for the next wait to be the first again."""
GRACE = 1.0
"""Seconds for the acks that are awaited when the bridge stops. What isn't acked then is looked up at the next start."""
LOOKS = 30.0
"""Seconds between two looks at who keeps what, while something is in streams of others or in none."""

UNANSWERED = Disconnected("the connection to NATS was lost before it had answered")
TROUBLE = (BridgeError, nats.errors.Error, TimeoutError)

History = Literal["auto", "take", "skip"]
"""What is made of messages that were in a stream before we first met it. `auto`: our own stream's are taken, another's
are left out."""


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
        routes: Routes = ROUTES,
        history: History = "auto",
        counters: BridgeCounters | None = None,
        on_failure: Callable[[Exception], None] = lambda _error: None,
    ) -> None:
        self.counters = counters or BridgeCounters()
        self._log = log
        self._servers = servers
        self._stream = stream
        self._name = name
        self._options = options or NatsOptions()
        self._routes = routes
        self._history = history
        self._on_failure = on_failure
        self._sources = Sources((), (), None)
        self._mirrors: dict[str, Mirror] = {}
        self._publisher: Publisher | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected = False
        self._problem = "not started"

    async def start(self) -> None:
        """Begin; it doesn't wait for NATS: `status` tells when it is there."""
        origin = await Origin.of(self._log)
        self._publisher = Publisher(self._log, self._routes, origin, self.counters)
        self._problem = "connecting"
        self._task = asyncio.create_task(self._run(self._publisher, origin), name="bridge")

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
        own = self._mirrors.get(self._stream)
        account = own.account if own else account_of(self._log, self._stream)
        seq, pending = account.seq if account else 0, own.pending if own else 0
        return {
            "connected": self._connected,
            "problem": self._problem or (None if self._listens() else "subscribing"),
            "stream": self._stream,
            "position": seq,
            "stream_last_seq": seq + pending,
            "lag_in": sum(mirror.pending for mirror in self._mirrors.values()),
            "lag_out": self._publisher.lag() if self._publisher else 0,
            "mirrored": self.counters.mirrored,
            "repeated": self.counters.repeated,
            "dead_lettered": self.counters.dead_lettered,
            "expired_unread": self.counters.expired_unread,
            "published": self.counters.published,
            "duplicates_skipped": self.counters.duplicates_skipped,
            "not_durable": [source.why for source in self._sources.reads if source.why],
        }

    def _listens(self) -> bool:
        """Whether what is published now is heard, also where nobody keeps it."""
        return all(mirror.caught_up for mirror in self._mirrors.values() if isinstance(mirror, CoreMirror))

    def ledger(self) -> list[dict[str, Any]]:
        """What was read of each source since the first start, and what became of it, by route; see ledger.py."""
        return [self._line(mirror) for mirror in self._mirrors.values()]

    def _line(self, mirror: Mirror) -> dict[str, Any]:
        account, source = mirror.account, mirror.source
        age = time.time() - account.time / 1e9 if mirror.pending and account.time else 0.0
        return {
            "source": source.name,
            "way": source.way.value,
            "position": account.seq,
            "waiting": mirror.pending,
            "waitingSeconds": round(age, 3),
            "keptSeconds": source.stream.max_age if source.stream else 0.0,
            "read": account.read,
            "ignored": account.ignored,
            "gone": account.gone,
            "unaccounted": account.unaccounted + (account.passed_over if source.way is Way.OWN else 0),
            "routes": {
                route: dict(zip(OUTCOMES, counts, strict=True)) for route, counts in sorted(account.routes.items())
            },
        }

    def is_behind(self) -> bool:
        """Whether messages may wait on NATS that are older than now: until it is connected and has read them."""
        return not self._connected or not all(mirror.caught_up for mirror in self._mirrors.values())

    async def _run(self, publisher: Publisher, origin: Origin) -> None:
        wait = FIRST_WAIT
        while True:
            began = time.monotonic()
            try:
                await self._session(publisher, origin)
                return
            except TROUBLE as trouble:
                self._say(str(trouble) or repr(trouble))
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                self._say(str(UNANSWERED))  # nats-py cancels what waits for an answer when it closes
            except Exception as error:
                self._problem = f"failed: {error}"
                # A failed log says it all in one line; anything else is a defect to be traced.
                logger.log(logging.ERROR, "bridge: ended: %s", error, exc_info=not isinstance(error, EngineError))
                self._on_failure(error)
                return
            finally:
                self._connected = False
                for mirror in self._mirrors.values():
                    mirror.caught_up = False
            if time.monotonic() - began > STEADY:
                wait = FIRST_WAIT
            await asyncio.sleep(wait * random.uniform(0.7, 1.3))  # noqa: S311 - not a secret
            wait = min(2 * wait, LONGEST_WAIT)

    def _say(self, problem: str) -> None:
        """Once for each problem, not for each attempt."""
        if problem != self._problem:
            logger.warning("bridge: not ready, trying again: %s", problem)
        self._problem = problem

    async def _session(self, publisher: Publisher, origin: Origin) -> None:
        """From connect to the first trouble, or to the publisher's end after `stop`."""
        connection = await connect(self._servers, self._name, self._options)
        try:
            client = connection.client
            sources = await find_sources(client, self._stream, self._routes, known=self._was_read)
            if sources.shape() != self._sources.shape():
                say(sources)
            self._sources = sources
            self.counters.sessions += 1
            kept = f"stream {sources.own.name} at {sources.own.last_seq}" if sources.own else "without JetStream"
            logger.info("bridge: connected to %s, %s", self._server(connection), kept)
            self._mirrors = {source.name: self._mirror(source, sources, origin) for source in sources.reads}
            self._connected = True
            self._problem = ""
            await _first_end(
                publisher.run(client, sources),
                *(mirror.run(client) for mirror in self._mirrors.values()),
                self._look_again(client, sources),
                _ended(connection),
            )
        except TROUBLE:
            raise_if_refused(connection.client)  # of what it was silent about then
            raise
        finally:
            await connection.close()

    def _was_read(self, source: str) -> bool:
        return account_of(self._log, source) is not None

    def _mirror(self, source: Source, sources: Sources, origin: Origin) -> Mirror:
        common = self._log, source, self._routes, origin, self.counters, self._options.payload_limit
        if source.stream is None:
            return CoreMirror(*common, elsewhere=sources.reads_from_stream)
        history = self._history == "take" or (self._history == "auto" and source.way is Way.OWN)
        return StreamMirror(*common, history=history, name=self._name)

    async def _look_again(self, client: FrameClient, sources: Sources) -> None:
        """Until something that isn't in our own stream is kept elsewhere than it was."""
        shape = sources.shape()
        if not shape:
            await asyncio.Event().wait()  # nobody can take what our own stream has
        while True:
            await asyncio.sleep(LOOKS)
            found = await look(client, self._stream, self._routes)
            if found is not None and found.shape() != shape:
                raise SourcesChanged("who keeps which subject has changed: looking again")
            if found is None and sources.own is not None:
                raise SourcesChanged("JetStream is gone: looking again")

    def _server(self, connection: Connection) -> str:
        url = connection.client.connected_url
        return url.netloc.rpartition("@")[2] if url else "NATS"


async def _ended(connection: Connection) -> None:
    await connection.lost()
    raise Disconnected("the connection to NATS was lost")


async def _first_end(*works: Any) -> None:
    """Run all until one ends; then end the others and raise the gravest error of all: one that isn't NATS' first."""
    tasks = [asyncio.ensure_future(work) for work in works]
    for task in tasks:  # asyncio complains of errors that nobody looked at
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
    unanswered = False
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        unanswered = any(task.cancelled() for task in ended)
    finally:
        await end(tasks)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, TROUBLE)):
        raise error
    if unanswered:
        raise UNANSWERED
