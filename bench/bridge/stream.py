"""The JetStream side of a run: a stream that is filled beforehand, or read afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import nats.errors

from bench.bridge.judge import Judge
from bench.bridge.messages import Spoken, number_of
from bench.programs import STUCK, Wrong
from bridge.connection import connect
from bridge.frames import FrameClient
from bridge.jetstream import ApiError, api, ensure_stream, stream_state
from bridge.ordered_pull import OrderedPull
from bridge.origin import MESSAGE_ID
from bridge.routes import ROUTES

STREAM = "A4CO_EVENTS"
SECOND_NS = 1_000_000_000


class Stream:
    """The bridge's own stream on the server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[FrameClient]:
        connection = await connect([self.url], "bench")
        try:
            yield connection.client
        finally:
            await connection.close()

    async def fresh(self) -> None:
        """A new and empty one in its place."""
        async with self._connected() as client:
            with contextlib.suppress(ApiError):
                await api(client, f"STREAM.DELETE.{STREAM}")
            await ensure_stream(client, STREAM, [route.subject for route in ROUTES])

    async def fill(self, messages: Iterable[Spoken], told: Callable[[int], None]) -> None:
        """Publish the messages as services do. Raises Wrong when the stream has not got all of them."""
        count = 0
        async with self._connected() as client:
            for count, message in enumerate(messages, 1):
                await client.publish(message.subject, message.payload)
                if count % 500 == 0:
                    await client.flush(timeout=60)
                    told(count)
            await client.flush(timeout=60)
            there = 0
            for _ in range(100):  # what was published without asking for an ack is stored soon
                there = (await stream_state(client, STREAM)).last_seq
                if there == count:
                    return
                await asyncio.sleep(STUCK / 100)
            raise Wrong(f"the stream has {there} of {count} messages")

    async def last(self) -> int:
        """How many are there."""
        try:
            async with self._connected() as client:
                return (await stream_state(client, STREAM)).last_seq
        except (ApiError, nats.errors.Error, TimeoutError):  # on a busy machine the server may not answer in time
            return 0

    async def read(self, judge: Judge) -> None:
        """Tell the judge of everything that was published for it, by its id."""
        async with self._connected() as client:
            end, at = (await stream_state(client, STREAM)).last_seq, 0
            async with OrderedPull(client, STREAM, headers_only=True) as pull:
                while at < end:
                    for message in await pull.take(500):
                        at = message.seq
                        identity = (message.headers or {}).get(MESSAGE_ID)
                        if identity is not None:
                            judge.hear(number_of(identity.partition(":")[0]), message.time / SECOND_NS)
