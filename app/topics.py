"""Every topic: its name, what its key is, and the type of what is in it. The one place for names.

Mirror topics hold NATS messages as they came; internal topics hold the domain's own messages as JSON.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from app.domain import dialects, traces
from app.domain.analytics import Counted, measured, partition_of, put, spread
from app.domain.dead_letters import (
    LETTER_ID,
    LONGEST_TEXT,
    DiscardLetter,
    LetterCameBack,
    LetterCommand,
    LetterKept,
    ReplayLetter,
    Resend,
    letter_id,
    place_of,
)
from app.domain.messages import (
    Announce,
    BucketOutdated,
    Commit,
    Counts,
    DeadlineReached,
    MailDelivered,
    MailFailed,
    Message,
    OrderFact,
    OrdersCounted,
    Refused,
    Release,
    Reserve,
    Reserved,
    Return,
    SendMail,
    StockImported,
    StockMoved,
)
from app.domain.rows import OrderSaga
from app.engine.declarations import Topic
from app.engine.records import Headers, Record, Send

StockCommand = Reserve | Release | Commit | Return | StockImported
SagaReply = Reserved | Refused | MailDelivered | MailFailed

LETTER = "a4co-letter"
"""The header of what was replayed: the id of the dead letter that it was."""

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_read_facts = msgspec.json.Decoder(OrdersCounted | BucketOutdated).decode
_read_command = msgspec.msgpack.Decoder(LetterCommand).decode  # MessagePack: a command may hold a message's bytes


def header(headers: Headers, name: str) -> bytes | None:
    """The first value of a header."""
    for found, value in headers:
        if found == name:
            return value
    return None


def subject_of(record: Record) -> str:
    """The NATS subject that the record came from, or goes to; "" for internal messages."""
    return (header(record.headers, "a4co-subject") or b"").decode(errors="replace")


def _mirrored(record: Record) -> OrderFact | StockMoved | None:
    """The fact in a mirrored NATS message. What we published ourselves is in the tables already: nothing."""
    if header(record.headers, "a4co-ours") is not None:
        return None
    trace = traces.given(record.headers)
    return dialects.decode(subject_of(record), record.value or b"", at=record.timestamp, trace=trace)


def _internal(kind: Any) -> Callable[[Record], Any]:
    decode = msgspec.json.Decoder(kind).decode
    return lambda record: decode(record.value or b"")


def _letter(record: Record) -> LetterKept:
    """What a row keeps of a dead letter. It never fails: a letter must not become another one."""
    said = {name: value.decode(errors="replace") for name, value in record.headers}
    payload = record.value or b""
    identity = letter_id(record.timestamp, record.partition, record.offset)
    return LetterKept(
        event_id=identity,
        key=identity,
        at=record.timestamp,
        reason=said.get("a4co-reason", ""),
        error=said.get("a4co-error", "")[:LONGEST_TEXT],
        topic=said.get("a4co-topic", ""),
        place="-".join(said[name] for name in ("a4co-partition", "a4co-offset") if name in said),
        subject=said.get("a4co-subject", "")[:LONGEST_TEXT],
        of=(record.key or b"").decode(errors="replace")[:LONGEST_TEXT],
        size=len(payload),
        excerpt=payload[: 4 * LONGEST_TEXT].decode(errors="replace")[:LONGEST_TEXT],
        former=former if LETTER_ID.fullmatch(former := said.get(LETTER, "")) else "",
    )


def _letter_command(record: Record) -> LetterCommand:
    command: LetterCommand = _read_command(record.value or b"")
    return command


def _facts(record: Record) -> tuple[Counted, ...] | BucketOutdated:
    said = _read_facts(record.value or b"")
    if isinstance(said, BucketOutdated):
        return said
    return spread(said, partition=record.partition, offset=record.offset, at=record.timestamp)


ORDERS = Topic("orders", _mirrored)  # order.*, shipment.*; key: order id
PAYMENTS = Topic("payments", _mirrored)  # payment.*; key: order id
NOTIFICATIONS = Topic("notifications", _mirrored)  # notification.*; key: order id
USERS = Topic("users", _mirrored)  # user.*; key: user id
STOCK = Topic("stock", _mirrored)  # inventory.*; key: product id

STOCK_COMMANDS = Topic("stock-commands", _internal(StockCommand))  # key: product id
SAGA_REPLIES = Topic("saga-replies", _internal(SagaReply))  # key: order id
TIMERS = Topic("timers", _internal(DeadlineReached))  # key: order id
MAILS = Topic("mails", _internal(SendMail))  # key: order id
ORDER_FACTS = Topic("order-facts", _facts)  # what is counted of a partition's orders, in that partition; no key

OUTBOUND = Topic("outbound")  # value: the NATS payload; key: order id or product id
DEAD_LETTERS = Topic("dead-letters", _letter)  # the original's key, value and headers, and why
LETTER_COMMANDS = Topic("letter-commands", _letter_command)  # key: the letter's id; in its letter's partition

ALL = (
    ORDERS,
    PAYMENTS,
    NOTIFICATIONS,
    USERS,
    STOCK,
    STOCK_COMMANDS,
    SAGA_REPLIES,
    TIMERS,
    MAILS,
    ORDER_FACTS,
    OUTBOUND,
    DEAD_LETTERS,
    LETTER_COMMANDS,
)


def _to(topic: Topic) -> Callable[[Any, Headers], Sequence[Send]]:
    name = topic.name
    return lambda message, headers: (Send(name, message.key.encode(), _encode(message), headers),)


def _say(announce: Announce, headers: Headers) -> Sequence[Send]:
    key = announce.key.encode()
    dialect = announce.dialect.encode()
    return [
        Send(
            OUTBOUND.name,
            key,
            said.payload,
            (
                *headers,
                ("a4co-subject", said.subject.encode()),
                ("Nats-Msg-Id", said.event_id.encode()),
                ("a4co-dialect", dialect),
            ),
        )
        for said in dialects.encode(announce)
    ]


def _to_letter(command: LetterCommand, _headers: Headers) -> Sequence[Send]:
    partition = place_of(command.key).partition
    return (Send(LETTER_COMMANDS.name, command.key.encode(), _pack(command), (), None, partition),)


def _resend(again: Resend, _headers: Headers) -> Sequence[Send]:
    return (Send(again.topic, again.of, again.payload, again.headers),)


_SENDERS: dict[type[Message], Callable[[Any, Headers], Sequence[Send]]] = {
    Reserve: _to(STOCK_COMMANDS),
    Release: _to(STOCK_COMMANDS),
    Commit: _to(STOCK_COMMANDS),
    Return: _to(STOCK_COMMANDS),
    StockImported: _to(STOCK_COMMANDS),
    Reserved: _to(SAGA_REPLIES),
    Refused: _to(SAGA_REPLIES),
    MailDelivered: _to(SAGA_REPLIES),
    MailFailed: _to(SAGA_REPLIES),
    DeadlineReached: _to(TIMERS),
    SendMail: _to(MAILS),
    ReplayLetter: _to_letter,
    DiscardLetter: _to_letter,
    LetterCameBack: _to_letter,
    Resend: _resend,
    Announce: _say,
}


def sends_of(message: Message, headers: Headers = ()) -> Sequence[Send]:
    """Where a rule's output goes: each type has its topic; an announcement is put into its dialect's words.

    `headers` are its trace (app.domain.traces).
    """
    return _SENDERS[type(message)](message, headers)


# ---- what is counted of orders ---------------------------------------------------------------------------


class OrderTally:
    """Counts what a batch of changes of one partition's orders counts for (declarations.Tally)."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._minutes: dict[int, Counts] = {}

    def add(self, before: OrderSaga | None, after: OrderSaga | None, at: float) -> None:
        """One order changed, by a record of that time."""
        found = [] if after is None else measured(before, after, at)
        if after is not None and found:
            counts = self._minutes.setdefault(int(after.updated_at // 60), {})
            for measure, name, number in found:
                try:
                    counts[measure][name] += number  # nearly always there; far from any bound within a batch
                except KeyError:
                    put(counts, measure, name, number)

    def sends(self) -> Sequence[Send]:
        """One record, if anything was counted."""
        if not self._minutes:
            return ()
        return (Send(ORDER_FACTS.name, None, _encode(OrdersCounted(self._minutes)), partition=self._partition),)


def outdated(said: BucketOutdated) -> Send:
    """It goes to the partition of its bucket."""
    return Send(ORDER_FACTS.name, said.key.encode(), _encode(said), partition=partition_of(said.key))
