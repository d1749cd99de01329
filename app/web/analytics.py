"""What is counted of orders, over HTTP: flat rows for Grafana and pandas, and a dashboard. Counts are the domain's.

Each worker adds up the buckets of its partitions; whoever is asked adds those up and makes rows of them.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.domain.analytics import SIZES, add, first_key, start_of
from app.domain.causes import iso
from app.domain.messages import Counts
from app.domain.series import (
    SERIES,
    ArtisansRow,
    Bag,
    CancellationsRow,
    FunnelRow,
    OrdersRow,
    ProductsRow,
    RevenueRow,
    Shelf,
    Span,
    StepsRow,
    total,
)
from app.web.answers import Answer, json_answer, says
from app.web.elsewhere import Elsewhere
from app.web.flat import RESPONSES, Form, flat
from app.web.freshness import fields
from app.web.pages import BREATH, PageAnswer, page_answer
from app.web.problems import Fault, ProblemError
from app.web.query import given
from app.web.views import Views

PATH = "/api/analytics"
MOST_BUCKETS = 3_000
TOP = 10

USUAL = {"minute": 3600.0, "hour": 48 * 3600.0, "day": 30 * 86400.0, "total": 86400.0}
"""Seconds that are shown when only their end is known."""


class BucketSize(StrEnum):
    """Minutes are kept for 48 hours, hours for 90 days, days for ever. TOTAL: one row of the whole time."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    TOTAL = "total"


class BucketRow(Answer, frozen=True, kw_only=True):
    """A bucket as it is kept: counts by measure and name."""

    time: str
    time_ms: int
    counts: dict[str, dict[str, int]]


class BucketPage(PageAnswer, frozen=True, kw_only=True):
    """Buckets in the order of their time."""

    items: list[BucketRow]


class StockPage(PageAnswer, frozen=True, kw_only=True):
    """Every product, as it is now."""

    items: list[Shelf]


class SeriesPage(PageAnswer, frozen=True, kw_only=True):
    """Rows in the order of their time; from and to are the bounds of the buckets that are shown."""

    bucket: BucketSize
    from_: str = msgspec.field(name="from")
    to: str


class OrdersSeries(SeriesPage, frozen=True, kw_only=True):
    """How far orders came, with a row for every bucket."""

    items: list[OrdersRow]


class FunnelSeries(SeriesPage, frozen=True, kw_only=True):
    """The way from an opened order to a confirmed one."""

    items: list[FunnelRow]


class CancellationsSeries(SeriesPage, frozen=True, kw_only=True):
    """Why orders were given up."""

    items: list[CancellationsRow]


class RevenueSeries(SeriesPage, frozen=True, kw_only=True):
    """Revenue by currency."""

    items: list[RevenueRow]


class ProductsSeries(SeriesPage, frozen=True, kw_only=True):
    """Sales by product."""

    items: list[ProductsRow]


class ArtisansSeries(SeriesPage, frozen=True, kw_only=True):
    """Sales by artisan."""

    items: list[ArtisansRow]


class StepsSeries(SeriesPage, frozen=True, kw_only=True):
    """How long steps took."""

    items: list[StepsRow]


class AnalyticsDashboard(Answer, frozen=True, kw_only=True):
    """The marketplace at a glance: the whole time in one row each, and orders over time."""

    bucket: BucketSize
    from_: str = msgspec.field(name="from")
    to: str
    orders: OrdersRow
    funnel: list[FunnelRow]
    cancellations: list[CancellationsRow]
    revenue: list[RevenueRow]
    steps: list[StepsRow]
    top_products: list[ProductsRow]
    top_artisans: list[ArtisansRow]
    low_products: list[Shelf]
    over_time: list[OrdersRow]
    partial: bool
    missing_partitions: list[int]
    as_of: str
    lag: int
    stale: bool


PAGES: dict[str, type[SeriesPage]] = {
    "orders": OrdersSeries,
    "funnel": FunnelSeries,
    "cancellations": CancellationsSeries,
    "revenue": RevenueSeries,
    "products": ProductsSeries,
    "artisans": ArtisansSeries,
    "steps": StepsSeries,
}
ANSWERS: tuple[type[msgspec.Struct], ...] = (*PAGES.values(), AnalyticsDashboard, BucketPage, StockPage)


