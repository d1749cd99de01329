"""What the streams have got from us already: asked before anything is said on a new connection. It decides nothing."""

import asyncio
from collections.abc import Mapping

from bridge.flight import PublishFailed, decode_ack
from bridge.frames import FrameClient
from bridge.jetstream import BARRIER, StreamState, stream_state
from bridge.ordered_pull import OrderedPull
from bridge.origin import MESSAGE_ID, ORIGIN
from bridge.sources import Sources

TAKEN = 1_000
"""Messages that are looked at in one piece, at most."""
TOO_MANY = 429
"""JetStream's code when too much waits to be stored."""
BUSY = 0.5
"""Seconds until it is asked again."""
PATIENCE = 120.0
"""Seconds in which a stream has to have stored what was published before: a burst of 100,000 takes a minute with
`sync_interval: always` on a slow disk. What comes in is mirrored meanwhile."""

Found = dict[tuple[str, str], tuple[str, int]]
"""Stream and sequence of each (id, mark). A forged mark is nobody's: it equals none of ours."""


async def found_behind(client: FrameClient, sources: Sources, begin: Mapping[str, int]) -> tuple[Found, dict[str, int]]:
    """What the streams have of ours behind these sequences, and how far each of them is.

    Raises:
        PublishFailed: our stream refuses messages.
        BridgeError, nats.errors.Error: it can't be known just now.
    """
    found: Found = {}
    ends: dict[str, int] = {}
    barrier = await _barrier(client) if sources.own is not None else 0
    for stream in sources.streams:
        own = sources.own is not None and stream.name == sources.own.name
        ends[stream.name] = end = barrier if own else (await stream_state(client, stream.name)).last_seq
        start = begin.get(stream.name, end)
        if stream.retention == "limits" and start < end:
            found |= await _ids(client, stream, start, end)
    return found, ends


async def _barrier(client: FrameClient) -> int:
    """Our stream's sequence once all that was sent before has been stored, by others, too."""
    while True:
        answer = await client.request(BARRIER, b"", timeout=PATIENCE)
        ack = decode_ack(answer.data)
        if ack.error is None:
            return ack.seq
        if ack.error.get("code") != TOO_MANY:
            raise PublishFailed(f"the stream takes no messages: {ack.error.get('description')}")
        await asyncio.sleep(BUSY)


async def _ids(client: FrameClient, stream: StreamState, after: int, until: int) -> Found:
    found: Found = {}
    async with OrderedPull(client, stream.name, seq=after + 1, headers_only=True) as pull:
        reached = pull.pending == 0
        while not reached:
            for message in await pull.take(TAKEN):
                headers = message.headers or {}
                if ORIGIN in headers:
                    found[headers.get(MESSAGE_ID, ""), headers[ORIGIN]] = stream.name, message.seq
                reached = reached or message.seq >= until or message.pending == 0
    return found
