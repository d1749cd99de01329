"""The check of a whole cart: whether every product of it can be sold now, wherever its stock is. Decides nothing."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.domain.causes import iso
from app.domain.events import MAX_ID
from app.engine.errors import PartitionElsewhere
from app.web.answers import Answer, json_answer, says
from app.web.bodies import json_body_of, whole
from app.web.elsewhere import Elsewhere
from app.web.freshness import fields
from app.web.problems import Fault, NotReadyError, ProblemError
from app.web.views import Views

MAX_UNITS = 1_000_000_000
MOST = 200
"""Lines of a cart."""

PATH = "/api/inventory/check"


class CartLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """So many of a product; lines of the same product are added up."""

    product_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=MAX_UNITS)]


class Cart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be bought."""

    items: Annotated[list[CartLine], msgspec.Meta(min_length=1, max_length=MOST)]


class CartProduct(Answer, frozen=True, kw_only=True):
    """One product of the cart. known: any stock of it was ever told of; one that is not has 0 available."""

    product_id: str
    quantity: int
    available: int
    sufficient: bool
    known: bool


class CartCheck(Answer, frozen=True, kw_only=True):
    """Whether all of the cart can be sold now; that is no promise: an order reserves."""

    sufficient: bool
    items: list[CartProduct]
    as_of: str
    lag: int
    stale: bool


ANSWERS = (Cart, CartLine, CartCheck)

_BODY = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Cart"}}}}


def cart_routes(views: Views, elsewhere: Elsewhere) -> APIRouter:
    """POST /api/inventory/check."""
    router = APIRouter(tags=["inventory"], default_response_class=Response)

    async def available(request: Request, product_id: str, quantity: int) -> CartProduct:
        try:
            stock = views.inventory.get(product_id)
        except PartitionElsewhere as error:
            found = await elsewhere.get(request, error, f"{PATH}/{product_id}")
            units = None if found is None else int(found["available"])
        else:
            units = None if stock is None else stock.available
        return CartProduct(
            product_id=product_id,
            quantity=quantity,
            available=units or 0,
            sufficient=(units or 0) >= quantity,
            known=units is not None,
        )

    @router.post(PATH, responses=says(CartCheck, 413, 415, 422, 503), openapi_extra={"requestBody": _BODY})
    async def check_cart(request: Request) -> Response:
        """Ask whether all products of a cart can be sold now."""
        wanted = _summed(_cart(await json_body_of(request)).items)
        items = [await available(request, product_id, quantity) for product_id, quantity in wanted.items()]
        ready, reasons = views.ready()
        if not ready and not all(item.known for item in items):
            raise NotReadyError(reasons)
        return json_answer(
            CartCheck(
                sufficient=all(item.sufficient for item in items),
                items=items,
                as_of=iso(views.clock()),
                **fields(views.freshness(views.inventory.name)),
            )
        )

    return router


def _cart(body: bytes) -> Cart:
    try:
        return msgspec.convert(whole(msgspec.json.decode(body)), Cart)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("invalid-cart", "Nothing was checked.", [Fault(cause=str(error))]) from None


def _summed(lines: Sequence[CartLine]) -> dict[str, int]:
    wanted: dict[str, Any] = {}
    for line in lines:
        wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
    return wanted
