"""Out: publishes the topic `outbound`, in order per partition, once for every subscriber where the stream can tell.

A record is published when it is on disk and forgotten when the stream has acked it. Before anything is said on a new
connection, the streams are asked what of it is out already, for core subscribers would hear a repetition. A record
whose subject no stream holds (`<x>.dlq`) is sent plainly and may, after a crash, be sent twice; one in another's work
queue or interest stream, which can't be asked, is stored once all the same, by its Nats-Msg-Id.
"""

import asyncio
import contextlib
import itertools
import json
import logging
from collections import Counter, deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nats.errors import BadSubjectError, MaxPayloadError

from app.domain.traces import trace_id
from app.engine.cancelling import end, unbroken
from app.engine.records import Record, Send, TopicPartition
from bridge.already_out import Found, found_behind
from bridge.bridge_log import BridgeLog
from bridge.connection import raise_if_refused
from bridge.counters import BridgeCounters
from bridge.dead_letters import OUTBOUND, dead_letter
from bridge.flight import Flight, reach
from bridge.frames import Frame, FrameClient
from bridge.origin import Origin
from bridge.outgoing import Outgoing, on_the_wire, outgoing
from bridge.routes import Routes
from bridge.sources import Sources

logger = logging.getLogger("a4co.bridge")

GROUP = "bridge-out"
NOTE = "bridge-out"
BATCH, BATCH_BYTES = 500, 2 * 1024 * 1024
"""Records, and bytes of them, but for the last that were read, that are published in one piece."""
IN_THE_AIR = 4
"""Such pieces that may be unacked. Another one is made ready meanwhile; more wait to be committed."""
COMMIT = 8_000
"""Records that are acked, and whose commit waits for no others any more."""
READ = 100
"""Records that are read of one partition at a time."""
SLICE = 250
"""Records that are made ready between two turns of the loop: about 1 ms."""


class Destination(NamedTuple):
    """Where a subject leads: its bytes, the stream that keeps it, how many bytes a message may have there, and whether
    it is published at all.
    """

    wire: bytes
    stream: str | None
    largest: int
    withheld: bool


@dataclass
class Done:
    """What is out and acked, and not committed yet: offsets, dead letters, and how far each stream is.

    `many`: it is COMMIT records or more.
    """

    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    letters: list[Send] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    records: int = 0
    many: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, flight: Flight) -> None:
        """One more."""
        self.offsets |= flight.offsets
        self.letters += flight.letters
        for name, seq in flight.reached.items():
            reach(self.reached, name, seq)
        self.records += flight.records
        if self.records >= COMMIT:
            self.many.set()


