"""Stock over HTTP: the order service's check, the products, and the import. Decides nothing about stock."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from app.domain.causes import iso
from app.domain.events import MAX_ID
from app.domain.rows import Stock
from app.web.answers import Answer, iso_or_none, json_answer, says
from app.web.bodies import json_body_of, whole
from app.web.cart import MAX_UNITS
from app.web.elsewhere import Elsewhere
from app.web.flat import RESPONSES, ROWS, Form, flat
from app.web.freshness import Freshness, Wait, fields, tag, unchanged
from app.web.pages import LONGEST_CURSOR, PageAnswer, cursor_of, key_of, merged, page, page_answer
from app.web.problems import Fault, NotReadyError, ProblemError
from app.web.query import Word, given
from app.web.stock_lines import StockLine, check_lines
from app.web.views import Views


class InventoryCheck(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """How many units can be sold now; with ?quantity=, whether that is enough."""

    product_id: str
    available: int
    quantity: int | msgspec.UnsetType = msgspec.UNSET
    sufficient: bool | msgspec.UnsetType = msgspec.UNSET
    as_of: str
    lag: int
    stale: bool


class ProductSummary(Answer, frozen=True, kw_only=True):
    """One product's stock. available = onHand - reserved; low: at or below the threshold."""

    product_id: str
    name: str
    category: str
    artisan_id: str
    on_hand: int
    reserved: int
    available: int
    threshold: int
    low: bool
    as_of: str


class HoldOf(Answer, frozen=True, kw_only=True):
    """What an order holds of a product, and until when."""

    order_id: str
    quantity: int
    expires_at: str


class ProductWithHolds(ProductSummary, frozen=True, kw_only=True):
    """One product's stock with its reservations."""

    last_restocked: str | None
    holds: list[HoldOf]
    lag: int
    stale: bool


class ProductPage(PageAnswer, frozen=True, kw_only=True):
    """Products in the order of their ids."""

    items: list[ProductSummary]


class Imported(Answer, frozen=True, kw_only=True):
    """How many products were imported: all of the list."""

    imported: int
    as_of: str


ProductId = Annotated[str, Path(alias="productId", max_length=MAX_ID)]

PATH = "/api/inventory"
CHECK = f"{PATH}/check"

ANSWERS = (InventoryCheck, ProductWithHolds, ProductPage, Imported, StockLine)


class StockFilter:
    """A query's filter; what is given must all be true. `text` is looked for in id, name and category."""

    def __init__(
        self,
        low: bool | None = None,
        category: Word = None,
        artisan: Word = None,
        text: Word = None,
    ) -> None:
        self._low = low
        self._category = category
        self._artisan = artisan
        self._text = text.casefold() if text else None

    def most(self, sums: Mapping[str, int]) -> int | None:
        """How many products can be wanted, by the table's sums; None: that is not known."""
        return sums.get("low", 0) if self._low else None

    def wants(self, stock: Stock) -> bool:
        """Whether the product is wanted."""
        return (
            self._low in (None, stock.low)
            and self._category in (None, stock.category)
            and self._artisan in (None, stock.artisan_id)
            and (self._text is None or self._text in f"{stock.product_id}\n{stock.name}\n{stock.category}".casefold())
        )


class ListedProducts:
    """The products as they are listed."""

    def __init__(self, views: Views, elsewhere: Elsewhere) -> None:
        self._views = views
        self._elsewhere = elsewhere

    async def page(
        self, request: Request, wanted: StockFilter, limit: int, cursor: str | None, listed: str = ""
    ) -> ProductPage:
        """A page of all workers' products. `listed` is its URL, where the request is for something else."""
        after, table, views = key_of(cursor), self._views.inventory, self._views

        async def local(partitions: set[int]) -> ProductPage:
            here = partitions & table.here()
            most = (
                wanted.most(table.sums(here)) if after is None else None
            )  # later, it is not known how many were before
            found = await page(table, here, after=after, limit=limit, wanted=wanted.wants, most=most)
            return ProductPage(
                items=[product_summary(stock) for stock in found.rows],
                next_cursor=cursor_of(found.last),
                partial=here != partitions,
                missing_partitions=sorted(partitions - here),
                as_of=iso(views.clock()),
                **fields(views.freshness(table.name)),
            )

        pages, missing = await self._elsewhere.pages(request, table, ProductPage, local, listed)
        return merged(pages, missing, limit, lambda product: str(product.product_id))


