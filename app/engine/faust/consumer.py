"""The consumer of our Faust transports: messages are worked off in rounds, and a round is one transaction.

When all messages of a round are acknowledged, their offsets and everything that was sent meanwhile (outputs, table
changes) are committed together. When partitions go, the round is finished before; when a commit is refused, all of the
round is forgotten, in the tables, too, and done again. It decides nothing about messages.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable
from typing import Any, cast

from faust.assignor.client_assignment import ClientAssignment
from faust.types import TP, Message
from mode import get_logger

from app.engine.errors import CommitAborted, EngineError
from app.engine.faust.answers import Answers
from app.engine.faust.messages import message_of
from app.engine.faust.tables import FaustTables
from app.engine.reader import Reader
from app.engine.records import Record, TopicPartition

ROUND = 1_000
"""Messages a round at most."""

LONG = 1.0
"""Seconds that a round should take at most, for rebalances wait: after a longer one the next is half as large."""

IDLE = 0.1
"""Seconds between two looks when nothing arrives."""

FINISH = 60.0
"""Seconds that a round has when its partitions go. A worker whose round takes longer stops."""

logger = get_logger(__name__)


class _AckCounter:
    """Stands where Faust keeps the future that an ack wakes: its compiled stream calls nothing else at an ack."""

    def __init__(self, consumer: "Consumer") -> None:
        self._consumer = consumer

    def done(self) -> bool:
        """Never: each ack is to be heard of."""
        return False

    def set_result(self, _result: object) -> None:
        """A message was acknowledged."""
        self._consumer.on_ack()


class Consumer(Answers):
    """Reads through a reader of the log, and is assigned the like-numbered partitions of sources and changelogs."""

    breaks_off = False

    def on_init(self) -> None:
        """Begin with nothing."""
        self._reader: Reader | None = None
        self._reading: asyncio.Future[Any] | None = None
        self._tables = FaustTables(self.app, self.transport.log, self.transport.partitions)
        self._subscriptions = self._emptied = 0
        self._committing = asyncio.Lock()
        self._topics: set[str] = set()
        self._owned: set[int] = set()
        self._assigned: set[TP] = set()
        self._moved = self._dirty = False
        self._held: list[Record] = []
        self._limit = ROUND
        self._round: dict[TopicPartition, int] = {}
        self._round_size = 0
        self._round_done = asyncio.Event()
        self._failure: BaseException | None = None

    # ---- reading ---------------------------------------------------------------------------------------

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Read the topics from here on. Faust learns of their partitions as of a rebalance, outside of this call."""
        self._subscriptions += 1
        self._reading = self.add_future(self._read(set(topics), self._subscriptions, self._reading))

    async def _read(self, topics: set[str], subscription: int, former: "asyncio.Future[Any] | None") -> None:
        if former is not None:
            await asyncio.wait([former])  # until its round is done
        self._tables.check()
        self._watch_handlers()
        for channel in list(self.app.topics):  # with the partitions that the App asks for
            await cast(Any, channel).maybe_declare()
        for topic in topics:
            await self.transport.ensure(topic)
        self._topics = topics
        # The leader's topic is empty: who has partition 0 of the others is the leader.
        leader = self.randomly_assigned_topics
        sources = topics - self.app.tables.changelog_topics - leader or leader
        if not sources:
            await self._tell(set())
            return
        self._reader = self.transport.reader(self.app.conf.id, sorted(sources))
        try:
            await self._reader.start(self)
            while subscription == self._subscriptions:
                await self._step(self._reader)
        finally:
            await self._leave()

    def _watch_handlers(self) -> None:
        """Faust acknowledges a message whose handler fails, with half of its work done: that round must not end."""
        for agent in cast(Any, self.app.agents).values():
            agent._on_error = self._watching(agent._on_error)  # noqa: SLF001 - nothing else comes before the ack

    def _watching(self, told: Any) -> Any:
        if getattr(told, "watches", False):  # of an earlier subscription
            return told

        async def on_error(agent: Any, error: BaseException) -> None:
            self._failure = self._failure or error
            self._round_done.set()
            if told is not None:
                await told(agent, error)

        on_error.watches = True  # type: ignore[attr-defined]
        return on_error

    async def _step(self, reader: Reader) -> None:
        records = self._held or await reader.take(self._limit, IDLE)
        self._held = []
        if self._moved or self._dirty:
            await self._move()
        if records:
            await self._work_off(records, reader)

    async def _leave(self) -> None:
        """Forget the round if it is not committed, and give the partitions back."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if self._round:
            self.producer.leave()
            await self._drop(reader)
        await reader.stop()

    async def on_stop(self) -> None:
        """Break off the reading, though not in the midst of a commit, and wait until the partitions are given back."""
        if self._reading is not None:
            async with self._committing:
                self._reading.cancel()
            await asyncio.wait([self._reading])

    # ---- rounds ----------------------------------------------------------------------------------------

    async def _work_off(self, records: list[Record], reader: Reader) -> None:
        started, generation = time.monotonic(), self.app.consumer_generation_id
        acks = self.app.topics.acks_enabled_for
        self._round = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in records}
        self._round_size = sum(acks(record.topic) for record in records)
        self._n_acked = 0
        self._round_done.clear()
        self._waiting_for_ack = cast(Any, _AckCounter(self))
        self.producer.begin()
        for record in records:
            await self.callback(cast(Message, message_of(record, generation)))
        while not self._finished:
            await self._round_ends(within=LONG)
            if not self._finished:  # those who share the group may wait for us
                self._held += await reader.take(2, 0)
        await self._commit_round(reader)
        slow = time.monotonic() - started > LONG
        self._limit = max(1, self._limit // 2) if slow else min(ROUND, self._limit * 2)

    @property
    def _finished(self) -> bool:
        return self._n_acked >= self._round_size and self._failure is None

    def on_ack(self) -> None:
        """A stream is done with a message of the round."""
        if self._n_acked >= self._round_size:
            self._round_done.set()

    async def _round_ends(self, within: float) -> None:
        """Wait for the round's end for so many seconds. Raises what a handler has raised."""
        if not self._finished:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._round_done.wait()
        if self._failure is not None:
            raise self._failure

    async def _commit_round(self, reader: Reader) -> None:
        async with self._committing:
            if not self._round:
                return
            self.producer.ending = True
            offsets = {TP(*place): offset for place, offset in self._round.items()}
            await self._handle_attached(offsets)
            reader.stage(await self.producer.collected())
            try:
                await reader.commit(self._round)
            except CommitAborted as error:
                logger.warning("commit aborted, the round is done again: %s", error)
                await self._drop(reader)
            else:
                self._close_round()
                self.app.monitor.on_tp_commit(offsets)

    async def _drop(self, reader: Reader) -> None:
        """Forget the round: its messages are taken again, and the tables are what is committed."""
        self.producer.drop()
        self._close_round()
        self._held = []
        self._dirty = True
        await reader.rollback()

    def _close_round(self) -> None:
        for place in self._round:
            self._acked.pop(TP(*place), None)
            self._acked_index.pop(TP(*place), None)
        self._round = {}
        self._round_size = 0

    # ---- partitions come and go ------------------------------------------------------------------------

    async def given(self, partitions: Collection[int]) -> None:
        """Bring the partitions' rows up to date, beside the rounds of the others."""
        emptied = None
        while emptied != self._emptied:  # else what was recovered is still there
            emptied = self._emptied
            await self._tables.recover(partitions)
        self._owned |= set(partitions)
        self._moved = True

    async def taken(self, partitions: Collection[int], *, lost: bool) -> None:
        """Finish the round and commit it, or forget it when it is too late."""
        reader = self._reader
        if reader is not None and self._round:
            await self._round_ends(within=FINISH)
            if not self._finished:
                raise EngineError(f"partitions go to another worker, and their round is not done after {FINISH:.0f} s")
            await (self._drop(reader) if lost else self._commit_round(reader))
        self._owned -= set(partitions)
        self._held = [record for record in self._held if record.partition not in partitions]
        self._moved = self._dirty = True

    async def _move(self) -> None:
        """Between two rounds: forget the rows of partitions that went, and tell Faust what is ours."""
        self._moved = False
        if self._dirty:
            self._dirty = False
            self._emptied += 1
            self._tables.empty()
            await self._tables.recover(self._owned)
        partitions = self.transport.partitions
        assigned = {TP(topic, p) for topic in self._topics for p in self._owned if p < partitions(topic)}
        if assigned != self._assigned:
            await self._tell(assigned)

    async def _tell(self, assigned: set[TP]) -> None:
        """Lead Faust through a rebalance."""
        self.app.on_rebalance_start()
        if gone := self._assigned - assigned:
            await self.on_partitions_revoked(gone)
        self._assigned = assigned
        self._tell_assignor(assigned)
        self.app.consumer_generation_id += 1
        await self.on_partitions_assigned(set(assigned), self.app.consumer_generation_id)
        logger.info("partitions %s are ours", sorted(self._owned))
        while self.app.rebalancing:  # noqa: ASYNC110 - its recovery, which finds nothing to do, has no event at the end
            await asyncio.sleep(0.005)

    def _tell_assignor(self, assigned: set[TP]) -> None:
        assignor = cast(Any, self.app.assignor)
        actives: dict[str, list[int]] = {}
        for topic, partition in sorted(assigned):
            actives.setdefault(topic, []).append(partition)
        assignor._assignment = ClientAssignment(actives=actives, standbys={})  # noqa: SLF001 - no setter
        assignor._topic_groups = dict.fromkeys(self._topics, 0)  # noqa: SLF001 - no setter
        assignor._active_tps, assignor._standby_tps = set(assigned), set()  # noqa: SLF001 - no setter

    def assignment(self) -> set[TP]:
        """The partitions that are ours."""
        return set(self._assigned)
