"""Tables of stock Faust apps, in memory: emptied, and rebuilt from their changelogs up to the last committed record.

Faust's own recovery waits for the record before a changelog's end, which need not exist: a partition may be empty or
compacted, and a transaction leaves a mark at the end. So it is told that there is nothing to recover.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from faust.stores import memory
from faust.tables.objects import ChangeloggedObjectManager
from faust.types import AppT
from mode import get_logger

from app.engine.errors import EngineError
from app.engine.faust.messages import message_of
from app.engine.log import Log
from app.engine.records import Record

STEP = 500
"""Records that are decoded at once, for 4 to 14 µs each: agents of other partitions work on meanwhile."""

logger = get_logger(__name__)


class FaustTables:
    """The tables of `app`, whose changelogs are in `log`. `partitions` tells how many a topic has."""

    def __init__(self, app: AppT, log: Log, partitions: Callable[[str], int]) -> None:
        self._app = app
        self._log = log
        self._partitions = partitions

    @property
    def _tables(self) -> list[Any]:
        return list(self._app.tables.values())

    def check(self) -> None:
        """Refuse what could not be exactly once.

        Raises:
            EngineError: a table is global, or not in memory.
        """
        for table in self._tables:
            if table.is_global:
                raise EngineError(f"table {table.name!r} is global, which would need a reader of all partitions")
            if not isinstance(_store(table), memory.Store):
                raise EngineError(
                    f"table {table.name!r} would be stored before its changes are committed: "
                    'write store="memory://"; it is rebuilt from its changelog'
                )

    def empty(self) -> None:
        """Forget every row."""
        for table in self._tables:
            table.data.data.clear()
            _store(table).data.clear()

    async def recover(self, partitions: Collection[int]) -> None:
        """Add the partitions' committed rows to the tables. Returns when every row is there, at once if there is none.

        Raises:
            EngineError: the log can't be read.
        """
        started = time.monotonic()
        parts = [
            (table, partition)
            for table in self._tables
            for partition in sorted(partitions)
            if partition < self._partitions(table.changelog_topic.get_topic_name())
        ]
        replayed = sum(await asyncio.gather(*(self._replay(table, partition) for table, partition in parts)))
        if parts:
            seconds = time.monotonic() - started
            logger.info("tables: partitions %s recovered, %d records in %.1f s", sorted(partitions), replayed, seconds)

    async def _replay(self, table: Any, partition: int) -> int:
        replayed = 0
        newest: dict[bytes | None, Record] = {}
        async for records in self._batches(table.changelog_topic.get_topic_name(), partition):
            replayed += len(records)
            if _wants_every_change(table):
                await self._apply(table, records)
            else:
                newest |= {record.key: record for record in records}
        rows = list(newest.values())
        for start in range(0, len(rows), STEP):
            self._put(table, rows[start : start + STEP])
            await asyncio.sleep(0)
        return replayed

    async def _apply(self, table: Any, records: list[Record]) -> None:
        """Through Faust, change by change."""
        events = [await table.changelog_topic.decode(message_of(record, 0), propagate=True) for record in records]
        table.apply_changelog_batch(events)
        # Faust drops the rows of partitions that it has not been told of yet.
        _store(table)._key_partition.clear()  # noqa: SLF001 - there is no call for it
        for event in events:
            await table.on_changelog_event(event)

    def _put(self, table: Any, records: list[Record]) -> None:
        """Past Faust, whose events take three times as long."""
        rows, schema = _store(table).data, table.changelog_topic.schema
        for record in records:
            key = table._to_key(schema.loads_key(self._app, record))  # noqa: SLF001 - what Faust's store is given
            if record.value is None:
                rows.pop(key, None)
            else:
                rows[key] = table._to_value(schema.loads_value(self._app, record))  # noqa: SLF001

    async def _batches(self, topic: str, partition: int) -> AsyncIterator[list[Record]]:
        batches = self._log.replay(topic, partition, 0)
        while True:
            batch = await asyncio.to_thread(next, batches, None)
            if batch is None:
                return
            for start in range(0, len(batch), STEP):
                yield batch[start : start + STEP]
                await asyncio.sleep(0)


def _store(table: Any) -> Any:
    """Where the table's rows are; the rows of a set are objects over such a store."""
    return getattr(table.data, "storage", table.data)


def _wants_every_change(table: Any) -> bool:
    """A set's changes add up to its rows; and the App may want to hear of each."""
    return isinstance(table.data, ChangeloggedObjectManager) or table._on_changelog_event is not None  # noqa: SLF001
