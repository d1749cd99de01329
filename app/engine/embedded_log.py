"""The embedded log: topics in one SQLite file, for one process. Offsets, notes and records change in one transaction.

It decides what is committed together, and when that is on disk. Where a message goes is decided in `embedded_rows`,
what may go in `embedded_tidying`, and who may write in `embedded_file`. It knows nothing of tables, rules or Faust.
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.engine.cancelling import unbroken
from app.engine.disk_sync import DiskSync
from app.engine.embedded_file import RECORD, LogFile, Transaction, Values
from app.engine.embedded_onlooker import EmbeddedOnlooker
from app.engine.embedded_reader import EmbeddedReader
from app.engine.embedded_rows import Placed, placed, records_of
from app.engine.embedded_tail import Tails
from app.engine.embedded_tidying import Tidying
from app.engine.embedded_topics import Topics, row_ids
from app.engine.errors import LogFailed
from app.engine.log import FETCHED, TopicState
from app.engine.reader import Changes
from app.engine.records import Record, Send, TopicPartition

REPLAYED_AT_ONCE = 2_000

LARGE = 1_000
"""Records that are worth a thread: their commit takes 3 ms or more, and the loop goes on meanwhile."""

FETCHED_AT_ONCE = 20
"""Records that are fetched one by one between two turns of the loop."""

TURNS = 0.0005
"""Seconds that a thread keeps Python from another one that wants it, in this process (Python's own are 0.005). A large
commit and a sync want it ten times or more, and waited for longer than they worked."""


class _Appended(NamedTuple):
    """A transaction, its messages in their places and how many they are, the new offsets (by group and place), and when
    it began.
    """

    transaction: Transaction
    placed: Placed
    records: int
    offsets: dict[tuple[str, int], int]
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
        self._topics = Topics(self._file)
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
            sys.setswitchinterval(TURNS)
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
                self._topics.places(topic)
        except (sqlite3.Error, TypeError) as error:  # no file, or one without tables or an identity
            raise LogFailed(f"there is no log {self.path} that can be read: {error}") from error

    def _load(self) -> None:
        self._identity = self._db.execute("SELECT value FROM notes WHERE name='log-identity'").fetchone()[0].hex()
        self._topics.load()
        for group, place, following in self._db.execute("SELECT * FROM offsets").fetchall():
            self._offsets[group, place] = following

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
        self._topics.declare(topic, partitions, compacted)

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
        return self._topics.partitions()

    async def describe(self) -> dict[str, TopicState]:
        """Every topic that is there. Who trims old records, and when, is not the log's to know."""
        return self._topics.describe()

    def partitions(self, topic: str) -> int:
        """The topic's number of partitions. Raises TopicMismatch when it isn't declared."""
        return len(self._topics.places(topic))

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
            if appended.records < LARGE:
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
    ) -> None:
        """As `commit`, at once.

        Raises:
            RuntimeError: a commit is under way, and would get the same offsets.
        """
        if self._turn.locked():
            raise RuntimeError("append in the midst of a commit")
        appended = self._prepared(sends, group, offsets, notes)
        self._commit(appended, self._file.write)

    async def _commit_large(self, appended: "_Appended") -> None:
        writing = asyncio.get_running_loop().run_in_executor(None, self._file.write_large, appended.transaction)
        await asyncio.wait({writing})
        self._commit(appended, lambda _transaction: writing.result())

    def _commit(self, appended: "_Appended", write: Callable[[Transaction], None]) -> None:
        try:
            write(appended.transaction)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        self._topics.ends.update(appended.placed.ends)
        self._tails.add(appended.placed.watched)
        self._offsets.update(appended.offsets)
        self._commits += 1
        if self._sync is not None:
            self._sync.start(self._newest)
        for topic in appended.placed.touched:
            for event in self._watchers.get(topic, ()):
                event.set()
        self.on_commit(appended.records, time.perf_counter() - appended.began)

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
        found = placed(sends, self._topics, self._watchers, self._commits, self._clock())
        reached = {(group, self.place(*place)): following for place, following in (offsets or {}).items()}
        flat_offsets: Values = [value for (name, place), at in reached.items() for value in (name, place, at)]
        flat_notes: Values = [value for note in (notes or {}).items() for value in note]
        transaction = Transaction(found.values, flat_offsets, flat_notes)
        return _Appended(transaction, found, len(found.values) // RECORD, reached, began)

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
        place = self.place(topic, partition)
        if offset >= self._topics.ends[place]:
            return []
        kept = self._tails.read(place, offset, limit)
        if kept is not None:
            return kept
        low, high = row_ids(place)
        found = self._db.execute(
            "SELECT id, ts, key, value, headers FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (low + offset, high, limit),
        )
        return records_of(topic, partition, place, found)

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
        place = self.place(topic, partition)
        low, high = row_ids(place)
        with self._file.reading() as db:
            found = db.execute("SELECT min(id) FROM records WHERE id >= ? AND id < ?", (low, high)).fetchone()[0]
        end = self._topics.ends[place]
        return end if found is None else found - low, end

    def changes(self, topic: str, partition: int, offset: int) -> Iterator[Changes]:
        """What the records from `offset` to the end set, in batches."""
        place = self.place(topic, partition)
        low, _ = row_ids(place)
        for rows in self._behind(place, offset, "key, value"):
            yield [(key or b"", value) for _, key, value in rows], rows[-1][0] - low + 1

    def replay(self, topic: str, partition: int, offset: int) -> Iterator[list[Record]]:
        """The records from `offset` to the end, in batches."""
        place = self.place(topic, partition)
        for rows in self._behind(place, offset, "ts, key, value, headers"):
            yield records_of(topic, partition, place, rows)

    def _behind(self, place: int, offset: int, columns: str) -> Iterator[list[Any]]:
        question = f"SELECT id, {columns} FROM records WHERE id >= ? AND id < ? ORDER BY id"  # noqa: S608 - ours
        low, high = row_ids(place)
        with self._file.reading() as db:
            found = db.execute(question, (low + offset, high))
            while rows := found.fetchmany(REPLAYED_AT_ONCE):
                yield rows

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""
        return self._topics.ends[self.place(topic, partition)]

    def committed(self, group: str, topic: str, partition: int) -> int | None:
        """The next offset that the group is to read; None when it never committed."""
        return self._offsets.get((group, self.place(topic, partition)))

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
                self._tails.forget(self._topics.places(topic))

    # ---- keeping it small ------------------------------------------------------------------------------

    async def compact_grown(self, rows: Mapping[str, Mapping[int, int]]) -> None:
        """Compact the partitions (topic -> partition -> rows) that have grown far beyond their rows."""
        await self.tidying.compact_grown(rows)

    async def trim_old(self, topics: Sequence[str], before: float) -> None:
        """Drop the topics' records that are older than `before` and that every group is done with."""
        await self.tidying.trim_old(topics, before)

    def place(self, topic: str, partition: int) -> int:
        """The partition's number in the file."""
        return self._topics.places(topic)[partition]

    def done(self, topic: str, partition: int) -> int:
        """The offset before which every group is done. Who watches and has committed nothing is done with nothing."""
        place = self.place(topic, partition)
        waiting = [following for (_, at), following in self._offsets.items() if at == place]
        if not waiting and topic in self._watchers:
            return 0
        return min([self._topics.ends[place], *waiting])

    def drop(self, rows: Sequence[tuple[int]]) -> int:
        """Delete the records with these row ids, in a transaction. Returns how many."""
        if rows:
            with self._file.transaction():
                self._db.executemany("DELETE FROM records WHERE id = ?", rows)
            self._commits += 1
            self._tails.clear()
        return len(rows)
