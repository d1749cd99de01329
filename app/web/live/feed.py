"""The live feed of one process: reads the changelogs while somebody listens, and keeps the newest events for all.

Each listener only has its place among them: who falls behind them is dropped. It decides who may listen and how far
behind they may be; what each one gets is in `stream`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import structlog

from app.engine.cancelling import end
from app.engine.errors import EngineError, LogFailed
from app.engine.onlooker import Onlooker, Overlooked
from app.engine.records import Record, TopicPartition
from app.metrics.worker import Metrics
from app.web.live.events import TOPICS, LiveEvent, Restart, event_of, said
from app.web.live.places import Places
from app.web.problems import NotReadyError, ProblemError

BEHIND = 5_000
"""Events that a client may be behind."""
BEHIND_BYTES = 4 * 1024 * 1024
"""Bytes of events that it may be behind."""

FAR = 200_000
"""Records that are read again for a client that comes back; from further behind, it is told to begin anew."""
AT_ONCE = 4
"""Clients that are caught up at a time."""

BATCH = 250
"""Records that are read between two turns of the loop: some 3 ms of work."""
PACE = 0.02
"""Seconds between two looks at the log while it is not behind: what came meanwhile is told at once."""
WAIT = 0.2
"""Seconds that one look waits for something."""
AGAIN = 1.0
"""Seconds to the next try when the log can't be read."""

CHUNK = 64 * 1024
"""Bytes that are sent at once."""

logger = structlog.get_logger("a4co.live")


class Listener:
    """One client: the number of the event that it gets next, and the place where it begins.

    `was`: it has been there, and is not caught up yet; `floor`: by the partition's number, what it has had already,
    although we have not come so far. `restart`: why it can't go on from where it was.
    """

    def __init__(self) -> None:
        self.cursor = 0
        self.place = Places((), "")
        self.was = False
        self.floor: dict[int, int] = {}
        self.restart = ""
        self.dropped = False


class Mark(NamedTuple):
    """Where the feed is: its positions, and the number of the next event."""

    positions: dict[TopicPartition, int]
    number: int


