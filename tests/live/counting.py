"""Processes that run the counting application, the load for them, and what must be true of what they leave."""

import asyncio
import itertools
import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka import TopicPartition as Place

from app.engine.store import Store
from tests.live.counting_app import GROUP, PARTITIONS
from tests.live.killable import Killable

KEYS = 40


class CountingProcess(Killable):
    """The counting application in a process of its own, with its own folder, by the worker's name."""

    def __init__(self, servers: str, prefix: str, folder: Path, name: str, *options: str) -> None:
        self.tables = folder / name / "tables"
        self.tables.mkdir(parents=True, exist_ok=True)
        arguments = ["-m", "tests.live.counting_app", servers, prefix, name, str(self.tables), *options]
        super().__init__(name, arguments, self.tables.with_name("output-0.log"))
        self._starts = 0

    def start(self) -> Self:
        self._starts += 1
        self._output = self.tables.with_name(f"output-{self._starts}.log")
        return super().start()

    def output(self, longest: int = 4_000) -> str:
        """The end of what it said that is not a line of its work."""
        lines = [line for line in self.text().splitlines() if not line.startswith('{"what": "')]
        return "\n".join([*lines, *map(str, self.said("failed"))])[-longest:]

    def said(self, what: str) -> list[dict[str, Any]]:
        """Its lines of one kind, since its last start."""
        start = f'{{"what": "{what}"'
        return [json.loads(line) for line in self.text().splitlines() if line.startswith(start) and line[-1] == "}"]

    async def table(self) -> dict[str, Any]:
        """Its rows, lag and partitions, as of now."""
        deadline = time.monotonic() + 20
        while not self.said("started"):  # before, the signal would end it
            assert self.running, f"{self.name} has ended:\n{self.output()}"
            assert time.monotonic() < deadline, f"{self.name} does not start:\n{self.output()}"
            await asyncio.sleep(0.05)
        before = len(self.said("table"))
        self.send(signal.SIGUSR1)
        while len(tables := self.said("table")) == before:
            assert self.running, f"{self.name} has ended:\n{self.output()}"
            assert time.monotonic() < deadline, f"{self.name} does not answer:\n{self.output()}"
            await asyncio.sleep(0.02)
        return tables[-1]


class Load:
    """Says 0, 1, 2, ... for each of KEYS keys, at so many records a second, until it is stopped."""

    def __init__(self, servers: str, prefix: str, rate: int) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 2, "log_level": 0,
                "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000,
            }
        )  # fmt: skip
        self._topic = f"{prefix}numbers"
        self._rate = rate
        self._task: asyncio.Task[None] | None = None
        self.said = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._producer.flush, 10)

    async def _run(self) -> None:
        began, before = time.monotonic(), self.said
        while True:
            self.say(before + int((time.monotonic() - began) * self._rate) - self.said)
            await asyncio.sleep(0.01)

    def say(self, records: int) -> None:
        """So many more."""
        for _ in range(records):
            number, key = divmod(self.said, KEYS)
            self._producer.produce(self._topic, str(number), f"key-{key:02d}")
            self.said += 1
            self._producer.poll(0)

    @property
    def model(self) -> dict[str, dict[str, int]]:
        """The table that must come of it."""
        rows = {}
        for key in range(KEYS):
            numbers = range(len(range(key, self.said, KEYS)))
            if numbers:
                rows[f"key-{key:02d}"] = {
                    "count": len(numbers), "total": sum(numbers), "last": numbers[-1], "wrong": 0
                }  # fmt: skip
        return rows


def read(servers: str, topic: str) -> list[list[Message]]:
    """Every committed record of the topic, a list a partition. Waits for transactions that are open."""
    settings = {
        "bootstrap.servers": servers, "group.id": "reading", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "enable.partition.eof": True,
    }  # fmt: skip
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    try:
        partitions = range(len(consumer.list_topics(topic, timeout=10).topics[topic].partitions))
        asking = Consumer({**settings, "isolation.level": "read_uncommitted"})
        ends = [asking.get_watermark_offsets(Place(topic, partition), timeout=10)[1] for partition in partitions]
        asking.close()
        consumer.assign([Place(topic, partition, 0) for partition in partitions])
        found: list[list[Message]] = [[] for _ in partitions]
        reached: set[int] = set()
        deadline = time.monotonic() + 30
        while len(reached) < len(ends):
            assert time.monotonic() < deadline, f"{topic}: a transaction stays open"
            for message in consumer.consume(10_000, timeout=0.2):
                error, partition = message.error(), message.partition() or 0
                if error is None:
                    found[partition].append(message)
                elif error.code() == KafkaError._PARTITION_EOF and (message.offset() or 0) >= ends[partition]:
                    reached.add(partition)
        return found
    finally:
        consumer.close()


