"""What every bench prints: progress while it runs, and one line of JSON at the end that others can check."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.build import COMPILED


def progress(what: str, done: int, total: int) -> None:
    """A line that overwrites itself on a terminal; elsewhere one line for each tenth."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{what} {done}/{total}\x1b[K" + ("\n" if done >= total else ""))
        sys.stderr.flush()
    elif done >= total or (total >= 10 and done % (total // 10) == 0):
        sys.stderr.write(f"{what} {done}/{total}\n")


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in milliseconds."""
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * q))], 2) for name, q in at.items()}


def cpu(pid: int) -> float:
    """Seconds of processor time that the process has had (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """MB that the process has had in memory at most (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) / 1024)


def conclude(what: str, figures: dict[str, Any], *, seed: int | None = None) -> None:
    """The line of JSON. `compiled`: the application was that of `make compiled`.

    `cores` and `load` (of the last minute, at the end) tell how far the figures can be trusted.
    """
    load = round(os.getloadavg()[0], 1)
    machine = {"python": platform.python_version(), "compiled": COMPILED, "cores": os.cpu_count(), "load": load}
    print(json.dumps({"what": what, **figures, "seed": seed, "machine": machine}), flush=True)
