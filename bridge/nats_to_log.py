"""In: mirrors the stream into the topics, each message exactly once and in order.

The position in the stream is committed with the records it stands for, so no ack is needed and none is believed. It
decides by the routes and `key_of` only; a message without a key goes to the dead letters and its neighbours pass.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from nats.aio.client import Client

from app.domain import traces
from app.domain.dialects import Undecodable, key_of
from app.engine.cancelling import unbroken
from app.engine.records import Headers, Send
from bridge import dead_letters
from bridge.bridge_log import BridgeLog
from bridge.counters import BridgeCounters
from bridge.jetstream import SECOND_NS, StreamState, rfc3339, stored_at
from bridge.ordered_pull import Arrived, OrderedPull
from bridge.origin import Origin
from bridge.routes import STOCK, USERS, Route

logger = logging.getLogger("a4co.bridge")

BATCH = 500
"""Messages in one commit at most."""
SLICE = 50
"""Messages that are worked off between two turns of the loop: about 1 ms."""

OURS = ("a4co-ours", b"1")
"""The header of what we said ourselves."""


@dataclass(frozen=True)
class Position:
    """The last message mirrored: its sequence, when it was stored (ns since the epoch), and in which stream."""

    seq: int
    time: int
    stream_created: str


class Mirror:
    """Reads one stream. `run` works until the connection or the consumer ends, and may be called again then."""

    def __init__(
        self, log: BridgeLog, stream: str, routes: Mapping[str, Route], origin: Origin, counters: BridgeCounters
    ) -> None:
        self._log = log
        self._note = f"nats:{stream}"
        self._routes = routes
        self._origin = origin
        self._counters = counters
        self._follows: int | None = None
        self.position = self._remembered()
        self.pending = 0
        """Messages of the stream behind the position, as of the last one read."""
        self.caught_up = False
        """Whether everything that came during an absence has been read."""

    async def run(self, client: Client, stream: StreamState) -> None:
        """Mirror what is in the stream and what comes.

        Raises:
            BridgeError, nats.errors.Error: start again when NATS is back.
            LogFailed: the log takes no more.
        """
        async with await self._resume(client, stream) as pull:
            while True:
                sends, last = await self._collect(pull)
                position = Position(last.seq, last.time, stream.created)
                await unbroken(self._log.commit(sends, notes={self._note: _packed(position)}))
                self.position = position
                self.pending = last.pending
                self.caught_up = self.caught_up or last.pending == 0

    async def _collect(self, pull: OrderedPull) -> tuple[list[Send], Arrived]:
        """What is to be appended, and the last message that it stands for.

        Nobody waits for what we said ourselves: as long as nothing else has come, it waits for more.
        """
        sends: list[Send] = []
        read, until = 0, 0.0
        while True:
            arrived = await pull.take(BATCH - read)
            self._notice_gaps(arrived)
            read += len(arrived)
            for start in range(0, len(arrived), SLICE):
                sends += [send for message in arrived[start : start + SLICE] for send in self._sends(message)]
                await asyncio.sleep(0)
            until = until or time.monotonic() + self._log.commit_seconds
            awaited = any(OURS not in send.headers for send in sends)
            if awaited or read == BATCH or not await pull.waits(until - time.monotonic()):
                return sends, arrived[-1]

    # ---- where to go on --------------------------------------------------------------------------------

    def _remembered(self) -> Position | None:
        note = self._log.note(self._note)
        if note is None:
            return None
        found = json.loads(note)
        return Position(found["seq"], found["time"], found["stream_created"])

    async def _resume(self, client: Client, stream: StreamState) -> OrderedPull:
        position = self.position = self._remembered()
        self._follows = None
        if position is None:
            logger.info("bridge in: mirroring %s from its first message", stream.name)
            return OrderedPull(client, stream.name, seq=1)
        if position.stream_created != stream.created:
            self._counters.streams_replaced += 1
            logger.error(
                "bridge in: %s is ANOTHER STREAM than the one mirrored so far (made %s, that one %s): mirroring it "
                "from its first message. What the old one held unread is lost to us; what both have "
                "comes again and is dropped by event id",
                stream.name, stream.created, position.stream_created,
            )  # fmt: skip
            return OrderedPull(client, stream.name, seq=1)
        if await self._is_where_it_was(client, stream, position):
            self._follows = position.seq
            return OrderedPull(client, stream.name, seq=position.seq + 1)
        self._counters.resumed_by_time += 1
        logger.warning(
            "bridge in: %s lost its newest messages (its last is %d; %d had been mirrored): the server was stopped "
            "before they were on disk; set sync_interval: always. Going on by time, after %s",
            stream.name, stream.last_seq, position.seq, rfc3339(position.time),
        )  # fmt: skip
        return OrderedPull(client, stream.name, since=position.time + 1)

    async def _is_where_it_was(self, client: Client, stream: StreamState, position: Position) -> bool:
        """Whether the message at the position is the one that was mirrored; true as well when it is old and gone."""
        if stream.last_seq < position.seq:
            return False
        if stream.first_seq > position.seq:
            return True
        stored = await stored_at(client, stream.name, position.seq)
        return stored is None or stored == position.time

    def _notice_gaps(self, arrived: list[Arrived]) -> None:
        for message in arrived:
            if self._follows is not None and message.seq > self._follows + 1:
                lost = message.seq - self._follows - 1
                self._counters.gap(lost)
                logger.warning(
                    "bridge in: %d messages before %d were removed from the stream before they were read",
                    lost,
                    message.seq,
                )
            self._follows = message.seq

    # ---- one message -----------------------------------------------------------------------------------

    def _sends(self, message: Arrived) -> list[Send]:
        """The record for its topic; or what dead-letters it; or nothing when it has no route."""
        route = self._routes.get(message.subject)
        if route is None or not route.on:
            self._counters.ignored += 1
            return []
        place = f"{self._note.removeprefix('nats:')}-{message.seq}-{message.time}"
        headers = self._headers(message)
        trace = traces.continued(message.headers)
        delay = time.time() - message.time / SECOND_NS
        try:
            key = key_of(message.subject, message.data).encode()
        except Exception as error:  # noqa: BLE001 - whatever a payload does to the decoder, its neighbours pass
            reason = error.reason if isinstance(error, Undecodable) else "undecodable"
            trace = trace or traces.begun(place)
            logger.warning(
                "bridge in: %s %d is a dead letter: %s (trace %s)",
                message.subject, message.seq, error, traces.trace_id(trace),
            )  # fmt: skip
            self._counters.dead_lettered += 1
            self._counters.count(message.subject, "dead-letter", delay)
            self._counters.dead_letter(route.topic, reason)
            kept = dead_letters.keep(route.topic, None, message.data, (*trace, *headers), reason, error)
            return [kept, *dead_letters.tell(message.subject, None, message.data, error, place, trace)]
        self._counters.mirrored += 1
        self._counters.count(message.subject, "mirrored", delay)
        # All of an order is one trace where nobody traces; a product's and a user's events go on for ever.
        trace = trace or traces.begun(place if route.topic in (STOCK, USERS) else key.decode())
        return [Send(route.topic, key, message.data, (*trace, *headers))]

    def _headers(self, message: Arrived) -> Headers:
        """The NATS headers as they came, but for the trace's and any that pass for ours; then ours."""
        came = message.headers or {}
        ours = self._origin.is_ours(message.subject, came, message.data)
        self._counters.ours += ours
        return (
            *((name, value.encode()) for name, value in came.items() if not _is_reserved(name.lower())),
            ("a4co-subject", message.subject.encode()),
            ("a4co-seq", b"%d" % message.seq),
            *((OURS,) if ours else ()),
        )


def _is_reserved(name: str) -> bool:
    """Whether a header (in lower case) is one that we give a mirrored record ourselves."""
    return name.startswith("a4co-") or name in (traces.TRACEPARENT, traces.TRACESTATE)


def _packed(position: Position) -> bytes:
    return json.dumps(position.__dict__).encode()
