"""Stock Faust apps in processes of their own, on Kafka; what was said to them, and what must come of it.

With STOCK_FAUST=at_least_once or exactly_once in the environment they run on Faust's own transport instead of ours, to
see the tests fail: one test a run (`pytest tests/live/test_kafka_faust.py -k ...`), since names are not prefixed then.
"""

import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place

from tests.live.counting import committed, read
from tests.live.killable import Killable

WORD_COUNT = Path("docs/examples/word_count.py")
MISBEHAVING = Path("tests/live/misbehaving_app.py")
PARTITIONS = 4
VOCABULARY = 40

STOCK = os.environ.get("STOCK_FAUST", "")


def word(number: int) -> str:
    return f"palabra-{number % VOCABULARY:02d}"


class FaustWorker(Killable):
    """An app's worker. Its output goes on over restarts."""

    def __init__(self, script: Path, servers: str, prefix: str, folder: Path, name: str, **environment: str) -> None:
        environment = {
            **os.environ, "APP_DATADIR": str(folder / f"{name}-data"), "FLAGS": str(folder),
            "BROKER": f"a4co-kafka://{servers}?prefix={prefix}", **environment,
        }  # fmt: skip
        if STOCK:
            # Its own session timeout is 60 s.
            environment |= {
                "BROKER": f"kafka://{servers}", "PROCESSING_GUARANTEE": STOCK,
                "BROKER_SESSION_TIMEOUT": os.environ.get("STOCK_SESSION", "6"), "BROKER_HEARTBEAT_INTERVAL": "1",
            }  # fmt: skip
        arguments = [str(script), "worker", "-l", "info", "--without-web"]
        super().__init__(name, arguments, folder / f"{name}.txt", environment)

    def assigned(self) -> int:
        """How many partitions it has, as it has said last."""
        text = self.text()
        if STOCK:  # which tells the ends of its changelogs at each rebalance
            told, _, ready = text.rpartition("Highwater - Active")[2].partition("Recovery complete")
            return len(re.findall(r"\| +\d+ +\| +-?\d+ +\|", told.partition("Reading Starts")[0])) if ready else 0
        said = re.findall(r"partitions \[([0-9, ]*)\] are ours", text)
        return len(said[-1].split(",")) if said and said[-1] else 0


class Topics:
    """The topics of one application on Kafka, whose names begin with `prefix`."""

    def __init__(self, servers: str, prefix: str) -> None:
        self.servers = servers
        self.prefix = prefix
        self._producer = Producer(
            {"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 5, "log_level": 0}
        )

    def send(self, topic: str, key: str, value: str, partition: int = -1) -> None:
        self._producer.produce(self.prefix + topic, json.dumps(value), key, partition)
        self._producer.poll(0)

    def flush(self) -> None:
        """Return when the broker has all."""
        assert self._producer.flush(20) == 0

    def abort(self, topic: str, key: str, value: int, partition: int) -> None:
        """A record that is not committed."""
        producer = Producer({"bootstrap.servers": self.servers, "transactional.id": f"{self.prefix}aborting"})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(self.prefix + topic, json.dumps(value), json.dumps(key), partition)
        producer.flush(10)
        producer.abort_transaction(20)

    def ends(self, topic: str) -> list[int]:
        """The topic's ends, marks of transactions included: quick, for waiting until something has come."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "ends", "log_level": 0})
        try:
            places = [Place(self.prefix + topic, partition) for partition in range(PARTITIONS)]
            return [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
        except KafkaException:  # it is only just being made
            return [0] * PARTITIONS
        finally:
            consumer.close()

    def _read(self, topic: str) -> list[list[Message]]:
        """What is committed. That it can't be read, because it is only just being made, is an AssertionError."""
        try:
            return read(self.servers, self.prefix + topic)
        except KafkaException as error:
            raise AssertionError(f"{topic} can't be read: {error}") from error

    def values(self, topic: str) -> dict[str, list[int]]:
        """The committed numbers of each key, in order."""
        said: dict[str, list[int]] = defaultdict(list)
        for part in self._read(topic):
            for message in part:
                said[(message.key() or b"").decode()].append(json.loads(message.value() or b""))
        return said

    def newest(self, changelog: str) -> dict[str, int]:
        """The newest row, a number, of each key of a table."""
        rows: dict[str, int] = {}
        for part in self._read(changelog):
            rows |= {json.loads(message.key() or b""): json.loads(message.value() or b"") for message in part}
        return rows

    def uncommitted(self, group: str, topic: str) -> list[int]:
        """For each partition: how many records of the topic the group has not committed."""
        ends = [(part[-1].offset() or 0) + 1 if part else 0 for part in self._read(topic)]
        offsets = committed(self.servers, self.prefix + group, self.prefix + topic)
        return [end - offset for end, offset in zip(ends, offsets, strict=True)]


class Words(Topics):
    """The words that were said to the example, and what it has said of them."""

    said = 0

    def say(self, words: int) -> None:
        """So many more."""
        for _ in range(words):
            self.send("words", word(self.said), word(self.said))
            self.said += 1
        self.flush()

    @property
    def model(self) -> dict[str, int]:
        return dict(Counter(word(number) for number in range(self.said)))

    def counted(self) -> int:
        """How many counts have been said, marks of transactions included."""
        return sum(self.ends("counted"))

    def differences(self) -> list[str]:
        """What is not exactly once."""
        found = []
        counts = self.values("counted")
        said = sum(map(len, counts.values()))
        different = sum(len(set(map(str, values))) for values in counts.values())
        wrong = [text for text, count in self.model.items() if counts.get(text) != list(range(1, count + 1))]
        if wrong:
            found.append(f"{self.said} words, {said} counts, {said - different} of them repeated; wrong: {len(wrong)}")
        if (table := self.newest("word-count-counts-changelog")) != self.model:
            found.append(f"the table's sum is {sum(table.values())} for {self.said} words")
        if any(left := self.uncommitted("word-count", "words")):
            found.append(f"not committed: {left}")
        return found
