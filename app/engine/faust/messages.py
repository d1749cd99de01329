"""The engine's records as Faust's messages, and Faust's headers as the engine's."""

from collections.abc import Mapping
from typing import Any

from faust.types import TP, ConsumerMessage

from app.engine.records import Headers, Record


def message_of(record: Record, generation: int) -> ConsumerMessage:
    """The record as a message of a generation of the assignment: Faust skips those of former ones."""
    return ConsumerMessage(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        1,
        list(record.headers),
        record.key,
        record.value,
        None,
        len(record.key or b""),
        len(record.value or b""),
        TP(record.topic, record.partition),
        generation_id=generation,
    )


def headers_of(headers: Any) -> Headers:
    """Faust's headers (a mapping or pairs, text or bytes) as the log's."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return tuple((str(name), value if isinstance(value, bytes) else str(value).encode()) for name, value in pairs)
