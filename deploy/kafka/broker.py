"""One Kafka broker for developers and tests, without Docker: `python deploy/kafka/broker.py start|stop|status`.

Needs Java 17 and Maven (which fetches the jars once). It is a KRaft broker of its own on loopback; where its data, its
jars and its pid are is DIR (data/kafka by default); what stands in DIR/more.properties is added to its configuration.
Not for production: one copy of everything.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

HERE = Path(__file__).parent
STARTS = 60.0
"""Seconds that the broker has to come up; it needs about 4."""
QUICK = "-XX:TieredStopAtLevel=1"
"""Only the quick one of Java's two compilers: this broker lives for minutes, in which the other takes as much of the
processor as Kafka itself (measured under load: 250 µs an order instead of 120 µs, and 110 µs minutes later)."""

CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=4
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
# How far a group is, is kept for a year after its last member left (Kafka's own default is a week).
offsets.retention.minutes=525600
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A killed worker's partitions are taken over after this (Kafka's own default is 45 s, and its minimum too).
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=6000
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.heartbeat.interval.ms=1000
group.min.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=16777216
"""


class BrokerError(Exception):
    """Why there is no broker, for people."""


def jars(directory: Path) -> Path:
    """The folder with the broker's jars; Maven fetches them the first time."""
    libs = directory / "libs"
    if any(libs.glob("kafka_*.jar")):
        return libs
    if shutil.which("mvn") is None:
        raise BrokerError("Maven is needed to fetch Kafka's jars (on Debian: apt-get install maven)")
    sys.stderr.write("fetching Kafka's jars (43 MB, once) ...\n")
    done = subprocess.run(
        ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies",
         f"-DoutputDirectory={libs.absolute()}"], check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise BrokerError(f"Maven could not fetch Kafka's jars:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return libs


def start(directory: Path, port: int, heap: str = "1g") -> int:
    """Start the broker and return its pid when it accepts connections; a running one is left alone."""
    running = pid_of(directory)
    if running is not None:
        return running
    if shutil.which("java") is None:
        raise BrokerError("Java 17 is needed to run Kafka (on Debian: apt-get install openjdk-17-jre-headless)")
    with socket.socket() as probe:  # else its listener would be taken for ours
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise BrokerError(f"something listens on port {port} already: choose another with --port")
    libs = jars(directory)
    data = directory / "log"
    config = directory / "server.properties"
    controller = free_port(port + 1)
    more = directory / "more.properties"
    config.write_text(
        CONFIG.format(port=port, controller=controller, data=data.absolute())
        + (more.read_text("utf-8") if more.exists() else ""),
        "utf-8",
    )
    classpath = f"{libs.absolute()}/*"
    if not (data / "meta.properties").exists():
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").lstrip("-")
        java(["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)], classpath, directory)
    with (directory / "broker.log").open("ab") as output:
        process = subprocess.Popen(
            ["java", f"-Xmx{heap}", f"-Xms{heap}", QUICK, "-cp", classpath,
             "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.Kafka", str(config)],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    (directory / "broker.pid").write_text(str(process.pid), "utf-8")
    deadline = time.monotonic() + STARTS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = (directory / "broker.log").read_text("utf-8", errors="replace")[-3000:]
            raise BrokerError(f"Kafka ended with {process.returncode}:\n{tail}")
        try:
            with socket.create_connection(("127.0.0.1", port), 0.2):
                return process.pid
        except OSError:
            time.sleep(0.1)
    raise BrokerError(f"Kafka isn't up after {STARTS:g} s: see {directory / 'broker.log'}")


def java(arguments: list[str], classpath: str, directory: Path) -> None:
    """Run one of Kafka's tools."""
    done = subprocess.run(["java", "-cp", classpath, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise BrokerError(f"{arguments[0]} in {directory}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def stop(directory: Path) -> bool:
    """End the broker by its pid. False: none was running."""
    pid = pid_of(directory)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while pid_of(directory) is not None:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    (directory / "broker.pid").unlink(missing_ok=True)
    return True


def pid_of(directory: Path) -> int | None:
    """The pid of the broker that runs from the folder."""
    try:
        pid = int((directory / "broker.pid").read_text("utf-8"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    state = re.search(r"^State:\s+(\S)", Path(f"/proc/{pid}/status").read_text("utf-8"), re.MULTILINE)
    return pid if b"kafka.Kafka" in command and state and state[1] != "Z" else None


def free_port(preferred: int) -> int:
    """This port of loopback, or another one where it is in use."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["start", "stop", "status"])
    parser.add_argument("--dir", type=Path, default=Path("data/kafka"), help="data, jars and pid (data/kafka)")
    parser.add_argument(
        "--port",
        type=int,
        default=9092,
        help="port on loopback (9092; the controller has the next, or any that is free)",
    )
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    try:
        if options.action == "start":
            pid = start(options.dir, options.port)
            print(f"kafka   kafka://127.0.0.1:{options.port}   pid {pid}   data {options.dir}")
        elif options.action == "stop":
            print("kafka   stopped" if stop(options.dir) else "kafka   was not running")
        else:
            running = pid_of(options.dir)
            print(f"kafka   {'is not running' if running is None else f'pid {running}'}")
            return int(running is None)
    except BrokerError as error:
        sys.stderr.write(f"kafka: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
