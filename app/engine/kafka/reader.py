"""A lane's reader on Kafka: a member of a consumer group.

It decides when partitions are ours, and which of their records are taken. What is committed is decided in `commits`.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from app.engine.errors import CommitAborted, LogFailed
from app.engine.kafka.begun import Begun
from app.engine.kafka.cluster import Cluster, passing
from app.engine.kafka.commits import Commits
from app.engine.kafka.owners import GroupOwners, client_id
from app.engine.kafka.patience import Patience
from app.engine.reader import Owner
from app.engine.records import Record, Send, TopicPartition

LOOKS = 0.5
"""Seconds between two looks at the lag."""

SESSION_MS = 6_000
"""A worker that is silent for so long has lost its partitions (classic protocol; else the broker says how long)."""

COLLECTS_BYTES, COLLECTS_MS = 100_000, 500
"""How much, and for how long at most, the broker collects for a reader that collects itself."""

logger = structlog.get_logger("a4co.engine.kafka")


class KafkaReader:
    """Reads `topics`, which have the same number of partitions, as a member of `group`."""

    batch = 2_000

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        topics: Sequence[str],
        begun: Begun | None = None,
        collects: float = 0.0,
    ) -> None:
        options = cluster.options
        self.commit_records = options.commit_records
        self.commit_seconds = options.commit_seconds
        self._cluster = cluster
        self._group = group
        self._topics = list(topics)
        self._collects = collects
        self._name = f"{group}.{options.worker}"
        self._patience = Patience(group)
        self._commits = Commits(cluster, group, self._name, self._patience, begun, self._member, self._standing)
        self._incremental = options.group_protocol == "consumer"
        self._owner: Owner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._consumer: Consumer | None = None
        self._ours: set[int] = set()
        self._waiting: list[Place] = []
        self._membership: object | None = None
        self._polling: asyncio.Future[list[Record]] | None = None
        self._stopping = False
        self._lag, self._looked = 0, 0.0
        self._giving: dict[int, asyncio.Task[None]] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._reached: dict[TopicPartition, int] = {}
        self.told = False
        """Whether the group has told of something that is ours; of nothing it doesn't."""
        self._gone: set[int] = set()
        self._rewinding = False
        self._astray: dict[TopicPartition, int] = {}
        self._failure: Exception | None = None
        self._owners: GroupOwners | None = None

    @property
    def ending(self) -> bool:
        """Set before `stop`: Kafka that does not answer is not waited for any more."""
        return self._patience.ending

    @ending.setter
    def ending(self, ending: bool) -> None:
        self._patience.ending = ending

    def owners(self) -> GroupOwners:
        """Who has which partition; looked for from `start` on."""
        self._owners = GroupOwners(self._cluster, self._group, len(self._topics))
        return self._owners

    # ---- membership ------------------------------------------------------------------------------------

    async def start(self, owner: Owner) -> None:
        """Join the group. Partitions come while `take` is called."""
        self._owner, self._loop = owner, asyncio.get_running_loop()
        name = client_id(self._name, self._cluster.options.url)
        settings: dict[str, Any] = {"group.id": self._cluster.outer(self._group), "client.id": name}
        if self._incremental:
            settings |= {"group.protocol": "consumer", "group.remote.assignor": "range"}
        else:
            settings |= {"partition.assignment.strategy": "range", "session.timeout.ms": SESSION_MS}
            settings |= {"heartbeat.interval.ms": 1_000}
        if self._collects:  # the broker collects, too: each answer costs both of us
            wait = min(int(1000 * self._collects / 2), COLLECTS_MS)
            settings |= {"fetch.min.bytes": COLLECTS_BYTES, "fetch.wait.max.ms": wait}
        self._consumer = Consumer(self._cluster.consumer(**settings))
        await self._commits.open()
        self._consumer.subscribe(
            [self._cluster.outer(topic) for topic in self._topics],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        if self._owners is not None:
            self._owners.start()

    def _on_assign(self, consumer: Consumer, places: list[Place]) -> None:
        """On the polling thread. The places wait, paused, until their owner has them up to date."""
        if not places:
            return
        self.told = True
        if self._owners is not None:
            self._owners.member = consumer.memberid() or ""
        (consumer.incremental_assign if self._incremental else consumer.assign)(places)
        consumer.pause(places)
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._begin_giving({place.partition for place in places}), self._loop).result()

    @property
    def giving(self) -> bool:
        """Whether something becomes ours just now."""
        return bool(self._giving)

    async def _begin_giving(self, partitions: set[int]) -> None:
        for partition in partitions:
            self._giving[partition] = asyncio.get_running_loop().create_task(self._give(partition))

    async def _give(self, partition: int) -> None:
        owner, place = self._owner, f"partition {partition}"
        assert owner is not None
        try:
            places = [TopicPartition(topic, partition) for topic in self._topics]
            taking = functools.partial(self._cluster.call, self._commits.take_over, places)
            committed = await self._patience.until_answered(place, taking)
            await self._patience.until_answered(place, lambda: owner.given([partition]))
            self._committed |= committed
            self._ours.add(partition)
            self._waiting += [Place(self._cluster.outer(topic), partition) for topic in self._topics]
            if self._owners is not None:
                self._owners.changed()
        except Exception as error:  # noqa: BLE001 - `take` raises it
            self._failure = error
        finally:
            self._giving.pop(partition, None)

    def _on_revoke(self, consumer: Consumer, places: list[Place]) -> None:
        """On the polling thread, which waits until the owner has finished."""
        self._give_back(places, lost=False)
        if self._incremental:
            consumer.incremental_unassign(places)
        else:
            consumer.unassign()

    def _on_lost(self, consumer: Consumer, places: list[Place]) -> None:
        self._give_back(places, lost=True)
        if self._incremental:
            consumer.incremental_unassign(places)
        else:
            consumer.unassign()

    def _give_back(self, places: list[Place], *, lost: bool) -> None:
        if self._stopping:
            return
        assert self._loop is not None
        assert self._consumer is not None
        partitions = {place.partition for place in places}
        # Asked here: another thread would wait for this one.
        self._membership = self._consumer.consumer_group_metadata()
        try:
            asyncio.run_coroutine_threadsafe(self._taken(partitions, lost=lost), self._loop).result()
        except Exception as error:  # noqa: BLE001 - `take` raises it; here it would leave the partitions assigned
            self._failure = error
        finally:
            self._membership = None

    async def _taken(self, partitions: set[int], *, lost: bool) -> None:
        assert self._owner is not None
        waiting = [task for partition, task in self._giving.items() if partition in partitions]
        if self._owner.breaks_off:  # nobody waits for rows that go elsewhere
            for task in waiting:
                task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        leaving = partitions & self._ours
        places = {place: at for place, at in self._committed.items() if place.partition in partitions}
        try:
            if leaving:
                await self._owner.taken(leaving, lost=lost)
                places = {place: self._committed[place] for place in places}
                if not lost:
                    await self._give_offsets_back(places)
        finally:  # also when it failed: the owner is not told twice
            self._ours -= partitions
            self._gone |= partitions
            for place in places:
                for known in (self._committed, self._reached, self._astray):
                    known.pop(place, None)

    async def _give_offsets_back(self, offsets: dict[TopicPartition, int]) -> None:
        try:
            await self._commits.give_back(offsets)
        except CommitAborted:
            await self.rollback()

    # ---- reading ---------------------------------------------------------------------------------------

    async def take(self, limit: int, wait: float) -> list[Record]:
        """The next records. Partitions come and go in here, and nowhere else.

        Raises:
            LogFailed: Kafka refused what can't be repeated.
        """
        if self._failure is not None:
            raise self._failure
        if self._ours:
            await self._commits.renew()
        self._polling = asyncio.ensure_future(self._cluster.call(self._poll, limit, wait))
        # A lane that is cancelled leaves the poll running: `stop` waits for it.
        return await asyncio.shield(self._polling)

    def _poll(self, limit: int, wait: float) -> list[Record]:
        assert self._consumer is not None
        if self._waiting:  # here, for a call from another thread would wait for a rebalance that waits for that thread
            waiting, self._waiting = self._waiting, []
            self._consumer.resume([place for place in waiting if place.partition in self._ours])
        self._rewind()
        self._gone.clear()
        self._look()
        first = self._consumer.poll(max(wait, 0.001))
        records = []
        for message in (first, *self._consumer.consume(limit - 1, timeout=0)) if first is not None else ():
            error = message.error()
            if error is None:
                records.append(self._cluster.record(message))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
                place = TopicPartition(self._cluster.inner(message.topic() or ""), message.partition() or 0)
                self._reached[place] = message.offset() or 0
            elif not passing(error):
                raise LogFailed(f"Kafka: {error.str()}")
        if self._failure is not None:  # what was under way is torn: it must not be committed
            raise self._failure
        if self._rewinding:  # partitions were lost meanwhile, and the others' records are taken again
            return []
        if not self._gone and not self._astray:
            return records
        return [
            record
            for record in records
            if record.partition not in self._gone and (record.topic, record.partition) not in self._astray
        ]

    # ---- committing ------------------------------------------------------------------------------------

    def stage(self, sends: Sequence[Send]) -> None:
        """Hand the messages to the producer: they travel while the lane works on."""
        self._commits.stage(sends)

    def closing(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Send what the transaction under way will be committed with, while the rest of it is staged."""
        self._commits.closing(offsets)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """One Kafka transaction.

        Raises:
            CommitAborted: it was not committed, and can be done again.
            LogFailed: whether it was committed is not known.
        """
        ends = await self._commits.commit(offsets)
        self._committed.update(offsets)
        return ends

    def _member(self) -> object:
        assert self._consumer is not None
        return self._membership or self._consumer.consumer_group_metadata()

    def _standing(self) -> dict[TopicPartition, int]:
        return {place: at for place, at in self._committed.items() if place.partition in self._ours}

    async def rollback(self) -> None:
        """Abort, and go back to what is committed. Waits for Kafka if it has to."""
        await self._commits.abort()
        self._rewinding = True  # by the polling thread, for which another thread would wait

    def _rewind(self) -> None:
        """On the polling thread: go back to what is committed.

        Of a partition for which that fails no record is taken until it succeeds: what was taken before would be missed.
        """
        assert self._consumer is not None
        if self._rewinding:
            self._rewinding = False
            self._astray = dict(self._committed)
            self._reached = {}  # what waits again is a lag again
        for place, offset in list(self._astray.items()):
            if place.partition in self._ours:
                at = Place(self._cluster.outer(place.topic), place.partition, offset or OFFSET_BEGINNING)
                try:
                    self._consumer.seek(at)
                except KafkaException as error:
                    logger.warning("can't go back yet", place=f"{place.topic}-{place.partition}", cause=str(error))
                    continue
            del self._astray[place]

    def lag(self) -> int:
        """Records that are there and not yet committed, as the last look had it (every half second).

        A partition whose end was not seen since it is ours counts as one more: what waits in it is not known.
        """
        ours = [place for place in self._committed if place.partition in self._ours]
        return self._lag + sum(place not in self._reached for place in ours)

    def _look(self) -> None:
        """On the polling thread, for calls of one consumer from two threads wait for each other."""
        now = time.monotonic()
        if now < self._looked + LOOKS:
            return
        assert self._consumer is not None
        self._looked, lag = now, 0
        for place, committed in list(self._committed.items()):
            if place.partition in self._ours:
                at = Place(self._cluster.outer(place.topic), place.partition)
                with contextlib.suppress(KafkaException):
                    _, high = self._consumer.get_watermark_offsets(at, cached=True)
                    lag += max(0, high - max(committed, self._reached.get(place, 0)))
        self._lag = lag

    async def stop(self) -> None:
        """Finish what is under way, give the partitions back, and leave the group."""
        consumer = self._consumer
        if consumer is None or self._stopping:
            return
        self.ending = True
        if self._polling is not None:
            await asyncio.wait([self._polling])
        try:
            with contextlib.suppress(LogFailed, CommitAborted):
                await self._taken(self._ours | self._giving.keys(), lost=False)
            with contextlib.suppress(LogFailed):
                await self._commits.abort()
        finally:
            self._stopping = True
            if self._owners is not None:
                await self._owners.stop()
            await self._cluster.call(consumer.close)
            self._consumer = None
