"""One partition of a table on local disk (RocksDB): rows as bytes, and how far into the changelog they stand.

It is a copy that can always be rebuilt from the changelog; it decides nothing.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import rocksdict

from app.engine.errors import EngineError

ROW = b"r"
MARK = b"m"
"""Keys: `r` + the row's key, and `m` for the mark: the log's identity and the next changelog offset."""

WRITE_BUFFER_BYTES = 8 * 1024 * 1024
BLOCK_CACHE_BYTES = 32 * 1024 * 1024

_cache: list[rocksdict.Cache] = []


def _shared_cache() -> rocksdict.Cache:
    """One block cache for every store of the process, so that memory does not grow with the partitions."""
    if not _cache:
        _cache.append(rocksdict.Cache(BLOCK_CACHE_BYTES))
    return _cache[0]


class Store:
    """Rows of one partition under `path`. A store that can't be read is thrown away and begins empty at offset 0."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = identity.encode()
        self.offset = 0
        self.rebuilt_because = ""
        self._db = self._open()
        mark = self._db.get(MARK)
        if mark is None:
            return
        known, _, offset = bytes(mark).partition(b" ")
        if known == self._identity:
            self.offset = int(offset)
        else:
            self.wipe("it belongs to another log")

    def _open(self) -> rocksdict.Rdict:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            return self._rocksdb()
        except Exception as error:
            if "lock" in str(error).lower() and "LOCK" in str(error):
                message = f"the store {self.path} is in use by another process: give each worker its own DATA_DIR"
                raise EngineError(message) from error
            self.rebuilt_because = f"it could not be opened: {error}"
            shutil.rmtree(self.path)
            self.path.mkdir(parents=True)
            return self._rocksdb()

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
        self.rebuilt_because = because
        self._db.close()
        shutil.rmtree(self.path)
        self._db = self._open()
        self.offset = 0

    def get(self, key: bytes) -> bytes | None:
        """The row's bytes."""
        return self._db.get(ROW + key)

    def write(self, rows: Iterable[tuple[bytes, bytes | None]], offset: int) -> None:
        """Set (or, with None, delete) the rows and stand for the changelog up to `offset`, all or nothing."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, row in rows:
            if row is None:
                batch.delete(ROW + key)
            else:
                batch.put(ROW + key, row)
        batch.put(MARK, self._identity + b" %d" % offset)
        self._db.write(batch)
        self.offset = offset

    def items(self, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Every row (whose key comes after `after`) in key order, as of now."""
        snapshot = self._db.snapshot()
        # The least key that comes after a key is that key and a zero byte.
        start = ROW if after is None else ROW + after + b"\0"
        for key, row in snapshot.items(from_key=start):
            yield cast(bytes, key)[1:], cast(bytes, row)

    def close(self) -> None:
        """Give the files back."""
        with contextlib.suppress(Exception):
            self._db.close()
