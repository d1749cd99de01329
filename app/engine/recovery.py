"""Recovery: brings the store of a table's partition to its changelog's end, wherever it stands.

It decides whether the records are followed one by one or the store is filled, and what is not worth going on from.
"""

import asyncio
import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from app.engine.errors import StoreDamaged
from app.engine.reader import Changelogs, Changes

if TYPE_CHECKING:
    from app.engine.tables import TablePartition

FEW = 20_000
"""Changelog records that are always followed one by one. A store that is further behind than that, and than it has
rows, is filled: records are written as they come, and the rows are summed up once at the end."""

TOLD_EVERY = 5_000
"""Rows between two words about how far it is."""

_threads = ThreadPoolExecutor(8, thread_name_prefix="recovery")
"""Where partitions are brought up to date: on Kafka, most of a little is waiting."""

TURNS = threading.Semaphore(max(2, os.cpu_count() or 2))
"""So many stores are filled at once, as there are cores: more would only take more memory."""


class Abandoned(Exception):
    """The partition is not wanted any more."""


async def on_thread(work: Callable[[], None], abandoned: threading.Event) -> None:
    """Do it on a thread. Who is cancelled waits until it has ended: it may have files open that others will want."""
    doing = asyncio.get_running_loop().run_in_executor(_threads, work)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        abandoned.set()
        while not doing.done():  # also when it is cancelled again
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([doing])
        doing.exception()
        raise


class Recovery:
    """Of one partition, on one thread: `measure`, then `run`. `progress(done, total)` hears of it.

    It is broken off when `abandoned` says so. `turns`: with how many others it fills its store at a time.
    """

    def __init__(
        self,
        part: "TablePartition[Any]",
        changelogs: Changelogs,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        abandoned: Callable[[], bool] = lambda: False,
        turns: threading.Semaphore | None = None,
    ) -> None:
        self.part = part
        self._changelogs = changelogs
        self._progress = progress
        self._abandoned = abandoned
        self._turns = turns or threading.Semaphore()
        self._start = self._end = 0

    def measure(self) -> None:
        """See how much of the changelog the store lacks; one that can't go on from where it stands is emptied."""
        store = self.part.store
        begin, end = self._changelogs.span(self.part.spec.changelog, self.part.partition)
        if store.offset > end:
            store.wipe(f"it stands at {store.offset}, ahead of the changelog's end {end}")
        elif 0 < store.offset < begin:
            store.wipe(f"it stands at {store.offset}, before the changelog's begin {begin}")
        self._start, self._end = max(store.offset, begin), end
        self._progress(0, self._end - self._start)

    def run(self) -> int:
        """Bring the store to the end that was measured. Returns how many records it took.

        Raises:
            Abandoned: it was told to end; what was done is kept.
        """
        read, damage = 0, ""
        try:
            read = self._run()
        except StoreDamaged as error:
            damage = str(error)
        if damage:  # not above: the exception's frames hold the store open
            self.part.store.wipe(damage)
            self.measure()
            read = self._run()
        self._progress(self._end - self._start, self._end - self._start)
        return read

    def _run(self) -> int:
        known = self.part.known()
        if known is None or self._end - self._start > max(FEW, known.rows):
            return self._fill()
        self.part.take_up(known.rows, known.sums, {key.decode(): due for key, due in self.part.store.deadlines()})
        return self._follow()

    def _follow(self) -> int:
        """The records as they come."""
        read, total = 0, self._end - self._start
        for rows, position in self._replay():
            self.part.follow(rows, position)
            read += len(rows)
            self._progress(position - self._start, total)
        if self.part.store.offset < self._end:  # what is left are marks of transactions, not records
            self.part.write((), self._end)
        return read

    def _fill(self) -> int:
        """Write the records unseen, and go through the rows once at the end."""
        read, total, store = 0, self._end - self._start, self.part.store
        with self._turn(), store.filling():
            for rows, position in self._replay():
                store.write(rows, position)
                read += len(rows)
                self._progress((position - self._start) // 2, total)  # reading is half of the work
            self._sum_up()
        return read

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        while not self._turns.acquire(timeout=0.1):
            self._go_on()
        try:
            yield
        finally:
            self._turns.release()

    def _replay(self) -> Iterator[Changes]:
        part = self.part
        for batch in self._changelogs.changes(part.spec.changelog, part.partition, part.store.offset):
            self._go_on()
            if batch[0]:
                yield batch

    def _go_on(self) -> None:
        if self._abandoned():
            raise Abandoned

    def _sum_up(self) -> None:
        """Go through every row for what is kept of them."""
        part, total = self.part, self._end - self._start
        glance = msgspec.json.Decoder(part.spec.glance or part.spec.row_type).decode
        sums_of, deadline_of = part.spec.sums, part.spec.deadline  # a million times
        rows, sums, deadlines = 0, Counter[str](), dict[str, float]()
        for key, packed in part.store.items():
            row = glance(packed)
            rows += 1
            for name, number in sums_of(row).items():
                sums[name] += number
            deadline = deadline_of(row)
            if deadline is not None:
                deadlines[key.decode()] = deadline
            if rows % TOLD_EVERY == 0:
                self._progress((total + rows) // 2, total)
                self._go_on()
        part.take_up(rows, sums, deadlines)
        part.store.forget_deadlines()
        due = ((key.encode(), deadline) for key, deadline in deadlines.items())
        part.store.write((), max(self._end, part.store.offset), part.note(), due)
