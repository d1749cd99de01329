"""The embedded log: topics in one SQLite file, for one process. Offsets, notes and records change in one transaction.

It decides places (partition, offset) and durability. It knows nothing of rows, rules or Faust.
"""

import asyncio
import contextlib
import fcntl
import itertools
import os
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec
import structlog

from app.engine.disk_sync import DiskSync
from app.engine.embedded_reader import EmbeddedReader
from app.engine.errors import LogBusy, LogFailed, TopicMismatch
from app.engine.log import TopicState
from app.engine.partitioner import partition_for
from app.engine.reader import Changes
from app.engine.records import Headers, Record, Send, TopicPartition

OFFSET_BITS = 40
"""A record's row id is `partition number << 40 | offset`: one integer key, so a partition is one range."""

REPLAYED_AT_ONCE = 2_000

COMPACT_ABOVE = 20_000
"""A compacted partition is compacted when it has grown by this many records, and by as many as it has rows."""

logger = structlog.get_logger("a4co.engine")

SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, compacted INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS places (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, ts REAL NOT NULL, key BLOB, value BLOB, headers BLOB);
CREATE TABLE IF NOT EXISTS offsets (grp TEXT, place INTEGER, next INTEGER NOT NULL, PRIMARY KEY (grp, place));
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class EmbeddedLog:
    """Topics in the SQLite file `path` (WAL). Open it once a process; every call is made on one event loop.

    Raises (from any call that writes):
        LogFailed: the disk is full or failed; nothing of that commit is kept, and the log takes no more.
    """

    keeps_itself_small = False
    commit_seconds = 0.0

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.where = str(path)
        self._identity = ""
        self.failure: LogFailed | None = None
        self.on_failure: Callable[[LogFailed], None] = lambda _error: None
        self.on_commit: Callable[[int, float], None] = lambda _records, _seconds: None
        self._clock = clock
        self._db: sqlite3.Connection = sqlite3.connect(":memory:")
        self._lock: IO[str] | None = None
        self._sync: DiskSync | None = None
        self._topics: dict[str, list[int]] = {}
        self._ends: dict[int, int] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        self._commits = 0
        self._compacted_at: dict[tuple[str, int], int] = {}
        self._watchers: dict[str, list[asyncio.Event]] = {}

    # ---- opening and closing ---------------------------------------------------------------------------

    def open(self) -> None:
        """Take the file's lock and open it, making it when there is none.

        Raises:
            LogBusy: another process has it open.
            LogFailed: it can't be opened or isn't a log.
        """
        if self._sync is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=64)
            self._db.execute("PRAGMA journal_mode=WAL")
            # NORMAL: no sync at a commit (DiskSync does that, once for many), sync around a checkpoint.
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint=0")
            self._db.execute("PRAGMA cache_size=-32768")
            self._db.executescript(SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO notes VALUES ('log-identity', ?)", (uuid.uuid4().bytes,))
            self._load()
            self._sync = DiskSync(self.path, self._sync_failed)
        except (OSError, sqlite3.Error) as error:
            self._release_lock()
            message = f"the log {self.path} can't be opened: {error}; check the path, its rights and the disk's space"
            raise LogFailed(message) from error

    async def look(self, changelogs: Collection[str] = ()) -> None:
        """Open it to read only, also while another process has it; its topics are those of now.

        Raises:
            LogFailed: there is none, or it can't be read.
        """
        try:
            self._db = sqlite3.connect(self._read_only, uri=True)
            self._load()
            for topic in changelogs:
                self._places(topic)
        except (sqlite3.Error, TypeError) as error:  # no file, or one without tables or an identity
            raise LogFailed(f"there is no log {self.path} that can be read: {error}") from error

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

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _load(self) -> None:
        self._identity = self._db.execute("SELECT value FROM notes WHERE name='log-identity'").fetchone()[0].hex()
        for name, partitions in self._db.execute("SELECT name, partitions FROM topics").fetchall():
            self._topics[name] = [-1] * partitions
        for place, topic, partition in self._db.execute("SELECT * FROM places").fetchall():
            self._topics[topic][partition] = place
            self._ends[place] = self._last(place) + 1
        for group, place, following in self._db.execute("SELECT * FROM offsets").fetchall():
            self._offsets[group, place] = following

    def _last(self, place: int) -> int:
        low, high = place << OFFSET_BITS, (place + 1) << OFFSET_BITS
        found = self._db.execute("SELECT max(id) FROM records WHERE id >= ? AND id < ?", (low, high)).fetchone()[0]
        return -1 if found is None else found - low

    def close(self) -> None:
        """Put everything on disk, fold the write-ahead file in, and give the lock back."""
        if self._sync is None:
            self._db.close()
            return
        try:
            self._sync.close()
            if self.failure is None:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._sync = None
            self._db.close()
            self._release_lock()

    @property
    def is_open(self) -> bool:
        """Whether the file is held."""
        return self._sync is not None

    def size(self) -> int:
        """Bytes that the log takes on disk."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    async def connect(self) -> None:
        """Open the file, if it isn't open."""
        self.open()

    async def disconnect(self) -> None:
        """Close the file."""
        self.close()

    # ---- topics ----------------------------------------------------------------------------------------

    def declare(self, topic: str, partitions: int, compacted: bool = False) -> None:
        """Make the topic if it isn't there.

        Raises:
            TopicMismatch: it is there with another number of partitions.
        """
        existing = self._topics.get(topic)
        if existing is not None:
            if len(existing) != partitions:
                message = (
                    f"topic {topic!r} has {len(existing)} partitions in {self.path}, and {partitions} are wanted: "
                    "set PARTITIONS as it was, or start on a new DATA_DIR"
                )
                raise TopicMismatch(message)
            return
        with self._transaction():
            self._db.execute("INSERT INTO topics VALUES (?, ?, ?)", (topic, partitions, int(compacted)))
            places = []
            for partition in range(partitions):
                cursor = self._db.execute("INSERT INTO places (topic, partition) VALUES (?, ?)", (topic, partition))
                places.append(int(cursor.lastrowid or 0))
        self._topics[topic] = places
        self._ends.update(dict.fromkeys(places, 0))

    async def prepare(self, topics: Mapping[str, bool], partitions: int) -> None:
        """Declare the topics (name -> compacted)."""
        for topic, compacted in topics.items():
            self.declare(topic, partitions, compacted)

    def reader(self, group: str, topics: Sequence[str], *, durable: bool) -> EmbeddedReader:
        """A reader of every partition of the topics."""
        return EmbeddedReader(self, group, topics, durable=durable)

    def topics(self) -> dict[str, int]:
        """Every topic and its number of partitions."""
        return {topic: len(places) for topic, places in self._topics.items()}

    async def describe(self) -> dict[str, TopicState]:
        """Every topic that is there. Who trims old records, and when, is not the log's to know."""
        compacted = dict(self._db.execute("SELECT name, compacted FROM topics").fetchall())
        counting = "SELECT count(*) FROM records WHERE id >= ? AND id < ?"
        return {
            topic: TopicState(
                len(places),
                "compact" if compacted[topic] else "delete",
                1,
                None,
                sum(
                    self._db.execute(counting, (place << OFFSET_BITS, (place + 1) << OFFSET_BITS)).fetchone()[0]
                    for place in places
                ),
            )
            for topic, places in self._topics.items()
        }

    def partitions(self, topic: str) -> int:
        """The topic's number of partitions. Raises TopicMismatch when it isn't declared."""
        return len(self._places(topic))

    def _places(self, topic: str) -> list[int]:
        places = self._topics.get(topic)
        if places is None:
            message = f"topic {topic!r} is not declared in {self.path}"
            raise TopicMismatch(message)
        return places

    # ---- writing ---------------------------------------------------------------------------------------

    async def commit(
        self,
        sends: Iterable[Send],
        *,
        group: str = "",
        offsets: Mapping[TopicPartition, int] | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> int:
        """Append the messages and set offsets and notes, all or nothing. Returns the commit's number.

        It is done when this returns and survives a kill of the process; `synced` tells when it survives a power cut.
        """
        self.append(sends, group=group, offsets=offsets, notes=notes)
        return self._commits

    def append(
        self,
        sends: Iterable[Send],
        *,
        group: str = "",
        offsets: Mapping[TopicPartition, int] | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> list[int]:
        """As `commit`, and returns the offset of each message in its partition."""
        if self.failure is not None:
            raise self.failure
        started = time.perf_counter()
        rows, placed, ends, touched = self._rows(sends)
        try:
            with self._transaction():
                if rows:
                    rows.sort()  # place by place, which SQLite does without searching for each row
                    self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
                for (topic, partition), following in (offsets or {}).items():
                    place = self._places(topic)[partition]
                    self._db.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)", (group, place, following))
                for name, value in (notes or {}).items():
                    self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))
        except sqlite3.Error as error:
            raise self._failed(error) from error
        self._ends.update(ends)
        for (topic, partition), following in (offsets or {}).items():
            self._offsets[group, self._places(topic)[partition]] = following
        self._commits += 1
        if self._sync is not None:
            self._sync.start(self._newest)
        for topic in touched:
            for event in self._watchers.get(topic, ()):
                event.set()
        self.on_commit(len(rows), time.perf_counter() - started)
        return placed

    def _rows(
        self, sends: Iterable[Send]
    ) -> tuple[list[tuple[int, float, bytes | None, bytes | None, bytes | None]], list[int], dict[int, int], set[str]]:
        """The table rows for the messages, their offsets, the new ends of their partitions, and their topics."""
        now = self._clock()
        rows: list[tuple[int, float, bytes | None, bytes | None, bytes | None]] = []
        placed: list[int] = []
        ends: dict[int, int] = {}
        touched: set[str] = set()
        for topic, key, value, headers, timestamp, partition in sends:
            places = self._places(topic)
            if partition is not None:
                place = places[partition]
            else:
                place = places[partition_for(key, len(places)) if key is not None else self._commits % len(places)]
            offset = ends.get(place, -1)
            if offset < 0:
                offset = self._ends[place]
            ends[place] = offset + 1
            placed.append(offset)
            touched.add(topic)
            packed = pack_headers(headers) if headers else None
            rows.append((place << OFFSET_BITS | offset, now if timestamp is None else timestamp, key, value, packed))
        return rows, placed, ends, touched

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)

    def _failed(self, error: BaseException) -> LogFailed:
        """The log is unusable from now on: say why, once, to whoever runs it."""
        if self.failure is None:
            message = (
                f"the log {self.path} can't be written: {error}. Nothing of this commit is kept; "
                "make room or mend the disk and start again: the work goes on from the last commit"
            )
            self.failure = LogFailed(message)
            self.on_failure(self.failure)
        return self.failure

    def _sync_failed(self, error: BaseException) -> None:
        self._failed(error)

    async def synced(self, commit: int | None = None) -> None:
        """Return when `commit` (default: the last one) and all before it are on disk.

        Raises:
            LogFailed: the disk refused.
        """
        if self._sync is None:
            return
        try:
            await self._sync.wait(self._commits if commit is None else commit, self._newest)
        except OSError as error:
            raise self._failed(error) from error

    def _newest(self) -> int:
        return self._commits

    # ---- reading ---------------------------------------------------------------------------------------

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on, in order. Offsets may have holes (compaction)."""
        place = self._places(topic)[partition]
        if offset >= self._ends[place]:
            return []
        low = place << OFFSET_BITS
        found = self._db.execute(
            "SELECT id, ts, key, value, headers FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (low + offset, low + (1 << OFFSET_BITS), limit),
        )
        return [
            Record(topic, partition, row_id - low, ts, key, value, unpack_headers(headers) if headers else ())
            for row_id, ts, key, value, headers in found
        ]

    # ---- changelogs (on threads) -----------------------------------------------------------------------

    def identity(self, topic: str) -> str:
        """The log's own: a topic of it can't be made anew."""
        del topic
        return self._identity

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        """The partition's first offset, and its end."""
        place = self._places(topic)[partition]
        low, high = place << OFFSET_BITS, (place + 1) << OFFSET_BITS
        with self._reading() as db:
            found = db.execute("SELECT min(id) FROM records WHERE id >= ? AND id < ?", (low, high)).fetchone()[0]
        end = self._ends[place]
        return end if found is None else found - low, end

    def changes(self, topic: str, partition: int, offset: int) -> Iterator[Changes]:
        """What the records from `offset` to the end set, in batches."""
        low = self._places(topic)[partition] << OFFSET_BITS
        for rows in self._behind(low, offset, "key, value"):
            yield [(key or b"", value) for _, key, value in rows], rows[-1][0] - low + 1

    def replay(self, topic: str, partition: int, offset: int) -> Iterator[list[Record]]:
        """The records from `offset` to the end, in batches."""
        low = self._places(topic)[partition] << OFFSET_BITS
        for rows in self._behind(low, offset, "ts, key, value, headers"):
            yield [
                Record(topic, partition, row_id - low, ts, key, value, unpack_headers(headers) if headers else ())
                for row_id, ts, key, value, headers in rows
            ]

    def _behind(self, low: int, offset: int, columns: str) -> Iterator[list[Any]]:
        question = f"SELECT id, {columns} FROM records WHERE id >= ? AND id < ? ORDER BY id"  # noqa: S608 - ours
        with self._reading() as db:
            found = db.execute(question, (low + offset, low + (1 << OFFSET_BITS)))
            while rows := found.fetchmany(REPLAYED_AT_ONCE):
                yield rows

    def _reading(self) -> contextlib.closing[sqlite3.Connection]:
        """A connection of its own, for a thread: it holds up nobody."""
        return contextlib.closing(sqlite3.connect(self._read_only, uri=True, check_same_thread=False))

    @property
    def _read_only(self) -> str:
        return f"file:{quote(str(self.path))}?mode=ro"

    def begin(self, topic: str, partition: int) -> int:
        """The first offset that is there; `end` when there is none."""
        return self.span(topic, partition)[0]

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""
        return self._ends[self._places(topic)[partition]]

    def committed(self, group: str, topic: str, partition: int) -> int | None:
        """The next offset that the group is to read; None when it never committed."""
        return self._offsets.get((group, self._places(topic)[partition]))

    def note(self, name: str) -> bytes | None:
        """A named value that was committed with the records."""
        found = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def watch(self, topics: Iterable[str]) -> asyncio.Event:
        """An event that is set at every append to one of the topics. Who waits on it clears it."""
        event = asyncio.Event()
        for topic in topics:
            self._watchers.setdefault(topic, []).append(event)
        return event

    # ---- keeping it small ------------------------------------------------------------------------------------

    async def compact_grown(self, rows: Mapping[str, Mapping[int, int]]) -> None:
        """Compact the partitions (topic -> partition -> rows) that have grown far beyond their rows."""
        for topic, partitions in rows.items():
            for partition, count in partitions.items():
                end = self.end(topic, partition)
                grown = end - self._compacted_at.get((topic, partition), 0)
                if grown > max(COMPACT_ABOVE, count):
                    dropped = await self.compact(topic, partition)
                    self._compacted_at[topic, partition] = end
                    logger.info("topic compacted", topic=topic, partition=partition, dropped=dropped)

    async def trim_old(self, topics: Sequence[str], before: float) -> None:
        """Drop the topics' records that are older than `before` and that every group is done with."""
        for topic in topics:
            for partition in range(self.partitions(topic)):
                dropped = await self.trim(topic, partition, before)
                if dropped:
                    logger.info("topic trimmed", topic=topic, partition=partition, dropped=dropped)

    async def compact(self, topic: str, partition: int, slice_size: int = 2_000) -> int:
        """Drop every record that a newer one of the same key replaces; the newest record always stays.

        A newest record without a value (a tombstone) is dropped too, unless it is the partition's last record.
        Works in slices that leave the loop free. Returns how many were dropped.
        """
        end = self.end(topic, partition)
        newest: dict[bytes | None, int] = {}
        tombs: set[int] = set()
        async for offset, key, dead in self._scan(topic, partition, end, slice_size):
            newest[key] = offset
            if dead:
                tombs.add(offset)
        kept = {offset for offset in newest.values() if offset not in tombs} | {end - 1}
        low = self._places(topic)[partition] << OFFSET_BITS
        dropped = 0
        doomed: list[tuple[int]] = []
        async for offset, _key, _dead in self._scan(topic, partition, end, slice_size):
            if offset not in kept:
                doomed.append((low + offset,))
            if len(doomed) >= slice_size:
                dropped += self._drop(doomed)
                doomed = []
        return dropped + self._drop(doomed)

    async def trim(self, topic: str, partition: int, before: float, slice_size: int = 2_000) -> int:
        """Drop the partition's records that are older than `before` and that every group is done with.

        Who watches the topic and has committed nothing yet is done with nothing. The newest record always stays.
        Works in slices that leave the loop free. Returns how many were dropped.
        """
        place = self._places(topic)[partition]
        low = place << OFFSET_BITS
        waiting = [following for (_, at), following in self._offsets.items() if at == place]
        if not waiting and topic in self._watchers:
            return 0
        done = min([self._ends[place] - 1, *waiting])
        dropped = 0
        while True:
            found = self._db.execute(
                "SELECT id, ts FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (low, low + done, slice_size)
            ).fetchall()
            doomed = [(row_id,) for row_id, _ in itertools.takewhile(lambda row: row[1] < before, found)]
            dropped += self._drop(doomed)
            if len(doomed) < slice_size:
                return dropped
            await asyncio.sleep(0)

    async def _scan(
        self, topic: str, partition: int, end: int, slice_size: int
    ) -> AsyncIterator[tuple[int, bytes | None, bool]]:
        low = self._places(topic)[partition] << OFFSET_BITS
        position = 0
        while position < end:
            found = self._db.execute(
                "SELECT id, key, value IS NULL FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (low + position, low + end, slice_size),
            ).fetchall()
            for row_id, key, dead in found:
                yield row_id - low, key, bool(dead)
            if not found:
                return
            position = found[-1][0] - low + 1
            await asyncio.sleep(0)

    def _drop(self, doomed: list[tuple[int]]) -> int:
        if doomed:
            with self._transaction():
                self._db.executemany("DELETE FROM records WHERE id = ?", doomed)
            self._commits += 1
        return len(doomed)


class _Transaction:
    """BEGIN ... COMMIT, and ROLLBACK when anything goes wrong."""

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


pack_headers = msgspec.msgpack.Encoder().encode
"""Headers as bytes (MessagePack: pairs of text and bytes)."""

unpack_headers = msgspec.msgpack.Decoder(Headers).decode
"""What `pack_headers` packed."""
