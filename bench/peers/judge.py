"""What a program's outputs are judged by: read with read_committed, they must be unique, complete and right.

A run's speed is told by the broker's clock at its appends, between the output at MEASURED_FROM and the last one.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from bench.peers.lines import MEASURED_FROM, PARTITIONS, Row, Totals
from bench.programs import STUCK, Wrong

REQUEST = 20.0
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Judge:
    """Makes topics on the broker, fills them, and reads what programs say."""

    servers: str

    @property
    def _client(self) -> dict[str, str | int | float | bool]:
        return {"bootstrap.servers": self.servers, "log_level": 3}

    def make(self, *topics: str) -> None:
        """Topics whose records have the time of their append."""
        config = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete", "retention.ms": "-1"}
        new = [NewTopic(topic, PARTITIONS, 1, config=config) for topic in topics]
        admin = AdminClient(self._client)
        for future in admin.create_topics(new, operation_timeout=REQUEST).values():
            future.result(REQUEST)

    def fill(self, topic: str, records: Iterable[tuple[str, bytes]], told: Callable[[int], None]) -> None:
        """Produce the records, placed as Java's client places them."""
        settings = {"partitioner": "murmur2_random", "linger.ms": 20, "acks": "all", "enable.idempotence": True}
        producer = Producer(self._client | settings)
        for number, (key, value) in enumerate(records, 1):
            while True:
                try:
                    producer.produce(topic, value, key)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
            told(number)
        if producer.flush(60):
            raise Wrong(f"{topic} could not be filled")

    def wait(self, topic: str, records: int, alive: Callable[[], None], told: Callable[[int], None]) -> None:
        """Return when so many outputs may be committed (marks of transactions are counted, too).

        Raises:
            Wrong: nothing new came for STUCK seconds, or what `alive` raises.
        """
        admin = AdminClient(self._client)
        end, since, tenth = 0, time.monotonic(), max(1, records // 10)
        while end < records:
            time.sleep(0.2)
            alive()
            now = _ends(admin, topic) or end
            if now != end:
                if now // tenth != end // tenth:
                    told(min(now // tenth * tenth, records))
                end, since = now, time.monotonic()
            elif time.monotonic() > since + STUCK:
                raise Wrong(f"no new output for {STUCK:g} s at {end} of {records}")

    def outputs(self, topic: str) -> "Outputs":
        """A reader of what is committed in the topic, from its begin."""
        return Outputs(self._client, topic)


def _ends(admin: AdminClient, topic: str) -> int:
    """What the committed ends of the partitions add up to; 0 where the broker is too busy to tell."""
    places = {Place(topic, partition): LATEST for partition in range(PARTITIONS)}
    asked = admin.list_offsets(places, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST)
    try:
        return sum(future.result(REQUEST).offset for future in asked.values())
    except KafkaException:  # on a busy machine the broker may have lost itself for a moment
        return 0


class Outputs:
    """The committed outputs of one run, as far as they have been read."""

    def __init__(self, client: dict[str, str | int | float | bool], topic: str) -> None:
        settings = {
            "group.id": "judge", "isolation.level": "read_committed", "enable.partition.eof": True,
            "enable.auto.commit": False,
        }  # fmt: skip
        self._consumer = Consumer(client | settings)
        self._consumer.assign([Place(topic, partition, 0) for partition in range(PARTITIONS)])
        self._decode = msgspec.json.Decoder(Totals).decode
        self.times: list[int] = []
        self.rows: dict[str, Row] = {}
        self.wrong: list[str] = []

    def read(self, records: int = 0, within: float = REQUEST) -> None:
        """Read on to the end of every partition, and until so many records were read in all."""
        ended: set[int] = set()
        deadline = time.monotonic() + within
        while (len(ended) < PARTITIONS or len(self.times) < records) and time.monotonic() < deadline:
            for message in self._consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    self.times.append(message.timestamp()[1])
                    self._take(message.value() or b"")
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
                    ended.add(message.partition() or 0)
                else:
                    raise Wrong(error.str())

    def _take(self, value: bytes) -> None:
        said = self._decode(value)
        before = self.rows.get(said.product_id)
        if said.count != (before.count if before else 0) + 1:
            self.wrong.append(f"{said.product_id}: {said.count} after {before}")
        self.rows[said.product_id] = Row(said.count, said.units, said.revenue)

    def judge(self, records: int, expected: dict[str, Row]) -> None:
        """Raises Wrong unless there is one output for each record, in order, and the last ones are the model's."""
        if self.wrong:
            raise Wrong(f"{len(self.wrong)} outputs are out of order, missing or repeated: {self.wrong[0]}")
        if len(self.times) != records:
            raise Wrong(f"{len(self.times)} outputs for {records} records")
        different = [product for product, row in expected.items() if self.rows.get(product) != row]
        if different:
            product = different[0]
            raise Wrong(f"{len(different)} totals differ: {product} {self.rows.get(product)}, not {expected[product]}")

    def speed(self) -> float:
        """Records a second between the output at MEASURED_FROM and the last one."""
        times = sorted(self.times)
        first = int(len(times) * MEASURED_FROM)
        return 1000 * (len(times) - first) / max(1, times[-1] - times[first])

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()
