"""What becomes of a message that can't be used: kept whole in `dead-letters`, and told on `<subject>.dlq`.

It doesn't decide what is unusable.
"""

import time
import traceback
from typing import Any

import msgspec

from app import topics
from app.domain import traces
from app.domain.causes import iso
from app.engine.records import Headers, Record, Send

DEAD_LETTERS = topics.DEAD_LETTERS.name
OUTBOUND = topics.OUTBOUND.name
DLQ = ".dlq"
LONGEST_ERROR = 2_000
LONGEST_STACK = 8_000
PLACE = ("a4co-reason", "a4co-error", "a4co-topic", "a4co-partition", "a4co-offset")


def dead_letter(record: Record, reason: str, error: Exception | str) -> list[Send]:
    """The messages that dead-letter a record of a topic: the record itself, and the word to `<subject>.dlq`.

    `reason` is one word for filters and metrics. Only what came from NATS is told there: not internal messages, not
    our own outbound ones, and never what is itself a `.dlq`.
    """
    place = ((b"%d" % record.partition), (b"%d" % record.offset))
    letter = keep(record.topic, record.key, record.value, record.headers, reason, error, place)
    subject = topics.subject_of(record)
    if not subject or record.topic == OUTBOUND:
        return [letter]
    cause = f"{record.topic}-{record.partition}-{record.offset}"
    trace = traces.carried(record.headers)
    return [letter, *tell(subject, record.key, record.value or b"", error, cause, trace)]


def keep(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    reason: str,
    error: Exception | str,
    place: tuple[bytes, bytes] | None = None,
) -> Send:
    """The original with where it was (or was to go), for the operator. `place` is its partition and offset."""
    kept = tuple(pair for pair in headers if pair[0] not in PLACE)
    found = (("a4co-partition", place[0]), ("a4co-offset", place[1])) if place else ()
    why = (
        ("a4co-reason", reason.encode()),
        ("a4co-error", _text(error).encode()),
        ("a4co-topic", topic.encode()),
    )
    return Send(DEAD_LETTERS, key, value, (*kept, *why, *found))


def tell(
    subject: str, key: bytes | None, payload: bytes, error: Exception | str, cause: str, trace: Headers = ()
) -> list[Send]:
    """The message for `<subject>.dlq` in the shape that existing services know; none when it is a `.dlq` already.

    `cause` is unique for the message: the id is made from it, so that telling twice can be seen.
    """
    if subject.endswith(DLQ):
        return []
    value = msgspec.json.encode(
        {
            "originalSubject": subject,
            "event": _event(payload),
            "error": {"message": _text(error), "stack": _stack(error)},
            "failedAt": iso(time.time()),
        }
    )
    headers = (
        *trace,
        ("a4co-subject", (subject + DLQ).encode()),
        ("Nats-Msg-Id", f"dlq-{cause}".encode()),
        ("a4co-dialect", b"a"),
    )
    return [Send(OUTBOUND, key or subject.encode(), value, headers)]


def _event(payload: bytes) -> Any:
    """The payload as it is when it is JSON, else its text: what goes out must be JSON whatever came in."""
    try:
        msgspec.json.decode(payload)
        payload.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return payload.decode(errors="replace")
    return msgspec.Raw(payload)


def _text(error: Exception | str) -> str:
    text = error if isinstance(error, str) else str(error) or type(error).__name__
    return text.encode(errors="replace").decode()[:LONGEST_ERROR]


def _stack(error: Exception | str) -> str:
    if isinstance(error, str):
        return ""
    return "".join(traceback.format_exception(error))[-LONGEST_STACK:]
