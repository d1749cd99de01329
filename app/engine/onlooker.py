"""The seam for whoever looks on: reads topics from any place on, without a group, and commits nothing."""

from collections.abc import Mapping
from typing import Protocol

from app.engine.records import Record, TopicPartition


class Onlooker(Protocol):
    """Reads on in some topics. What it shows is committed. One user at a time."""

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset of each place that is read; also behind what is no record (marks of transactions)."""

    async def spans(self) -> dict[TopicPartition, tuple[int, int]]:
        """Of every partition, the offset before which something is lost, and the one behind all that is committed.

        Raises:
            LogFailed: the log does not tell, within seconds.
        """

    async def begin(self, places: Mapping[TopicPartition, int]) -> None:
        """Read these places from their offsets on. To be called once."""

    async def take(self, limit: int, wait: float) -> list[Record]:
        """The next records, at most `limit`, in order within each place; [] after `wait` seconds, or before.

        Raises:
            LogFailed: a place is not there any more, or can't be read. A log that is away is waited for.
        """

    async def close(self) -> None:
        """Stop reading."""


class Overlooked(Protocol):
    """A log that lets onlookers in."""

    def identity(self, topic: str) -> str:
        """As of `Changelogs`."""

    def onlooker(self, *topics: str) -> Onlooker:
        """A new one, of the topics."""
