"""The embedded log's file (SQLite, WAL): its tables, its lock, its connections and transactions.

It decides who may write and what a transaction is. It knows the shape of rows, and nothing of what topics hold.
"""

import contextlib
import fcntl
import os
import sqlite3
import uuid
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec

from app.engine.errors import LogBusy
from app.engine.records import Headers

OFFSET_BITS = 40
"""A record's row id is `partition number << 40 | offset`: one integer key, so a partition is one range."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, compacted INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS places (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, ts REAL NOT NULL, key BLOB, value BLOB, headers BLOB);
CREATE TABLE IF NOT EXISTS offsets (grp TEXT, place INTEGER, next INTEGER NOT NULL, PRIMARY KEY (grp, place));
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""

pack_headers = msgspec.msgpack.Encoder().encode
"""Headers as bytes (MessagePack: pairs of text and bytes)."""

unpack_headers = msgspec.msgpack.Decoder(Headers).decode
"""What `pack_headers` packed."""


sqlite3.register_adapter(bytes, bytes)
"""Bytes go into SQLite as they are. Untold, Python looks each time whether they adapt themselves: 0.12 µs, and no other
thread works meanwhile."""

Values: TypeAlias = list[int | float | str | bytes | None]
"""The values of rows, one row behind the other. A tuple for each, taken apart again for SQLite, costs twice as much."""

AT_ONCE = 1_000
"""Rows in one statement of a large transaction. Its thread needs Python between two statements, and may wait for it."""


class Transaction(NamedTuple):
    """What is to be committed together: records (id, time, key, value, headers), offsets (group, place, offset), and
    notes (name, value).
    """

    records: Values
    offsets: Values
    notes: Values


RECORD = 5
"""Values of a record."""

TABLES = (("INSERT INTO records", RECORD), ("INSERT OR REPLACE INTO offsets", 3), ("INSERT OR REPLACE INTO notes", 2))
"""Where its parts go, and how many columns they have. A record never takes the place of another."""


class LogFile:
    """The file `path`, and the connection `db` to it of whoever writes (of nothing, before it is opened)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db: sqlite3.Connection = sqlite3.connect(":memory:")
        self._large: sqlite3.Connection | None = None
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Take the lock and open the file, making it when there is none. Who fails after that calls `unlock`.

        Raises:
            LogBusy: another process has it open.
            OSError, sqlite3.Error: it can't be opened or isn't a log.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self.db = self._connected(64)
        self.db.executescript(SCHEMA)
        self.db.execute("INSERT OR IGNORE INTO notes VALUES ('log-identity', ?)", (uuid.uuid4().bytes,))

    def _connected(self, statements: int) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=statements)
        db.execute("PRAGMA journal_mode=WAL")
        # NORMAL: no sync at a commit (DiskSync does that, once for many), sync around a checkpoint.
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        # Once all of the write-ahead file is folded in, it is cut: its size tells DiskSync how much is not.
        db.execute("PRAGMA journal_size_limit=0")
        db.execute("PRAGMA cache_size=-32768")
        return db

    def look(self) -> None:
        """Open it to read only, without the lock. Raises sqlite3.Error."""
        self.db = sqlite3.connect(self._read_only, uri=True)

    def _take_lock(self) -> None:
        lock = self.path.with_name(self.path.name + ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            message = (
                f"the embedded log {self.path} is in use by the process {owner}: one process per file. "
                "Stop that one, give this one another DATA_DIR, or use Kafka for many workers"
            )
            raise LogBusy(message) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        """Give the lock back, if it is held."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def fold_in(self) -> None:
        """Put everything of the write-ahead file into the database, and make it empty."""
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connections and give the lock back."""
        self.db.close()
        if self._large is not None:
            self._large.close()
            self._large = None
        self.unlock()

    def transaction(self) -> "_Within":
        """BEGIN ... COMMIT, and ROLLBACK when anything goes wrong."""
        return _Within(self.db)

    def write(self, transaction: Transaction) -> None:
        """Commit it. Raises sqlite3.Error; then nothing of it is there."""
        with self.transaction():
            for (into, columns), values in zip(TABLES, transaction, strict=True):
                if values:
                    self.db.executemany(_insertion(into, columns, 1), zip(*[iter(values)] * columns, strict=True))

    def write_large(self, transaction: Transaction) -> None:
        """The same on a thread, where SQLite works beside Python. Meanwhile `db` sees nothing of it."""
        db = self._large = self._large or self._connected(4)  # large ones, of so many sizes
        with _Within(db):
            for (into, columns), values in zip(TABLES, transaction, strict=True):
                for at in range(0, len(values), AT_ONCE * columns):
                    some = values[at : at + AT_ONCE * columns]
                    db.execute(_insertion(into, columns, len(some) // columns), some)

    def reading(self) -> contextlib.closing[sqlite3.Connection]:
        """A connection of its own, for a thread: it holds up nobody."""
        return contextlib.closing(sqlite3.connect(self._read_only, uri=True, check_same_thread=False))

    @property
    def _read_only(self) -> str:
        return f"file:{quote(str(self.path))}?mode=ro"

    def size(self) -> int:
        """Bytes that it takes on disk."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


@lru_cache(maxsize=8)
def _insertion(into: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{into} VALUES {', '.join([row] * rows)}"


class _Within:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._rollback()
                raise
        else:
            self._rollback()

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