def committed(servers: str, group: str, topic: str, partitions: int = PARTITIONS) -> list[int]:
    """The group's offsets."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
    try:
        places = consumer.committed([Place(topic, partition) for partition in range(partitions)], timeout=10)
        return [max(0, place.offset) for place in places]
    finally:
        consumer.close()


async def settled(load: Load, *workers: CountingProcess, more: int = 0, within: float = 40) -> dict[str, Any]:
    """The union of the workers' rows once every number is counted and no worker has a lag."""
    deadline = time.monotonic() + within
    while True:
        tables = [await worker.table() for worker in workers]
        rows: dict[str, Any] = {}
        for table in tables:
            rows |= table["rows"]
        owned = [partition for table in tables for partition in table["owned"]]
        counted = sum(row["count"] for row in rows.values()) >= load.said + more
        if counted and sorted(owned) == list(range(PARTITIONS)) and not any(table["lag"] for table in tables):
            return rows
        if time.monotonic() > deadline:
            said = {worker.name: worker.output() for worker in workers}
            raise AssertionError(
                f"{sum(row['count'] for row in rows.values())} of {load.said} are counted after {within} s, "
                f"owned {owned}, lags {[table['lag'] for table in tables]}: {said}"
            )
        await asyncio.sleep(0.1)


def differences(servers: str, prefix: str, load: Load, rows: dict[str, Any]) -> Iterator[str]:
    """What is not exactly once: outputs, table, changelog, offsets. The rows are all workers' together."""
    said = Counter((message.key(), message.value()) for part in read(servers, f"{prefix}counted") for message in part)
    wanted = {(b"key-%02d" % (n % KEYS), b"%d" % (n // KEYS)) for n in range(load.said)}
    lost, repeated = len(wanted - said.keys()), said.total() - len(said)
    if lost or repeated or said.keys() - wanted:
        yield f"of {len(wanted)} outputs {lost} are lost, {repeated} repeated, {len(said.keys() - wanted)} unknown"
    if rows != load.model:
        wrong = {key: row for key, row in rows.items() if row != load.model.get(key)}
        yield f"the table differs from the model in {len(wrong)} rows: {list(wrong.items())[:3]}"
    changelog = newest(servers, prefix)
    if changelog != rows:
        yield f"the changelog differs from the table in {sum(changelog.get(k) != v for k, v in rows.items())} rows"
    ends = [(part[-1].offset() or 0) + 1 if part else 0 for part in read(servers, f"{prefix}numbers")]
    if (offsets := committed(servers, f"{prefix}{GROUP}", f"{prefix}numbers")) != ends:
        yield f"the committed offsets are {offsets}, the ends {ends}"


def newest(servers: str, prefix: str) -> dict[str, Any]:
    """The changelog's last row of each key."""
    rows: dict[str, Any] = {}
    for part in read(servers, f"{prefix}counts-changelog"):
        rows |= {(message.key() or b"").decode(): json.loads(message.value() or b"") for message in part}
    return rows


def stored(tables: Path, identity: str) -> dict[str, Any]:
    """What a stopped worker has on disk."""
    rows: dict[str, Any] = {}
    for partition in range(PARTITIONS):
        store = Store(tables / "counts" / str(partition), identity)
        rows |= {key.decode(): json.loads(row) for key, row in store.items()}
        store.close()
    return rows


def pauses(workers: list[CountingProcess], since: float, until: float) -> dict[int, float]:
    """Partition -> the longest time, in seconds between `since` and `until`, in which nobody committed for it."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for worker in workers:
        for line in worker.said("did"):
            for partition in line["partitions"]:
                times[partition].append(line["at"])
    longest = {}
    for partition in range(PARTITIONS):
        marks = [since, *sorted(t for t in times[partition] if since < t < until), until]
        longest[partition] = round(max(b - a for a, b in itertools.pairwise(marks)), 2)
    return longest
