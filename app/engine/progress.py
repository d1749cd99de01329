"""How far the recovery of the tables is: for /ready, and for whoever watches. Decides when something is said."""

import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TextIO

import structlog

EVERY = 3.0
"""Seconds between two lines of a log."""

EVERY_ON_A_TERMINAL = 0.2

logger = structlog.get_logger("a4co.engine")


class _Part(NamedTuple):
    done: int
    total: int


class Progress:
    """The partitions that are or were recovered. A terminal has one line that overwrites itself, a log a line at times.

    It is told on many threads.
    """

    def __init__(self, stream: TextIO | None = None, say: Callable[[str], object] = logger.info) -> None:
        self._log = say
        stream = sys.stderr if stream is None else stream
        self._terminal = stream if stream.isatty() else None
        self._every = EVERY if self._terminal is None else EVERY_ON_A_TERMINAL
        self._parts: dict[tuple[str, int], _Part] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._said = time.monotonic()
        self._saying = threading.Lock()

    def told(self, table: str, partition: int, done: int, total: int) -> None:
        """So many of the changelog records that a partition lacks are done."""
        with self._saying:
            now = time.monotonic()
            if table not in self._began:
                self._began[table] = now, done
                self._said = now if len(self._began) == 1 else self._said
            self._parts[table, partition] = _Part(done, total)
            if now - self._said >= self._every:
                self._said = now
                self._say(table, now)
            parts = [part for (of, _), part in self._parts.items() if of == table]
            if all(part.done >= part.total for part in parts):
                self._over(table)

    def _say(self, table: str, now: float) -> None:
        line = self.line(table, now)
        if self._terminal is None:
            self._log(line)
        else:  # the cursor stays at the beginning, so that the next line of the log is written over it
            self._terminal.write(f"\x1b[K{line}\r")
            self._terminal.flush()

    def _over(self, table: str) -> None:
        del self._began[table]
        if self._terminal is not None:
            self._terminal.write("\x1b[K")
            self._terminal.flush()

    def line(self, table: str, now: float) -> str:
        """In words: how far the table is, how fast, and how long it will take."""
        done, total = self._sum(table)
        began, before = self._began[table]
        rate = (done - before) / max(now - began, 0.001)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
        return f"recovering {table}: {_percent(done, total)} %, {rate:,.0f} records/s{left}"

    def _sum(self, table: str = "") -> tuple[int, int]:
        parts = [part for (name, _), part in self._parts.items() if table in ("", name)]
        return sum(part.done for part in parts), sum(part.total for part in parts)

    @property
    def percent(self) -> int:
        """0 to 100: the part of the changelog records that is done, of every table."""
        with self._saying:
            return _percent(*self._sum())


def _percent(done: int, total: int) -> int:
    return 100 * done // total if total else 100
