"""NATS' protocol, many messages at a time: a connection of nats-py's spends most of its time with each single one.

nats-py keeps the connection, its checks, and everything else that is said on it. On subscriptions that ask for it, what
one read has brought is handed over as one list, and what is to be sent goes out in one piece.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

Frame: TypeAlias = tuple[bytes, bytes, bytes, bytes]
"""A message as it came: subject, reply subject, block of headers, payload; what it has not is empty."""
Hear: TypeAlias = Callable[[Sequence[Frame]], None]
"""Takes what has come, in order. Whatever it raises ends the connection."""

VERSION = b"NATS/1.0"
LINE = "\r\n"
BLANKS = " \t\r\n\x0b\x0c"

PENDING = 1024 * 1024
"""Bytes that may wait to be sent before who sends has to wait, too."""


class FrameParser(Parser):
    """nats-py's parser, which takes messages by itself. `heard_by`: who hears those of a subscription in lists."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.heard_by: dict[bytes, Hear] = {}
        self._whole = 0

    async def parse(self, data: bytes = b"") -> None:
        """Take what has come; what is not whole yet waits for the rest. Raises ProtocolError: this is not NATS."""
        self.buf.extend(data)
        if len(self.buf) < self._whole:
            return
        block, at, length = bytes(self.buf), 0, len(self.buf)
        self.buf, self._whole = bytearray(), 0
        batches: dict[bytes, list[Frame]] = {}
        find, last, some = block.find, b"", list[Frame]()
        while (end := find(b"\r\n", at)) >= 0:
            words = block[at:end].split(b" ")
            verb, begin = words[0], end + 2
            if verb != b"MSG" and verb != b"HMSG":  # noqa: PLR1714 - a tuple takes twice as long
                self._tell(batches)
                last = b""
                await self._take_line(block[at:begin])
                at = begin
                continue
            behind = begin + int(words[-1])
            if behind + 2 > length:
                self._whole = behind + 2 - at
                break
            at = behind + 2
            if verb == b"MSG":
                frame = words[1], words[3] if len(words) == 5 else b"", b"", block[begin:behind]
            else:
                payload = begin + int(words[-2])
                frame = words[1], words[3] if len(words) == 6 else b"", block[begin:payload], block[payload:behind]
            sid = words[2]
            if sid == last:
                some.append(frame)
            elif sid in self.heard_by:
                last, some = sid, batches.setdefault(sid, [])
                some.append(frame)
            else:
                subject, reply, headers, data = frame
                await self.nc._process_msg(int(sid), subject, reply, data, headers)  # noqa: SLF001
        self._tell(batches)
        self.buf.extend(block[at:])

    async def _take_line(self, line: bytes) -> None:
        await super().parse(line)
        if self.buf or self.state != AWAITING_CONTROL_LINE:
            raise nats.errors.ProtocolError(f"nats: unknown line {line[:80]!r}")

    def _tell(self, batches: dict[bytes, list[Frame]]) -> None:
        for sid, frames in batches.items():
            hear = self.heard_by.get(sid)
            if hear is not None:
                try:
                    hear(frames)
                except Exception as error:
                    raise nats.errors.ProtocolError(f"nats: {error!r}") from error
        batches.clear()


class FrameClient(Client):
    """A nats-py client that can do with many messages at once. `account`: ours, once NATS has told (2.12 or newer)."""

    def __init__(self) -> None:
        super().__init__()
        self.account = ""
        self._ps: FrameParser = FrameParser(self)

    async def hear(self, subject: str, hear: Hear) -> Subscription:
        """Subscribe. There is no limit to what may come but what `hear` lets be asked for."""
        sid = b"%d" % (self._sid + 1)
        self._ps.heard_by[sid] = hear
        return await self.subscribe(subject)

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send what `published` made, in one piece.

        Raises:
            nats.errors.ConnectionClosedError: the connection is gone.
        """
        if not self.is_connected:
            raise nats.errors.ConnectionClosedError
        self._pending.extend(frames)
        self._pending_data_size += sum(map(len, frames))
        await self._flush_pending(force_flush=self._pending_data_size > PENDING)


def published(subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> bytes:
    """A message as it is sent. `headers` is a whole block of headers, as `NATS/1.0` and its lines."""
    size = len(headers)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(payload), headers, payload)


def headers_of(block: bytes) -> dict[str, str]:
    """The headers in a block, without what is malformed. A server's status is under `Status` and `Description`.

    As nats-py reads them, but that it never fails.
    """
    first, _, rest = block.partition(b"\r\n")
    found: dict[str, str] = {}
    if len(first) > len(VERSION):
        status, _, description = first[len(VERSION) :].decode(errors="replace").strip(BLANKS).partition(" ")
        found["Status"] = status
        if description:
            found["Description"] = description
    for line in rest.decode(errors="replace").split(LINE):
        name, colon, value = line.partition(":")
        name = name.strip(BLANKS)
        if colon and name.isascii() and len(name.split()) < 2:
            found[name] = value.strip(BLANKS)
    return found
