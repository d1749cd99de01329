"""Stock over HTTP: the order service's check, the products, and the import. Decides nothing about stock."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.domain.causes import iso
from app.domain.events import MAX_ID
from app.domain.rows import Stock
from app.web.answers import Answer, iso_or_none, json_answer, says
from app.web.bodies import json_body_of
from app.web.elsewhere import Elsewhere
from app.web.pages import LONGEST_CURSOR, PageAnswer, cursor_of, key_of, merged, page
from app.web.problems import Fault, NotReadyError, ProblemError
from app.web.stock_lines import StockLine, check_lines
from app.web.views import Views

MAX_UNITS = 1_000_000_000


class InventoryCheck(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """How many units can be sold now; with ?quantity=, whether that is enough."""

    product_id: str
    available: int
    quantity: int | msgspec.UnsetType = msgspec.UNSET
    sufficient: bool | msgspec.UnsetType = msgspec.UNSET
    as_of: str


class Product(Answer, frozen=True, kw_only=True):
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


class ProductWithHolds(Product, frozen=True, kw_only=True):
    """One product's stock with its reservations."""

    last_restocked: str | None
    holds: list[HoldOf]


class ProductPage(PageAnswer, frozen=True, kw_only=True):
    """Products in the order of their ids."""

    items: list[Product]


class Imported(Answer, frozen=True, kw_only=True):
    """How many products were imported: all of the list."""

    imported: int
    as_of: str


ANSWERS = (InventoryCheck, ProductWithHolds, ProductPage, Imported, StockLine)


def inventory_routes(views: Views, elsewhere: Elsewhere) -> APIRouter:
    """The endpoints under /api/inventory and /api/stock."""
    router = APIRouter(tags=["inventory"], default_response_class=Response)

    def stock_of(product_id: str) -> Stock:
        stock = views.inventory.get(product_id)
        if stock is None:
            ready, reasons = views.ready()
            if not ready:
                raise NotReadyError(reasons)
            raise ProblemError("unknown-product", f"There is no product {product_id}.")
        return stock

    @router.get("/api/inventory/check/{productId}", responses=says(InventoryCheck, 404, 503))
    async def check_inventory(
        product_id: Annotated[str, Path(alias="productId", max_length=MAX_ID)],
        quantity: Annotated[int | None, Query(ge=1, le=MAX_UNITS)] = None,
    ) -> Response:
        """Ask how many units of a product can be sold now."""
        stock = stock_of(product_id)
        available = stock.available
        answer = InventoryCheck(
            product_id=product_id,
            available=available,
            quantity=msgspec.UNSET if quantity is None else quantity,
            sufficient=msgspec.UNSET if quantity is None else available >= quantity,
            as_of=iso(stock.updated_at),
        )
        return json_answer(answer)

    @router.get("/api/inventory", responses=says(ProductPage, 400, 503))
    async def list_products(
        request: Request,
        low: bool | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
    ) -> Response:
        """List products, all of them or by low=true|false."""
        after, table = key_of(cursor), views.inventory

        async def local(partitions: set[int]) -> ProductPage:
            here = partitions & table.here()
            found = await page(
                table, here, after=after, limit=limit, wanted=lambda stock: low is None or stock.low == low
            )
            return ProductPage(
                items=[Product(**_product(stock)) for stock in found.rows],
                next_cursor=cursor_of(found.last),
                partial=here != partitions,
                missing_partitions=sorted(partitions - here),
                as_of=iso(views.clock()),
            )

        pages, missing = await elsewhere.pages(request, table, ProductPage, local)
        return json_answer(merged(pages, missing, limit, lambda product: str(product.product_id)))

    @router.get("/api/inventory/{productId}", responses=says(ProductWithHolds, 404, 503))
    async def get_product(product_id: Annotated[str, Path(alias="productId", max_length=MAX_ID)]) -> Response:
        """Show one product with what is reserved of it."""
        stock = stock_of(product_id)
        holds = [
            HoldOf(order_id=order_id, quantity=hold.quantity, expires_at=iso(hold.expires_at))
            for order_id, hold in stock.holds.items()
        ]
        answer = ProductWithHolds(**_product(stock), last_restocked=iso_or_none(stock.last_restocked), holds=holds)
        return json_answer(answer)

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
        items = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("invalid-stock", "The body can't be read as JSON.", [Fault(cause=str(error))]) from None
    if not isinstance(items, list):
        raise ProblemError("invalid-stock", "The body must be a list of products.")
    return items
