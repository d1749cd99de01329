"""Messages on their way to NATS, sent together, and what is still to be heard of them. It decides what an ack is."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from app.engine.records import Send, TopicPartition
from bridge.connection import BridgeError
from bridge.counters import BridgeCounters
from bridge.frames import Frame, headers_of, published
from bridge.outgoing import Outgoing

ACK_TIMEOUT = 20.0


class PublishFailed(BridgeError):
    """The stream refused a message or did not ack it in time. The bridge looks what is out and publishes the rest."""


class Ack(msgspec.Struct, gc=False):
    """JetStream's answer to a publish. In a batch: `count` is how much it kept."""

    stream: str = ""
    seq: int = 0
    error: dict[str, str | int] | None = None
    batch: str = ""
    count: int = 0


decode_ack = msgspec.json.Decoder(Ack).decode

IN_BATCH = b"%b%d.%d.$FI"
START, APPEND, COMMIT = 0, 1, 2
"""What a message is in its batch. Its reply subject says so: <inbox>.<batch>.<flow>.fail.<number>.<operation>.$FI, as
NATS' ADR-50 has it."""
FLOW = 1_000
"""Messages behind which the server tells how far it is, at most."""


class Flight:
    """Records of the log on their way, in order. Once all is done, `offsets` and `letters` are to be committed, and
    `reached`: how far each stream was at our last message.

    What goes to the stream `batched` is one batch of JetStream's fast ingest, which is acked once for all. The server
    takes it up to a message that it refuses. Its flow control is not needed: a flight is small. For what goes to other
    streams, each acks each message, with the number on which it is heard at `inbox`.
    """

    def __init__(
        self,
        inbox: bytes,
        numbers: Iterator[int],
        counters: BridgeCounters,
        *,
        batched: str | None = None,
        offsets: Mapping[TopicPartition, int],
        records: int,
    ) -> None:
        self.offsets = offsets
        self.records = records
        self.letters: list[Send] = []
        self.reached: dict[str, int] = {}
        self.plain: list[Outgoing] = []
        """What no stream acks."""
        self.refused_by: set[str] = set()
        """Streams that we do not know of, which keep our subjects as well and take no batches."""
        self._inbox = inbox + b"."
        self._numbers = numbers
        self._counters = counters
        self._frames: list[bytes] = []
        self._unacked: dict[bytes, Outgoing] = {}
        self._streams: set[str] = set()
        self._batched = batched
        self._batch: list[Outgoing] = []
        self._id = secrets.token_hex(8)
        self._key = f"{self._id}.".encode()
        self._prefix = b"%b%b%d.fail." % (self._inbox, self._key, FLOW)
        self._last = (0, b"")
        self._waits = False
        self._acked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, message: Outgoing, wire: bytes, stream: str | None) -> None:
        """One more, on the subject `wire`, which `stream` keeps, or nobody."""
        reply = b""
        if stream is None:
            self.plain.append(message)
        elif stream == self._batched:
            self._last = len(self._frames), wire
            self._batch.append(message)
            number = len(self._batch)
            reply = IN_BATCH % (self._prefix, number, APPEND if number > 1 else START)
        else:
            key = b"%d" % next(self._numbers)
            self._unacked[key] = message
            self._streams.add(stream)
            reply = self._inbox + key
        self._frames.append(published(wire, reply, message.headers, message.payload))

    def frames(self) -> list[bytes]:
        """What is to be sent, once: nothing can be added then."""
        frames, self._frames = self._frames, []
        if self._batch:
            at, wire = self._last
            message = self._batch[-1]
            frames[at] = published(
                wire, IN_BATCH % (self._prefix, len(self._batch), COMMIT), message.headers, message.payload
            )
        self._waits = bool(self._batch or self._unacked)
        return frames

    # ---- acks ------------------------------------------------------------------------------------------

    def hear(self, answers: Sequence[Frame]) -> Sequence[Frame]:
        """What has come on the inbox. Returns what of it is not for this flight.

        Whoever else answers what has a reply subject is not heard.
        """
        begin, unacked, batch = len(self._inbox), self._unacked, self._key
        acked: dict[str, int] = {}
        others: list[Frame] = []
        for answer in answers:
            subject, _reply, headers, data = answer
            key = subject[begin:]
            message = unacked.get(key)
            if message is not None:
                ack = self._read(headers, data)
                if ack is not None and ack.stream in self._streams:
                    del unacked[key]
                    if self._taken(ack):
                        acked[message.subject] = acked.get(message.subject, 0) + 1
            elif key.startswith(batch):
                ack = self._read(headers, data)
                if ack is not None:
                    acked |= self._of_batch(ack)
            else:
                others.append(answer)
        for name, times in acked.items():
            self._counters.said(name, "published", times)
        if not unacked and not self._batch and not self._acked.done():
            self._acked.set_result(None)
        return others

    def _read(self, headers: bytes, data: bytes) -> Ack | None:
        try:
            return decode_ack(data)
        except msgspec.MsgspecError:
            if headers_of(headers).get("Status") == "503":
                self.fail("no stream holds it any more")
            return None

    def _taken(self, ack: Ack) -> bool:
        if ack.error is not None:
            self.fail(f"the stream {ack.stream} refused a message: {ack.error.get('description')}")
            return False
        reach(self.reached, ack.stream, ack.seq)
        return True

    def _of_batch(self, ack: Ack) -> Mapping[str, int]:
        """How many of each subject were kept, once that is told."""
        if ack.error is not None and ack.stream not in (self._batched, ""):
            self.refused_by.add(ack.stream)
        elif ack.error is not None:
            self.fail(f"the stream {self._batched} refused a message: {ack.error.get('description')}")
        elif ack.batch == self._id and ack.stream == self._batched and self._batch:
            batch, self._batch = self._batch, []
            if ack.count < len(batch):
                self.fail(f"the stream {ack.stream} took {ack.count} of {len(batch)} messages")
            reach(self.reached, ack.stream, ack.seq)
            return Counter(message.subject for message in batch[: ack.count])
        return {}

    def fail(self, why: str) -> None:
        """It will not be acked."""
        if not self._acked.done():
            self._acked.set_exception(PublishFailed(why))
            self._acked.exception()  # a flight that is given up meanwhile is not an error of its own

    async def acked(self) -> None:
        """Return when all is acked that a stream keeps. Raises PublishFailed."""
        if not self._waits:
            return
        try:
            async with asyncio.timeout(ACK_TIMEOUT):
                await self._acked
        except TimeoutError:
            waiting = len(self._unacked) + len(self._batch)
            raise PublishFailed(f"no ack for {waiting} messages in {ACK_TIMEOUT:.0f} s") from None


def reach(reached: dict[str, int], name: str, seq: int) -> None:
    """A stream is at least so far."""
    if seq > reached.get(name, 0):
        reached[name] = seq
