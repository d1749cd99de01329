"""Out: publishes the topic `outbound`, in order per partition, once for every subscriber where the stream can tell.

A record is published when it is on disk and forgotten when the stream has acked it. Before anything is said on a new
connection, the streams are asked what of it is out already, for core subscribers would hear a repetition. A record
whose subject no stream holds (`<x>.dlq`) is sent plainly and may, after a crash, be sent twice; one in another's work
queue or interest stream, which can't be asked, is stored once all the same, by its Nats-Msg-Id.
"""

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from nats.errors import BadSubjectError, MaxPayloadError

from app.domain.traces import trace_id
from app.engine.cancelling import end, unbroken
from app.engine.records import Record, Send, TopicPartition
from bridge.bridge_log import BridgeLog
from bridge.connection import BridgeError, raise_if_refused
from bridge.counters import BridgeCounters
from bridge.dead_letters import OUTBOUND, dead_letter
from bridge.frames import Frame, FrameClient, headers_of, published
from bridge.jetstream import BARRIER, StreamState, stream_state
from bridge.ordered_pull import OrderedPull
from bridge.origin import MESSAGE_ID, ORIGIN, Origin
from bridge.outgoing import Outgoing, on_the_wire, outgoing
from bridge.routes import Routes
from bridge.sources import Sources

logger = logging.getLogger("a4co.bridge")

GROUP = "bridge-out"
NOTE = "bridge-out"
BATCH, BATCH_BYTES = 1_000, 4 * 1024 * 1024
"""Records, and bytes of them, published before their acks are waited for, but for the last that were read. Two batches
may be unacked; more wait to be committed."""
COMMIT = 4_000
"""Records that are acked, and whose commit waits for no others any more."""
READ = 100
"""Records that are read of one partition at a time."""
SLICE = 100
"""Records that are published in one piece, between two turns of the loop: about 1 ms."""
ACK_TIMEOUT = 20.0
MESSAGE_TOO_LARGE = 10054
TOO_MANY = 429
"""JetStream's code when too much waits to be stored."""
BUSY = 0.5
"""Seconds until it is asked again."""
PATIENCE = 120.0
"""Seconds in which a stream has to have stored what was published before: a burst of 100,000 takes a minute with
`sync_interval: always` on a slow disk. What comes in is mirrored meanwhile."""


class PublishFailed(BridgeError):
    """The stream refused a message or did not ack it in time. The bridge looks what is out and publishes the rest."""


class Ack(msgspec.Struct):
    """JetStream's answer to a publish."""

    stream: str = ""
    seq: int = 0
    error: dict[str, str | int] | None = None


decode_ack = msgspec.json.Decoder(Ack).decode


@dataclass
class Flight:
    """A batch on its way: how many of its messages are not acked yet (`waiting`), and what it commits in the end."""

    done: asyncio.Future[None]
    offsets: Mapping[TopicPartition, int]
    records: int
    waiting: int = 0
    plain: list[Outgoing] = field(default_factory=list)
    letters: list[Send] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    sent: bool = False


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


