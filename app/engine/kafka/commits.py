"""What a member of a consumer group commits: one transaction holds outputs, changelog records and offsets.

The offsets are sent with the group's metadata, so that a worker which lost its partitions can't commit any more
(KIP-447). With each offset goes the name of its writer, which is another one for every start of a process, and the
transaction's number. By the name, whoever takes a partition over from a worker that did not give it back ends its
unfinished transaction at once, instead of waiting for its timeout. By the number, a worker without an answer to its
commit sees if it was made.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError, Message
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, CommitUnknown, LogAway, LogFailed
from app.engine.kafka.begun import Begun
from app.engine.kafka.cluster import Cluster
from app.engine.kafka.patience import Patience
from app.engine.kafka.transactions import Transactions
from app.engine.records import Send, TopicPartition

RENEW = 6 * 3600.0
"""Seconds after which offsets that did not move are committed again: brokers forget old ones when a group is without
members for a moment (KIP-848), a week after their commit by default."""

NUMBER = "#"
"""Stands between a writer's name and the number of its transaction in the metadata of an offset."""

logger = structlog.get_logger("a4co.engine.kafka")


class Closing(NamedTuple):
    """What a transaction is committed with: offsets, the metadata they stand with, and the first ones of a place.

    `renews`: they are all that we have.
    """

    sent: Mapping[TopicPartition, int]
    metadata: str
    marked: set[TopicPartition]
    renews: bool


class Commits:
    """Those of one member of `group`, by a writer whose name begins with `name`.

    `membership` gives the group's metadata of now, and `standing` what is committed of what is ours.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        name: str,
        patience: Patience,
        begun: Begun | None,
        membership: Callable[[], object],
        standing: Callable[[], dict[TopicPartition, int]],
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._patience = patience
        self._begun = begun
        self._membership = membership
        self._standing = standing
        self._writer = Transactions(cluster, f"{name}.{uuid.uuid4().hex[:12]}")
        self._number = 0
        self._closing: Closing | None = None
        self._ends: dict[TopicPartition, int] = {}
        self._unmarked: set[TopicPartition] = set()
        self._renewed = -RENEW

    async def open(self) -> None:
        """Open the writer, or open it anew. Waits for Kafka if it has to."""
        await self._patience.until_answered("transactions", lambda: self._cluster.call(self._writer.open))

    def take_over(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """End the transaction of whoever had the places and did not give them back; then what is committed is sure.

        Blocks. Never to be broken off: later on, it would end the transaction of whoever has the places then.
        """
        # Without waiting for transactions that are not decided, which are those that are to be ended.
        stands = self._cluster.stands(self._group, places, "read_uncommitted")
        former = {writer_of(metadata) for _, metadata in stands.values() if metadata}
        for name in former - {self._writer.name}:
            logger.info("ending the transaction of a worker that is gone", worker=name)
            Transactions(self._cluster, name).open()
        stands = self._cluster.stands(self._group, places)
        if self._begun is not None:
            if without := [place for place, (offset, _) in stands.items() if offset is None]:
                self._begun.check(self._group, without)
            self._unmarked |= set(places)
        return {place: offset or 0 for place, (offset, _) in stands.items()}

    async def give_back(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Take our name from the offsets: there is nothing of ours to be ended. Raises CommitAborted."""
        if not self._number:
            return
        self._offer(offsets, "")
        try:
            await self._cluster.call(self._writer.commit)
        except CommitUnknown as error:
            await self._begin_anew(str(error))

    def stage(self, sends: Sequence[Send]) -> None:
        """Hand the messages to the producer: they travel while the lane works on."""
        self._writer.stage(sends, self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            place = TopicPartition(self._cluster.inner(message.topic() or ""), message.partition() or 0)
            self._ends[place] = (message.offset() or 0) + 1

    def closing(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Send what the transaction under way will be committed with, while the rest of it is staged."""
        # Without offsets (timers only), those that stand: a worker that is out of the group must not commit anything.
        renews = time.monotonic() >= self._renewed + RENEW
        sent = {**self._standing(), **offsets} if renews or not offsets else dict(offsets)
        marked = self._unmarked & sent.keys() if self._unmarked else set()
        if self._begun is not None and marked:
            self._writer.stage([self._begun.mark(self._group, place) for place in sorted(marked)])
        self._number += 1
        metadata = f"{self._writer.name}{NUMBER}{self._number}"
        self._offer(sent, metadata)
        self._closing = Closing(sent, metadata, marked, renews)

    def _offer(self, offsets: Mapping[TopicPartition, int], metadata: str) -> None:
        outer = self._cluster.outer
        places = [Place(outer(topic), partition, offset, metadata) for (topic, partition), offset in offsets.items()]
        self._writer.offer(places, self._membership)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """One Kafka transaction. Returns the offset behind the last record staged for each partition of a topic.

        Raises:
            CommitAborted: it was not committed, and can be done again.
            LogFailed: whether it was committed is not known.
        """
        if self._closing is None:
            self.closing(offsets)
        assert self._closing is not None
        closing, self._closing = self._closing, None
        try:
            await self._cluster.call(self._writer.commit)
        except CommitUnknown as error:
            await self._decide(closing.sent, closing.metadata, error)
        self._unmarked -= closing.marked
        if closing.renews:
            self._renewed = time.monotonic()
        ends, self._ends = self._ends, {}
        return ends

    async def _decide(self, sent: Mapping[TopicPartition, int], metadata: str, error: CommitUnknown) -> None:
        """Return if the commit was made, which new producers decide. Raises CommitAborted if it was not.

        If others have all of its partitions by now, there is no telling, and nobody here who would need to know.
        """
        await self._begin_anew(str(error))
        stands = await self._patience.until_answered(
            "commit", lambda: self._cluster.call(self._cluster.stands, self._group, sent)
        )
        if not any(found == metadata for _, found in stands.values()):
            raise CommitAborted(f"it was not committed: {error}") from error
        logger.info("it was committed", group=self._group)

    async def renew(self) -> None:
        """Commit again what stands when it is time. Nothing of it waits for anybody: what goes wrong is tried again."""
        if time.monotonic() >= self._renewed + RENEW and not self._writer.under_way:
            try:
                await self.commit({})
            except CommitAborted:
                await self.abort()

    async def abort(self) -> None:
        """Forget what was staged. Waits for Kafka if it has to. Raises LogFailed when there is no time for it."""
        try:
            await self._cluster.call(self._writer.abort)
        except LogFailed as error:  # another worker has ended it, or the broker, or no broker answers
            await self._begin_anew(str(error))
        self._ends, self._closing = {}, None

    async def _begin_anew(self, cause: str) -> None:
        """End with new producers what the old ones left. Raises LogFailed when there is no time for it."""
        if self._patience.ending:
            raise LogAway(cause)
        logger.warning("beginning anew with other producers", group=self._group, cause=cause)
        await self.open()


def writer_of(metadata: str) -> str:
    """The name of the writer whose offset this stands with."""
    name, _, number = metadata.rpartition(NUMBER)
    return name or number
