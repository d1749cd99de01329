"""Messages as rows of the embedded log's file, and rows as records.

It decides the partition, the offset and the time of a message. Nothing is changed here: the log moves its ends when the
rows are committed.
"""

from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from app.engine.embedded_file import OFFSET_BITS, RECORD, Values, pack_headers, unpack_headers
from app.engine.embedded_topics import Topics, row_ids
from app.engine.partitioner import partition_for
from app.engine.records import Record, Send


class Placed(NamedTuple):
    """Messages in their places: the values of their rows (place by place), the new ends of places, the topics; and with
    their places the records that somebody waits for.
    """

    values: Values
    ends: dict[int, int]
    touched: set[str]
    watched: list[tuple[int, Record]]


def placed(sends: Iterable[Send], topics: Topics, watched_topics: Container[str], turn: int, now: float) -> Placed:
    """The messages behind what is in the topics. Who has neither partition nor key goes to the partition whose turn
    it is; who has no time is of `now`. Raises TopicMismatch for a topic that isn't declared.
    """
    places_of, standing = topics.places, topics.ends
    parts: dict[int, Values] = {}
    touched: set[str] = set()
    watched: list[tuple[int, Record]] = []
    for send in sends:
        topic, key, value, headers, partition = send.topic, send.key, send.value, send.headers, send.partition
        places = places_of(topic)
        if partition is None:
            partition = turn % len(places) if key is None else partition_for(key, len(places))
        place = places[partition]
        part = parts.get(place)
        if part is None:
            part = parts[place] = []
            touched.add(topic)
        offset = standing[place] + len(part) // RECORD
        at = now if send.timestamp is None else send.timestamp
        part += (place << OFFSET_BITS | offset, at, key, value, pack_headers(headers) if headers else None)
        if topic in watched_topics:
            watched.append((place, Record(topic, partition, offset, at, key, value, headers)))
    ends = {place: standing[place] + len(part) // RECORD for place, part in parts.items()}
    values: Values = []
    for place in sorted(parts):  # which SQLite does without searching for each row
        values += parts[place]
    return Placed(values, ends, touched, watched)


def records_of(topic: str, partition: int, place: int, rows: Iterable[Any]) -> list[Record]:
    """What the rows (id, time, key, value, headers) of the topic's partition, which has this place, are."""
    low, _ = row_ids(place)
    return [
        Record(topic, partition, row_id - low, ts, key, value, unpack_headers(headers) if headers else ())
        for row_id, ts, key, value, headers in rows
    ]
