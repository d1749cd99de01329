"""Follows the changelogs of the partitions that this worker does not own, so that it takes them over warm.

It writes only stores that nobody here owns, and lets go of one before its owner opens it. It decides nothing, and
nothing depends on it: what it has not done is done at the takeover.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

import structlog

from app.engine.reader import Changes
from app.engine.recovery import Abandoned
from app.engine.tables import Table, TablePartition

AT_ONCE = 200
"""Records that are followed at once: some milliseconds, after which views and lanes have their turn."""

POLL = 0.1
"""Seconds that an owner waits for its store, at most, beside the time for AT_ONCE records."""

AGAIN = 5.0
"""Seconds to the next try when something went wrong."""

AT_LATEST = 10.0
"""Seconds that it leaves a worker to get partitions of its own first."""

NICE = 10

logger = structlog.get_logger("a4co.engine")

Place = tuple[str, int]


class Follower(Protocol):
    """Reads on in partitions of changelogs. For one thread."""

    def add(self, topic: str, partition: int, offset: int) -> None:
        """Read this one too, from `offset` on."""

    def remove(self, topic: str, partition: int) -> None:
        """Not this one any more."""

    def take(self, limit: int, wait: float) -> dict[Place, Changes]:
        """What has come, by partition."""

    def close(self) -> None:
        """Stop reading."""


class Followed(Protocol):
    """A log whose changelogs can be followed."""

    def follower(self) -> Follower:
        """A new follower."""


class Standby:
    """Stands by for every partition of the tables that its owner does not want, on a thread of low priority.

    It begins when the worker is `ready`, and after `AT_LATEST` anyway: a worker may have no partition of its own.
    """

    def __init__(self, tables: Collection[Table[Any]], log: Followed, ready: Callable[[], bool]) -> None:
        self._tables = {table.spec.changelog: table for table in tables}
        self._log = log
        self._ready = ready
        self._parts: dict[Place, TablePartition[Any]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standby", daemon=True)

    @property
    def followed(self) -> int:
        """For how many partitions it stands by."""
        return len(self._parts)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def stop(self) -> None:
        """End, with every store closed."""
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        deadline = time.monotonic() + AT_LATEST
        while not self._ready() and time.monotonic() < deadline and not self._stopping.wait(POLL):
            pass
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no reason to stop the worker
                logger.warning("standing by failed, trying again", cause=str(error), seconds=AGAIN)
                self._stopping.wait(AGAIN)

    def _follow(self) -> None:
        follower = self._log.follower()
        try:
            while not self._stopping.is_set():
                self._let_go_of_what_is_wanted(follower)
                self._take_up_what_is_free(follower)
                for place, (rows, position) in follower.take(AT_ONCE, POLL).items():
                    part = self._parts.get(place)
                    if part is not None and position > part.store.offset:
                        part.follow(rows, position)
        finally:
            for place in list(self._parts):
                self._let_go(place)
            follower.close()

    def _let_go_of_what_is_wanted(self, follower: Follower) -> None:
        for topic, partition in list(self._parts):
            if self._tables[topic].claims.is_wanted(partition):
                follower.remove(topic, partition)
                self._let_go((topic, partition))

    def _let_go(self, place: Place) -> None:
        topic, partition = place
        self._parts.pop(place).close()
        self._tables[topic].claims.let_go(partition)

    def _take_up_what_is_free(self, follower: Follower) -> None:
        for topic, table in self._tables.items():
            for partition in range(table.total):
                if self._disturbed():
                    return
                if (topic, partition) in self._parts or not table.claims.follow(partition):
                    continue
                try:
                    part = table.follow(partition, lambda: self._disturbed() or table.claims.is_wanted(partition))  # noqa: B023
                except BaseException as error:
                    table.claims.let_go(partition)
                    if not isinstance(error, Abandoned):
                        raise
                else:
                    self._parts[topic, partition] = part
                    follower.add(topic, partition, part.store.offset)

    def _disturbed(self) -> bool:
        """Whether there is something more urgent than to take up a partition."""
        return self._stopping.is_set() or any(
            self._tables[topic].claims.is_wanted(partition) for topic, partition in self._parts
        )
