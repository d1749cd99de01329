"""How counts are shown: as flat rows, each series with its own columns, and what can be told of them together.

Money is whole cents. A part of nothing is null.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app.domain.analytics import ORDERS, REASONS, SIZES, STEPS, add, quantile
from app.domain.causes import iso
from app.domain.messages import Counts

FUNNEL = ("opened", "reserved", "asked", "paid", "confirmed")


class Span(NamedTuple):
    """From one moment to before another, in buckets of a size. Both are the bounds of buckets; seconds, UTC."""

    size: str
    start: float
    end: float


class Shelf(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What there is of a product just now."""

    product_id: str
    name: str
    category: str
    artisan_id: str
    on_hand: int
    reserved: int
    available: int
    threshold: int
    low: bool


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A bucket by its beginning: ISO 8601, and milliseconds since the epoch, both UTC."""

    time: str
    time_ms: int


class OrdersRow(Row, frozen=True, kw_only=True):
    """How far orders came. conversion: the part of the opened ones that is as many as the confirmed ones."""

    opened: int
    reserved: int
    asked: int
    paid: int
    confirmed: int
    cancelled: int
    returned: int
    retries: int
    refunds: int
    attention: int
    conversion: float | None


class FunnelRow(Row, frozen=True, kw_only=True):
    """One stage of the way to a confirmed order. part: of the opened orders."""

    stage: str
    orders: int
    part: float | None


class CancellationsRow(Row, frozen=True, kw_only=True):
    """Orders that were given up for one reason."""

    reason: str
    orders: int


class RevenueRow(Row, frozen=True, kw_only=True):
    """Of the orders confirmed in one currency, what came back later, and what is left; net: in the currency's unit."""

    currency: str
    revenue_cents: int
    returned_cents: int
    net_cents: int
    net: float


class SalesRow(Row, frozen=True, kw_only=True):
    """What was sold in one currency, and what came back. net: what is left.

    sellThrough: net units (in all currencies) as a part of them and of what is on hand now; null unless the row is of
    the whole time that was asked for.
    """

    currency: str
    units: int
    returned_units: int
    net_units: int
    sales_cents: int
    returned_cents: int
    net_cents: int
    on_hand: int | None
    sell_through: float | None


class ProductsRow(SalesRow, frozen=True, kw_only=True):
    """Sales of one product."""

    product_id: str
    product_name: str
    artisan_id: str


class ArtisansRow(SalesRow, frozen=True, kw_only=True):
    """Sales of one artisan."""

    artisan_id: str


class StepsRow(Row, frozen=True, kw_only=True):
    """How long a step took, in seconds; quantiles are within 5 %, and 1 ms for what took less."""

    step: str
    orders: int
    p50: float | None
    p95: float | None


Bag = tuple[float, Counts]
"""The beginning of a bucket, and its counts."""


def orders(span: Span, bags: Sequence[Bag], _shelves: Sequence[Shelf] = ()) -> list[OrdersRow]:
    """A row for each bucket, also for those in which nothing happened."""
    known = dict(bags)
    starts = [start for start, _ in bags] if span.size == "total" else _starts(span)
    return [_orders(start, known.get(start, {}).get("orders", {})) for start in starts]


def _starts(span: Span) -> Iterable[float]:
    seconds = SIZES[span.size].seconds
    return (float(start) for start in range(int(span.start), int(span.end), seconds))


def _orders(start: float, numbers: Mapping[str, int]) -> OrdersRow:
    found: dict[str, Any] = {name: numbers.get(name, 0) for name in ORDERS}
    return OrdersRow(**_time(start), **found, conversion=_part(found["confirmed"], found["opened"]))


def funnel(_span: Span, bags: Sequence[Bag], _shelves: Sequence[Shelf] = ()) -> list[FunnelRow]:
    """The stages in their order, bucket by bucket."""
    found = []
    for start, counts in bags:
        numbers = counts.get("orders", {})
        opened = numbers.get("opened", 0)
        for stage in FUNNEL:
            number = numbers.get(stage, 0)
            found.append(FunnelRow(**_time(start), stage=stage, orders=number, part=_part(number, opened)))
    return found


def cancellations(_span: Span, bags: Sequence[Bag], _shelves: Sequence[Shelf] = ()) -> list[CancellationsRow]:
    """The reasons that there were."""
    return [
        CancellationsRow(**_time(start), reason=reason, orders=number)
        for start, counts in bags
        for reason in REASONS
        if (number := counts.get("cancelled", {}).get(reason, 0))
    ]


