"""The embedded log's topics: which there are, the place (number in the file) of each of their partitions, and its end.

It decides what number a partition has. What goes into it, and what of it is read, is the log's.
"""

from app.engine.embedded_file import OFFSET_BITS, LogFile
from app.engine.errors import TopicMismatch
from app.engine.log import TopicState


class Topics:
    """Those of one file. `ends`: of each place, the offset that its next record will get; the log moves them."""

    def __init__(self, file: LogFile) -> None:
        self.ends: dict[int, int] = {}
        self._file = file
        self._places: dict[str, list[int]] = {}

    def load(self) -> None:
        """Take them from the file."""
        db = self._file.db
        for name, partitions in db.execute("SELECT name, partitions FROM topics").fetchall():
            self._places[name] = [-1] * partitions
        for place, topic, partition in db.execute("SELECT * FROM places").fetchall():
            self._places[topic][partition] = place
            low, high = row_ids(place)
            last = db.execute("SELECT max(id) FROM records WHERE id >= ? AND id < ?", (low, high)).fetchone()[0]
            self.ends[place] = 0 if last is None else last - low + 1

    def declare(self, topic: str, partitions: int, compacted: bool = False) -> None:
        """Make the topic if it isn't there.

        Raises:
            TopicMismatch: it is there with another number of partitions.
        """
        existing = self._places.get(topic)
        if existing is not None:
            if len(existing) != partitions:
                message = (
                    f"topic {topic!r} has {len(existing)} partitions in {self._file.path}, and {partitions} are "
                    "wanted: set PARTITIONS as it was, or start on a new DATA_DIR"
                )
                raise TopicMismatch(message)
            return
        db = self._file.db
        with self._file.transaction():
            db.execute("INSERT INTO topics VALUES (?, ?, ?)", (topic, partitions, int(compacted)))
            places = []
            for partition in range(partitions):
                cursor = db.execute("INSERT INTO places (topic, partition) VALUES (?, ?)", (topic, partition))
                places.append(int(cursor.lastrowid or 0))
        self._places[topic] = places
        self.ends.update(dict.fromkeys(places, 0))

    def places(self, topic: str) -> list[int]:
        """Of each partition, its place. Raises TopicMismatch when the topic isn't declared."""
        places = self._places.get(topic)
        if places is None:
            message = f"topic {topic!r} is not declared in {self._file.path}"
            raise TopicMismatch(message)
        return places

    def partitions(self) -> dict[str, int]:
        """Every topic and its number of partitions."""
        return {topic: len(places) for topic, places in self._places.items()}

    def describe(self) -> dict[str, TopicState]:
        """Every topic that is there. Who trims old records, and when, is not the log's to know."""
        compacted = dict(self._file.db.execute("SELECT name, compacted FROM topics").fetchall())
        return {
            topic: TopicState(
                len(places), "compact" if compacted[topic] else "delete", 1, None, sum(map(self._count, places))
            )
            for topic, places in self._places.items()
        }

    def _count(self, place: int) -> int:
        found = self._file.db.execute("SELECT count(*) FROM records WHERE id >= ? AND id < ?", row_ids(place))
        return int(found.fetchone()[0])


def row_ids(place: int) -> tuple[int, int]:
    """The first row id that a record in this place can have, and the first one behind."""
    return place << OFFSET_BITS, (place + 1) << OFFSET_BITS
