"""What becomes of a message that can't be used: kept whole in `dead-letters`, and told on `<subject>.dlq`; and the
message that it is when it goes again.

It doesn't decide what is unusable, nor what is replayed.
"""

import time
import traceback
from collections.abc import Callable
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
PLACE = ("a4co-reason", "a4co-error", "a4co-topic", "a4co-partition", "a4co-offset", "a4co-cut")
LONGEST_KEPT = 4 * 1024 * 1024
"""Bytes of a payload that are kept. Kafka takes 8 MiB with all headers, NATS may let 64 MiB through. Of a longer one
`a4co-cut` has the length, and the stream, at `a4co-seq`, all of it."""
LONGEST_EVENT, LONGEST_CUT = 256 * 1024, 64 * 1024
"""Bytes of JSON that are told on `.dlq`, and of anything else: as text in JSON, a byte may take six."""


def dead_letter(record: Record, reason: str, error: Exception | str) -> list[Send]:
    """The messages that dead-letter a record of a topic: the record itself, and the word to `<subject>.dlq`.

    `reason` is one word for filters and metrics. Only what came from NATS is told there: not internal messages, not
    our own outbound ones, never what is itself a `.dlq`, and not what was told already and replayed. A letter never
    becomes another one.
    """
    if record.topic == DEAD_LETTERS:
        return []
    place = ((b"%d" % record.partition), (b"%d" % record.offset))
    letter = keep(record.topic, record.key, record.value, record.headers, reason, error, place)
    subject = topics.subject_of(record)
    if not subject or record.topic == OUTBOUND or topics.header(record.headers, topics.LETTER) is not None:
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
    if value is not None and len(value) > LONGEST_KEPT:
        kept = (*kept, ("a4co-cut", b"%d" % len(value)))
        value = value[:LONGEST_KEPT]
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


class StillUnusable(Exception):
    """A letter's message can't be used now either. `reason` is one word, as a letter's."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def again(letter: Record, identity: str, key_of: Callable[[str, bytes], str], payload: bytes | None = None) -> Send:
    """The message that replays a letter, given its record: to where it was (or was to go), with its own headers.

    `payload` is put in the place of its own, and the message is then nobody's but the publisher's. `key_of(subject,
    payload)` is asked where the message has no key, or may have another one now.

    Raises:
        StillUnusable: it would be a dead letter at once.
    """
    topic = (topics.header(letter.headers, "a4co-topic") or b"").decode(errors="replace")
    if payload is not None and not is_json(payload):
        raise StillUnusable("not-json", "what is sent instead must be JSON")
    subject, value = topics.subject_of(letter), letter.value if payload is None else payload
    dropped = (*PLACE, topics.LETTER, *(() if payload is None else ("a4co-ours",)))
    headers = (*(pair for pair in letter.headers if pair[0] not in dropped), (topics.LETTER, identity.encode()))
    if topic in (DEAD_LETTERS, topics.LETTER_COMMANDS.name):
        raise StillUnusable("no-message", "it is a command about a dead letter: give that again")
    try:
        key = letter.key
        if subject and topic != OUTBOUND and (key is None or payload is not None):
            key = key_of(subject, value or b"").encode()
        if topic in READ:
            READ[topic].decode(Record(topic, 0, 0, letter.timestamp, key, value, headers))
    except Exception as error:
        raise StillUnusable(getattr(error, "reason", "") or type(error).__name__, _text(error)) from error
    return Send(topic, key, value, headers)


READ = {topic.name: topic for topic in topics.ALL}


def _event(payload: bytes) -> Any:
    """The payload as it is when it is JSON, else its text: what goes out must be JSON whatever came in.

    Of a long one, its beginning: the word about a message must not be larger than NATS takes.
    """
    if len(payload) <= LONGEST_EVENT and is_json(payload):
        return msgspec.Raw(payload)
    return payload[:LONGEST_CUT].decode(errors="replace")


def is_json(payload: bytes) -> bool:
    """Whether a reader of JSON can read it."""
    try:
        msgspec.json.decode(payload)
        payload.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _text(error: Exception | str) -> str:
    text = error if isinstance(error, str) else str(error) or type(error).__name__
    return text.encode(errors="replace").decode()[:LONGEST_ERROR]


def _stack(error: Exception | str) -> str:
    if isinstance(error, str):
        return ""
    return "".join(traceback.format_exception(error))[-LONGEST_STACK:]
