"""A changed row, and what a partition's rows amount to."""

from typing import Generic, TypeVar

import msgspec

Row = TypeVar("Row")


class Change(msgspec.Struct, Generic[Row], frozen=True, gc=False):
    """A changed row: None when it is deleted; and the row before: None when there was none."""

    key: str
    row: Row | None
    packed: bytes | None
    old: Row | None


class Summary(msgspec.Struct):
    """What a partition's rows amount to. It is written with every change, in the store's note."""

    version: int
    rows: int = 0
    sums: dict[str, int] = {}
