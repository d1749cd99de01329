"""Ids follow from their cause: the standard's uuid5, every time the same."""

from uuid import UUID, uuid5

from hypothesis import given
from hypothesis import strategies as st

from app.domain.causes import NAMESPACE, caused, iso

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(words, words, words)
def test_an_id_is_the_uuid5_of_its_cause_kind_and_qualifier(cause: str, kind: str, qualifier: str) -> None:
    assert caused(cause, kind, qualifier) == str(uuid5(UUID(str(NAMESPACE)), f"{cause}:{kind}:{qualifier}"))


def test_a_time_has_milliseconds_and_z() -> None:
    assert iso(1795527351.032) == "2026-11-24T13:35:51.032Z"
    assert iso(0.0) == "1970-01-01T00:00:00.000Z"
