"""One partition of a table on local disk (RocksDB): rows as bytes, when they are due, and how far they stand.

It is a copy that can always be rebuilt from the changelog; it decides nothing.
"""

import contextlib
import shutil
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import rocksdict

from app.engine.errors import EngineError, StoreDamaged

ROW = b"r"
DUE = b"d"
MARK = b"m"
"""Keys: `r` + the row's key; `d` + the key of a row that has a deadline; and `m` for the mark: the changelog's
identity, the next changelog offset, and a note of who writes."""

BEHIND_ROWS = bytes([ROW[0] + 1])
"""What comes after every row."""

STILL_READ = 5.0
"""Seconds that a view may take to end with a store that was closed."""

WRITE_BUFFER_BYTES = 8 * 1024 * 1024
BLOCK_CACHE_BYTES = 32 * 1024 * 1024

USUAL = {"write_buffer_size": str(WRITE_BUFFER_BYTES), "level0_file_num_compaction_trigger": "4"}
FILLING = {"write_buffer_size": str(16 * 1024 * 1024), "level0_file_num_compaction_trigger": "16"}
"""RocksDB's settings for every day, and for a store that is being filled: 250,000 rows of 1.1 kB took 3.0 µs of CPU
each with the latter and without a write-ahead log, 8.2 µs with the former."""

DEADLINE = struct.Struct(">d")

_cache: list[rocksdict.Cache] = []


def _shared_cache() -> rocksdict.Cache:
    """One block cache for every store of the process, so that memory does not grow with the partitions."""
    if not _cache:
        _cache.append(rocksdict.Cache(BLOCK_CACHE_BYTES))
    return _cache[0]


def _unlogged() -> rocksdict.WriteOptions:
    options = rocksdict.WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign, assignment]  # a property, the stub has it as a method
    return options


