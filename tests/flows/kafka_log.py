"""Kafka under a marketplace of the flow tests: one broker, and topics of its own for each marketplace.

A watcher reads every topic beside the application, so that "nothing waits" is measured against what really is in the
log: transactions' markers have offsets too, and the lanes' own lag is up to half a second old.
"""

import asyncio
import gc
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
)
from msgspec.structs import replace

from app.bridging import APP_ID
from app.engine.embedded_log import EmbeddedLog
from app.engine.engine import Engine
from app.engine.kafka.log import KafkaLog
from app.engine.kafka.options import KafkaOptions
from app.engine.kafka.reader import KafkaReader
from app.engine.lanes import Lane, ReducerLane
from app.engine.records import Record, Send, TopicPartition

ARRIVES = 10.0
"""Seconds for a committed record to be seen by who reads along."""


def accept_any_time(servers: str) -> None:
    """The tests' clock is far from the broker's, which else refuses records from the future."""
    entry = ConfigEntry(
        "log.message.timestamp.after.max.ms", str(2**63 - 1), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": servers})
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(10)


class KafkaMarketLog:
    """One marketplace's topics on a broker that others use too."""

    def __init__(self, servers: str) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self._servers = servers
        self._prefix = f"market-{uuid.uuid4().hex[:8]}."
        self._log: KafkaLog | None = None
        self._beside = KafkaLog(
            self._options("beside"), "beside"
        )  # appends as the bridge does, with or without a worker
        self._watcher: Consumer | None = None
        self._seen: dict[TopicPartition, list[Record]] = defaultdict(list)
        self._reached: dict[TopicPartition, int] = {}

    def _options(self, worker: str) -> KafkaOptions:
        return KafkaOptions(self._servers, worker, self._prefix)

    async def open(self, directory: Path) -> EmbeddedLog | KafkaLog:
        del directory
        self._log = KafkaLog(self._options("worker"), APP_ID)
        await self._log.connect()
        return self._log

    async def close(self) -> None:
        assert self._log is not None
        await self._log.disconnect()

    async def drop(self) -> None:
        """The topics of a whole run would be too many."""
        if self._watcher is not None:
            await asyncio.to_thread(self._watcher.close)
        self._beside.cluster.admin.delete_topics([self._outer(topic) for topic in self._beside.cluster.partitions()])
        await self._beside.disconnect()
        gc.collect()  # every client takes one of the process's 1,024 keys of thread-local storage until it is collected

    async def append(self, sends: Sequence[Send]) -> None:
        now = self.clock()
        await self._beside.commit([replace(send, timestamp=send.timestamp or now) for send in sends])

    def records(self, topic: str) -> list[Record]:
        self._read_to_the_end()
        places = sorted(place for place in self._seen if place.topic == topic)
        return [record for place in places for record in self._seen[place]]

    async def idle(self, engine: Engine) -> bool:
        """The order counts: what the lanes had done when they were asked must be all that is there afterwards."""
        partitions = engine.application.partitions
        if any(lane._partitions < partitions or lane._since is not None for lane in engine.lanes):
            return False
        now = engine._clock()
        parts = [part for table in engine.tables.values() for part in table.partitions.values()]
        if any(deadline is not None and deadline <= now for deadline in (part.next_due() for part in parts)):
            return False
        readers = [cast(KafkaReader, lane.reader) for lane in engine.lanes]
        done = [
            (place, offset)
            for reader in readers
            for place, offset in reader._committed.items()
            if place.partition in reader._ours
        ]
        if len(done) < sum(partitions * len(reader._topics) for reader in readers):
            return False
        await asyncio.to_thread(self._read_to_the_end)
        return all(offset > self._seen[place][-1].offset for place, offset in done if self._seen[place])

    def wake(self, engine: Engine) -> None:
        """The lanes look at their deadlines at their next poll."""

    async def send_away(self, lane: Lane, partitions: int) -> None:
        """It is no member of its group."""
        if isinstance(lane, ReducerLane):
            await lane.given(range(partitions))

    # ---- reading along -----------------------------------------------------------------------------------

    def _outer(self, topic: str) -> str:
        return self._prefix + topic

    def _read_to_the_end(self) -> None:
        """Everything that is in any topic now is in `_seen`, and no transaction is open."""
        cluster = self._beside.cluster
        if self._watcher is None:
            self._watcher = Consumer(cluster.consumer(**{"group.id": self._outer("watcher"), "fetch.wait.max.ms": 10}))
            self._reached = {
                TopicPartition(topic, partition): 0
                for topic, partitions in cluster.partitions().items()
                for partition in range(partitions)
            }
            self._watcher.assign([Place(self._outer(topic), p, OFFSET_BEGINNING) for topic, p in self._reached])
        asked = {Place(self._outer(topic), partition): OffsetSpec.latest() for topic, partition in self._reached}  # type: ignore[no-untyped-call]
        answers = cluster.admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        ends = {self._at(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}
        deadline = time.monotonic() + ARRIVES
        while waiting := {place: end for place, end in ends.items() if self._reached[place] < end}:
            assert time.monotonic() < deadline, f"not read within {ARRIVES} s: {waiting}; reached {self._reached}"
            for message in self._watcher.consume(1_000, timeout=0.01):
                error = message.error()
                at = self._at(message.topic() or "", message.partition() or 0)
                offset = message.offset() or 0
                if error is None:
                    self._seen[at].append(cluster.record(message))
                    self._reached[at] = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._reached[at] = offset
                else:
                    raise AssertionError(error.str())

    def _at(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(topic.removeprefix(self._prefix), partition)
