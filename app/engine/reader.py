"""The seam between lanes and logs: what a lane reads from and commits to, and what a table is rebuilt from."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from app.engine.owners import Owners
from app.engine.records import Record, Send, TopicPartition


class Owner(Protocol):
    """Who works on a reader's partitions. Partitions come and go; the reader tells before and after.

    `breaks_off`: a `given` that is under way may be cancelled, when its partitions are taken away meanwhile.
    """

    breaks_off: bool

    async def given(self, partitions: Collection[int]) -> None:
        """The partitions are ours: bring their rows up to date. Their records are taken from when this returns."""

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        """The partitions go to another worker: finish and commit (when `lost`: forget) what is under way."""


class Reader(Protocol):
    """A group's reading of topics with the same partitions, and the transactions of what follows from it.

    `batch` says how many records are worth taking at once. `commit_records` and `commit_seconds` say how much may be in
    one transaction: a commit costs an embedded log 0.1 ms and Kafka 5 ms or more.
    """

    batch: int
    commit_records: int
    commit_seconds: float
    ending: bool
    """Set before `stop`: a log that does not answer is not waited for any more."""

    def owners(self) -> Owners:
        """Who has which partition, here and elsewhere. To be called once, before `start`."""

    async def start(self, owner: Owner) -> None:
        """Begin to read; `owner.given` tells what."""

    async def take(self, limit: int, wait: float) -> list[Record]:
        """The next records, at most `limit`, in order within each partition of a topic; [] after `wait` seconds."""

    def stage(self, sends: Sequence[Send]) -> None:
        """Add messages to the transaction under way."""

    def closing(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell, before the last messages are staged, what `commit` will be called with: it may begin to travel."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Commit what was staged, and the offsets (the next record of each partition), all or nothing.

        Returns the offset behind the last record staged for each partition of a topic.
        """

    async def rollback(self) -> None:
        """Forget what was staged, and take again what was taken since the last commit."""

    def lag(self) -> int:
        """Records that are there and not yet committed."""

    async def stop(self) -> None:
        """Give the partitions back."""


Changes = tuple[list[tuple[bytes, bytes | None]], int]
"""Keys with their values (None: deleted) in the order of a changelog, and the offset behind them. None of them: nothing
has come for a while, which is the moment to give up."""


class Changelogs(Protocol):
    """What tables are rebuilt from. Every call may wait for a network or a disk, and is made on a thread."""

    def identity(self, topic: str) -> str:
        """What tells the topic from another one of its name: of another log, or made anew. Without spaces."""

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that is there, and the one that the next record will get."""

    def changes(self, topic: str, partition: int, offset: int) -> Iterator[Changes]:
        """What the records from `offset` to the end as it was at the call set, in batches."""

    def replay(self, topic: str, partition: int, offset: int) -> Iterator[list[Record]]:
        """These records, whole: for whoever needs more of them."""
