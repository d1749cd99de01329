"""The ceiling for Python: the same clients in a bare loop. `python -m bench.bridge.loop in|out LOG NATS NAME`.

No keys, no order, no marks, no looking what is out already, no metrics and no recovery: what is left is what nobody can
leave out. It commits what it has done as ours does: with its position, in transactions.
"""

import asyncio
import json
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import nats
from confluent_kafka import Consumer, Producer
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.engine.embedded_file import OFFSET_BITS, unpack_headers
from bench.bridge.messages import IN
from bench.bridge.stream import STREAM
from bench.bridge.topics import OUTBOUND, PARTITIONS

REQUEST = 500
OUTSTANDING = 3
COMMIT = 5_000
WINDOW = 2_000
TOPICS = dict(IN)


class Sink(Protocol):
    """Where messages go; `commit` makes them last."""

    def add(self, message: Msg) -> None: ...
    async def commit(self) -> None: ...


class KafkaSink:
    """One transaction after the other."""

    def __init__(self, servers: str, name: str) -> None:
        self._name = name
        self._producer = Producer(
            {
                "bootstrap.servers": servers, "log_level": 0, "transactional.id": name, "retry.backoff.ms": 2,
                "linger.ms": 5, "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
            }
        )  # fmt: skip
        self._producer.init_transactions(30)
        self._producer.begin_transaction()
        self._names = {subject: f"{name}.{topic}" for subject, topic in IN}

    def add(self, message: Msg) -> None:
        self._producer.produce(self._names[message.subject], message.data)

    async def commit(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._producer.commit_transaction, 30)
        self._producer.begin_transaction()


class EmbeddedSink:
    """Rows as the embedded log has them."""

    def __init__(self, path: str) -> None:
        self._db = connected(path)
        places = self._db.execute("SELECT id, topic FROM places WHERE partition = 0").fetchall()
        self._next = {topic: place << OFFSET_BITS for place, topic in places}
        self._rows: list[tuple[int, float, bytes | None, bytes, bytes | None]] = []

    def add(self, message: Msg) -> None:
        topic = TOPICS[message.subject]
        self._rows.append((self._next[topic], time.time(), None, message.data, None))
        self._next[topic] += 1

    async def commit(self) -> None:
        rows, self._rows = self._rows, []
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")


def connected(path: str) -> sqlite3.Connection:
    """As the embedded log does it."""
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0")
    return db


async def into_log(client: Client, sink: Sink, commit: int) -> None:
    """Pull by own requests, a few outstanding; commit every `commit` messages and when nothing more waits."""
    inbox, waiting, came = client.new_inbox(), 0, asyncio.Event()
    messages: list[Msg] = []

    async def receive(message: Msg) -> None:
        if message.reply:
            messages.append(message)
            came.set()

    await client.subscribe(f"{inbox}.*", cb=receive)
    config = {"ack_policy": "none", "deliver_policy": "all", "mem_storage": True, "inactive_threshold": 60 * 10**9}
    answer = await client.request(
        f"$JS.API.CONSUMER.CREATE.{STREAM}", json.dumps({"stream_name": STREAM, "config": config}).encode(), 5
    )
    following = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{json.loads(answer.data)['name']}"
    request = json.dumps({"batch": REQUEST, "expires": 30 * 10**9}).encode()
    added = asked = 0
    while True:
        while asked - added <= (OUTSTANDING - 1) * REQUEST:
            asked += REQUEST
            await client.publish(following, request, reply=f"{inbox}.r")
        if not messages:
            if waiting:
                await sink.commit()
                waiting = 0
            came.clear()
            if not messages:
                await came.wait()
        some, messages[:] = messages[:], []
        for message in some:
            if message.subject in TOPICS:
                sink.add(message)
        added += len(some)
        waiting += len(some)
        if waiting >= commit:
            await sink.commit()
            waiting = 0
        await asyncio.sleep(0)


Record = tuple[str, bytes, str]
"""Subject, payload, and id."""


def kafka_source(servers: str, name: str) -> Callable[[], Sequence[Record]]:
    """The next records of the topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers, "log_level": 0, "group.id": name, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "enable.auto.commit": True, "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 32_768, "fetch.queue.backoff.ms": 5,
        }
    )  # fmt: skip
    consumer.subscribe([f"{name}.{OUTBOUND}"])

    def take() -> Sequence[Record]:
        found = []
        for message in consumer.consume(500, 0.05):
            given = dict(message.headers() or ())
            found.append((_text(given["a4co-subject"]), message.value() or b"", _text(given["Nats-Msg-Id"])))
        return found

    return take


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def embedded_source(path: str) -> Callable[[], Sequence[Record]]:
    """The next records of the topic."""
    db = connected(path)
    places = [place for (place,) in db.execute("SELECT id FROM places WHERE topic = ?", (OUTBOUND,))]
    following = {place: place << OFFSET_BITS for place in places}

    def take() -> Sequence[Record]:
        for place in places[:PARTITIONS]:
            rows = db.execute(
                "SELECT id, value, headers FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 500",
                (following[place], (place + 1) << OFFSET_BITS),
            ).fetchall()
            if rows:
                following[place] = rows[-1][0] + 1
                headers = [dict(unpack_headers(row[2])) for row in rows]
                return [
                    (given["a4co-subject"].decode(), row[1], given["Nats-Msg-Id"].decode())
                    for row, given in zip(rows, headers, strict=True)
                ]
        return []

    return take


async def from_log(client: Client, take: Callable[[], Sequence[Record]]) -> None:
    """Publish with an inbox of its own for the acks, and a window of them."""
    inbox, sent, acked, woken = client.new_inbox(), 0, 0, asyncio.Event()

    async def receive(_message: Msg) -> None:
        nonlocal acked
        acked += 1
        woken.set()

    await client.subscribe(f"{inbox}.*", cb=receive)
    while True:
        records = take()
        for subject, payload, identity in records:
            await client.publish(subject, payload, f"{inbox}.a", {"Nats-Msg-Id": identity})
        sent += len(records)
        await asyncio.sleep(0 if records else 0.01)
        while sent - acked > WINDOW:
            woken.clear()
            await woken.wait()


async def main() -> None:
    """Run until SIGTERM."""
    direction, where, server, name = sys.argv[1:]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit, 0)
    client = await nats.connect(server)
    kind, place = where.split("://")
    if direction == "in":
        if kind == "kafka":
            await into_log(client, KafkaSink(place, name), COMMIT)
        else:
            await into_log(client, EmbeddedSink(place), REQUEST)
    else:
        await from_log(client, kafka_source(place, name) if kind == "kafka" else embedded_source(place))


if __name__ == "__main__":
    asyncio.run(main())
