"""Reads a stream in order, each message once, from a given place: an ephemeral consumer without acks, or a durable one.

It notices when the server lost or repeated something and then ends; its user goes on from what it has kept itself.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Self

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from bridge.connection import BridgeError
from bridge.frames import Frame, FrameClient, headers_of
from bridge.jetstream import SECOND_NS, api, rfc3339

REQUEST = 500
"""Messages asked for at a time. Three requests outstanding hide the round trip."""
CREDIT = 3 * REQUEST
REQUEST_BYTES = 16 * 1024 * 1024
EXPIRES = 30
HEARTBEAT = 5
ACK_WAIT = 600
"""Seconds until an unacked message comes again, out of order, which ends the reading."""
REQUEST_ENDS = ("Batch Completed", "MaxBytes")
"""In a 409: the request is over, and the consumer is well. Any other 409 is the consumer's end."""
SILENCE = 15.0
"""Seconds without even a heartbeat after which the consumer counts as gone."""


class ConsumerLost(BridgeError):
    """The server dropped the consumer, or a message is missing in between."""


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A message of the stream. Of most of them nobody asks for the numbers, so they stay as they came."""

    number: bytes
    stored: bytes
    behind: bytes
    subject: str
    headers: dict[str, str] | None
    data: bytes

    @property
    def seq(self) -> int:
        """Its sequence."""
        return int(self.number)

    @property
    def time(self) -> int:
        """When it was stored, ns since the epoch."""
        return int(self.stored)

    @property
    def pending(self) -> int:
        """How many come after it."""
        return int(self.behind)


text_of = lru_cache(maxsize=4096)(partial(bytes.decode, errors="replace"))
"""A subject as text."""


class OrderedPull:
    """Use as `async with OrderedPull(...)`, then `take`. At most 1,500 messages and 3 x 16 MB wait inside it.

    Starts at the sequence `seq`, or at the first message stored at `since` (ns since the epoch) or later, and reads the
    `subjects` only, if there are any. `durable` is for streams that drop what every consumer has acked: the consumer of
    this name stays when this ends, and `ack` says what is done.
    """

    def __init__(
        self,
        client: FrameClient,
        stream: str,
        *,
        seq: int = 1,
        since: int | None = None,
        subjects: Sequence[str] = (),
        headers_only: bool = False,
        durable: str = "",
    ) -> None:
        self._client = client
        self._stream = stream
        self.durable = durable
        self.pending = 0
        """Messages that were there when the reading began."""
        self._config: dict[str, Any] = {"replay_policy": "instant", "headers_only": headers_only}
        if durable:
            self._config |= {"durable_name": durable, "ack_policy": "all", "max_ack_pending": 4 * CREDIT}
            self._config |= {"ack_wait": ACK_WAIT * SECOND_NS}
        else:
            self._config |= {"ack_policy": "none", "inactive_threshold": 60 * SECOND_NS}
            self._config |= {"mem_storage": True, "num_replicas": 1}
        if len(subjects) == 1:
            self._config["filter_subject"] = subjects[0]
        elif subjects:
            self._config["filter_subjects"] = list(subjects)
        if since is None:
            self._config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, seq)}
        else:
            self._config |= {"deliver_policy": "by_start_time", "opt_start_time": rfc3339(since)}
        self._inbox = client.new_inbox()
        self._next = ""
        self._request = json.dumps(
            {
                "batch": REQUEST,
                "expires": EXPIRES * SECOND_NS,
                "idle_heartbeat": HEARTBEAT * SECOND_NS,
                # A request whose limit is below one message would never be answered.
                "max_bytes": max(REQUEST_BYTES, 2 * client.max_payload),
            }
        ).encode()
        self._arrived: deque[Frame] = deque()
        self._wake = asyncio.Event()
        self._credit = 0
        self._delivered = 0
        self._cut = self._words = 0
        self.last = b""
        """What stands for the last message that was taken, for `ack`."""
        self._lost = ""
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        self._subscription = await self._client.hear(f"{self._inbox}.*", self._receive)
        body = {"stream_name": self._stream, "config": self._config}
        verb = "CONSUMER.DURABLE.CREATE" if self.durable else "CONSUMER.CREATE"
        place = f"{self._stream}.{self.durable}".rstrip(".")
        made = await api(self._client, f"{verb}.{place}", body)
        name, self.pending = made["name"], made.get("num_pending", 0)
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{name}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._subscription is not None and self._client.is_connected:
            try:
                await self._subscription.unsubscribe()
                if self.durable:
                    return
                # The answer doesn't matter: a consumer that is not deleted goes away by itself.
                await self._client.publish(self._next.replace("MSG.NEXT", "DELETE"))
            except nats.errors.Error:
                return

    async def take(self, limit: int) -> list[Arrived]:
        """What has arrived, at least one message, at most `limit`.

        Raises:
            ConsumerLost: start again after the last message taken.
        """
        while not self._arrived:
            if self._lost:
                raise ConsumerLost(f"the consumer on {self._stream} is gone: {self._lost}")
            await self._ask()
            self._wake.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self._wake.wait()
            except TimeoutError:
                raise ConsumerLost(f"nothing heard of the consumer on {self._stream} for {SILENCE:.0f} s") from None
        pop = self._arrived.popleft
        taken = self._read([pop() for _ in range(min(limit, len(self._arrived)))])
        await self._ask()
        return taken

    async def ack(self, last: bytes) -> None:
        """Everything up to what was the `last` once is done: the durable consumer's stream may drop it."""
        await self._client.publish(last.decode(), b"+ACK")

    @property
    def waiting(self) -> bool:
        """Whether more has come than was taken."""
        return bool(self._arrived)

    async def waits(self, seconds: float) -> bool:
        """Whether something has arrived, or arrives within so many seconds."""
        if not self._arrived and seconds > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        return bool(self._arrived)

    async def _ask(self) -> None:
        """Keep requests outstanding for as many messages as may wait here."""
        while self._credit + len(self._arrived) <= CREDIT - REQUEST:
            self._credit += REQUEST
            await self._client.publish(self._next, self._request, reply=f"{self._inbox}.r")

    def _receive(self, frames: Sequence[Frame]) -> None:
        came = [frame for frame in frames if frame[1].startswith(b"$JS.ACK.")]
        self._credit -= len(came)
        self._arrived += came
        if len(came) < len(frames):
            for frame in frames:
                if not frame[1].startswith(b"$JS.ACK."):
                    self._hear(headers_of(frame[2]))
        self._wake.set()

    def _hear(self, headers: dict[str, str]) -> None:
        """A status in place of a message: a heartbeat, the end of a request, or the end of the consumer."""
        status, unused = headers.get("Status"), headers.get("Nats-Pending-Messages")
        if status == "100":
            return
        description = headers.get("Description", "")
        if unused is not None and (status in {"404", "408"} or any(end in description for end in REQUEST_ENDS)):
            self._credit -= int(unused)
        else:
            self._lost = description or f"status {status}"

    def _read(self, frames: Sequence[Frame]) -> list[Arrived]:
        """What the frames say. All replies of a consumer are alike but for their last numbers, so they are cut at once.

        $JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<time>.<pending>, or with a domain two tokens more
        before the stream, and may be one at the end.
        """
        if not self._words:
            first = frames[0][1].split(b".")
            begin = 4 if len(first) == 9 else 6
            self._cut, self._words = len(b".".join(first[:begin])) + 1, len(first) - begin
        cut, each = self._cut, self._words
        words = b".".join([frame[1][cut:] for frame in frames]).split(b".")
        wanted = range(self._delivered + 1, self._delivered + 1 + len(frames))
        came = list(map(int, words[2::each]))
        if came != list(wanted):
            number, instead = next(pair for pair in zip(came, wanted, strict=True) if pair[0] != pair[1])
            raise ConsumerLost(f"{self._stream}: delivery {number} came instead of {instead}")
        self._delivered, self.last = wanted[-1], frames[-1][1]
        return [
            Arrived(number, stored, behind, text_of(subject), (headers_of(headers) or None) if headers else None, data)
            for (subject, _, headers, data), number, stored, behind in zip(
                frames, words[1::each], words[3::each], words[4::each], strict=True
            )
        ]
