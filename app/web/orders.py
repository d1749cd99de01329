"""Orders over HTTP: where each saga stands and how it came there. Decides nothing about orders."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from app.domain.causes import iso
from app.domain.events import MAX_ID
from app.domain.messages import Money
from app.domain.rows import OrderSaga, SagaState
from app.domain.traces import of_order, trace_id
from app.web.answers import Answer, iso_or_none, json_answer, says
from app.web.elsewhere import Elsewhere
from app.web.flat import RESPONSES, ROWS, Form, flat
from app.web.freshness import Freshness, Wait, fields, tag, unchanged
from app.web.order_filter import OrderFilter
from app.web.pages import LONGEST_CURSOR, PageAnswer, cursor_of, key_of, merged, page, page_answer
from app.web.problems import NotReadyError, ProblemError
from app.web.query import given
from app.web.views import Views


class OrderSummary(Answer, frozen=True, kw_only=True):
    """One order in a list. deadline: the next moment the saga acts by itself; attention: why a person should look."""

    order_id: str
    state: SagaState
    customer_id: str
    total: Money
    currency: str
    units: int
    created_at: str
    updated_at: str
    deadline: str | None
    cancel_reason: str | None
    attention: str | None


class OrderLine(Answer, frozen=True, kw_only=True):
    """One line of the order, as it came."""

    product_id: str
    product_name: str | None
    artisan_id: str | None
    quantity: int
    unit_price: Money


class OrderProduct(Answer, frozen=True, kw_only=True):
    """What stock said of one product of the order, lines summed. status: asked, held, refused, released, committed."""

    product_id: str
    quantity: int
    status: str
    remaining: int | None


class OrderPayment(Answer, frozen=True, kw_only=True):
    """One payment that succeeded."""

    payment_id: str
    amount: Money
    refund_requested: bool


class TimelineStep(Answer, frozen=True, kw_only=True):
    """One thing that happened. direction: in (arrived) or out (sent)."""

    at: str
    what: str
    direction: str
    detail: str
    event_id: str


class Order(OrderSummary, frozen=True, kw_only=True):
    """One order with its lines, reservations, payments and timeline; traceId is that of its order.created."""

    dialect: str
    customer_email: str | None
    correlation_id: str | None
    trace_id: str
    lines: list[OrderLine]
    products: list[OrderProduct]
    reserved_until: str | None
    payment_attempts: int
    payment_reference: str | None
    payments: list[OrderPayment]
    cancelled_by: str | None
    mail_attempts: int
    parked_facts: int
    timeline: list[TimelineStep]
    as_of: str
    lag: int
    stale: bool


class OrderPage(PageAnswer, frozen=True, kw_only=True):
    """Orders in the order of their ids, and how many stand in each state, in all pages together."""

    items: list[OrderSummary]
    states: dict[str, int]


ANSWERS = (Order, OrderPage)

PATH = "/api/orders"


class ListedOrders:
    """The orders as they are listed."""

    def __init__(self, views: Views, elsewhere: Elsewhere) -> None:
        self._views = views
        self._elsewhere = elsewhere

    async def page(
        self, request: Request, wanted: OrderFilter, limit: int, cursor: str | None, listed: str = ""
    ) -> OrderPage:
        """A page of all workers' orders. `listed` is its URL, where the request is for something else."""
        after, table, views = key_of(cursor), self._views.order_sagas, self._views

        async def local(partitions: set[int]) -> OrderPage:
            here = partitions & table.here()
            now = views.clock()
            # Behind a cursor, it is not known how many were before.
            most = wanted.most(table.sums(here)) if after is None else None
            found = await page(
                table, here, after=after, limit=limit, wanted=lambda saga: wanted.wants(saga, now), most=most
            )
            return OrderPage(
                items=[order_summary(saga) for saga in found.rows],
                states=views.metrics.orders_by_state(here),
                next_cursor=cursor_of(found.last),
                partial=here != partitions,
                missing_partitions=sorted(partitions - here),
                as_of=iso(now),
                **fields(views.freshness(table.name)),
            )

        pages, missing = await self._elsewhere.pages(request, table, OrderPage, local, listed)
        whole = merged(pages, missing, limit, lambda order: str(order.order_id))
        states = {name: sum(page.states[name] for page in pages) for name in whole.states}
        return msgspec.structs.replace(whole, states=states)


