"""What is on its way to NATS: how it is sent, what counts as an ack, and when it has failed."""

import asyncio
import itertools
import json
from typing import Any

import pytest

from app.engine.records import Record
from bridge.counters import BridgeCounters
from bridge.flight import Flight, PublishFailed
from bridge.frames import Frame
from bridge.origin import Origin
from bridge.outgoing import outgoing

ORIGIN = Origin(b"s" * 32)
OURS, ANOTHERS = "A4CO_EVENTS", "LEGACY"


class Sent:
    """A flight of `confirmed` messages for our stream, `created` for another's and `letters` for nobody's."""

    def __init__(self, *, confirmed: int = 0, created: int = 0, letters: int = 0, batched: bool = True) -> None:
        self.counters = BridgeCounters()
        self.flight = Flight(
            b"_INBOX.ours", itertools.count(1), self.counters, batched=OURS if batched else None, offsets={}, records=0
        )
        many = [("order.confirmed", OURS)] * confirmed + [("order.created", ANOTHERS)] * created
        for number, (subject, stream) in enumerate([*many, *[("order.created.dlq", None)] * letters]):
            headers = (("a4co-subject", subject.encode()), ("Nats-Msg-Id", b"%d" % number))
            message = outgoing(Record("outbound", 0, number, 0.0, None, b"{}", headers), ORIGIN)
            self.flight.add(message, subject.encode(), stream)
        lines = [frame.split(b"\r\n")[0].split(b" ") for frame in self.flight.frames()]
        self.replies = [line[2] if len(line) == 5 else b"" for line in lines]

    def answered(self, reply: bytes, *, headers: bytes = b"", **answer: Any) -> list[Frame]:
        """Returns what nobody wanted to hear."""
        data = json.dumps(answer).encode() if answer else b""
        return list(self.flight.hear([(reply, b"", headers, data)]))

    def kept(self, count: int, seq: int = 7, stream: str = OURS) -> None:
        """The batch's end, as far as the stream took it."""
        self.answered(self.replies[count - 1], stream=stream, seq=seq, batch=self.batch, count=count)

    @property
    def batch(self) -> str:
        return self.replies[0].split(b".")[2].decode()

    async def failed(self) -> str:
        with pytest.raises(PublishFailed) as failure:
            await self.flight.acked()
        return str(failure.value)


async def test_what_goes_to_our_stream_is_one_batch_that_ends_at_a_gap_and_is_acked_at_its_end() -> None:
    sent = Sent(confirmed=3, letters=1)
    begin = f"_INBOX.ours.{sent.batch}.1000.fail."
    assert sent.replies == [f"{begin}{end}".encode() for end in ("1.0.$FI", "2.1.$FI", "3.2.$FI")] + [b""]
    landing = asyncio.ensure_future(sent.flight.acked())
    sent.answered(sent.replies[0], type="ack", seq=0, msgs=500)
    sent.answered(sent.replies[1], type="ack", seq=2, msgs=500)
    await asyncio.sleep(0)
    assert not landing.done()
    assert sent.counters.published == 0
    sent.kept(3, seq=40)
    await landing
    assert sent.flight.reached == {OURS: 40}
    assert sent.counters.published == 3
    assert [message.subject for message in sent.flight.plain] == ["order.created.dlq"]


async def test_one_message_is_a_batch_of_its_own_and_a_repetition_counts_as_kept() -> None:
    sent = Sent(confirmed=1)
    assert sent.replies[0].endswith(b".1.2.$FI")
    sent.answered(sent.replies[0], stream=OURS, seq=3, duplicate=True, batch=sent.batch, count=1)
    await sent.flight.acked()


@pytest.mark.parametrize("batched", [True, False])
async def test_what_another_stream_keeps_or_one_without_batches_is_acked_one_by_one(*, batched: bool) -> None:
    sent = Sent(confirmed=2, created=2, batched=batched)
    singles = sent.replies[2 if batched else 0 :]
    assert singles == [f"_INBOX.ours.{number}".encode() for number in range(1, len(singles) + 1)]
    for number, reply in enumerate(sent.replies):
        if not batched or number >= 2:
            sent.answered(reply, stream=OURS if number < 2 else ANOTHERS, seq=10 + number)
    if batched:
        sent.kept(2, seq=11)
    await sent.flight.acked()
    assert sent.flight.reached == {OURS: 11, ANOTHERS: 13}
    assert sent.counters.published == 4


async def test_a_batch_that_ended_early_has_failed_for_the_reason_that_was_told_first() -> None:
    sent = Sent(confirmed=4)
    sent.answered(
        sent.replies[2], error={"err_code": 10077, "description": "maximum messages exceeded"}, type="err", seq=3
    )
    sent.kept(2)
    sent.answered(sent.replies[3], stream=OURS, error={"err_code": 10208, "description": "batch publish ID is unknown"})
    assert await sent.failed() == f"the stream {OURS} refused a message: maximum messages exceeded"
    assert sent.counters.published == 2
    gap = Sent(confirmed=4)
    gap.answered(gap.replies[3], type="gap", last_seq=3, seq=4)
    gap.kept(2)
    assert await gap.failed() == f"the stream {OURS} took 2 of 4 messages"


@pytest.mark.parametrize("batched", [True, False])
async def test_a_refusal_and_a_stream_that_is_gone_fail_it(*, batched: bool) -> None:
    refused = Sent(confirmed=2, batched=batched)
    refused.answered(refused.replies[1], stream=OURS, seq=0, error={"err_code": 10077, "description": "no room"})
    assert await refused.failed() == f"the stream {OURS} refused a message: no room"
    gone = Sent(confirmed=2, batched=batched)
    gone.answered(gone.replies[0], headers=b"NATS/1.0 503\r\n\r\n")
    assert await gone.failed() == "no stream holds it any more"


async def test_whoever_else_answers_a_message_is_not_taken_for_its_stream() -> None:
    for sent in (Sent(confirmed=1), Sent(confirmed=1, batched=False)):
        reply = sent.replies[0]
        for answer in (
            {"response": "hello"},
            {"stream": "COPY", "seq": 9},
            {"stream": "COPY", "batch": "x", "count": 1},
        ):
            sent.answered(reply, **answer)
        sent.flight.hear([(reply, b"", b"", b"hello")])
        landing = asyncio.ensure_future(sent.flight.acked())
        await asyncio.sleep(0)
        assert not landing.done()
        sent.answered(reply, stream=OURS, seq=9, batch=sent.batch, count=1)
        await landing
        assert sent.flight.reached == {OURS: 9}


async def test_a_strange_stream_that_refuses_batches_is_named_and_does_not_fail_it() -> None:
    sent = Sent(confirmed=1)
    disabled = {"err_code": 10205, "description": "batch publish is disabled"}
    sent.answered(sent.replies[0], stream="HUB", seq=0, error=disabled)
    sent.kept(1)
    await sent.flight.acked()
    assert sent.flight.refused_by == {"HUB"}


async def test_an_answer_for_another_flight_is_handed_on() -> None:
    one, other = Sent(confirmed=2), Sent(created=1)
    assert one.answered(other.replies[0], stream=ANOTHERS, seq=1)
    assert other.answered(one.replies[0], type="ack", seq=0, msgs=500)
    assert not one.answered(one.replies[0], type="ack", seq=0, msgs=500)