class Asked:
    """?from=&to=&bucket=: times in ISO 8601 (UTC where it names no zone) or milliseconds since the epoch."""

    def __init__(
        self,
        from_: Annotated[str | None, Query(alias="from", max_length=40)] = None,
        to: Annotated[str | None, Query(max_length=40)] = None,
        bucket: BucketSize = BucketSize.HOUR,
    ) -> None:
        self.bucket = bucket
        self._from = None if from_ is None else _moment("from", from_)
        self._to = None if to is None else _moment("to", to)

    def span(self, now: float) -> Span:
        """Whole buckets that hold the time asked for. A total is added up of the smallest that are kept so long.

        Raises:
            ProblemError: it ends before it begins, or has too many buckets.
        """
        end = now if self._to is None else self._to
        start = end - USUAL[self.bucket] if self._from is None else self._from
        if start >= end:
            raise _wrong("from", "must be before `to`")
        size = self.bucket.value if self.bucket is not BucketSize.TOTAL else _size_for(start, end, now)
        seconds = SIZES[size].seconds
        start, end = start // seconds * seconds, -(-end // seconds) * seconds
        if (end - start) / seconds > MOST_BUCKETS:
            raise _wrong("from", f"and to have more than {MOST_BUCKETS} {size}s between them: take a larger bucket")
        return Span(size, start, end)


def _moment(name: str, given: str) -> float:
    try:
        if given.isdecimal():
            return datetime.fromtimestamp(int(given) / 1000, UTC).timestamp()
        at = datetime.fromisoformat(given.replace(" ", "+"))  # a + that was not escaped
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise _wrong(name, "must be ISO 8601 or milliseconds since the epoch") from None


def _wrong(name: str, cause: str) -> ProblemError:
    return ProblemError("invalid-time", f"{name} {cause}.", [Fault(parameter=name, cause=cause)])


def _size_for(start: float, end: float, now: float) -> str:
    for size, most in (("minute", 6 * 3600.0), ("hour", 60 * 86400.0)):
        if end - start <= most and start > now - (SIZES[size].kept or 0):
            return size
    return "day"


class Counted:
    """The buckets and shelves of all workers."""

    def __init__(self, views: Views, elsewhere: Elsewhere) -> None:
        self.views = views
        self._elsewhere = elsewhere

    async def buckets(self, request: Request, span: Span, measures: Collection[str]) -> BucketPage:
        """Every bucket of the span in which something was counted, with these measures (none: all)."""
        table = self.views.analytics

        async def local(partitions: set[int]) -> BucketPage:
            here = partitions & table.here()
            found: dict[float, Counts] = {}
            last = first_key(span.size, span.end)
            for seen, (key, bucket) in enumerate(table.items(first_key(span.size, span.start), here)):
                if key >= last:
                    break
                if seen % BREATH == BREATH - 1:
                    await asyncio.sleep(0)
                wanted = {m: names for m, names in bucket.counts.items() if not measures or m in measures}
                add(found.setdefault(start_of(key), {}), wanted)
            return _bucket_page(found, self._whole(table.name, partitions - here))

        listed = f"{PATH}/buckets?bucket={span.size}&from={span.start * 1000:.0f}&to={span.end * 1000:.0f}" + "".join(
            f"&measure={measure.replace(' ', '%20')}" for measure in sorted(measures)
        )
        pages, missing = await self._elsewhere.pages(request, table, BucketPage, local, listed)
        found: dict[float, Counts] = {}
        for page in pages:
            for row in page.items:
                add(found.setdefault(row.time_ms / 1000, {}), row.counts)
        return _bucket_page(found, _together(pages, missing))

    async def shelves(self, request: Request) -> StockPage:
        """Every product."""
        table = self.views.inventory

        async def local(partitions: set[int]) -> StockPage:
            here = partitions & table.here()
            found = []
            for seen, (product, stock) in enumerate(table.items(None, here)):
                if seen % BREATH == BREATH - 1:
                    await asyncio.sleep(0)
                found.append(
                    Shelf(
                        product_id=product,
                        name=stock.name,
                        category=stock.category,
                        artisan_id=stock.artisan_id,
                        on_hand=stock.on_hand,
                        reserved=stock.reserved,
                        available=stock.available,
                        threshold=stock.threshold,
                        low=stock.low,
                    )
                )
            return StockPage(items=found, next_cursor=None, **self._whole(table.name, partitions - here))

        pages, missing = await self._elsewhere.pages(request, table, StockPage, local, f"{PATH}/stock")
        items = sorted((item for page in pages for item in page.items), key=lambda shelf: shelf.product_id)
        return StockPage(items=items, next_cursor=None, **_together(pages, missing))

    def _whole(self, table: str, missing: Collection[int]) -> dict[str, Any]:
        """What this worker says of its part of an answer."""
        return {
            "partial": bool(missing),
            "missing_partitions": sorted(missing),
            "as_of": iso(self.views.clock()),
            **fields(self.views.freshness(table)),
        }

    async def series(self, request: Request, name: str, asked: Asked) -> SeriesPage:
        """The rows of a series."""
        series, span = SERIES[name], asked.span(self.views.clock())
        found = await self.buckets(request, span, series.measures)
        pages, bags, stock = list[PageAnswer]([found]), bags_of(found), list[Shelf]()
        if series.shelves:
            shelves = await self.shelves(request)
            pages, stock = [*pages, shelves], shelves.items
        if asked.bucket is BucketSize.TOTAL:
            span, bags = span._replace(size="total"), total(span.start, bags)
        return PAGES[name](
            items=list(series.rows(span, bags, stock)),
            next_cursor=None,
            bucket=asked.bucket,
            from_=iso(span.start),
            to=iso(span.end),
            **_together(pages),
        )


