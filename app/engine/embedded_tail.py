"""The newest records of an embedded log, as they were appended: who follows closely reads them from memory.

It decides what is kept there, and nothing else: every record is in the file as well.
"""

from collections.abc import Iterable

from app.engine.records import Record

KEPT_BYTES = 16 * 1024 * 1024
"""Bytes that are kept at most, but for one commit; above it, the oldest of each partition go."""

PART = 32
"""So many parts are what is kept: one goes at a time. To let go of the half at once took 11 ms."""

RECORD = 400
"""Bytes of a record beside its value, roughly: the objects themselves, key and headers."""


class Tails:
    """The last records of some partitions (by their place in the file), without holes."""

    def __init__(self) -> None:
        self._tails: dict[int, list[Record]] = {}
        self._bytes = 0

    def add(self, records: Iterable[tuple[int, Record]]) -> None:
        """Each partition's next records, with their places."""
        tails, size = self._tails, 0
        for place, record in records:
            tail = tails.get(place)
            if tail is None:
                tails[place] = [record]
            else:
                tail.append(record)
            size += RECORD + len(record.value or b"")
        self._bytes += size
        while self._bytes > KEPT_BYTES and tails:
            for tail in tails.values():
                oldest = len(tail) // PART + 1
                self._bytes -= sum(RECORD + len(record.value or b"") for record in tail[:oldest])
                del tail[:oldest]

    def read(self, place: int, offset: int, limit: int) -> list[Record] | None:
        """At most `limit` records from `offset` on; None when not all of them are kept."""
        tail = self._tails.get(place)
        if not tail or offset < tail[0].offset:
            return None
        first = offset - tail[0].offset
        return tail[first : first + limit]

    def forget(self, places: Iterable[int]) -> None:
        """Keep nothing of these partitions."""
        for place in places:
            gone = self._tails.pop(place, ())
            self._bytes -= sum(RECORD + len(record.value or b"") for record in gone)

    def clear(self) -> None:
        """Keep nothing of what was."""
        self._tails.clear()
        self._bytes = 0
