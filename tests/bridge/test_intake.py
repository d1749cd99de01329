"""What becomes of messages from NATS: all that a batch holds, whatever stands next to what."""

from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from app.domain import traces
from app.domain.dialects import identify
from bridge import intake
from bridge.counters import BridgeCounters
from bridge.intake import Batch, Intake
from bridge.ledger import DEAD, MIRRORED, REPEATED
from bridge.ordered_pull import Arrived
from bridge.origin import MESSAGE_ID, ORIGIN, Origin
from bridge.routes import ROUTES, Route, Routes
from bridge.seen import Seen, fingerprints

LIMIT = 10_000
ORIGINAL = Origin(b"olive" * 5)


class Nothing:
    """A log without notes."""

    def note(self, name: str) -> None:
        del name


def taking(routes: Routes = ROUTES) -> Intake:
    seen = Seen(Nothing(), "EVENTS")  # type: ignore[arg-type]
    return Intake("EVENTS", routes, ORIGINAL, BridgeCounters(), seen, LIMIT)


def payload(event: str = "E-1", order: str = "ORDER-1", **data: Any) -> bytes:
    said = {"orderId": order, **data}
    return orjson.dumps({"eventId": event, "aggregateId": order, "eventVersion": 1, "eventData": said})


def arrived(seq: int, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Arrived:
    return Arrived(b"%d" % seq, b"%d" % (1_000 + seq), b"0", subject, headers, data)


def taken(messages: Iterable[Arrived], by: Intake | None = None) -> Batch:
    batch = Batch()
    (by or taking()).take(list(messages), batch)
    return batch


def outcomes(batch: Batch) -> dict[str, int]:
    found = dict.fromkeys((MIRRORED, REPEATED, DEAD), 0)
    for (_, outcome), number in batch.outcomes.items():
        found[outcome] += number
    assert sum(batch.counts.values()) == sum(found.values()) == batch.read - batch.ignored
    return found


def test_a_record_says_where_its_message_stood() -> None:
    batch = taken(
        [arrived(7, "order.created", payload()), arrived(8, "inventory.stock.reserved", payload("E-2", "OIL"))]
    )
    order, stock = batch.sends
    place = ("a4co-stream", b"EVENTS")
    assert (order.topic, order.key, order.value) == ("orders", b"ORDER-1", payload())
    assert order.headers == (
        *traces.begun("ORDER-1"), ("a4co-subject", b"order.created"), ("a4co-seq", b"7"), place
    )  # fmt: skip
    # A product's events go on for ever, so each is a trace of its own, and the same one when it is read again.
    assert stock.headers == (
        *traces.begun("EVENTS-8-1008"), ("a4co-subject", b"inventory.stock.reserved"), ("a4co-seq", b"8"), place
    )  # fmt: skip
    assert batch.awaited is True


def test_good_and_bad_and_repeated_and_unknown_ones_pass_each_other_in_order() -> None:
    batch = taken(
        [
            arrived(1, "order.created", payload("E-1")),
            arrived(2, "order.created", payload("E-1")),
            arrived(3, "order.created", b"no JSON"),
            arrived(4, "nobody.knows", payload("E-4")),
            arrived(5, "order.created", payload("E-5", "ORDER-2")),
            arrived(6, "order.confirmed", payload("E-1")),
            arrived(7, "order.created", payload("E-7", padding="x" * LIMIT)),
            arrived(8, "order.created", payload("E-1", total=1)),
        ]
    )
    assert [send.key for send in batch.sends if send.topic == "orders"] == [
        b"ORDER-1",
        b"ORDER-2",
        b"ORDER-1",
        b"ORDER-1",
    ]
    assert outcomes(batch) == {MIRRORED: 4, REPEATED: 1, DEAD: 2}
    assert batch.ignored == 1
    assert batch.outcomes["order.created", MIRRORED] == 3
    assert batch.outcomes["order.confirmed", MIRRORED] == 1


def test_what_is_being_committed_or_was_committed_is_known_again() -> None:
    by = taking()
    first = taken([arrived(1, "payment.succeeded", payload())], by)
    by.under_way = first.prints
    again = arrived(2, "payment.succeeded", payload())
    assert outcomes(taken([again], by)) == {MIRRORED: 0, REPEATED: 1, DEAD: 0}
    by.seen.keep(by.seen.plan(list(first.prints)))
    by.under_way = {}
    assert outcomes(taken([again], by)) == {MIRRORED: 0, REPEATED: 1, DEAD: 0}
    assert outcomes(taken([again])) == {MIRRORED: 1, REPEATED: 0, DEAD: 0}


def test_what_an_older_version_noted_is_known_again() -> None:
    """Its notes outlive an update: this fingerprint and this trace were made by version 0.1.0."""
    said = {"customerId": "c", "items": [{"quantity": 2, "unitPrice": 12.5}], "city": "Úbeda"}
    message = orjson.dumps({"eventId": "e-1", "aggregateId": "order-1", "eventData": said})
    print_ = fingerprints("order.created")(identify("order.created", message))
    assert print_ is not None
    assert print_.hex() == "4ec3b0cdf2db2b368c447edc"
    assert traces.begun("order-1")[0][1] == b"00-d304f48edae0dd5bebde80bc3229ec16-d304f48edae0dd5b-01"


def test_headers_stay_but_for_those_that_pass_for_ours() -> None:
    forged = {"x-case": "1", "A4CO-Ours": "1", "a4co-seq": "99", ORIGIN: "0" * 32, MESSAGE_ID: "m-1"}
    own = {MESSAGE_ID: "m-2", ORIGIN: ORIGINAL.mark("m-2", "order.confirmed", payload("E-2"))}
    batch = taken([arrived(1, "order.confirmed", payload(), forged)])
    [send] = batch.sends
    assert [pair for pair in send.headers if pair[0] in ("x-case", MESSAGE_ID)] == [
        ("x-case", b"1"),
        (MESSAGE_ID, b"m-1"),
    ]
    assert [pair for pair in send.headers if pair[0].lower() in ("a4co-seq", "a4co-ours")] == [("a4co-seq", b"1")]
    assert batch.awaited is True
    batch = taken([arrived(2, "order.confirmed", payload("E-2"), own)])
    assert ("a4co-ours", b"1") in batch.sends[0].headers
    assert batch.awaited is False


def test_a_trace_that_came_is_carried_on() -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    [send] = taken([arrived(1, "order.created", payload(), {"Traceparent": parent})]).sends
    assert send.headers[0] == ("traceparent", parent.encode())
    assert [name for name, _ in send.headers].count("traceparent") == 1


def test_a_pattern_has_more_subjects_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "REMEMBERED", 2)
    routes = Routes(
        [*ROUTES, Route("artisan.>", "artisans", ROUTES["order.created"].direction, "", "eventData.orderId")]
    )
    by = taking(routes)
    for start in (0, 5):
        messages = [arrived(seq, f"artisan.{seq}.moved", payload(f"E-{seq}")) for seq in range(start, start + 5)]
        batch = taken([*messages, arrived(99, "order.created", payload("E-99"))], by)
        assert {send.topic for send in batch.sends} == {"artisans", "orders"} or start
        assert sum(number for (route, _), number in batch.counts.items() if route == "artisan.>") == 5
    assert len(by._subjects) <= 6