def bags_of(page: BucketPage) -> list[Bag]:
    """As the rules take them."""
    return [(row.time_ms / 1000, row.counts) for row in page.items]


def _bucket_page(found: dict[float, Counts], whole: dict[str, Any]) -> BucketPage:
    rows = [BucketRow(time=iso(at), time_ms=round(at * 1000), counts=found[at]) for at in sorted(found)]
    return BucketPage(items=rows, next_cursor=None, **whole)


def _together(pages: Sequence[PageAnswer], missing: Collection[int] | None = None) -> dict[str, Any]:
    """What is said of an answer that is made of these; `missing`: what is left of what they miss."""
    if missing is None:
        missing = {partition for page in pages for partition in page.missing_partitions}
    return {
        "partial": bool(missing),
        "missing_partitions": sorted(missing),
        "as_of": min(page.as_of for page in pages),
        "lag": sum(page.lag for page in pages),
        "stale": any(page.stale for page in pages),
    }


def analytics_routes(views: Views, elsewhere: Elsewhere) -> APIRouter:
    """The endpoints under /api/analytics."""
    router = APIRouter(tags=["analytics"], default_response_class=Response)
    counted = Counted(views, elsewhere)

    @router.get(f"{PATH}/dashboard", responses=says(AnalyticsDashboard, 400, 422, 503))
    async def show_dashboard(request: Request, asked: Annotated[Asked, Depends(given(Asked))]) -> Response:
        """Show what was counted from `from` to `to` altogether, and the orders by `bucket`."""
        return json_answer(await _dashboard(request, counted, asked))

    @router.get(f"{PATH}/buckets", responses=says(BucketPage, 400, 422, 503))
    async def list_buckets(
        request: Request,
        asked: Annotated[Asked, Depends(given(Asked))],
        measure: Annotated[list[str] | None, Query(max_length=20)] = None,
    ) -> Response:
        """List the buckets as they are kept, all partitions added up."""
        return json_answer(await counted.buckets(request, asked.span(views.clock()), measure or ()))

    @router.get(f"{PATH}/stock", responses=says(StockPage, 503))
    async def list_stock(request: Request) -> Response:
        """List every product as it is now, in one page."""
        return json_answer(await counted.shelves(request))

    for name, page in PAGES.items():
        _series_routes(router, counted, name, page)
    return router


def _series_routes(router: APIRouter, counted: Counted, name: str, page: type[SeriesPage]) -> None:
    about = (page.__doc__ or "").partition("\n")[0]

    async def list_rows(request: Request, asked: Annotated[Asked, Depends(given(Asked))]) -> Response:
        return page_answer(request, await counted.series(request, name, asked))

    async def flat_rows(request: Request, form: Form, asked: Annotated[Asked, Depends(given(Asked))]) -> Response:
        async def fetch(_cursor: str | None, _listed: str) -> SeriesPage:
            return await counted.series(request, name, asked)

        return await flat(request, f"{PATH}/{name}", form, SERIES[name].row, fetch)

    router.add_api_route(
        f"{PATH}/{name}", list_rows, responses=says(page, 400, 422, 503), description=about, name=f"list_{name}"
    )
    router.add_api_route(
        f"{PATH}/{name}.{{form}}", flat_rows, responses=RESPONSES, description=about, name=f"flat_{name}"
    )


async def _dashboard(request: Request, counted: Counted, asked: Asked) -> AnalyticsDashboard:
    span = asked.span(counted.views.clock())
    found, stock = await counted.buckets(request, span, ()), await counted.shelves(request)
    bags = bags_of(found)
    whole, all_of_it = total(span.start, bags), span._replace(size="total")
    rows: dict[str, Any] = {name: series.rows(all_of_it, whole, stock.items) for name, series in SERIES.items()}
    return AnalyticsDashboard(
        bucket=BucketSize(span.size),
        from_=iso(span.start),
        to=iso(span.end),
        orders=rows["orders"][0],
        funnel=rows["funnel"],
        cancellations=rows["cancellations"],
        revenue=rows["revenue"],
        steps=rows["steps"],
        top_products=rows["products"][:TOP],
        top_artisans=rows["artisans"][:TOP],
        low_products=[shelf for shelf in stock.items if shelf.low][:TOP],
        over_time=[row for row in SERIES["orders"].rows(span, bags, ()) if isinstance(row, OrdersRow)],
        **_together([found, stock]),
    )
