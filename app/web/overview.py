"""The application at a glance, over all workers: one small answer that a dashboard asks for again and again."""

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.domain.causes import iso
from app.domain.dead_letters import LetterState
from app.web.answers import Answer, says
from app.web.elsewhere import Elsewhere
from app.web.freshness import fields
from app.web.pages import PageAnswer, merged, page_answer
from app.web.views import Views
from tables.order_sagas import ATTENTION

PATH = "/api/overview"


class WorkerOverview(Answer, frozen=True, kw_only=True):
    """One worker, and what its partitions amount to.

    partitions and rows are by table; orders by state. processed (records that agents were done with), started and ended
    (orders) are counted since startedAt. timersDue: deadlines that have passed and are not acted on yet.
    """

    worker: str
    started_at: str
    ready: bool
    partitions: dict[str, list[int]]
    rows: dict[str, int]
    orders: dict[str, int]
    holds: int
    low_products: int
    attention: int
    open_letters: int
    timers: int
    timers_due: int
    processed: int
    started: int
    ended: int


class Overview(PageAnswer, frozen=True, kw_only=True):
    """Every worker that has orders, and the orders of all by state. partitions: how many there are, by table."""

    items: list[WorkerOverview]
    orders: dict[str, int]
    partitions: dict[str, int]


ANSWERS = (Overview,)


def overview_routes(views: Views, elsewhere: Elsewhere) -> APIRouter:
    """/api/overview."""
    router = APIRouter(tags=["overview"], default_response_class=Response)
    tables = (views.order_sagas, views.inventory, views.dead_letters, views.analytics)
    began = iso(views.clock())

    def of_this_worker(partitions: set[int]) -> WorkerOverview:
        orders, stock = views.order_sagas, views.inventory
        here = {table.name: table.here() for table in tables}
        shelves, pace = stock.sums(here[stock.name]), views.metrics.pace()
        return WorkerOverview(
            worker=views.worker,
            started_at=began,
            ready=views.ready()[0],
            partitions={name: sorted(numbers) for name, numbers in here.items()},
            rows={table.name: table.count() for table in tables},
            orders=views.metrics.orders_by_state(partitions),
            holds=shelves.get("holds", 0),
            low_products=shelves.get("low", 0),
            attention=orders.sums(partitions).get(ATTENTION, 0),
            open_letters=sum(
                number
                for counted, number in views.dead_letters.sums(here[views.dead_letters.name]).items()
                if counted.startswith(f"{LetterState.OPEN} ")
            ),
            timers=orders.timers(partitions),
            timers_due=orders.due(views.clock(), partitions),
            processed=pace.processed,
            started=pace.started,
            ended=pace.ended,
        )

    @router.get(PATH, responses=says(Overview, 503))
    async def show_overview(request: Request) -> Response:
        """Show each worker with its partitions and counts, and the orders of all of them by state."""
        table = views.order_sagas

        async def local(partitions: set[int]) -> Overview:
            here = partitions & table.here()
            this = of_this_worker(here)
            return Overview(
                items=[this],
                orders=this.orders,
                partitions={table.name: table.total for table in tables},
                next_cursor=None,
                partial=here != partitions,
                missing_partitions=sorted(partitions - here),
                as_of=iso(views.clock()),
                **fields(views.freshness(table.name)),
            )

        pages, missing = await elsewhere.pages(request, table, Overview, local)
        return page_answer(request, _together(pages, missing))

    return router


def _together(pages: list[Overview], missing: list[int]) -> Overview:
    workers: dict[str, WorkerOverview] = {}
    for worker in (worker for page in pages for worker in page.items):
        known = workers.get(worker.worker)
        workers[worker.worker] = worker if known is None else _both(known, worker)
    whole = merged(pages, missing, len(workers), lambda worker: str(worker.worker))
    orders = {state: sum(page.orders[state] for page in pages) for state in pages[0].orders}
    return msgspec.structs.replace(
        whole, items=[workers[name] for name in sorted(workers)], orders=orders, next_cursor=None
    )


def _both(known: WorkerOverview, again: WorkerOverview) -> WorkerOverview:
    """A worker that was asked twice, the second time for other partitions of the orders."""
    return msgspec.structs.replace(
        again,
        orders={state: number + again.orders[state] for state, number in known.orders.items()},
        attention=known.attention + again.attention,
        timers=known.timers + again.timers,
        timers_due=known.timers_due + again.timers_due,
    )