def order_routes(views: Views, elsewhere: Elsewhere) -> APIRouter:
    """The endpoints under /api/orders."""
    router = APIRouter(tags=["orders"], default_response_class=Response)
    orders = ListedOrders(views, elsewhere)

    @router.get(PATH, responses=says(OrderPage, 400, 422, 503))
    async def list_orders(
        request: Request,
        wanted: Annotated[OrderFilter, Depends(given(OrderFilter))],
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR)] = None,
    ) -> Response:
        """List orders, all of them or those of a filter."""
        return page_answer(request, await orders.page(request, wanted, limit, cursor))

    @router.get(PATH + ".{form}", responses=RESPONSES)
    async def flat_orders(
        request: Request, form: Form, wanted: Annotated[OrderFilter, Depends(given(OrderFilter))]
    ) -> Response:
        """Give every order of a filter as CSV or NDJSON."""

        async def fetch(cursor: str | None, listed: str) -> OrderPage:
            return await orders.page(request, wanted, ROWS, cursor, listed)

        return await flat(request, PATH, form, OrderSummary, fetch)

    @router.get(PATH + "/{orderId}", responses=says(Order, 404, 422, 503))
    async def get_order(
        request: Request,
        order_id: Annotated[str, Path(alias="orderId", max_length=MAX_ID)],
        wait: Annotated[Wait, Depends(given(Wait))],
    ) -> Response:
        """Show one order with its timeline."""
        saga = await wait.until(lambda: views.order_sagas.get(order_id), _has)
        if saga is None:
            ready, reasons = views.ready()
            if not ready:
                raise NotReadyError(reasons)
            raise ProblemError("unknown-order", f"There is no order {order_id}.")
        return unchanged(request, tag(saga)) or order_answer(saga, views.freshness(views.order_sagas.name))

    return router


def order_answer(saga: OrderSaga, freshness: Freshness) -> Response:
    """The order with its timeline."""
    return json_answer(_order(saga, freshness), headers={"etag": tag(saga)})


def order_summary(saga: OrderSaga) -> OrderSummary:
    """The order as lists have it."""
    return OrderSummary(**_summary(saga))


def _has(saga: OrderSaga, event_id: str) -> bool:
    return (
        event_id in saga.seen
        or any(step.event_id == event_id for step in saga.timeline)
        or any(fact.get("event_id") == event_id for fact in saga.parked)
    )


def _summary(saga: OrderSaga) -> dict[str, Any]:
    return {
        "order_id": saga.order_id,
        "state": saga.state,
        "customer_id": saga.customer_id,
        "total": saga.total,
        "currency": saga.currency,
        "units": sum(line.quantity for line in saga.lines),
        "created_at": iso(saga.created_at),
        "updated_at": iso(saga.updated_at),
        "deadline": iso_or_none(saga.deadline),
        "cancel_reason": saga.cancel_reason,
        "attention": saga.attention,
    }


def _order(saga: OrderSaga, freshness: Freshness) -> Order:
    return Order(
        **_summary(saga),
        dialect=saga.dialect,
        customer_email=saga.customer_email,
        correlation_id=saga.correlation_id,
        trace_id=trace_id(of_order((), saga.order_id, saga.trace)),
        lines=[
            OrderLine(
                product_id=line.product_id,
                product_name=line.product_name,
                artisan_id=line.artisan_id,
                quantity=line.quantity,
                unit_price=line.unit_price,
            )
            for line in saga.lines
        ],
        products=[
            OrderProduct(product_id=product, quantity=held.quantity, status=held.status, remaining=held.remaining)
            for product, held in saga.products.items()
        ],
        reserved_until=iso_or_none(saga.reserved_until),
        payment_attempts=saga.attempt,
        payment_reference=saga.payment_reference,
        payments=[
            OrderPayment(payment_id=payment, amount=amount, refund_requested=payment in saga.refunds)
            for payment, amount in saga.paid.items()
        ],
        cancelled_by=saga.cancelled_by,
        mail_attempts=saga.mail_attempt,
        parked_facts=len(saga.parked),
        timeline=[
            TimelineStep(
                at=iso(step.at), what=step.what, direction=step.direction, detail=step.detail, event_id=step.event_id
            )
            for step in saga.timeline
        ],
        as_of=iso(saga.updated_at),
        **fields(freshness),
    )
