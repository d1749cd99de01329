"""Child processes that never outlive the demo, and the ports that they get. Decides nothing about what they run."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

SET_PDEATHSIG = 1  # prctl(2)


class DemoError(Exception):
    """The demo can't go on. The text is for people: what, and the way out."""


class Child:
    """A process whose output goes to a file. `stop` ends it; when the demo is killed, the kernel does (on Linux)."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, output: Path) -> None:
        self.name = name
        self.output = output
        self._process = process

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start it in the folder of its output, and in a session of its own: the terminal's Ctrl-C is not for it."""
        with output.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=output.parent,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return cls(name, process, output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def died(self) -> None:
        """Wait for its end, which is one too early. Raises DemoError."""
        code = await self._process.wait()
        raise DemoError(f"{self.name} ended with {code}; its last output:\n{self.last_output()}")

    async def ready(self, probe: Callable[[], Awaitable[bool]], within: float) -> None:
        """Ask the probe until it says yes. Raises DemoError when the process ends instead, or the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while not await probe():
            if not self.running:
                await self.died()
            if loop.time() > deadline:
                raise DemoError(f"{self.name} is not ready after {within:g} s; its last output:\n{self.last_output()}")
            await asyncio.sleep(0.03)

    def last_output(self, lines: int = 12) -> str:
        """The end of what it said."""
        said = self.output.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"  {line}" for line in said) or "  (nothing)"

    async def stop(self, within: float) -> None:
        """SIGTERM, and SIGKILL after so many seconds."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(within):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(SET_PDEATHSIG, signal.SIGKILL)


def port_or_other(wanted: int) -> int:
    """This port of 127.0.0.1 when it is free, else another one that is."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                # Bound is not enough: with SO_REUSEADDR two may bind, but only one may listen.
                probe.listen()
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free port on 127.0.0.1")