def revenue(_span: Span, bags: Sequence[Bag], _shelves: Sequence[Shelf] = ()) -> list[RevenueRow]:
    """The currencies that there were."""
    found = []
    for start, counts in bags:
        came, back = counts.get("revenue", {}), counts.get("returned revenue", {})
        for currency in sorted(came.keys() | back.keys()):
            got, lost = came.get(currency, 0), back.get(currency, 0)
            found.append(
                RevenueRow(
                    **_time(start),
                    currency=currency,
                    revenue_cents=got,
                    returned_cents=lost,
                    net_cents=got - lost,
                    net=(got - lost) / 100,
                )
            )
    return found


def products(span: Span, bags: Sequence[Bag], shelves: Sequence[Shelf] = ()) -> list[ProductsRow]:
    """What was sold or came back, by product and currency; most sold first."""
    known = {shelf.product_id: shelf for shelf in shelves}
    on_hand = {shelf.product_id: shelf.on_hand for shelf in shelves} if span.size == "total" else {}
    return [
        ProductsRow(
            product_id=name,
            product_name=known[name].name if name in known else "",
            artisan_id=known[name].artisan_id if name in known else "",
            **row,
        )
        for name, row in _sales(bags, "", on_hand)
    ]


def artisans(span: Span, bags: Sequence[Bag], shelves: Sequence[Shelf] = ()) -> list[ArtisansRow]:
    """The same by artisan."""
    on_hand: defaultdict[str, int] = defaultdict(int)
    for shelf in shelves if span.size == "total" else ():
        on_hand[shelf.artisan_id] += shelf.on_hand
    return [ArtisansRow(artisan_id=name, **row) for name, row in _sales(bags, "artisan ", on_hand)]


def _sales(bags: Sequence[Bag], whose: str, on_hand: Mapping[str, int]) -> Iterable[tuple[str, dict[str, Any]]]:
    for start, counts in bags:
        units, back, sales, lost = (
            counts.get(f"{way}{whose}{what}", {}) for what in ("units", "sales") for way in ("", "returned ")
        )
        sold: defaultdict[str, int] = defaultdict(int)
        for name in units.keys() | back.keys():
            sold[name.partition(" ")[2]] += units.get(name, 0) - back.get(name, 0)
        for name in sorted(units.keys() | back.keys(), key=lambda name: (-units.get(name, 0), name)):
            currency, _, key = name.partition(" ")
            here = on_hand.get(key)
            yield (
                key,
                {
                    **_time(start),
                    "currency": currency,
                    "units": units.get(name, 0),
                    "returned_units": back.get(name, 0),
                    "net_units": units.get(name, 0) - back.get(name, 0),
                    "sales_cents": sales.get(name, 0),
                    "returned_cents": lost.get(name, 0),
                    "net_cents": sales.get(name, 0) - lost.get(name, 0),
                    "on_hand": here,
                    "sell_through": None if here is None else _part(sold[key], sold[key] + here),
                },
            )


def steps(_span: Span, bags: Sequence[Bag], _shelves: Sequence[Shelf] = ()) -> list[StepsRow]:
    """The steps that there were, in their order."""
    found = []
    for start, counts in bags:
        places: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for name, number in counts.get("steps", {}).items():
            step, _, place = name.partition(" ")
            places[step][int(place)] = number
        found += [
            StepsRow(
                **_time(start),
                step=step,
                orders=sum(places[step].values()),
                p50=_rounded(quantile(places[step], 0.5)),
                p95=_rounded(quantile(places[step], 0.95)),
            )
            for step in STEPS
            if step in places
        ]
    return found


class Series(NamedTuple):
    """A series: the measures that it needs, the rows that it makes of them, and whether it needs the shelves."""

    measures: frozenset[str]
    row: type[Row]
    rows: Callable[[Span, Sequence[Bag], Sequence[Shelf]], Sequence[Row]]
    shelves: bool = False


def _four(whose: str) -> frozenset[str]:
    return frozenset(f"{way}{whose}{what}" for what in ("units", "sales") for way in ("", "returned "))


SERIES = {
    "orders": Series(frozenset(["orders"]), OrdersRow, orders),
    "funnel": Series(frozenset(["orders"]), FunnelRow, funnel),
    "cancellations": Series(frozenset(["cancelled"]), CancellationsRow, cancellations),
    "revenue": Series(frozenset(["revenue", "returned revenue"]), RevenueRow, revenue),
    "products": Series(_four(""), ProductsRow, products, shelves=True),
    "artisans": Series(_four("artisan "), ArtisansRow, artisans, shelves=True),
    "steps": Series(frozenset(["steps"]), StepsRow, steps),
}


def total(start: float, bags: Iterable[Bag]) -> list[Bag]:
    """All of them as one."""
    counts: Counts = {}
    for _, more in bags:
        add(counts, more)
    return [(start, counts)]


def _time(start: float) -> dict[str, Any]:
    return {"time": iso(start), "time_ms": round(start * 1000)}


def _part(number: int, of: int) -> float | None:
    return round(number / of, 4) if of > 0 else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")
