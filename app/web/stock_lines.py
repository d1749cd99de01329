"""The lines of a stock import as they come by HTTP, checked one by one. Decides what is wrong, no more."""

from typing import Annotated, Any

import msgspec

from app.stock_file import LONGEST, MOST

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
Units = Annotated[int, msgspec.Meta(ge=0, le=MOST)]


class StockLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One product as it is to be from now on. Units are pieces."""

    product_id: Text
    name: Text
    category: Text
    artisan_id: Text
    on_hand: Units
    threshold: Units


class BadLine(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the line of this number, counted from 1."""

    line: int
    cause: str


def check_lines(items: list[Any]) -> tuple[list[StockLine], list[BadLine]]:
    """The good lines and what is wrong with the others: a product twice is wrong at its second line."""
    good: dict[str, StockLine] = {}
    bad: list[BadLine] = []
    for number, item in enumerate(items, start=1):
        try:
            product = msgspec.convert(item, StockLine)
        except msgspec.ValidationError as error:
            bad.append(BadLine(line=number, cause=str(error)))
            continue
        if product.product_id in good:
            bad.append(BadLine(line=number, cause=f"product {product.product_id} is on an earlier line already"))
        good[product.product_id] = product
    return list(good.values()), bad
