"""What the bridge needs of a log."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from app.engine.records import Record, Send, TopicPartition


class BridgeLog(Protocol):
    """Appends with notes, and reads `outbound`. The embedded log is one; on Kafka, that of the lease's holder.

    `commit_seconds`: how long a commit that nobody waits for should wait for others (one costs Kafka 5 ms or more).
    """

    commit_seconds: float

    def partitions(self, topic: str) -> int: ...
    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]: ...
    def end(self, topic: str, partition: int) -> int: ...
    def committed(self, group: str, topic: str, partition: int) -> int | None: ...
    def note(self, name: str) -> bytes | None: ...
    def watch(self, topics: Iterable[str]) -> asyncio.Event: ...
    async def commit(
        self,
        sends: Iterable[Send],
        *,
        group: str = "",
        offsets: Mapping[TopicPartition, int] | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> int: ...
    async def synced(self, commit: int | None = None) -> None: ...
