"""A glance tells of a message what a closer look tells, or nothing."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.dialects import Undecodable, decode, look
from app.domain.glances import MAX_DEPTH, Identity, glance_at

SAMPLES = Path(__file__).parents[2] / "app" / "asyncapi" / "samples" / "dialect-a.jsonl"
SUBJECTS = ("order.created", "payment.succeeded", "shipment.sent", "notification.email.sent", "user.registered.v1")

IDS: list[Any] = ["ORDER-1", "", None, 7, {}, ["x"], True, "x" * 256, "x" * 257, "Úbeda", 'say "hi"', "\x00", "a\nb"]
VALUES: list[Any] = [*IDS, 1, 2, 1.0, "1.0", "1.1", "2.0", {"version": "1.0"}, {"version": 1}, {"orderId": "O-2"}, []]

said = st.dictionaries(
    st.sampled_from(["orderId", "variables", "productId", "userId", "items", "eventData"]),
    st.sampled_from(VALUES) | st.fixed_dictionaries({"orderId": st.sampled_from(IDS)}),
)
envelopes = st.fixed_dictionaries(
    {"eventId": st.sampled_from(IDS), "aggregateId": st.sampled_from(IDS), "eventData": said},
    optional={
        "eventVersion": st.sampled_from([1, 1.0, 2, "1", None, True]),
        "metadata": st.sampled_from(VALUES),
        "pattern": st.sampled_from(VALUES),
        "data": said,
        "extra": st.sampled_from(VALUES),
    },
)


def told(subject: str, payload: bytes) -> Identity | None:
    glance = glance_at(subject.split(".", 1)[0])
    assert glance is not None
    return glance(payload)


def agree(subject: str, payload: bytes) -> None:
    """What a glance tells is what a look tells, but for a blank in odd places: so it says nothing of what nobody
    understands.
    """
    found = told(subject, payload)
    if found is not None:
        found.said = orjson.dumps(orjson.loads(found.said))
        assert found == look(subject, payload)


def nested(levels: int) -> bytes:
    """An order of so many levels."""
    inner = "[" * (levels - 2) + "]" * (levels - 2)
    return f'{{"eventId":"E","aggregateId":"O","eventData":{{"x":{inner}}}}}'.encode()


def test_what_the_marketplace_says_is_told_at_a_glance() -> None:
    samples = [json.loads(line) for line in SAMPLES.read_text("utf-8").splitlines()]
    found = [(each["subject"], told(each["subject"], each["payload"].encode())) for each in samples]
    assert [subject for subject, one in found if one is None] == []
    for each, (subject, one) in zip(samples, found, strict=True):
        assert one == look(subject, each["payload"].encode())


@settings(max_examples=400)
@given(st.sampled_from(SUBJECTS), envelopes)
def test_of_any_envelope_a_glance_tells_what_a_look_tells(subject: str, envelope: dict[str, Any]) -> None:
    agree(subject, orjson.dumps(envelope))
    agree(subject, json.dumps(envelope, ensure_ascii=False).encode())
    agree(subject, json.dumps(envelope, separators=(",", ":")).encode())


GOOD = (
    '{"eventId":"E","aggregateId":"O","eventData":{"orderId":"O","city":"Jaén"},"metadata":{"version":"1.0"}}'.encode()
)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize(
    "field", ["eventId", "aggregateId", "eventData", "eventVersion", "metadata", "data", "pattern"]
)
def test_one_odd_field_is_refused_or_understood_as_ever(subject: str, field: str) -> None:
    for value in VALUES:
        payload = orjson.dumps(json.loads(GOOD) | {field: value})
        try:
            agree(subject, payload)
        except Undecodable:
            pytest.fail(f"a glance understands {payload!r}")


@settings(max_examples=400)
@given(
    st.sampled_from(SUBJECTS),
    st.integers(0, len(GOOD)),
    st.integers(0, 3),
    st.binary(max_size=2)
    | st.sampled_from([b'"', b"}", b"{", b",", b"\\", b"\\u00e9", b"0", b"-", b".", b"e5", b"\n"]),
)
@example("order.created", GOOD.index(b"\xc3"), 2, b"\xed\xa0\x80")
@example("order.created", GOOD.index(b"\xc3"), 2, b"\\ud800")
@example("order.created", len(GOOD), 0, GOOD)
@example("payment.succeeded", len(GOOD) - 1, 0, b',"eventData":{"orderId":"P"}')
def test_of_damaged_bytes_a_glance_tells_what_a_look_tells(subject: str, at: int, cut: int, put: bytes) -> None:
    agree(subject, GOOD[:at] + put + GOOD[at + cut :])


@pytest.mark.parametrize("levels", [3, MAX_DEPTH, MAX_DEPTH + 1, 500, 100_000])
def test_what_is_too_deep_is_never_told(levels: int) -> None:
    payload = nested(levels)
    if levels <= MAX_DEPTH:
        assert told("order.created", payload) == look("order.created", payload)
    else:
        assert told("order.created", payload) is None
        with pytest.raises(Undecodable, match="too-deep"):
            look("order.created", payload)


def test_a_repetition_with_other_metadata_is_the_same_also_when_it_needs_a_closer_look() -> None:
    again = GOOD.replace(b'"version":"1.0"', rb'"version":"1.0","retryCount":1,"error":"\"stock\" is down"')
    assert told("order.created", again) is None
    assert look("order.created", again) == told("order.created", GOOD)
    for spaced in (json.dumps(json.loads(GOOD), ensure_ascii=False), json.dumps(json.loads(GOOD), indent=1)):
        assert told("order.created", spaced.encode()) is None
        assert look("order.created", spaced.encode()) == told("order.created", GOOD)


def test_a_number_that_no_double_holds_is_left_to_who_reads_it() -> None:
    """It is JSON, and is mirrored; `decode` refuses it."""
    huge = GOOD.replace(b'"Ja\xc3\xa9n"', b"1e400")
    assert told("order.created", huge) is not None
    with pytest.raises(Undecodable, match="not-json"):
        look("order.created", huge)
    with pytest.raises(Undecodable, match="not-json"):
        decode("order.created", huge, at=0.0)
