"""The embedded log: topics in one SQLite file, for one process. Offsets, notes and records change in one transaction.

It decides places (partition, offset) and durability. What may go is decided in `embedded_tidying`, and who may write in
`embedded_file`. It knows nothing of rows, rules or Faust.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.engine.cancelling import unbroken
from app.engine.disk_sync import DiskSync
from app.engine.embedded_file import OFFSET_BITS, LogFile, Row, Transaction, pack_headers, unpack_headers
from app.engine.embedded_onlooker import EmbeddedOnlooker
from app.engine.embedded_reader import EmbeddedReader
from app.engine.embedded_tail import Tails
from app.engine.embedded_tidying import Tidying
from app.engine.errors import LogFailed, TopicMismatch
from app.engine.log import FETCHED, TopicState
from app.engine.partitioner import partition_for
from app.engine.reader import Changes
from app.engine.records import Record, Send, TopicPartition

REPLAYED_AT_ONCE = 2_000

LARGE = 1_000
"""Records that are worth a thread: their commit takes 3 ms or more, and the loop goes on meanwhile."""

FETCHED_AT_ONCE = 20
"""Records that are fetched one by one between two turns of the loop."""


class _Appended(NamedTuple):
    """A transaction, the offsets of its messages, the new ends of partitions, the topics, the records that somebody
    waits for with their places, and when it began.
    """

    transaction: Transaction
    placed: list[int]
    ends: dict[int, int]
    touched: set[str]
    watched: list[tuple[int, Record]]
    began: float


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
        self._file = LogFile(path)
        self.tidying = Tidying(self, self._file)
        self._sync: DiskSync | None = None
        self._topics: dict[str, list[int]] = {}
        self._ends: dict[int, int] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        self._commits = 0
        self._watchers: dict[str, list[asyncio.Event]] = {}
        self._tails = Tails()
        self._turn = asyncio.Lock()

    @property
    def _db(self) -> sqlite3.Connection:
        return self._file.db

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
            self._file.open()
            self._load()
            self._sync = DiskSync(self.path, self._sync_failed)
        except (OSError, sqlite3.Error) as error:
            self._file.unlock()
            message = f"the log {self.path} can't be opened: {error}; check the path, its rights and the disk's space"
            raise LogFailed(message) from error

    async def look(self, changelogs: Collection[str] = ()) -> None:
        """Open it to read only, also while another process has it; its topics are those of now.

        Raises:
            LogFailed: there is none, or it can't be read.
        """
        try:
            self._file.look()
            self._db.execute("BEGIN")  # all of it is as of one moment
            self._load()
            self._db.execute("ROLLBACK")
            for topic in changelogs:
                self._places(topic)
        except (sqlite3.Error, TypeError) as error:  # no file, or one without tables or an identity
            raise LogFailed(f"there is no log {self.path} that can be read: {error}") from error

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
            self._file.close()
            return
        try:
            self._sync.close()
            if self.failure is None:
                self._file.fold_in()
        finally:
            self._sync = None
            self._file.close()

    @property
    def is_open(self) -> bool:
        """Whether the file is held."""
        return self._sync is not None

    def size(self) -> int:
        """Bytes that the log takes on disk."""
        return self._file.size()

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
        with self._file.transaction():
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

    def reader(self, group: str, topics: Sequence[str], *, durable: bool, collects: float = 0.0) -> EmbeddedReader:
        """A reader of every partition of the topics."""
        del collects  # there is nobody to be asked less often
        return EmbeddedReader(self, group, topics, durable=durable)

    def onlooker(self, *topics: str) -> EmbeddedOnlooker:
        """Who looks on at the topics."""
        return EmbeddedOnlooker(self, topics)

    def topics(self) -> dict[str, int]:
        """Every topic and its number of partitions."""
        return {topic: len(places) for topic, places in self._topics.items()}

    async def describe(self) -> dict[str, TopicState]:
        """Every topic that is there. Who trims old records, and when, is not the log's to know."""
        compacted = dict(self._db.execute("SELECT name, compacted FROM topics").fetchall())
        return {
            topic: TopicState(
                len(places), "compact" if compacted[topic] else "delete", 1, None, sum(map(self._count, places))
            )
            for topic, places in self._topics.items()
        }

    def _count(self, place: int) -> int:
        low, high = place << OFFSET_BITS, (place + 1) << OFFSET_BITS
        found = self._db.execute("SELECT count(*) FROM records WHERE id >= ? AND id < ?", (low, high)).fetchone()
        return int(found[0])

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
        Commits are made one after the other, as they were asked for.
        """
        async with self._turn:
            appended = self._prepared(sends, group, offsets, notes)
            if len(appended.transaction.records) < LARGE:
                self._commit(appended, self._file.write)
            else:
                await unbroken(self._commit_large(appended))
            return self._commits

    def append(
        self,
        sends: Iterable[Send],
        *,
        group: str = "",
        offsets: Mapping[TopicPartition, int] | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> list[int]:
        """As `commit`, at once, and returns the offset of each message in its partition.

        Raises:
            RuntimeError: a commit is under way, and would get the same offsets.
        """
        if self._turn.locked():
            raise RuntimeError("append in the midst of a commit")
        appended = self._prepared(sends, group, offsets, notes)
        self._commit(appended, self._file.write)
        return appended.placed

    async def _commit_large(self, appended: "_Appended") -> None:
        writing = asyncio.get_running_loop().run_in_executor(None, self._file.write_large, appended.transaction)
        await asyncio.wait({writing})
        self._commit(appended, lambda _transaction: writing.result())

    def _commit(self, appended: "_Appended", write: Callable[[Transaction], None]) -> None:
        try:
            write(appended.transaction)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        self._ends.update(appended.ends)
        self._tails.add(appended.watched)
        for group, place, following in appended.transaction.offsets:
            self._offsets[group, place] = following
        self._commits += 1
        if self._sync is not None:
            self._sync.start(self._newest)
        for topic in appended.touched:
            for event in self._watchers.get(topic, ()):
                event.set()
        self.on_commit(len(appended.transaction.records), time.perf_counter() - appended.began)

    def _prepared(
        self,
        sends: Iterable[Send],
        group: str,
        offsets: Mapping[TopicPartition, int] | None,
        notes: Mapping[str, bytes] | None,
    ) -> "_Appended":
        if self.failure is not None:
            raise self.failure
        began = time.perf_counter()
        rows, placed, ends, touched, watched = self._rows(sends)
        rows.sort()  # place by place, which SQLite does without searching for each row
        places = [
            (group, self._places(topic)[partition], following)
            for (topic, partition), following in (offsets or {}).items()
        ]
        transaction = Transaction(rows, places, list((notes or {}).items()))
        return _Appended(transaction, placed, ends, touched, watched, began)

    def _rows(
        self, sends: Iterable[Send]
    ) -> tuple[list[Row], list[int], dict[int, int], set[str], list[tuple[int, Record]]]:
        """The table rows for the messages, their offsets, the new ends of their partitions, and their topics; and with
        their places the records that somebody waits for.
        """
        now = self._clock()
        rows: list[Row] = []
        watched: list[tuple[int, Record]] = []
        placed: list[int] = []
        ends: dict[int, int] = {}
        touched: set[str] = set()
        for send in sends:
            topic, key, value, headers = send.topic, send.key, send.value, send.headers
            places = self._places(topic)
            if send.partition is not None:
                partition = send.partition
            else:
                partition = partition_for(key, len(places)) if key is not None else self._commits % len(places)
            place = places[partition]
            offset = ends.get(place, -1)
            if offset < 0:
                offset = self._ends[place]
            ends[place] = offset + 1
            placed.append(offset)
            touched.add(topic)
            at = now if send.timestamp is None else send.timestamp
            rows.append((place << OFFSET_BITS | offset, at, key, value, pack_headers(headers) if headers else None))
            if topic in self._watchers:
                watched.append((place, Record(topic, partition, offset, at, key, value, headers)))
        return rows, placed, ends, touched, watched

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
        kept = self._tails.read(place, offset, limit)
        if kept is not None:
            return kept
        low = place << OFFSET_BITS
        found = self._db.execute(
            "SELECT id, ts, key, value, headers FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (low + offset, low + (1 << OFFSET_BITS), limit),
        )
        return [
            Record(topic, partition, row_id - low, ts, key, value, unpack_headers(headers) if headers else ())
            for row_id, ts, key, value, headers in found
        ]

    async def fetch(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """Those of the records at these (ascending) offsets that are there; behind FETCHED bytes no more are read."""
        records: list[Record] = []
        size = 0
        for offset in offsets:
            if size > FETCHED:
                break
            found = self.read(topic, partition, offset, 1)
            if found and found[0].offset == offset:
                records += found
                size += len(found[0].value or b"")
                if len(records) % FETCHED_AT_ONCE == 0:
                    await asyncio.sleep(0)
        return records

    # ---- changelogs (on threads) -----------------------------------------------------------------------

    def identity(self, topic: str) -> str:
        """The log's own: a topic of it can't be made anew."""
        del topic
        return self._identity

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        """The partition's first offset, and its end."""
        place = self._places(topic)[partition]
        low, high = place << OFFSET_BITS, (place + 1) << OFFSET_BITS
        with self._file.reading() as db:
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
        with self._file.reading() as db:
            found = db.execute(question, (low + offset, low + (1 << OFFSET_BITS)))
            while rows := found.fetchmany(REPLAYED_AT_ONCE):
                yield rows

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

    def notes(self) -> dict[str, bytes]:
        """Every named value, as it is now."""
        with self._file.reading() as db:
            return {name: bytes(value) for name, value in db.execute("SELECT name, value FROM notes")}

    def watch(self, topics: Iterable[str]) -> asyncio.Event:
        """An event that is set at every append to one of the topics. Who waits on it clears it."""
        event = asyncio.Event()
        for topic in topics:
            self._watchers.setdefault(topic, []).append(event)
        return event

    def unwatch(self, topics: Iterable[str], event: asyncio.Event) -> None:
        """The event is not waited on any more."""
        for topic in topics:
            watchers = self._watchers.get(topic, [])
            if event in watchers:
                watchers.remove(event)
            if not watchers:
                self._watchers.pop(topic, None)
                self._tails.forget(self._places(topic))

    # ---- keeping it small ------------------------------------------------------------------------------

    async def compact_grown(self, rows: Mapping[str, Mapping[int, int]]) -> None:
        """Compact the partitions (topic -> partition -> rows) that have grown far beyond their rows."""
        await self.tidying.compact_grown(rows)

    async def trim_old(self, topics: Sequence[str], before: float) -> None:
        """Drop the topics' records that are older than `before` and that every group is done with."""
        await self.tidying.trim_old(topics, before)

    def place(self, topic: str, partition: int) -> int:
        """The partition's number in the file."""
        return self._places(topic)[partition]

    def done(self, topic: str, partition: int) -> int:
        """The offset before which every group is done. Who watches and has committed nothing is done with nothing."""
        place = self.place(topic, partition)
        waiting = [following for (_, at), following in self._offsets.items() if at == place]
        if not waiting and topic in self._watchers:
            return 0
        return min([self._ends[place], *waiting])

    def drop(self, rows: Sequence[tuple[int]]) -> int:
        """Delete the records with these row ids, in a transaction. Returns how many."""
        if rows:
            with self._file.transaction():
                self._db.executemany("DELETE FROM records WHERE id = ?", rows)
            self._commits += 1
            self._tails.clear()
        return len(rows)
