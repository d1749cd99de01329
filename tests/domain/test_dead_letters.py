"""The rule of dead letters: open until replayed or discarded, once."""

import random
from typing import Any

import pytest

from app.domain.dead_letters import (
    DiscardLetter,
    Letter,
    LetterCameBack,
    LetterKept,
    LetterState,
    ReplayLetter,
    Resend,
    first_id,
    keep,
    letter_id,
    place_of,
)

NOON = 1_795_521_600.0
HONEY = letter_id(NOON, 2, 7)
CHEESE = letter_id(NOON + 60, 1, 8)


def kept(identity: str = HONEY, former: str = "") -> LetterKept:
    return LetterKept(
        event_id=identity, key=identity, at=NOON, reason="not-json", error="Undecodable: not-json", topic="payments",
        place="2-40", subject="payment.succeeded", of="order-miel", size=4, excerpt="{mie", former=former,
    )  # fmt: skip


def replay(**changes: Any) -> ReplayLetter:
    said = {"by": "ana", "topic": "payments", "of": b"order-miel", "payload": b"{}", "headers": (("a", b"b"),)}
    return ReplayLetter(event_id="r-1", key=HONEY, at=NOON + 10, **(said | changes))


def discard() -> DiscardLetter:
    return DiscardLetter(event_id="d-1", key=HONEY, at=NOON + 20, by="eva", reason="a test order")


def letter(*messages: Any) -> Letter:
    row = None
    for message in (kept(), *messages):
        row = keep(row, message).row
    assert row is not None
    return row


def test_a_letter_is_open_and_says_what_its_record_says() -> None:
    row = letter()
    assert (row.state, row.reason, row.topic, row.place, row.of) == (
        LetterState.OPEN, "not-json", "payments", "2-40", "order-miel",
    )  # fmt: skip
    assert row.acts == ()


def test_a_letter_that_is_read_again_stays_as_it_is() -> None:
    row = letter(replay())
    again = keep(row, kept())
    assert again.row is row
    assert (again.outputs, again.outcome) == ((), "duplicate")


def test_a_replay_sends_the_message_once_and_says_by_whom() -> None:
    first = keep(letter(), replay(edited="edited: 2 bytes"))
    [sent] = first.outputs
    assert isinstance(sent, Resend)
    assert (sent.topic, sent.of, sent.payload, sent.headers) == ("payments", b"order-miel", b"{}", (("a", b"b"),))
    assert first.row is not None
    assert first.row.state is LetterState.REPLAYED
    assert [(act.what, act.by, act.detail) for act in first.row.acts] == [("replayed", "ana", "edited: 2 bytes")]
    for wish in (replay(), discard()):
        again = keep(first.row, wish)
        assert again.row is first.row
        assert again.outputs == ()


def test_a_discard_is_kept_with_its_reason_and_is_an_end() -> None:
    row = letter(discard())
    assert row.state is LetterState.DISCARDED
    assert [(act.what, act.by, act.detail) for act in row.acts] == [("discarded", "eva", "a test order")]
    assert keep(row, replay()).row is row
    assert keep(row, replay()).outputs == ()


def test_a_wish_about_a_letter_that_is_not_there_makes_none() -> None:
    for wish in (replay(), discard(), LetterCameBack(event_id="b", key=HONEY, at=NOON, letter=CHEESE, reason="x")):
        assert keep(None, wish).row is None
        assert keep(None, wish).outputs == ()


def test_what_fails_again_names_its_former_and_is_named_by_it() -> None:
    new = keep(None, kept(CHEESE, former=HONEY))
    assert new.row is not None
    assert (new.row.former, new.row.state) == (HONEY, LetterState.OPEN)
    [back] = new.outputs
    assert (back.key, back.letter) == (HONEY, CHEESE)
    row = letter(replay(), back, back)
    assert (row.state, row.latter) == (LetterState.REPLAYED, CHEESE)
    assert [act.what for act in row.acts] == ["replayed", "came back"]


def test_ids_sort_by_time_and_tell_the_place() -> None:
    dice = random.Random(23)
    places = sorted(
        (NOON + dice.randrange(10**9), dice.randrange(256), dice.randrange(10**9)) for _ in range(1_000)
    )  # fmt: skip
    ids = [letter_id(*place) for place in places]
    assert ids == sorted(ids)
    assert [place_of(identity) for identity in ids] == [place[1:] for place in places]
    assert letter_id(NOON - 0.001, 255, 10**9) < first_id(NOON) < letter_id(NOON, 0, 0)


@pytest.mark.parametrize("text", ["", "x", HONEY + "0", HONEY[:-1], HONEY.upper() + "W", "w" * 18, "\u0660" * 18])
def test_what_is_no_id_has_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        place_of(text)
