"""An outbound record as the NATS message that it becomes: subject, id, headers and size. Decides nothing."""

import re

import msgspec
from nats.errors import BadSubjectError

from app.domain.traces import TRACEPARENT, TRACESTATE
from app.engine.records import Record
from bridge.frames import VERSION
from bridge.origin import MESSAGE_ID, ORIGIN, Origin

NO_SUBJECT = re.compile(r"[\s\x00-\x20\x7f]")
BEGIN = f"{VERSION.decode()}\r\n{MESSAGE_ID}: "
BREAKS = str.maketrans("\r\n", "  ")


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """`mark` tells it from what others say under its id; `headers` is the whole block, as it is sent; `size` is in
    bytes, as the server counts them.
    """

    record: Record
    subject: str
    message_id: str
    mark: str
    headers: bytes
    payload: bytes
    size: int

    @property
    def identity(self) -> tuple[str, str]:
        """Its id and its mark: what the stream is asked for."""
        return self.message_id, self.mark


def outgoing(record: Record, origin: Origin) -> Outgoing:
    """The message, marked as ours. A record without an id of its own gets one from its place in the log."""
    given = dict(record.headers)
    payload = record.value or b""
    subject = given.get("a4co-subject", b"").decode(errors="replace")
    own = _one_line(given.get(MESSAGE_ID, b"")) or f"{record.topic}-{record.partition}-{record.offset}"
    message_id = origin.sealed(own)
    mark = origin.mark(message_id, subject, payload)
    lines = f"{BEGIN}{message_id}\r\n{ORIGIN}: {mark}\r\nContent-Type: application/json\r\n"
    if TRACEPARENT in given:
        lines += f"{TRACEPARENT}: {_one_line(given[TRACEPARENT])}\r\n"
    if TRACESTATE in given:
        lines += f"{TRACESTATE}: {_one_line(given[TRACESTATE])}\r\n"
    headers = f"{lines}\r\n".encode()
    return Outgoing(record, subject, message_id, mark, headers, payload, len(headers) + len(payload))


def _one_line(value: bytes) -> str:
    text = value.decode(errors="replace")
    return (text if text.isprintable() else text.translate(BREAKS)).strip()


def on_the_wire(subject: str) -> bytes:
    """The subject as it is sent. Raises BadSubjectError: it would be something else there."""
    if not subject or NO_SUBJECT.search(subject):
        raise BadSubjectError
    return subject.encode()
