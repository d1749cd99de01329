"""One real Kafka broker for the whole test run, on a free loopback port, with data of its own and shared jars."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.nats_server import free_ports
from tests.waiting import need_live

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "kafka" / "broker.py"
JARS = ROOT / "data" / "kafka" / "libs"
"""Fetched once by Maven; every broker on this machine shares them."""


class KafkaBroker:
    """A broker in `folder`, started when made. `servers` is host:port, `url` the same as a KAFKA_URL.

    `more`: lines that are added to its configuration.
    """

    def __init__(self, folder: Path, more: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "more.properties").write_text(more)
        (folder / "libs").symlink_to(_jars())
        self.servers = f"127.0.0.1:{(port := free_ports(1)[0])}"
        self.url = f"kafka://{self.servers}"
        self._folder = folder
        self._port = port
        self.start()

    def start(self) -> None:
        """Start it, on the same port and data each time."""
        started = self._command("start", "--port", str(self._port))
        assert started.returncode == 0, f"no Kafka broker: {started.stderr}{self.output()}"

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone: its threads may have the port for longer than it has a name."""
        os.kill(int((self._folder / "broker.pid").read_text()), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while not self._command("status").returncode or self._listens():
            assert time.monotonic() < deadline, "the broker does not die"

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It is there and answers nothing."""
        pid = int((self._folder / "broker.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it by its pid; prints what it said when it had died by itself before."""
        if self._command("status").returncode:
            print(f"Kafka had died:\n{self.output()}")
        self._command("stop")

    def output(self, longest: int = 6_000) -> str:
        """The end of what the broker has written."""
        path = self._folder / "broker.log"
        return path.read_text(errors="replace")[-longest:] if path.exists() else ""

    def _command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, SCRIPT, *arguments, "--dir", self._folder], check=False, capture_output=True, text=True
        )


def _jars() -> Path:
    """The folder of the jars, filled."""
    if shutil.which("java") is None:
        need_live("there is no Java to run Kafka")
    if not any(JARS.glob("kafka_*.jar")):
        if shutil.which("mvn") is None:
            need_live("there is no Maven to fetch Kafka's jars")
        JARS.parent.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            ["mvn", "-q", "-B", "-f", SCRIPT.with_name("pom.xml"), "dependency:copy-dependencies",
             f"-DoutputDirectory={JARS}"], check=False, capture_output=True, text=True,
        )  # fmt: skip
        if fetched.returncode:
            need_live(f"Maven can't fetch Kafka's jars: {fetched.stdout[-1000:]}{fetched.stderr[-1000:]}")
    return JARS.resolve()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """The run's broker; each test has its own prefix on it."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()
