"""Group commit: one helper thread that puts the log's write-ahead file on disk, and keeps it short.

It decides when what was committed is durable. It never writes records.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKPOINT_BYTES = 32 * 1024 * 1024
"""The write-ahead file is folded into the database above this size (SQLite's own default is 4 MB)."""


class DiskSync:
    """Waits for `fdatasync` of a SQLite write-ahead file; many waiters share one call.

    A commit in WAL mode with `synchronous=NORMAL` is atomic but not yet durable; frames are read back in order up to
    the first torn one, so a sync makes that commit and every earlier one durable together.
    """

    def __init__(self, path: Path, on_failure: Callable[[BaseException], None]) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._on_failure = on_failure
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-sync")
        self._fd = os.open(self._wal, os.O_RDWR)
        self._synced = 0
        self._running: asyncio.Task[None] | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._failure: BaseException | None = None
        self._closed = False

    async def wait(self, commit: int, newest: Callable[[], int]) -> None:
        """Return when `commit` is on disk; `newest` gives the last commit made when a sync begins.

        Raises:
            OSError: the disk refused; the log is then unusable.
        """
        if self._failure:
            raise self._failure
        if commit <= self._synced:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((commit, waiter))
        self.start(newest)
        await waiter

    def start(self, newest: Callable[[], int]) -> None:
        """Begin to put what was committed on disk, if that isn't under way."""
        if self._running is None and self._failure is None:
            self._running = asyncio.get_running_loop().create_task(self._sync(newest))

    async def _sync(self, newest: Callable[[], int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._synced < newest() and not self._closed:
                target = newest()
                await loop.run_in_executor(self._thread, self._to_disk)
                self._synced = target
                self._wake(target)
        except BaseException as error:  # the waiters must hear of it, whatever it is
            self._failure = error
            for _, waiter in self._waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            self._waiters.clear()
            if isinstance(error, Exception):
                self._on_failure(error)
            else:
                raise
        finally:
            self._running = None

    def _wake(self, synced: int) -> None:
        waiting = []
        for commit, waiter in self._waiters:
            if commit > synced:
                waiting.append((commit, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._waiters = waiting

    def _to_disk(self) -> None:
        os.fdatasync(self._fd)
        if os.fstat(self._fd).st_size > CHECKPOINT_BYTES:
            # PASSIVE never blocks the writer; the file is reused from its start once every frame is folded in.
            checkpointer = sqlite3.connect(self._path, isolation_level=None)
            try:
                checkpointer.execute("PRAGMA synchronous=NORMAL")
                checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                checkpointer.close()

    def close(self) -> None:
        """Sync once more and end the thread. A sync that is under way ends with it."""
        self._closed = True
        self._thread.shutdown(wait=True)
        try:
            os.fdatasync(self._fd)
        finally:
            os.close(self._fd)
