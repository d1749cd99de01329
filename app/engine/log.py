"""What a log is to the application: the embedded one and Kafka are both this."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from app.engine.errors import LogFailed
from app.engine.onlooker import Onlooker
from app.engine.reader import Changelogs, Reader
from app.engine.records import Record, Send

FETCHED = 4 * 1024 * 1024
"""Bytes of values after which `fetch` reads no more records."""


class TopicState(NamedTuple):
    """A topic as it is. `retention` is seconds, None: for ever. `records`: on Kafka with the marks of transactions."""

    partitions: int
    policy: str
    copies: int
    retention: float | None
    records: int


class Log(Changelogs, Protocol):
    """Topics, with transactions over what a lane does.

    `keeps_itself_small`: it compacts and trims by itself. `on_commit(records, seconds)` hears of each transaction.
    """

    keeps_itself_small: bool
    where: str
    failure: LogFailed | None
    on_failure: Callable[[LogFailed], None]
    on_commit: Callable[[int, float], None]

    async def connect(self) -> None:
        """Reach the log. Raises LogFailed when it isn't there."""

    async def disconnect(self) -> None:
        """Let go of it, with everything on disk."""

    async def prepare(self, topics: Mapping[str, bool], partitions: int) -> None:
        """Make the topics (name -> compacted) that are not there.

        Raises:
            TopicMismatch: one is there with other partitions, or compacted and should not be, or the reverse.
        """

    async def describe(self) -> dict[str, TopicState]:
        """Every topic that is there, by name."""

    def reader(self, group: str, topics: Sequence[str], *, durable: bool, collects: float = 0.0) -> Reader:
        """A reader of the topics for a group. `durable`: it takes only what would survive a power cut.

        `collects`: seconds that whoever reads collects records for one commit, so that they need not come one by one.
        """

    def onlooker(self, *topics: str) -> Onlooker:
        """Who looks on at the topics, without a group."""

    async def commit(self, sends: Iterable[Send]) -> int:
        """Append the messages, all or nothing, outside of any lane. Returns the commit's number, for `synced`."""

    async def fetch(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """Those of the records at these (ascending) offsets that are there; behind FETCHED bytes no more are read."""

    async def compact_grown(self, rows: Mapping[str, Mapping[int, int]]) -> None:
        """Compact the partitions that have grown far beyond their rows (topic -> partition -> rows)."""

    async def trim_old(self, topics: Sequence[str], before: float) -> None:
        """Drop the topics' records that are older than `before` and that every reader is done with."""

    async def synced(self, commit: int | None = None) -> None:
        """Return when the commit (default: the last one) survives a power cut."""
