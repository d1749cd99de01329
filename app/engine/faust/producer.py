"""The producer of our Faust transports: what agents send belongs to their round, the rest is committed at once."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, cast

from faust.agents import current_agent
from faust.streams import current_event
from faust.transport import base
from faust.types import TP, RecordMetadata
from faust.types.tuples import FutureMessage

from app.engine.errors import EngineError
from app.engine.faust.messages import headers_of
from app.engine.partitioner import partition_for
from app.engine.records import Send

if TYPE_CHECKING:
    from app.engine.faust.transport import LogTransport

UNKNOWN = -1
"""The offset that a sender is told: which one it is, the commit decides."""


class Producer(base.Producer):
    """Keeps what a round sends until the consumer commits it; commits what is sent outside of rounds by itself."""

    driver_version = "a4co"
    transport: "LogTransport"

    def on_init(self) -> None:
        """Begin with nothing to send."""
        self.in_round = False
        self.ending = False
        self._left = False
        self._known: set[str] = set()
        self._round: list[Send] = []
        self._changes: list[FutureMessage] = []
        self._outside: list[tuple[Send, asyncio.Future[RecordMetadata]]] = []
        self._soon: list[FutureMessage] = []
        self._flushing: asyncio.Task[None] | None = None

    async def on_start(self) -> None:
        """Reach the log. Raises EngineError when it isn't there."""
        await super().on_start()
        await self.transport.connect()

    async def on_stop(self) -> None:
        """Commit what is left, and let go of the log."""
        await self.flush()
        await super().on_stop()
        await self.transport.disconnect()

    @property
    def _collects(self) -> bool:
        """Whether what is sent just now belongs to a round: an agent sends it (`take` hides the event), or its end."""
        return (self.in_round or self._left) and (
            self.ending or current_event() is not None or current_agent() is not None
        )

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Take the message. The future is done when it is committed; in a round, whose end can't be waited for, now."""
        del transactional_id  # the round is the transaction
        await self._ensure(topic)
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        send = Send(topic, key, value, headers_of(headers), timestamp, partition)
        if self._collects:
            if not self._left:
                self._round.append(send)
            future.set_result(self._metadata(send))
        else:
            self._outside.append((send, future))
            self._schedule()
        return future

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Send and wait for the commit; in a round there is nothing to wait for yet."""
        future = await self.send(topic, key, value, partition, timestamp, headers, transactional_id=transactional_id)
        return await future

    async def _ensure(self, topic: str) -> None:
        """Make the topic the first time that something is sent to it."""
        if topic not in self._known:
            await self.transport.ensure(topic)
            self._known.add(topic)

    def send_soon(self, fut: FutureMessage) -> None:
        """Take a message from code that can't await (a table's change)."""
        if self._collects:
            if not self._left:
                self._changes.append(fut)
        else:
            self._soon.append(fut)
            self._schedule()

    def _metadata(self, send: Send) -> RecordMetadata:
        partition = send.partition
        if partition is None:
            # A message without a key goes anywhere.
            partition = self.key_partition(send.topic, send.key).partition if send.key is not None else UNKNOWN
        return RecordMetadata(send.topic, partition, TP(send.topic, partition), UNKNOWN)

    # ---- rounds ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A round begins."""
        self.in_round, self._left = True, False

    async def collected(self) -> list[Send]:
        """Everything that the round has sent. What an agent sends from here on is no longer the round's."""
        self.ending = True
        try:
            collected, self._round = self._round, []
            changes, self._changes = self._changes, []
            for fut in changes:
                await self._collect(fut, collected)
            return collected
        finally:
            self.ending = self.in_round = False

    async def _collect(self, fut: FutureMessage, collected: list[Send]) -> None:
        """What Faust's `publish_message` does, which takes 50 µs for a table's change."""
        message = fut.message
        topic = message.channel.get_topic_name()
        await self._ensure(topic)
        key, value = cast(bytes | None, message.key), cast(bytes | None, message.value)
        send = Send(topic, key, value, headers_of(message.headers), message.timestamp, message.partition)
        collected.append(send)
        fut.set_result(self._metadata(send))
        if message.callback:
            message.callback(fut)

    def drop(self) -> None:
        """Forget what the round has sent: its messages will be delivered again."""
        self._round.clear()
        self._changes.clear()
        self.in_round = False

    def leave(self) -> None:
        """Forget the round, and what its handlers, which may still run, will send."""
        self._left = True
        self.drop()

    # ---- outside of rounds -----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_outside())

    async def _flush_outside(self) -> None:
        try:
            while self._soon or self._outside:
                soon, self._soon = self._soon, []
                for fut in soon:
                    await fut.message.channel.publish_message(fut, wait=False)
                outside, self._outside = self._outside, []
                await self._commit(outside)
        finally:
            self._flushing = None

    async def _commit(self, outside: list[tuple[Send, asyncio.Future[RecordMetadata]]]) -> None:
        try:
            await self.transport.log.commit([send for send, _ in outside])
        except EngineError as error:
            for _, future in outside:
                if not future.done():
                    future.set_exception(error)
            await self.crash(error)
        for send, future in outside:
            if not future.done():
                future.set_result(self._metadata(send))

    async def flush(self) -> None:
        """Return when what was sent outside of rounds is committed, and on disk."""
        while self._flushing is not None:
            await self._flushing
        await self.transport.log.synced()

    # ---- topics ----------------------------------------------------------------------------------------

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Any = None,  # noqa: ASYNC109 - Faust's signature
        retention: Any = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,
    ) -> None:
        """Make the topic, if it isn't there."""
        del timeout, ensure_created
        policy = [name for name, wanted in (("compact", compacting), ("delete", deleting)) if wanted]
        settings = {"cleanup.policy": ",".join(policy)} if policy else {}
        if retention:
            settings["retention.ms"] = str(int(1000 * getattr(retention, "total_seconds", lambda: retention)()))
        await self.transport.declare(topic, partitions, replication, {**settings, **(config or {})})

    def key_partition(self, topic: str, key: bytes) -> TP:
        """The partition of the key, by murmur2 as Kafka's Java client."""
        return TP(topic, partition_for(key, self.transport.partitions(topic)))

    def supports_headers(self) -> bool:
        """Headers are kept."""
        return True
