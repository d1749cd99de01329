"""Programs that a bench runs and compares: how one is started, ended, watched, and what is missing or wrong with it."""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Turn = TypeVar("Turn")

BUILT = Path("data/peers")
"""What is fetched and built once; the folder that the command runs in is the repository."""

ENDS = 20.0
"""Seconds that a program has to end after SIGTERM; what it is then has no say in its figures."""

STUCK = 60.0
"""Seconds without a new result after which a program is given up."""


class Missing(Exception):
    """What is not on this machine, and how to get it."""


class Wrong(Exception):
    """Why a run does not count."""


def need(tool: str, remedy: str) -> None:
    """Raises Missing, with the remedy, when the tool is not on the PATH."""
    if shutil.which(tool) is None:
        raise Missing(f"{tool} is needed ({remedy})")


def build(what: str, *command: str | Path, folder: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a command that makes a program. Raises Missing with what it said."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=env)
    if done.returncode:
        raise Missing(f"{what} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


@contextlib.contextmanager
def running(arguments: Sequence[str], output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, ended at the end."""
    with output.open("wb") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    sys.stderr.write(f"{output.stem}: pid {process.pid}\n")
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(ENDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def still_alive(process: "subprocess.Popen[bytes]", output: Path) -> None:
    """Raises Wrong when it has ended."""
    if process.poll() is not None:
        raise Wrong(f"it ended with {process.returncode}:\n{tail(output)}")


@contextlib.contextmanager
def profiled(pid: int, file: Path | None) -> Iterator[None]:
    """py-spy records the process meanwhile, if a file is given."""
    if file is None:
        yield
        return
    spying = subprocess.Popen(
        ["py-spy", "record", "--pid", str(pid), "-o", file, "-r", "200", "-d", "3600", "--native"]
    )
    try:
        yield
    finally:
        spying.send_signal(signal.SIGINT)
        spying.wait(30)


def in_turns(programs: Sequence[Turn], rounds: int) -> Iterator[tuple[str, Turn]]:
    """Each program once a round, and which round it is: nobody is always the first, or always behind the same one."""
    for number in range(rounds):
        turn = number % len(programs)
        for program in (*programs[turn:], *programs[:turn]):
            yield f"round {number + 1}/{rounds}", program


def tail(path: Path) -> str:
    """The end of what a program has written."""
    return path.read_text("utf-8", errors="replace")[-2000:]