class Store:
    """Rows of one partition under `path`. A store that can't be read is thrown away and begins empty at offset 0.

    `note` is what was written last with the mark; b"" in a new store, and while one is being filled. `looking_from` is
    a folder for whoever only looks: the store may be in use by another process, stays as it is, and is read as of now.
    """

    def __init__(self, path: Path, identity: str, looking_from: Path | None = None) -> None:
        self.path = path
        self._looking_from = looking_from
        self._identity = identity.encode()
        self._writing = rocksdict.WriteOptions()
        self.offset = 0
        self.note = b""
        self.rebuilt_because = ""
        self._db = self._open() if looking_from is None else self._look(looking_from)
        try:
            mark = self._read(MARK)
        except StoreDamaged as error:
            self.wipe(str(error))
            return
        if mark is None:
            return
        known, _, rest = mark.partition(b" ")
        if known == self._identity:
            offset, _, self.note = rest.partition(b" ")
            self.offset = int(offset)
        else:
            self.wipe("it belongs to another log, or its changelog was made anew")

    def _open(self) -> rocksdict.Rdict:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            if self._damaged.exists():
                raise StoreDamaged(self._damaged.read_text("utf-8"))
            return self._unlocked()
        except EngineError as error:
            if not isinstance(error, StoreDamaged):
                raise
            self.rebuilt_because = str(error)
        except Exception as error:  # noqa: BLE001 - RocksDB raises nothing more special
            self.rebuilt_because = f"it could not be opened: {error}"
        shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        return self._rocksdb()

    def _unlocked(self) -> rocksdict.Rdict:
        """Opened; whoever in this process still goes through the rows of its former opening is waited for."""
        deadline = time.monotonic() + STILL_READ
        while True:
            try:
                return self._rocksdb()
            except Exception as error:
                if not ("lock" in str(error).lower() and "LOCK" in str(error)):
                    raise
                if "current process" not in str(error) or time.monotonic() > deadline:
                    message = f"the store {self.path} is in use by another process: give each worker its own DATA_DIR"
                    raise EngineError(message) from error
            time.sleep(0.02)

    def _look(self, looking_from: Path) -> rocksdict.Rdict:
        if not self.path.is_dir():
            raise EngineError(f"there is no store {self.path}")
        secondary = rocksdict.AccessType.secondary(str(looking_from))
        try:
            return rocksdict.Rdict(str(self.path), rocksdict.Options(raw_mode=True), access_type=secondary)
        except Exception as error:
            raise EngineError(f"the store {self.path} can't be read: {error}") from error

    def _rocksdb(self) -> rocksdict.Rdict:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_write_buffer_number(2)
        options.set_keep_log_file_num(2)
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(_shared_cache())
        table.set_bloom_filter(10, False)
        options.set_block_based_table_factory(table)
        return rocksdict.Rdict(str(self.path), options=options)

    def wipe(self, because: str) -> None:
        """Throw the rows away and begin again at offset 0."""
        if self._looking_from is not None:
            raise EngineError(f"the store {self.path} will be rebuilt: {because}")
        self.rebuilt_because = because
        self._db.close()
        shutil.rmtree(self.path)
        self._db = self._open()
        self._writing = rocksdict.WriteOptions()
        self.offset = 0
        self.note = b""

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Many rows are about to be written: no write-ahead log. A kill meanwhile leaves an earlier, whole state."""
        self._writing = _unlogged()
        self._db.set_options(FILLING)
        yield
        self._db.flush()  # before anything is written ahead again, which would be put back upon less
        self._db.set_options(USUAL)
        self._writing = rocksdict.WriteOptions()

    def get(self, key: bytes) -> bytes | None:
        """The row's bytes. Raises StoreDamaged."""
        return self._read(ROW + key)

    def _read(self, key: bytes) -> bytes | None:
        try:
            return self._db.get(key)
        except Exception as error:
            raise self._damage(error) from error

    def _damage(self, error: object) -> StoreDamaged:
        """What RocksDB can't read is rebuilt when it is opened the next time."""
        if self._looking_from is None:
            self._damaged.write_text(str(error), "utf-8")
        return StoreDamaged(f"the store {self.path} is damaged, and is rebuilt at the next start: {error}")

    @property
    def _damaged(self) -> Path:
        return self.path / "DAMAGED"

    def write(
        self,
        rows: Iterable[tuple[bytes, bytes | None]],
        offset: int,
        note: bytes = b"",
        due: Iterable[tuple[bytes, float | None]] = (),
    ) -> None:
        """Set (None: delete) rows and deadlines, and stand for the changelog up to `offset`, all or nothing."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, row in rows:
            if row is None:
                batch.delete(ROW + key)
            else:
                batch.put(ROW + key, row)
        for key, deadline in due:
            if deadline is None:
                batch.delete(DUE + key)
            else:
                batch.put(DUE + key, DEADLINE.pack(deadline))
        batch.put(MARK, b"%s %d %s" % (self._identity, offset, note))
        self._db.write(batch, self._writing)
        self.offset, self.note = offset, note

    def items(self, after: bytes | None = None, *, backwards: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Every row (whose key comes after `after`) in key order, or in the reverse; as of now. Raises StoreDamaged."""
        if backwards:
            found = self._from(ROW, BEHIND_ROWS if after is None else ROW + after, backwards=True)
            return (item for item in found if item[0] != after)
        # The least key that comes after a key is that key and a zero byte.
        return self._from(ROW, ROW if after is None else ROW + after + b"\0")

    def deadlines(self) -> Iterator[tuple[bytes, float]]:
        """Every deadline that was written, in the order of the keys. Raises StoreDamaged."""
        for key, deadline in self._from(DUE, DUE):
            yield key, DEADLINE.unpack(deadline)[0]

    def _from(self, kind: bytes, start: bytes, *, backwards: bool = False) -> Iterator[tuple[bytes, bytes]]:
        # One iterator for rows and end alike: a second one of the same snapshot may see rows that were written since.
        found = self._db.snapshot().iter()
        step = found.prev if backwards else found.next
        (found.seek_for_prev if backwards else found.seek)(start)
        while found.valid():
            key = cast(bytes, found.key())
            if key[:1] != kind:
                return
            yield key[1:], cast(bytes, found.value())
            step()
        try:
            found.status()  # it also ends before a block that can't be read
        except Exception as error:
            raise self._damage(error) from error

    def forget_deadlines(self) -> None:
        """Delete every deadline."""
        self._db.delete_range(DUE, bytes([DUE[0] + 1]), self._writing)

    def close(self) -> None:
        """Give the files back."""
        with contextlib.suppress(Exception):
            self._db.close()
