"""What comes over a connection to NATS, taken many messages at a time, is what nats-py makes of it one by one."""

import random
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from bridge.frames import Frame, FrameParser, headers_of, published


class Connection:
    """Notes what a parser tells its client."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.said: list[str] = []

    async def _process_msg(self, *message: Any) -> None:
        self.messages.append(message)

    async def _process_ping(self) -> None:
        self.said.append(f"ping after {len(self.messages)}")

    async def _process_pong(self) -> None:
        self.said.append(f"pong after {len(self.messages)}")


def message(subject: bytes, sid: int, payload: bytes, reply: bytes = b"", headers: bytes = b"") -> bytes:
    words = [b"HMSG" if headers else b"MSG", subject, b"%d" % sid]
    words += [reply] if reply else []
    words += [b"%d" % len(headers), b"%d" % len(headers + payload)] if headers else [b"%d" % len(payload)]
    return b" ".join(words) + b"\r\n" + headers + payload + b"\r\n"


HEADERS = b"NATS/1.0\r\nNats-Msg-Id: one\r\nX: y\r\n\r\n"
SAID = [
    message(b"order.created", 3, b"{}", b"$JS.ACK.S.C.1.2.3.4.5"),
    b"PING\r\n",
    message(b"order.created", 3, b"MSG a 3 2\r\nno\r\nPONG\r\n", b"r"),
    message(b"other", 7, b"", headers=HEADERS),
    message(b"12", 3, b"x" * 90_000, headers=HEADERS),
    b"+OK\r\n",
    message("señora".encode(), 3, b"\xff\x00", b"12", HEADERS),
    message(b"other", 7, b"reply is a number", b"44"),
    b"PONG\r\n",
    message(b"a", 3, b"", headers=b"NATS/1.0 408 Request Timeout\r\n\r\n"),
]


@pytest.mark.parametrize("longest", [1, 7, 300, 100_000])
async def test_messages_come_whole_and_in_order_however_they_are_cut(longest: int) -> None:
    chance, stream = random.Random(longest), b"".join(SAID)
    pieces, at = [], 0
    while at < len(stream):
        size = chance.randint(1, longest)
        pieces.append(stream[at : at + size])
        at += size
    one_by_one, ours = Connection(), Connection()
    theirs, parser = Parser(one_by_one), FrameParser(ours)  # type: ignore[arg-type]
    heard: list[Frame] = []
    parser.heard_by[b"3"] = heard.extend
    for piece in pieces:
        await parser.parse(piece)
        await theirs.parse(piece)
    expected = [
        (sid, subject, reply, data, headers or b"") for sid, subject, reply, data, headers in one_by_one.messages
    ]
    assert [(3, subject, reply, data, headers) for subject, reply, headers, data in heard] == [
        message for message in expected if message[0] == 3
    ]
    assert ours.messages == [message for message in expected if message[0] == 7]
    assert ours.said == ["ping after 0", "pong after 2"]
    assert not parser.buf


async def test_what_was_said_before_a_pong_has_been_heard_when_it_comes() -> None:
    """A flush waits for the pong, and means everything before it."""
    connection = Connection()
    heard: list[Frame] = []
    parser = FrameParser(connection)  # type: ignore[arg-type]
    parser.heard_by[b"3"] = heard.extend
    told = []

    async def pong() -> None:
        told.append(len(heard))

    connection._process_pong = pong  # type: ignore[method-assign]
    await parser.parse(message(b"a", 3, b"1") + message(b"a", 3, b"2") + b"PONG\r\n" + message(b"a", 3, b"3"))
    assert (told, len(heard)) == ([2], 3)


async def test_what_is_no_nats_and_what_a_hearer_raises_end_the_connection() -> None:
    parser = FrameParser(Connection())  # type: ignore[arg-type]
    with pytest.raises(ProtocolError):
        await parser.parse(b"HTTP/1.1 400 Bad Request\r\n")
    parser = FrameParser(Connection())  # type: ignore[arg-type]
    parser.heard_by[b"3"] = lambda frames: print(frames[5])
    with pytest.raises(ProtocolError):
        await parser.parse(message(b"a", 3, b"1"))


@pytest.mark.parametrize(
    "block",
    [
        HEADERS,
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nName:no blank\r\ntraceparent:\t00-aa \r\nwith: two: colons\r\n\r\n",
        b"NATS/1.0\r\nbad name: x\r\nn\xc3\xa1me: x\r\nno colon\r\n: no name\r\nvalue: \xff\xfe\r\n\r\n",
        "NATS/1.0\r\nciudad: \u00dabeda\u00a0\r\n\r\n".encode(),
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 500\r\nNats-Pending-Bytes: 0\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1016\r\n\r\n",
    ],
)
async def test_headers_are_those_that_nats_py_reads(block: bytes) -> None:
    assert headers_of(block) == (await Client()._process_headers(block) or {})


@pytest.mark.parametrize("block", [b"NATS/1.0", b"", b"\r\n", b"NATS/1.0 ", b"nonsense\xff", b"NATS/1.0\r\n\r\n\r\n:"])
def test_a_malformed_block_of_headers_is_no_failure(block: bytes) -> None:
    assert set(headers_of(block)) <= {"Status", "Description", ""}


async def test_what_is_sent_is_what_comes() -> None:
    frame = published(b"order.confirmed", b"_INBOX.1", HEADERS, b"{}")
    assert frame == b"HPUB order.confirmed _INBOX.1 %d %d\r\n%b{}\r\n" % (len(HEADERS), len(HEADERS) + 2, HEADERS)
