"""In: mirrors a source into the topics: a stream exactly once and in order, core NATS as it comes.

The position in a stream is committed with the records it stands for, so no ack is needed and none is believed. What a
message becomes is decided in intake.py.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import nats.errors
from nats.aio.msg import Msg

from app.engine.cancelling import unbroken
from bridge.bridge_log import BridgeLog
from bridge.counters import BridgeCounters
from bridge.frames import FrameClient
from bridge.intake import Batch, Intake
from bridge.jetstream import StreamState, api, rfc3339, stored_at
from bridge.ledger import Account
from bridge.ordered_pull import Arrived, OrderedPull
from bridge.origin import Origin
from bridge.routes import Routes
from bridge.seen import Seen
from bridge.sources import Source, Way

logger = logging.getLogger("a4co.bridge")

BATCH = 500
"""Messages that are taken at a time."""
MOST, MOST_BYTES = 6_000, 8 * 1024 * 1024
"""Messages, and bytes of their payloads, in one commit at most, but for the last that were taken."""
LEAST, COMES = 1_000, 0.05
"""Messages that are worth a commit, and seconds until it is made anyway, while the stream has more for us: a commit of
fewer costs three times as much for each."""
SLICE = 250
"""Messages that are worked off between two turns of the loop: about 1 ms."""
WAITING = 100_000
WAITING_BYTES = 64 * 1024 * 1024
"""Core messages, and bytes of them, that wait here at most; more are lost, counted and said."""
QUEUE_GROUP = "a4co-streams"
"""Of core subscriptions, so that another instance would share and not double."""


def note_of(source: str) -> str:
    """The name of a source's account among the log's notes."""
    return f"nats:{source}"


def account_of(log: BridgeLog, source: str) -> Account | None:
    """What was committed of a source; None: it was never read."""
    note = log.note(note_of(source))
    return None if note is None else Account.unpacked(note)


class Mirror:
    """Reads one source. `run` works until the connection or the consumer ends, and may be called again then.

    `limit`: bytes of a payload; what is larger is a dead letter.
    """

    def __init__(
        self, log: BridgeLog, source: Source, routes: Routes, origin: Origin, counters: BridgeCounters, limit: int
    ) -> None:
        self.source = source
        self.account = account_of(log, source.name) or Account()
        """What is committed of it."""
        self.pending = 0
        """Messages of the stream behind the position, as of the last one read."""
        self.caught_up = False
        """Whether everything that came during an absence has been read."""
        self._log = log
        self._counters = counters
        self._name = source.name
        self._routes = routes
        self._origin = origin
        self._limit = limit
        self._intake = self._intake_anew()

    async def run(self, client: FrameClient) -> None:
        """Mirror what is there and what comes.

        Raises:
            BridgeError, nats.errors.Error: start again when NATS is back.
            LogFailed: the log takes no more.
        """
        raise NotImplementedError

    def _intake_anew(self) -> Intake:
        seen = Seen(self._log, self._name)
        return Intake(self._name, self._routes, self._origin, self._counters, seen, self._limit)

    def _remember(self) -> Account | None:
        """Go on from what was committed: a commit that was under way at the end may have become true or not."""
        self._intake = self._intake_anew()
        found = account_of(self._log, self._name)
        self.account = found or Account()
        return found

    async def _take(self, messages: Sequence[Arrived], batch: Batch) -> None:
        for start in range(0, len(messages), SLICE):
            self._intake.take(messages[start : start + SLICE], batch)
            await asyncio.sleep(0)

    async def _commit(self, batch: Batch, account: Account) -> None:
        """The batch and the account of it, together."""
        written = self._intake.seen.plan(list(batch.prints))
        account = account.after(batch.counts, read=batch.read, ignored=batch.ignored)
        notes = {note_of(self._name): account.packed(), **written.notes}
        await unbroken(self._log.commit(batch.sends, notes=notes))
        self._intake.seen.keep(written)
        self._intake.under_way = {}
        self.account = account
        self._counters.settled(batch.outcomes, batch.ignored)


@dataclass(frozen=True)
class _Piece:
    """A part of a stream that is committed as one. `begins`: it is the first one; `ack` says that it is done."""

    batch: Batch
    first: Arrived
    last: Arrived
    begins: bool
    gone: int
    ack: bytes


class StreamMirror(Mirror):
    """Reads what a stream keeps. `history`: what was there before we first met it is taken too."""

    def __init__(
        self,
        log: BridgeLog,
        source: Source,
        routes: Routes,
        origin: Origin,
        counters: BridgeCounters,
        limit: int,
        *,
        history: bool,
        name: str,
    ) -> None:
        super().__init__(log, source, routes, origin, counters, limit)
        self._history = history
        self._bridge = name
        self._whole = source.way is Way.OWN
        self._follows: int | None = None
        self._gone = 0
        self._committing: asyncio.Task[None] | None = None

    async def run(self, client: FrameClient) -> None:
        """Mirror what is in the stream and what comes. Raises as `Mirror.run`."""
        stream = self.source.stream
        if stream is None:
            raise ValueError(f"{self._name} is no stream")
        async with await self._resume(client, stream) as pull:
            self.pending = pull.pending
            self.caught_up = self.caught_up or pull.pending == 0
            if self.source.way is Way.INTEREST:
                await self._drop_former(client, stream, pull)
            try:
                while True:
                    piece = await self._collect(pull)
                    await self._committed()
                    self._intake.under_way = piece.batch.prints
                    self._committing = asyncio.create_task(self._settle(pull, piece, stream))
                    if not pull.waiting:
                        await self._committed()
            finally:
                await self._committed()

    async def _committed(self) -> None:
        """Wait for the commit that is under way. Raises what it ended with."""
        if self._committing is not None:
            committing, self._committing = self._committing, None
            await unbroken(committing)

    async def _settle(self, pull: OrderedPull, piece: "_Piece", stream: StreamState) -> None:
        first, last = piece.first, piece.last
        account = self.account.begun(first.seq, stream.created) if piece.begins else self.account
        account = replace(account, seq=last.seq, time=last.time, gone=account.gone + piece.gone)
        await self._commit(piece.batch, account)
        if self.source.way is Way.INTEREST:
            await pull.ack(piece.ack)
        self.pending = last.pending
        self.caught_up = self.caught_up or last.pending == 0

    async def _collect(self, pull: OrderedPull) -> "_Piece":
        """What is to be committed. While a commit is under way, or much is on its way, it grows.

        Nobody waits for what we said ourselves: as long as nothing else has come, it waits for more.
        """
        batch, begins = Batch(), self._follows is None
        until, first = 0.0, None
        while True:
            arrived = await pull.take(BATCH)
            first = first or arrived[0]
            self._follows = self._noticed_gaps(arrived, self._follows)
            await self._take(arrived, batch)
            until = until or time.monotonic() + self._log.commit_seconds
            full = batch.read >= MOST or batch.size >= MOST_BYTES
            busy = self._committing is not None and not self._committing.done()
            grows = arrived[-1].pending > 0 and batch.read < LEAST
            at_once = batch.awaited and not grows
            patience = COMES if grows else until - time.monotonic()
            more = pull.waiting if busy or at_once else await pull.waits(patience)
            if full or not more or (at_once and not busy):
                gone, self._gone = self._gone, 0
                return _Piece(batch, first, arrived[-1], begins, gone, pull.last)

    def _noticed_gaps(self, arrived: Sequence[Arrived], follows: int | None) -> int:
        last = arrived[-1].seq
        if self._whole and (follows is None or last - follows > len(arrived)):
            for message in arrived:
                if follows is not None and message.seq > follows + 1:
                    self._lost(message.seq - follows - 1, f"before {message.seq}")
                follows = message.seq
        return last

    def _lost(self, messages: int, where: str) -> None:
        self._gone += messages
        self._counters.gap(messages)
        logger.warning(
            "bridge in: %s: %d messages %s were removed from the stream before they were read",
            self._name, messages, where,
        )  # fmt: skip

    # ---- where to go on --------------------------------------------------------------------------------

    async def _resume(self, client: FrameClient, stream: StreamState) -> OrderedPull:
        account = self._remember()
        self._follows, self._gone = None, 0
        if account is None and not self._history and stream.last_seq:
            logger.warning(
                "bridge in: %s has %d messages from before we met it: left out (NATS_HISTORY=take takes them)",
                stream.name, stream.last_seq - stream.first_seq + 1,
            )  # fmt: skip
            # At once: a restart must not leave out more.
            await self._commit(Batch(), self.account.begun(stream.last_seq + 1, stream.created))
            self._follows = stream.last_seq
            return self._pull(client, stream, seq=stream.last_seq + 1)
        if account is None:
            logger.info("bridge in: mirroring %s from its first message", stream.name)
            return self._pull(client, stream, seq=1)
        if account.stream_created != stream.created:
            self._counters.streams_replaced += 1
            logger.error(
                "bridge in: %s is ANOTHER STREAM than the one mirrored so far (made %s, that one %s): mirroring it "
                "from its first message. What the old one held unread is lost to us; what both have "
                "comes again and is known as repeated",
                stream.name, stream.created, account.stream_created,
            )  # fmt: skip
            return self._pull(client, stream, seq=1)
        if await self._is_where_it_was(client, stream, account):
            self._follows = account.seq
            if not self._whole and stream.first_seq > account.seq + 1:
                self._lost(stream.first_seq - account.seq - 1, "(at most: not all are ours)")
            return self._pull(client, stream, seq=account.seq + 1)
        self._counters.resumed_by_time += 1
        logger.warning(
            "bridge in: %s lost its newest messages (its last is %d; %d had been mirrored): the server was stopped "
            "before they were on disk; set sync_interval: always. Going on by time, after %s",
            stream.name, stream.last_seq, account.seq, rfc3339(account.time),
        )  # fmt: skip
        return self._pull(client, stream, since=account.time + 1)

    def _pull(self, client: FrameClient, stream: StreamState, *, seq: int = 1, since: int | None = None) -> OrderedPull:
        durable = f"{self._bridge}-{secrets.token_hex(4)}" if self.source.way is Way.INTEREST else ""
        subjects = () if self._whole else self.source.subjects
        return OrderedPull(client, stream.name, seq=seq, since=since, subjects=subjects, durable=durable)

    async def _is_where_it_was(self, client: FrameClient, stream: StreamState, account: Account) -> bool:
        """Whether the message at the position is the one that was mirrored; true as well when it is old and gone."""
        if stream.last_seq < account.seq:
            return False
        if stream.first_seq > account.seq or account.time == 0:
            return True
        stored = await stored_at(client, stream.name, account.seq)
        return stored is None or stored == account.time

    async def _drop_former(self, client: FrameClient, stream: StreamState, pull: OrderedPull) -> None:
        """Only now: without a consumer, an interest stream drops what comes."""
        former = re.compile(re.escape(self._bridge) + "-[0-9a-f]{8}")
        names = (await api(client, f"CONSUMER.NAMES.{stream.name}", {})).get("consumers") or []
        for name in names:
            if former.fullmatch(name) and name != pull.durable:
                await api(client, f"CONSUMER.DELETE.{stream.name}.{name}")


class CoreMirror(Mirror):
    """Listens. What `elsewhere` names is read from a stream already."""

    def __init__(
        self,
        log: BridgeLog,
        source: Source,
        routes: Routes,
        origin: Origin,
        counters: BridgeCounters,
        limit: int,
        *,
        elsewhere: Callable[[str], bool],
    ) -> None:
        super().__init__(log, source, routes, origin, counters, limit)
        self._elsewhere = elsewhere
        self._waiting: deque[Arrived] = deque()
        self._bytes = 0
        self._lost = 0
        self._arrived = asyncio.Event()

    async def run(self, client: FrameClient) -> None:
        """Mirror what is published. Raises as `Mirror.run`."""
        self._remember()
        subscriptions = [
            await client.subscribe(subject, queue=QUEUE_GROUP, cb=self._hear) for subject in self.source.subjects
        ]
        try:
            await client.flush()
            self.caught_up = True
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting or self._lost:
                    await self._mirror_some()
        finally:
            for subscription in subscriptions:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        if self._elsewhere(message.subject):
            return
        if len(self._waiting) >= WAITING or self._bytes >= WAITING_BYTES:
            self._lost += 1
        else:
            self._bytes += len(message.data)
            self._waiting.append(
                Arrived(b"0", b"%d" % time.time_ns(), b"0", message.subject, message.headers, message.data)
            )
        self._arrived.set()

    async def _mirror_some(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            self._counters.gap(lost)
            logger.error("bridge in: %d core messages were LOST: more came than the log takes", lost)
        messages = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._bytes -= sum(len(message.data) for message in messages)
        batch = Batch()
        await self._take(messages, batch)
        self.pending = len(self._waiting)
        await self._commit(batch, replace(self.account, gone=self.account.gone + lost))
