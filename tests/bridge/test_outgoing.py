"""What we publish: an outbound record as bytes on NATS, in which nothing that a record says can become another line."""

import pytest
from nats.errors import BadSubjectError

from app.engine.records import Record
from bridge.frames import headers_of
from bridge.origin import Origin
from bridge.outgoing import on_the_wire, outgoing

ORIGIN = Origin(b"s" * 32)
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def record(*headers: tuple[str, bytes], value: bytes = b"{}") -> Record:
    return Record("outbound", 2, 17, 0.0, b"order-1", value, headers)


def test_a_message_has_its_sealed_id_our_mark_and_the_trace() -> None:
    message = outgoing(
        record(("traceparent", TRACE), ("a4co-subject", b"order.confirmed"), ("Nats-Msg-Id", b"id-1"), ("other", b"x")),
        ORIGIN,
    )
    headers = headers_of(message.headers)
    assert headers == {
        "Nats-Msg-Id": ORIGIN.sealed("id-1"),
        "A4co-Origin": message.mark,
        "Content-Type": "application/json",
        "traceparent": TRACE.decode(),
    }
    assert message.identity == (headers["Nats-Msg-Id"], headers["A4co-Origin"])
    assert ORIGIN.is_ours("order.confirmed", headers, b"{}")
    assert message.size == len(message.headers) + 2


def test_a_record_without_an_id_gets_one_from_its_place() -> None:
    assert outgoing(record(("a4co-subject", b"order.confirmed")), ORIGIN).message_id == ORIGIN.sealed("outbound-2-17")


@pytest.mark.parametrize("identity", ["id\r\nX-Forged: 1", " id ", "señora\n\nPUB x 0\r\n", "id\x00"])
def test_an_id_stays_in_its_line_and_is_found_again_as_it_was_said(identity: str) -> None:
    message = outgoing(record(("a4co-subject", b"order.confirmed"), ("Nats-Msg-Id", identity.encode())), ORIGIN)
    headers = headers_of(message.headers)
    assert set(headers) == {"Nats-Msg-Id", "A4co-Origin", "Content-Type"}
    assert (headers["Nats-Msg-Id"], headers["A4co-Origin"]) == message.identity
    assert message.headers.count(b"\r\n") == 5


@pytest.mark.parametrize("subject", ["", "order created", "order.created\r\nPUB x 0", "a\tb", "a\x00b", "a\u2028b"])
def test_what_is_no_subject_is_not_sent(subject: str) -> None:
    with pytest.raises(BadSubjectError):
        on_the_wire(subject)
    assert on_the_wire("señora.núñez") == "señora.núñez".encode()
