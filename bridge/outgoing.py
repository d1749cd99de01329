"""An outbound record as the NATS message that it becomes: subject, id, headers and size. Decides nothing."""

from typing import NamedTuple

from app.domain.traces import TRACEPARENT, TRACESTATE
from app.engine.records import Record
from bridge.origin import MESSAGE_ID, ORIGIN, Origin


class Outgoing(NamedTuple):
    """`size` is bytes as the server counts them: headers and payload."""

    record: Record
    subject: str
    message_id: str
    headers: dict[str, str]
    size: int

    @property
    def identity(self) -> tuple[str, str]:
        """Its id and its mark: what the stream is asked for."""
        return self.message_id, self.headers[ORIGIN]


def outgoing(record: Record, origin: Origin) -> Outgoing:
    """The message, marked as ours. A record without an id of its own gets one from its place in the log."""
    given = {name: value.decode(errors="replace") for name, value in record.headers}
    subject = given.get("a4co-subject", "")
    message_id = origin.sealed(given.get(MESSAGE_ID) or f"{record.topic}-{record.partition}-{record.offset}")
    headers = {
        MESSAGE_ID: message_id,
        ORIGIN: origin.mark(message_id, subject, record.value or b""),
        "Content-Type": "application/json",
    }
    headers |= {name: given[name] for name in (TRACEPARENT, TRACESTATE) if name in given}
    # "NATS/1.0", an empty line, and `name: value` with its line end for each.
    size = 12 + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items()) + len(record.value or b"")
    return Outgoing(record, subject, message_id, headers, size)
