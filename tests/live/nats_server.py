"""A real nats-server on free loopback ports, with JetStream that (by default) syncs every message before its ack."""

import asyncio
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import IO

from app.demo.processes import DemoError
from app.demo.servers import nats_binary
from tests.waiting import need_live

FOR_SERVERS = range(20_000, 32_000)

CONFIG = """
server_name: "live-test"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
max_payload: {max_payload}
{jetstream}
{more}
"""


class NatsServer:
    """Start, kill and start again: the ports and the store stay the same. Its config is written at each start."""

    def __init__(
        self,
        folder: Path,
        max_payload: int = 1_048_576,
        sync: str = "always",
        more: str = "",
        *,
        jetstream: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.monitor = free_ports(2)
        self.url = f"nats://127.0.0.1:{self.port}"
        self.store = folder / "store"
        self._config = folder / "nats.conf"
        self._max_payload = max_payload
        buffered = "max_buffered_msgs: 1000000, max_buffered_size: 256MB"
        self._jetstream = f'jetstream {{ store_dir: "{self.store}", sync_interval: {sync}, {buffered} }}'
        self.jetstream = jetstream
        """Whether it has JetStream, from its next start on."""
        self.more = more
        """Further lines of its config, the same."""
        self._output = folder / "nats.log"
        self._file: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return when it accepts connections. Raises AssertionError with its output when it dies instead."""
        binary = executable()
        self._config.write_text(
            CONFIG.format(
                port=self.port,
                monitor=self.monitor,
                max_payload=self._max_payload,
                jetstream=self._jetstream if self.jetstream else "",
                more=self.more,
            )
        )
        self._file = self._output.open("ab")
        self._process = subprocess.Popen([binary, "-c", str(self._config)], stdout=self._file, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"nats-server died:\n{self.output()}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
        raise AssertionError(f"nats-server isn't up after 10 s:\n{self.output()}")

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; prints what it said when it had died by itself before."""
        if self._process is not None and self._process.poll() is not None:
            print(f"nats-server had died with {self._process.returncode}:\n{self.output()}")
        self._end(signal.SIGTERM)

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(number)
            self._process.wait(10)
            self._process = None
        if self._file is not None:
            self._file.close()
            self._file = None


def executable() -> str:
    """The nats-server that the demo starts too. Without one the test is skipped, or fails with REQUIRE_LIVE=1."""
    try:
        return nats_binary()
    except DemoError as error:
        need_live(str(error))


def free_ports(count: int) -> list[int]:
    """Different loopback ports that were free a moment ago, none of those that the system gives to clients: one that
    tries to reach a server which was killed may get the server's own port, connect to itself, and keep it.
    """
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", secrets.choice(FOR_SERVERS)))
            except OSError:
                one.close()
            else:
                sockets.append(one)
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