class LiveFeed:
    """`limit`: how many may listen at once. `clock` gives seconds since the epoch, UTC."""

    def __init__(
        self, log: Overlooked, metrics: Metrics, limit: int = 100, clock: Callable[[], float] = time.time
    ) -> None:
        self.clock = clock
        self.metrics = metrics
        self.closing = False
        self.changed = asyncio.Event()
        """Set, and replaced by another one, when there is something new for listeners."""
        self.places = Places((), "")
        self.turns = asyncio.Semaphore(AT_ONCE)
        self._log = log
        self._limit = limit
        self._listeners: set[Listener] = set()
        self._starting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._events: list[LiveEvent] = []
        self._first = 0  # the number of the first of them
        self._bytes = 0
        metrics.watch("live_clients", lambda: float(len(self._listeners)))

    # ---- who listens -----------------------------------------------------------------------------------

    async def join(self, word: str | None) -> Listener:
        """One more listens, from the place on that the word stands for, or from now on.

        Raises:
            ProblemError: too many listen already, or the log does not tell where it ends.
        """
        if len(self._listeners) >= self._limit:
            raise ProblemError("too-many-clients", f"{self._limit} clients listen already.")
        listener = Listener()
        self._listeners.add(listener)
        try:
            async with self._starting:
                if self._reading is None or self._reading.done():
                    await self._start()
            if word:
                await self._resume(listener, word)
        except (EngineError, KeyError) as error:
            self.leave(listener)
            raise NotReadyError({"log": str(error)}) from error
        except BaseException:
            self.leave(listener)
            raise
        listener.cursor = self.mark().number
        if not listener.was:
            listener.place = self.places.copy()
        return listener

    def leave(self, listener: Listener) -> None:
        """It does not listen any more. With the last one, reading ends."""
        self._listeners.discard(listener)
        if not self._listeners and self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def stop(self) -> None:
        """End every stream."""
        self.closing = True
        self._wake()
        if self._reading is not None:
            await end([self._reading])

    async def _resume(self, listener: Listener, word: str) -> None:
        was = self.places.read(word)
        if was is None:
            listener.restart = "the place is of another log"
            return
        onlooker = self.onlooker()
        try:
            spans = await onlooker.spans()
        finally:
            await onlooker.close()
        now = self.places.positions()
        behind = {place: now[place] - offset for place, offset in was.items()}
        if any(not spans[place][0] <= offset <= max(spans[place][1], now[place]) for place, offset in was.items()):
            listener.restart = "the place is not in the log any more"
        elif sum(number for number in behind.values() if number > 0) > FAR:
            listener.restart = "the place is too far behind"
        else:
            listener.was = True
            listener.place = self.places.copy()
            listener.place.move_all(was)
            listener.floor = {self.places.at(place): was[place] for place, number in behind.items() if number < 0}

    # ---- reading the log -------------------------------------------------------------------------------

    def onlooker(self) -> Onlooker:
        """Another one that looks at what the feed tells of."""
        return self._log.onlooker(*TOPICS)

    async def _start(self) -> None:
        onlooker = self.onlooker()
        try:
            await self._begin_now(onlooker)
        except BaseException:
            await onlooker.close()
            raise
        self._reading = asyncio.create_task(self._read_on(onlooker), name="live feed")

    async def _begin_now(self, onlooker: Onlooker) -> None:
        identities = " ".join(self._log.identity(topic) for topic in TOPICS)
        ends = {place: behind for place, (_, behind) in (await onlooker.spans()).items()}
        await onlooker.begin(ends)
        self.places = Places(list(ends), identities)
        self.places.move_all(ends)
        self._first += len(self._events)
        self._events, self._bytes = [], 0

    async def _read_on(self, onlooker: Onlooker) -> None:
        try:
            while True:
                try:
                    records = await onlooker.take(BATCH, WAIT)
                except LogFailed as error:
                    logger.warning("the log can't be read, trying again", cause=str(error))
                    await onlooker.close()
                    onlooker = self.onlooker()
                    await self._begin_again(onlooker)
                else:
                    self._tell(records, onlooker.positions)
                    await asyncio.sleep(0 if len(records) >= BATCH else PACE)
        finally:
            await onlooker.close()

    async def _begin_again(self, onlooker: Onlooker) -> None:
        """From now on, whatever was missed."""
        while True:
            await asyncio.sleep(AGAIN)
            try:
                await self._begin_now(onlooker)
            except LogFailed:
                continue
            break
        for listener in self._listeners:
            listener.cursor = self._first
        self._keep([LiveEvent(said("restart", Restart(reason="the log could not be read"), self.places.line()))])

    def _tell(self, records: Sequence[Record], positions: Mapping[TopicPartition, int]) -> None:
        events = events_of(records, self.places)
        self.places.move_all(positions)
        if events:
            self._keep(events)

    # ---- what is kept ----------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Where the feed is."""
        return Mark(self.places.positions(), self._first + len(self._events))

    def has(self, number: int) -> bool:
        """Whether the event of this number, or the next one to come, is kept."""
        return number >= self._first

    def has_more(self, listener: Listener) -> bool:
        """Whether there is an event that it has not got."""
        return self.behind(listener) > 0

    def behind(self, listener: Listener) -> int:
        """How many events it has not got."""
        return self._first + len(self._events) - listener.cursor

    def heartbeat(self, listener: Listener) -> bytes:
        """A comment, and where a client is that has got everything: also what it does not want moves that."""
        return (b"" if listener.floor else self.places.line()) + b": heartbeat\n\n"

    def drop(self, listener: Listener) -> None:
        """It does not read."""
        listener.dropped = True
        self.metrics.live_dropped()

    def next_of(self, listener: Listener, wants: Callable[[LiveEvent], bool]) -> bytes:
        """The next events for it, some CHUNK at most; its number moves, also over what it does not want."""
        texts: list[bytes] = []
        size, floor = 0, listener.floor
        at = listener.cursor - self._first
        while at < len(self._events) and size < CHUNK:
            event = self._events[at]
            at += 1
            if wants(event) and not (floor and event.offset < floor.get(event.at, 0)):
                texts.append(event.text)
                size += len(event.text)
        listener.cursor = self._first + at
        self.metrics.live_sent(len(texts))
        return b"".join(texts)

    def _keep(self, events: Sequence[LiveEvent]) -> None:
        """These come at once: however many they are, nobody is too slow for them yet."""
        kept = self._events
        there = len(kept)
        kept += events
        self._bytes += sum(len(event.text) for event in events)
        gone = 0
        while gone < there and (len(kept) - gone > BEHIND or self._bytes > BEHIND_BYTES):
            self._bytes -= len(kept[gone].text)
            gone += 1
        if gone:
            del kept[:gone]
            self._first += gone
            self._drop_the_slow()
        self._wake()

    def _drop_the_slow(self) -> None:
        for listener in self._listeners:
            if listener.cursor < self._first and not listener.was and not listener.dropped:
                self.drop(listener)

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def events_of(records: Sequence[Record], places: Places) -> list[LiveEvent]:
    """What to say of the records; the places move along."""
    events = []
    for record in records:
        at = places.at(TopicPartition(record.topic, record.partition))
        places.move(at, record.offset + 1)
        event = event_of(record, at, places.line())
        if event is not None:
            events.append(event)
    return events
