"""A Python process of a test, whose output goes to a file: started, signalled, killed, and started again."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]


class Killable:
    """`python *arguments` in the repository. `environment`: instead of that of the test."""

    def __init__(
        self, name: str, arguments: Sequence[str], output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._output = output
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        assert not self.running
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        return self

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self.running, f"{self.name} had ended with {self._process.returncode}:\n{self.output()}"
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """SIGTERM; it has to end with 0."""
        self.send(signal.SIGTERM)
        assert self.wait() == 0, self.output()

    def wait(self, within: float = 40) -> int:
        """Its exit code."""
        assert self._process is not None
        return self._process.wait(within)

    def close(self) -> None:
        """End it whatever its state; says what it said if it had failed."""
        if self._process is None:
            return
        if self._process.poll() not in (None, 0, -signal.SIGKILL):
            print(f"{self.name} had ended with {self._process.returncode}:\n{self.output()}")
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)

    def text(self) -> str:
        """What is in its output's file."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def output(self, longest: int = 4_000) -> str:
        """The end of it."""
        return self.text()[-longest:]
