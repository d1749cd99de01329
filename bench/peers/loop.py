"""The ceiling for Python: the same work in a bare loop over librdkafka.

`python -m bench.peers.loop SERVERS INPUT OUTPUT NAME FOLDER`. No dead letters, no recovery, no rebalance, no views:
what is left is what nobody can leave out.
"""

import signal
import sys
from collections.abc import Callable

import msgspec
import rocksdict
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place

from bench.peers.lines import Line, Row, Totals

COMMIT_RECORDS = 5_000
TAKEN_AT_ONCE = 2_000


class Loop:
    """Consume, decode, add, produce; commit every COMMIT_RECORDS records, or when nothing more waits."""

    def __init__(self, servers: str, source: str, target: str, name: str, folder: str) -> None:
        client = {"bootstrap.servers": servers, "log_level": 3}
        self._consumer = Consumer(
            client
            | {
                "group.id": name, "isolation.level": "read_committed", "enable.auto.commit": False,
                "auto.offset.reset": "earliest", "queued.min.messages": 50_000, "fetch.queue.backoff.ms": 5,
            }
        )  # fmt: skip
        self._consumer.subscribe([source])
        self._producer = Producer(
            client
            | {
                "transactional.id": name, "retry.backoff.ms": 2, "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000, "delivery.report.only.error": True,
            }
        )  # fmt: skip
        self._producer.init_transactions(30)
        self._source, self._target, self._changelog = source, target, f"{name}-changelog"
        self._db = rocksdict.Rdict(folder, options=rocksdict.Options(raw_mode=True))
        self._cache: dict[bytes, Row] = {}

    def run(self, until: Callable[[], bool]) -> None:
        """Work until `until()`."""
        while not until():
            self._transaction()
        self._consumer.close()
        self._db.close()

    def _transaction(self) -> None:
        decode, encode = msgspec.json.Decoder(Line).decode, msgspec.json.Encoder().encode
        produce, cache, stored = self._producer.produce, self._cache, msgspec.json.Decoder(Row).decode
        changed: dict[bytes, int] = {}
        offsets: dict[int, int] = {}
        done = 0
        while done < COMMIT_RECORDS:
            messages = self._consumer.consume(TAKEN_AT_ONCE, 0.1)
            if messages and not done:
                self._producer.begin_transaction()
            for message in messages:
                error = message.error()
                if error is not None:
                    raise SystemExit(str(error))
                key, partition = message.key() or b"", message.partition() or 0
                line = decode(message.value() or b"")
                row = cache.get(key)
                if row is None:
                    packed = self._db.get(key)
                    row = Row() if packed is None else stored(packed)
                row = cache[key] = row.add(line)
                said = Totals(line.product_id, row.count, row.units, row.revenue)
                produce(self._target, encode(said), key, partition)
                changed[key] = partition
                offsets[partition] = message.offset() or 0
            self._producer.poll(0)
            done += len(messages)
            if not messages:
                break
        if done:
            self._commit(changed, offsets)

    def _commit(self, changed: dict[bytes, int], offsets: dict[int, int]) -> None:
        encode = msgspec.json.Encoder().encode
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, partition in changed.items():
            packed = encode(self._cache[key])
            self._producer.produce(self._changelog, packed, key, partition)
            batch.put(key, packed)
        places = [Place(self._source, partition, offset + 1) for partition, offset in offsets.items()]
        self._producer.send_offsets_to_transaction(places, self._consumer.consumer_group_metadata(), 30)
        self._producer.commit_transaction(30)
        self._db.write(batch)


if __name__ == "__main__":
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    Loop(*sys.argv[1:]).run(lambda: bool(ended))