NOBODY: tuple[Flight | None, Outgoing | None] = (None, None)
"""Whom an ack is for that nobody waits for any more."""


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
        self._flights: dict[int, tuple[Flight | None, Outgoing | None]] = {}
        self._holders: dict[str, StreamState | None] = {}
        self._sent = 0
        self._inbox = 0
        self._reached: dict[str, int] = {}
        self._settling: asyncio.Task[None] | None = None
        self._done = Done()
        self._committing: asyncio.Task[None] | None = None
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
        await self._find_what_is_out(client, sources)
        self._next = [self._committed(partition) for partition in range(self._partitions)]
        self._flights.clear()
        self._done = Done()
        inbox = client.new_inbox()
        self._inbox = len(inbox) + 1
        acks = await client.hear(f"{inbox}.*", self._receive)
        try:
            await self._publish_all(client, sources, inbox)
        finally:
            tasks = [task for task in (self._settling, self._committing) if task is not None]
            self._settling = self._committing = None
            await unbroken(end(tasks))  # a commit that goes on would be news to the next run
            if client.is_connected:
                await acks.unsubscribe()

    def stop(self) -> None:
        """Take nothing new; `run` returns when what is out has been acked and committed."""
        self._stopping = True
        self._appended.set()

    async def _publish_all(self, client: FrameClient, sources: Sources, inbox: str) -> None:
        """Publish one batch while the acks of the one before come in."""
        while True:
            self._appended.clear()
            if self._committing is not None and self._committing.done():
                await self._committed_all()  # which raises what it ended with
            batch, offsets = ([], {}) if self._stopping else self._take()
            if not batch:
                await self._settled()
                if self._stopping:
                    await self._committed_all()
                    return
                await self._appended.wait()
                continue
            await self._log.synced()
            flight = Flight(asyncio.get_running_loop().create_future(), offsets, len(batch))
            for start in range(0, len(batch), SLICE):
                some = [outgoing(record, self._origin) for record in batch[start : start + SLICE]]
                await client.send(self._frames(client, sources, inbox.encode(), some, flight))
                await asyncio.sleep(0)
            flight.sent = True
            self._land(flight)
            await self._settled()
            self._settling = asyncio.create_task(self._settle(client, sources, flight))

    async def _settled(self) -> None:
        if self._settling is not None:
            settling, self._settling = self._settling, None
            await settling

    async def _committed_all(self) -> None:
        if self._committing is not None:
            committing, self._committing = self._committing, None
            await committing

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

    def _frames(
        self, client: FrameClient, sources: Sources, inbox: bytes, messages: Sequence[Outgoing], flight: Flight
    ) -> list[bytes]:
        """The messages as they are sent; what is not to be sent is accounted for."""
        frames = []
        route_of, largest = self._routes.of, client.max_payload
        for message in messages:
            subject = message.subject
            if message.message_id in self._out:
                _reach(flight.reached, *self._out.pop(message.message_id))
                self._counters.said(subject, "skipped")
                continue
            if (route := route_of(subject)) is not None and not route.published:
                self._counters.said(subject, "withheld")
                continue
            try:
                if message.size > largest:
                    raise MaxPayloadError
                wire = on_the_wire(subject)
            except (MaxPayloadError, BadSubjectError) as error:
                self._reject(flight, message, error)
                continue
            reply = b""
            if self._holder(sources, subject) is None:
                flight.plain.append(message)
            else:
                self._sent += 1
                flight.waiting += 1
                self._flights[self._sent] = flight, message
                reply = b"%b.%d" % (inbox, self._sent)
            frames.append(published(wire, reply, message.headers, message.payload))
        return frames

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

    def _holder(self, sources: Sources, subject: str) -> StreamState | None:
        try:
            return self._holders[subject]
        except KeyError:
            holder = self._holders[subject] = sources.holder(subject)
            return holder

    # ---- acks ------------------------------------------------------------------------------------------

    def _receive(self, answers: Sequence[Frame]) -> None:
        acked: dict[str, int] = {}
        taken, at = self._flights.pop, self._inbox
        for subject, _reply, headers, data in answers:
            flight, message = taken(int(subject[at:]), NOBODY)
            if flight is None or message is None:
                continue
            flight.waiting -= 1
            try:
                if self._acked(flight, message, headers, data):
                    acked[message.subject] = acked.get(message.subject, 0) + 1
            except Exception as error:  # noqa: BLE001 - the batch would wait in vain
                self._fail(flight, f"the ack of {message.subject} can't be used: {error!r}")
            if not flight.waiting:
                self._land(flight)
        for name, times in acked.items():
            self._counters.said(name, "published", times)

    def _acked(self, flight: Flight, message: Outgoing, headers: bytes, data: bytes) -> bool:
        if headers and headers_of(headers).get("Status") == "503":
            self._fail(flight, f"no stream holds {message.subject} any more")
            return False
        ack = decode_ack(data)
        if ack.error is None:
            _reach(flight.reached, ack.stream, ack.seq)
            return True
        if ack.error.get("err_code") == MESSAGE_TOO_LARGE:
            self._reject(flight, message, MaxPayloadError())
        else:
            self._fail(flight, f"the stream refused {message.subject}: {ack.error.get('description')}")
        return False

    def _land(self, flight: Flight) -> None:
        if flight.sent and not flight.waiting and not flight.done.done():
            flight.done.set_result(None)

    def _fail(self, flight: Flight, why: str) -> None:
        if not flight.done.done():
            flight.done.set_exception(PublishFailed(why))
            flight.done.exception()  # a flight that is given up meanwhile is not an error of its own

    async def _settle(self, client: FrameClient, sources: Sources, flight: Flight) -> None:
        """Wait for the batch's acks; then its offsets, and how far the stream is, are to be committed."""
        if flight.plain:
            await client.flush()
            raise_if_refused(client)
            for subject, number in Counter(message.subject for message in flight.plain).items():
                self._counters.said(subject, "published", number)
        try:
            async with asyncio.timeout(ACK_TIMEOUT):
                await flight.done
        except TimeoutError:
            raise PublishFailed(f"no ack for {flight.waiting} messages in {ACK_TIMEOUT:.0f} s") from None
        self._done.offsets |= flight.offsets
        self._done.records += flight.records
        if self._done.records >= COMMIT:
            self._done.many.set()
        self._done.letters += flight.letters
        for name, seq in flight.reached.items():
            _reach(self._done.reached, name, seq)
        if self._committing is not None and self._committing.done():
            await self._committed_all()
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_done(sources))
            self._committing.add_done_callback(lambda _task: self._appended.set())

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
                _reach(self._reached, name, seq)
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
        self._holders = {}
        found: dict[tuple[str, str], tuple[str, int]] = {}
        begin = self._noted(sources)
        ends: dict[str, int] = {}
        barrier = await self._barrier(client) if sources.own is not None else 0
        for stream in sources.streams:
            own = sources.own is not None and stream.name == sources.own.name
            ends[stream.name] = end = barrier if own else (await stream_state(client, stream.name)).last_seq
            start = begin.get(stream.name, end)
            if stream.retention == "limits" and start < end:
                found |= await self._ids(client, stream, start, end)
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

    async def _barrier(self, client: FrameClient) -> int:
        """Our stream's sequence once all that was sent before has been stored, by others, too.

        Raises:
            PublishFailed: the stream refuses messages.
        """
        while True:
            answer = await client.request(BARRIER, b"", timeout=PATIENCE)
            ack = decode_ack(answer.data)
            if ack.error is None:
                return ack.seq
            if ack.error.get("code") != TOO_MANY:
                raise PublishFailed(f"the stream takes no messages: {ack.error.get('description')}")
            await asyncio.sleep(BUSY)

    async def _ids(
        self, client: FrameClient, stream: StreamState, after: int, until: int
    ) -> dict[tuple[str, str], tuple[str, int]]:
        """Stream and sequence of each (id, mark) in it. A forged mark is nobody's: it equals none of ours."""
        found: dict[tuple[str, str], tuple[str, int]] = {}
        async with OrderedPull(client, stream.name, seq=after + 1, headers_only=True) as pull:
            reached = pull.pending == 0
            while not reached:
                for message in await pull.take(BATCH):
                    headers = message.headers or {}
                    if ORIGIN in headers:
                        found[headers.get(MESSAGE_ID, ""), headers[ORIGIN]] = stream.name, message.seq
                    reached = reached or message.seq >= until or message.pending == 0
        return found

    def _passed(
        self, client: FrameClient, sources: Sources, found: dict[tuple[str, str], tuple[str, int]]
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
                    holder = self._holder(sources, message.subject)
                    hole = hole or holder is not None or message.size > client.max_payload
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


def _reach(reached: dict[str, int], name: str, seq: int) -> None:
    if seq > reached.get(name, 0):
        reached[name] = seq
