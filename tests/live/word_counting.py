"""The example's words: processes that count them, the load for them, and what must have been said of it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as Place

from tests.live.counting import read

EXAMPLE = Path("docs/examples/word_count.py")
PARTITIONS = 4
VOCABULARY = 40


def word(number: int) -> str:
    return f"palabra-{number % VOCABULARY:02d}"


class WordCounter:
    """The example in a process of its own, on the log that the URL names."""

    def __init__(self, url: str, folder: Path, name: str = "counter", script: Path = EXAMPLE) -> None:
        self.name = name
        self._environment = {**os.environ, "BROKER": url, "F_DATADIR": str(folder / f"{name}-data")}
        self._output = folder / f"{name}.txt"
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "WordCounter":
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(self._script), "worker", "-l", "info", "--without-web"],
                env=self._environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        return self

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self.running, f"{self.name} had ended with {self._process.returncode}:\n{self.output()}"
        self._process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        self.send(signal.SIGTERM)
        assert self.wait() == 0, self.output()

    def wait(self, within: float = 30) -> int:
        assert self._process is not None
        return self._process.wait(within)

    def close(self) -> None:
        """End it whatever its state."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)

    def assigned(self) -> int | None:
        """How many partitions it has, as it has said last since it was made."""
        said = re.findall(r"partitions \[([0-9, ]*)\] are ours", self.output(1_000_000))
        return len(said[-1].split(",")) if said and said[-1] else None

    def output(self, longest: int = 4_000) -> str:
        return self._output.read_text(errors="replace")[-longest:] if self._output.exists() else ""


class Words:
    """The words that were said on Kafka, and what the example has said of them."""

    def __init__(self, servers: str, prefix: str) -> None:
        self._servers = servers
        self._prefix = prefix
        self._producer = Producer(
            {"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 5, "log_level": 0}
        )
        self.said = 0

    def say(self, words: int) -> None:
        """So many more, acknowledged by the broker."""
        for _ in range(words):
            text = word(self.said)
            self._producer.produce(f"{self._prefix}words", json.dumps(text), text)
            self._producer.poll(0)
            self.said += 1
        assert self._producer.flush(20) == 0

    @property
    def model(self) -> dict[str, int]:
        return dict(Counter(word(number) for number in range(self.said)))

    def ends(self, topic: str) -> list[int]:
        """The topic's ends, marks of transactions included: quick, for waiting until something has come."""
        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "ends", "log_level": 0})
        try:
            places = [Place(self._prefix + topic, partition) for partition in range(PARTITIONS)]
            return [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
        except KafkaException:  # it is only just being made
            return [0] * PARTITIONS
        finally:
            consumer.close()

    def counts(self) -> dict[str, list[int]]:
        """Every count that was said of each word, in order, as far as it is committed."""
        said: dict[str, list[int]] = defaultdict(list)
        for part in read(self._servers, f"{self._prefix}counted"):
            for message in part:
                said[(message.key() or b"").decode()].append(json.loads(message.value() or b""))
        return said

    def table(self) -> dict[str, int]:
        """The newest row of each word in the changelog."""
        rows: dict[str, int] = {}
        for part in read(self._servers, f"{self._prefix}word-count-counts-changelog"):
            rows |= {json.loads(message.key() or b""): json.loads(message.value() or b"") for message in part}
        return rows

    def differences(self) -> list[str]:
        """What is not exactly once."""
        found = []
        counts = self.counts()
        for text, count in self.model.items():
            if counts.get(text) != list(range(1, count + 1)):
                said = counts.get(text, [])
                missing, repeated = count - len(set(said)), len(said) - len(set(said))
                found.append(f"{text}: {missing} counts are missing, {repeated} repeated, the last is {said[-1:]}")
        if (table := self.table()) != self.model:
            wrong = {text: (row, self.model.get(text)) for text, row in table.items() if row != self.model.get(text)}
            found.append(f"the changelog differs from the model: {wrong}")
        return found