class Publisher:
    """Publishes from one log. `run` works until something fails, and may be called again then."""

    def __init__(self, log: BridgeLog, routes: Routes, origin: Origin, counters: BridgeCounters) -> None:
        self._log = log
        self._routes = routes
        self._origin = origin
        self._counters = counters
        self._partitions = log.partitions(OUTBOUND)
        self._appended = log.watch([OUTBOUND])
        self._next: list[int] = []
        self._turn = 0
        self._out: dict[str, tuple[str, int]] = {}
        self._destinations: dict[str, Destination] = {}
        self._numbers = itertools.count(1)
        self._flying: deque[Flight] = deque()
        self._reached: dict[str, int] = {}
        self._done = Done()
        self._committing: asyncio.Task[None] | None = None
        self._foreign: set[str] = set()
        self._stopping = False

    def lag(self) -> int:
        """Records of `outbound` that are not done yet."""
        return sum(
            self._log.end(OUTBOUND, partition) - self._committed(partition) for partition in range(self._partitions)
        )

    def _committed(self, partition: int) -> int:
        return self._log.committed(GROUP, OUTBOUND, partition) or 0

    async def run(self, client: FrameClient, sources: Sources) -> None:
        """Publish what is in the topic and what comes, until `stop`.

        Raises:
            BridgeError, nats.errors.Error: start again when NATS is back.
            LogFailed: the log takes no more.
        """
        self._destinations = {}
        await self._find_what_is_out(client, sources)
        self._next = [self._committed(partition) for partition in range(self._partitions)]
        self._flying.clear()
        self._done = Done()
        inbox = client.new_inbox()
        acks = await client.hear(f"{inbox}.>", self._hear)
        try:
            await self._publish_all(client, sources, inbox.encode())
        finally:
            committing, self._committing = self._committing, None
            if committing is not None:
                await unbroken(end([committing]))  # a commit that goes on would be news to the next run
            if client.is_connected:
                await acks.unsubscribe()

    def stop(self) -> None:
        """Take nothing new; `run` returns when what is out has been acked and committed."""
        self._stopping = True
        self._appended.set()

    async def _publish_all(self, client: FrameClient, sources: Sources, inbox: bytes) -> None:
        """Make one batch ready while the acks of those before come in."""
        batched = sources.own.name if sources.own is not None and sources.own.takes_batches else None
        while True:
            self._appended.clear()
            if self._committing is not None and self._committing.done():
                await self._committed_all()  # which raises what it ended with
            batch, offsets = ([], {}) if self._stopping else self._take()
            if not batch:
                while self._flying:
                    await self._land_first(client, sources)
                if self._stopping:
                    await self._committed_all()
                    return
                await self._appended.wait()
                continue
            flight = Flight(inbox, self._numbers, self._counters, batched=batched, offsets=offsets, records=len(batch))
            for start in range(0, len(batch), SLICE):
                for record in batch[start : start + SLICE]:
                    self._add(client, sources, flight, outgoing(record, self._origin))
                await asyncio.sleep(0)
            while len(self._flying) >= IN_THE_AIR:
                await self._land_first(client, sources)
            await self._log.synced()
            self._flying.append(flight)
            await client.send(flight.frames())

    async def _land_first(self, client: FrameClient, sources: Sources) -> None:
        """Wait for the acks of a batch; then its offsets, and how far the stream is, are to be committed."""
        flight = self._flying[0]
        if flight.plain:
            await client.flush()
            raise_if_refused(client)
            for subject, number in Counter(message.subject for message in flight.plain).items():
                self._counters.said(subject, "published", number)
        await flight.acked()
        self._flying.popleft()
        for stream in flight.refused_by - self._foreign:
            logger.error(
                "bridge out: the stream %s, of another account or domain, does not keep what is published in batches: "
                "take allow_batched off the stream %s", stream, sources.own.name if sources.own else "",
            )  # fmt: skip
        self._foreign |= flight.refused_by
        self._done.add(flight)
        if self._committing is not None and self._committing.done():
            await self._committed_all()
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_done(sources))
            self._committing.add_done_callback(lambda _task: self._appended.set())

    def _hear(self, answers: Sequence[Frame]) -> None:
        for flight in self._flying:
            answers = flight.hear(answers)
            if not answers:
                return

    # ---- reading ---------------------------------------------------------------------------------------

    def _take(self) -> tuple[list[Record], dict[TopicPartition, int]]:
        """The next records, beginning with another partition each time, and the offsets behind them."""
        batch: list[Record] = []
        offsets: dict[TopicPartition, int] = {}
        size = 0
        for step in range(self._partitions):
            partition = (self._turn + step) % self._partitions
            while len(batch) < BATCH and size < BATCH_BYTES:
                limit = min(READ, BATCH - len(batch))
                records = self._log.read(OUTBOUND, partition, self._next[partition], limit)
                if not records:
                    break
                self._next[partition] = offsets[TopicPartition(OUTBOUND, partition)] = records[-1].offset + 1
                batch += records
                size += sum(len(record.value or b"") for record in records)
        self._turn += 1
        return batch, offsets

    # ---- publishing ------------------------------------------------------------------------------------

    def _add(self, client: FrameClient, sources: Sources, flight: Flight, message: Outgoing) -> None:
        """One more to be sent, unless it is not to be."""
        subject = message.subject
        if self._out and message.message_id in self._out:
            reach(flight.reached, *self._out.pop(message.message_id))
            self._counters.said(subject, "skipped")
            return
        try:
            wire, stream, largest, withheld = self._destinations.get(subject) or self._destination(
                client, sources, subject
            )
            if withheld:
                self._counters.said(subject, "withheld")
                return
            if message.size > largest:
                raise MaxPayloadError
        except (MaxPayloadError, BadSubjectError) as error:
            self._reject(flight, message, error)
            return
        flight.add(message, wire, stream)

    def _destination(self, client: FrameClient, sources: Sources, subject: str) -> Destination:
        """Raises BadSubjectError."""
        route, holder = self._routes.of(subject), sources.holder(subject)
        withheld = route is not None and not route.published
        wire = b"" if withheld else on_the_wire(subject)
        largest = client.max_payload if holder is None else min(client.max_payload, holder.largest)
        found = Destination(wire, holder.name if holder else None, largest, withheld)
        self._destinations[subject] = found
        return found

    def _reject(self, flight: Flight, message: Outgoing, error: Exception) -> None:
        """NATS will never take this one: keep it as a dead letter and go on."""
        reason = "too-large" if isinstance(error, MaxPayloadError) else "unpublishable"
        logger.error(
            "bridge out: %s %s is a dead letter: %s (%s; trace %s)",
            message.subject, message.message_id, reason, error, trace_id(message.record.headers),
        )  # fmt: skip
        self._counters.said(message.subject, "rejected")
        self._counters.dead_letter(OUTBOUND, reason)
        flight.letters += dead_letter(message.record, reason, error)

    # ---- committing ------------------------------------------------------------------------------------

    async def _committed_all(self) -> None:
        if self._committing is not None:
            committing, self._committing = self._committing, None
            await committing

    async def _commit_done(self, sources: Sources) -> None:
        """Commit what is done, until nothing is. Nobody waits for it, so it waits for others."""
        while self._done.offsets:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._log.commit_seconds):
                    await self._done.many.wait()
            done, self._done = self._done, Done()
            await self._commit(sources, done.reached, done.offsets, done.letters)

    async def _commit(
        self,
        sources: Sources,
        reached: Mapping[str, int],
        offsets: dict[TopicPartition, int],
        letters: Sequence[Send] = (),
    ) -> None:
        if not self._out:  # while ids that were found wait for their records, the next look begins where this one did
            for name, seq in reached.items():
                reach(self._reached, name, seq)
        places = {
            stream.name: {"seq": self._reached[stream.name], "stream_created": stream.created}
            for stream in sources.streams
            if stream.name in self._reached
        }
        note = json.dumps({"streams": places}).encode()
        await unbroken(self._log.commit(letters, group=GROUP, offsets=offsets, notes={NOTE: note}))

    # ---- what is out already ---------------------------------------------------------------------------

    async def _find_what_is_out(self, client: FrameClient, sources: Sources) -> None:
        """Read the ids that the streams got from us since the last commit, and pass over their records."""
        begin = self._noted(sources)
        found, ends = await found_behind(client, sources, begin)
        offsets, self._out = self._passed(client, sources, found)
        self._reached = begin if self._out else ends
        await self._commit(sources, {}, offsets)

    def _noted(self, sources: Sources) -> dict[str, int]:
        """How far each stream was when we committed last; one that was made anew since is looked at from its start."""
        note = json.loads(self._log.note(NOTE) or b"{}")
        own = {sources.own.name: note} if "seq" in note and sources.own else {}  # as it was before there were many
        places = note.get("streams", own)
        return {
            stream.name: place["seq"] if place["stream_created"] == stream.created else 0
            for stream in sources.streams
            if (place := places.get(stream.name)) is not None
        }

    def _passed(
        self, client: FrameClient, sources: Sources, found: Found
    ) -> tuple[dict[TopicPartition, int], dict[str, tuple[str, int]]]:
        """The offsets behind the records that are out, and the ids that are out beyond a record that isn't.

        A partition is published in order, so what is out are its first records; only a stream that refused one message
        and took the next leaves a hole.
        """
        offsets: dict[TopicPartition, int] = {}
        beyond: dict[str, tuple[str, int]] = {}
        for partition in range(self._partitions):
            hole = False
            for message in self._perhaps_out(partition, found):
                record = message.record
                if message.identity not in found:
                    # One that no stream holds went out as well if one after it did.
                    hole = hole or sources.holder(message.subject) is not None or message.size > client.max_payload
                elif hole:
                    beyond[message.message_id] = found[message.identity]
                else:
                    offsets[TopicPartition(OUTBOUND, partition)] = record.offset + 1
                    self._counters.said(message.subject, "skipped")
        return offsets, beyond

    def _perhaps_out(self, partition: int, found: Container[tuple[str, str]]) -> Iterator[Outgoing]:
        """What is not committed, piece by piece, up to one of which nothing is out."""
        offset = self._committed(partition)
        while records := self._log.read(OUTBOUND, partition, offset, 2 * BATCH):
            messages = [outgoing(record, self._origin) for record in records]
            yield from messages
            if not any(message.identity in found for message in messages):
                return
            offset = records[-1].offset + 1
