"""The programs that are compared: what each needs, how it is made on the first run, and how it is started."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.bridge.messages import IN
from bench.bridge.stream import STREAM
from bench.bridge.topics import OUTBOUND, PARTITIONS
from bench.programs import BUILT, build, need

HERE = Path(__file__).parent
NATS_KAFKA = BUILT / "nats-kafka"


class Work(NamedTuple):
    """What a program is to do: `direction` (in, out, both) between the log at `log` and NATS, in a `folder` of its own.

    `first`: where in the stream it begins.
    """

    direction: str
    log: str
    nats: str
    name: str
    folder: Path
    first: int


@dataclass(frozen=True)
class Program:
    """One program. `slow`: it gets fewer messages. `ordered`: it keeps the order of a key. `prepare`: once, before."""

    name: str
    what: str
    command: Callable[[Work], Sequence[str]]
    slow: bool = False
    ordered: bool = True
    logs: tuple[str, ...] = ("kafka", "embedded")
    prepare: Callable[[], None] = lambda: None


def _module(name: str) -> Callable[[Work], Sequence[str]]:
    return lambda work: (sys.executable, "-m", f"bench.bridge.{name}", work.direction, work.log, work.nats, work.name)


def _build_nats_kafka() -> None:
    """From its source, which Go's module proxy has; again when another version is wanted."""
    wanted = HERE / "nats_kafka" / "go.mod"
    built = NATS_KAFKA.absolute() / "nats-kafka"
    if built.exists() and built.stat().st_mtime > wanted.stat().st_mtime:
        return
    need("go", "on Debian: apt-get install golang-go; or --programs ours,loop")
    sys.stderr.write("building nats-kafka (once) ...\n")
    build("Go", "go", "build", "-mod=mod", "-o", built, "github.com/nats-io/nats-kafka", folder=_module_copy())


def _module_copy() -> Path:
    """Go writes into the folder of a module."""
    folder = NATS_KAFKA / "module"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("go.mod", "go.sum"):
        (folder / file).write_bytes((HERE / "nats_kafka" / file).read_bytes())
    return folder


SUBJECT_OF_RECORD = "{{range .Headers}}{{if eq (printf `%s` .Key) `a4co-subject`}}{{printf `%s` .Value}}{{end}}{{end}}"


def _nats_kafka(work: Work) -> Sequence[str]:
    """As its documents show: a connector for each topic (or partition). What is sent to a topic stays in order."""
    brokers = f'brokers: ["{work.log.removeprefix("kafka://")}"]'
    if work.direction == "in":
        families = dict.fromkeys((subject.partition(".")[0], topic) for subject, topic in IN)
        connectors = [
            f'{{type: "JetStreamToKafka", {brokers}, id: "{topic}", topic: "{work.name}.{topic}", '
            f'stream: "{STREAM}", subject: "{family}.>", startatsequence: {work.first}}}'
            for family, topic in families
        ]
    else:
        # By group it can't read: Kafka 4 no longer speaks what its client asks for. So it keeps no place.
        connectors = [
            f'{{type: "KafkaToJetStream", {brokers}, id: "outbound-{partition}", topic: "{work.name}.{OUTBOUND}", '
            f'partition: {partition}, subject: "{SUBJECT_OF_RECORD}"}}'
            for partition in range(PARTITIONS)
        ]
    config = work.folder / "nats-kafka.conf"
    config.write_text(
        f'nats: {{Servers: ["{work.nats}"]}}\njetstream: {{maxwait: 5000}}\n'
        f"logging: {{Time: true, Colors: false}}\nconnect: [\n" + ",\n".join(connectors) + "\n]\n",
        "utf-8",
    )
    return (os.fspath(NATS_KAFKA / "nats-kafka"), "-c", os.fspath(config))


PROGRAMS = {
    program.name: program
    for program in (
        Program("ours", "this bridge, as a worker runs it", _module("ours")),
        Program("nats_kafka", "nats-kafka 1.4.2", _nats_kafka, slow=True, logs=("kafka",), prepare=_build_nats_kafka),
        Program("loop", "a bare loop over the same clients: the ceiling", _module("loop"), ordered=False),
    )
}