def inventory_routes(views: Views, elsewhere: Elsewhere) -> APIRouter:
    """The endpoints under /api/inventory and /api/stock."""
    router = APIRouter(tags=["inventory"], default_response_class=Response)
    products = ListedProducts(views, elsewhere)

    async def stock_of(product_id: str, wait: Wait) -> Stock:
        stock = await wait.until(lambda: views.inventory.get(product_id), _has)
        if stock is None:
            ready, reasons = views.ready()
            if not ready:
                raise NotReadyError(reasons)
            raise ProblemError("unknown-product", f"There is no product {product_id}.")
        return stock

    @router.get(CHECK + "/{productId}", responses=says(InventoryCheck, 404, 422, 503))
    async def check_inventory(
        product_id: ProductId,
        wait: Annotated[Wait, Depends(given(Wait))],
        quantity: Annotated[int | None, Query(ge=1, le=MAX_UNITS)] = None,
    ) -> Response:
        """Ask how many units of a product can be sold now."""
        stock = await stock_of(product_id, wait)
        return check_answer(stock, views.freshness(views.inventory.name), quantity)

    @router.get(PATH, responses=says(ProductPage, 400, 422, 503))
    async def list_products(
        request: Request,
        wanted: Annotated[StockFilter, Depends(given(StockFilter))],
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
    ) -> Response:
        """List products with their stock, all of them or those of a filter."""
        return page_answer(request, await products.page(request, wanted, limit, cursor))

    @router.get(PATH + ".{form}", responses=RESPONSES)
    async def flat_products(
        request: Request, form: Form, wanted: Annotated[StockFilter, Depends(given(StockFilter))]
    ) -> Response:
        """Give every product of a filter as CSV or NDJSON."""

        async def fetch(cursor: str | None, listed: str) -> ProductPage:
            return await products.page(request, wanted, ROWS, cursor, listed)

        return await flat(request, PATH, form, ProductSummary, fetch)

    @router.get(PATH + "/{productId}", responses=says(ProductWithHolds, 404, 422, 503))
    async def get_product(
        request: Request, product_id: ProductId, wait: Annotated[Wait, Depends(given(Wait))]
    ) -> Response:
        """Show one product with what is reserved of it."""
        stock = await stock_of(product_id, wait)
        holds = [
            HoldOf(order_id=order_id, quantity=hold.quantity, expires_at=iso(hold.expires_at))
            for order_id, hold in stock.holds.items()
        ]
        etag = tag(stock)
        answer = ProductWithHolds(
            **_product(stock),
            last_restocked=iso_or_none(stock.last_restocked),
            holds=holds,
            **fields(views.freshness(views.inventory.name)),
        )
        return unchanged(request, etag) or json_answer(answer, headers={"etag": etag})

    @router.post(
        "/api/stock/import", responses=says(Imported, 413, 415, 422, 503), openapi_extra={"requestBody": _IMPORT_BODY}
    )
    async def import_stock(request: Request) -> Response:
        """Set products to what the list says: all of them, or none when a line is wrong."""
        lines, bad = check_lines(_listed(await json_body_of(request)))
        if bad:
            faults = [Fault(line=found.line, cause=found.cause) for found in bad]
            raise ProblemError("invalid-stock", f"{len(bad)} wrong; nothing was imported.", faults)
        imported = await views.import_stock(lines)
        return json_answer(Imported(imported=imported, as_of=iso(views.clock())))

    return router


_IMPORT_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/StockLine"}}}},
}


def check_answer(stock: Stock, freshness: Freshness, quantity: int | None = None) -> Response:
    """How many units there are, and whether so many."""
    available = stock.available
    answer = InventoryCheck(
        product_id=stock.product_id,
        available=available,
        quantity=msgspec.UNSET if quantity is None else quantity,
        sufficient=msgspec.UNSET if quantity is None else available >= quantity,
        as_of=iso(stock.updated_at),
        **fields(freshness),
    )
    return json_answer(answer)


def product_summary(stock: Stock) -> ProductSummary:
    """The product as lists have it."""
    return ProductSummary(**_product(stock))


def _has(stock: Stock, event: str) -> bool:
    """Whether an event has come to the product; or an order, whose reservation has."""
    return event in stock.seen or event in stock.holds or event in stock.ended


def _product(stock: Stock) -> dict[str, Any]:
    reserved = stock.reserved
    return {
        "product_id": stock.product_id,
        "name": stock.name,
        "category": stock.category,
        "artisan_id": stock.artisan_id,
        "on_hand": stock.on_hand,
        "reserved": reserved,
        "available": stock.on_hand - reserved,
        "threshold": stock.threshold,
        "low": stock.low,
        "as_of": iso(stock.updated_at),
    }


def _listed(body: bytes) -> list[Any]:
    try:
        items = whole(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("invalid-stock", "The body can't be read as JSON.", [Fault(cause=str(error))]) from None
    if not isinstance(items, list):
        raise ProblemError("invalid-stock", "The body must be a list of products.")
    return items
