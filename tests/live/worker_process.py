"""A real `a4co worker`, or `bridge`, in a process of its own: started with its settings, asked, stopped or killed."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.live.nats_server import free_ports

STARTS = 60.0
"""Seconds that a worker has to become ready; it needs 1 to 3, and 25 where 70 others want the same two cores."""


KEPT = ("PATH", "PYTHONPATH", "PYTHONSAFEPATH")
"""The last two choose the compiled application (COMPILED=1 in the Makefile)."""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What `a4co` runs with: the settings, and nothing of this process's environment but KEPT."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | dict(settings)


class WorkerProcess:
    """`a4co worker` on the embedded log in `folder`/data, with nothing of this process's environment but KEPT.

    Settings are named as their environment variables: `WorkerProcess(folder, NATS_URL=..., PAYMENT_RETRY_DELAY="1")`.
    `command`: instead of `worker`.
    """

    def __init__(self, folder: Path, *, command: str = "worker", **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.web = f"http://127.0.0.1:{(port := free_ports(1)[0])}"
        self.command = command
        self.settings = {"DATA_DIR": str(self.data), "WEB_PORT": str(port), **settings}
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.AsyncClient(base_url=self.web, timeout=10)

    # ---- the process -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; `ready` waits until it answers."""
        assert not self.running, "it runs already"
        self.starts += 1
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [Path(sys.executable).parent / "a4co", *self.command.split()],
                cwd=self.folder,
                env=environment(self.settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    async def ready(self, within: float = STARTS) -> None:
        """Return when /ready answers 200. Raises AssertionError with its output when it dies or takes longer."""
        await self.until(lambda: self._answers("/ready", 200), within, "it is not ready")

    async def until(self, probe: Callable[[], Any], within: float = STARTS, what: str = "it did not come true") -> Any:
        """The first true answer of the probe (a coroutine function). Raises AssertionError when the process dies."""
        deadline = time.monotonic() + within
        while not (answer := await probe()):
            assert self.running, f"the worker ended with {self.exit_code}:\n{self.output()}"
            assert time.monotonic() < deadline, f"{what} after {within} s:\n{self.output()}"
            await asyncio.sleep(0.02)
        return answer

    async def ended(self, within: float = STARTS) -> int:
        """Its exit code, once it has ended by itself."""
        deadline = time.monotonic() + within
        while self.running:
            assert time.monotonic() < deadline, f"it still runs after {within} s:\n{self.output()}"
            await asyncio.sleep(0.02)
        assert self.exit_code is not None
        return self.exit_code

    def limit_files(self, size: int) -> None:
        """Let no file of the running process grow beyond `size` bytes: the disk is full for it."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Raises AssertionError when it had died before by itself."""
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait. Raises AssertionError when it doesn't end with 0."""
        self._end(signal.SIGTERM, 0)

    def _end(self, number: signal.Signals, expected: int) -> None:
        if self._process is None:
            return
        assert self.running, f"the worker had ended with {self.exit_code}:\n{self.output()}"
        self._process.send_signal(number)
        code = self._process.wait(20)
        assert code == expected, f"the worker ended with {code}, not {expected}:\n{self.output()}"
        self._process = None

    async def close(self) -> None:
        """End it whatever its state, and tell what it said if it had died."""
        if self._process is not None:
            if self._process.poll() not in (None, 0):
                sys.stdout.write(f"the worker had ended with {self.exit_code}:\n{self.output()}\n")
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(20)
        await self._client.aclose()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def _output(self) -> Path:
        return self.folder / f"worker-{self.starts}.log"

    def output(self, longest: int = 6_000) -> str:
        """The end of what the process has written since its last start, stdout and stderr."""
        return self._output.read_text(errors="replace")[-longest:] if self._output.exists() else ""

    def wipe_tables(self) -> None:
        """Take its local tables away, as if the disk were new: the log must be enough."""
        shutil.rmtree(self.data / "tables", ignore_errors=True)

    # ---- over HTTP -------------------------------------------------------------------------------------

    async def get(self, path: str, **query: str | int) -> Any:
        """The JSON answer of a 200. Raises AssertionError for another status."""
        answer = await self._client.get(path, params=query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def answer(self, path: str) -> httpx.Response | None:
        """Whatever it answers; None while nobody listens."""
        try:
            return await self._client.get(path)
        except httpx.TransportError:
            return None

    async def pages(self, path: str) -> list[Any]:
        """Every item of a list."""
        items: list[Any] = []
        query: dict[str, str | int] = {"limit": 500}
        while True:
            page = await self.get(path, **query)
            items += page["items"]
            if page["nextCursor"] is None:
                return items
            query["cursor"] = page["nextCursor"]

    async def _answers(self, path: str, status: int) -> bool:
        answer = await self.answer(path)
        return answer is not None and answer.status_code == status

    async def connected(self) -> bool:
        """Whether it runs the bridge."""
        return bool((await self.get("/health"))["checks"]["nats"]["connected"])

    async def idle(self) -> bool:
        """Whether nothing waits: not in the lanes, not in the bridge."""
        checks = (await self.get("/health"))["checks"]
        nats, lanes = checks["nats"], checks["database"].get("lag", {})
        return not any((nats["problem"], nats["lag_in"], nats["lag_out"], *lanes.values()))
