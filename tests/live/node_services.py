"""A TypeScript program of `tests/live/node` as a process: npm fetches what it needs once, into data/node."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.waiting import need_live

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "node"
INSTALLED = ROOT / "data" / "node"
OLDEST = 18
"""Node's version that the packages need."""


def installed() -> Path:
    """The folder of the programs, their packages beside them. Without Node or npm the test is skipped."""
    for program, package in (("node", "nodejs"), ("npm", "npm")):
        if shutil.which(program) is None:
            need_live(f"there is no {program} (on Debian: apt-get install {package})")
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    if int((re.findall(r"\d+", version) or ["0"])[0]) < OLDEST:
        need_live(f"Node {version.strip()} is older than {OLDEST}")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with (INSTALLED / "lock").open("w") as lock:  # tests run beside each other
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install()
    return INSTALLED


def _install() -> None:
    wanted = (SOURCES / "package.json").read_text("utf-8")
    done = INSTALLED / "installed.json"
    if not done.exists() or done.read_text("utf-8") != wanted:
        shutil.copy(SOURCES / "package.json", INSTALLED)
        ran = subprocess.run(
            ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=INSTALLED, check=False, capture_output=True, text=True,
        )  # fmt: skip
        if ran.returncode:
            need_live(f"npm can't fetch the packages: {ran.stdout[-1000:]}{ran.stderr[-1000:]}")
        done.write_text(wanted, "utf-8")
    for source in (*SOURCES.glob("*.ts"), SOURCES / "tsconfig.json"):
        shutil.copy(source, INSTALLED)


class NodeServices:
    """The program as it runs; `lines` is what it has said so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self._process = process
        self._output = output

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line. Raises AssertionError when the program has ended, or says that it failed."""
        text = self._output.read_text("utf-8")
        assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{text}"
        said = [
            json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and line[-1] == "\n"
        ]
        assert not [line for line in said if "failed" in line], text
        return said


@contextlib.contextmanager
def running(program: str, arguments: Sequence[str], folder: Path) -> Iterator[NodeServices]:
    """Run it meanwhile. It has to end with 0 at SIGTERM."""
    output = folder / f"{program}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["node", "--import", "tsx", program, *arguments],
            cwd=installed(), env={"PATH": os.environ["PATH"], "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield NodeServices(process, output)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, output.read_text("utf-8")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
