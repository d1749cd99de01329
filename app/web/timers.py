"""Which orders act by themselves next, and when. Decides nothing about deadlines: the saga's rules do."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.domain.causes import iso
from app.domain.rows import SagaState
from app.web.answers import Answer, says
from app.web.elsewhere import Elsewhere
from app.web.freshness import fields
from app.web.pages import PageAnswer, merged, page_answer
from app.web.views import Views

PATH = "/api/timers"


class Timer(Answer, frozen=True, kw_only=True):
    """An order's next deadline. attempt: how often its payment was asked for."""

    order_id: str
    state: SagaState
    deadline: str
    attempt: int


class TimerPage(PageAnswer, frozen=True, kw_only=True):
    """The soonest deadlines first; of all there are, `waiting` in number, `due` have passed."""

    items: list[Timer]
    waiting: int
    due: int


ANSWERS = (TimerPage,)


def timer_routes(views: Views, elsewhere: Elsewhere) -> APIRouter:
    """/api/timers."""
    router = APIRouter(tags=["orders"], default_response_class=Response)

    @router.get(PATH, responses=says(TimerPage, 422, 503))
    async def list_timers(request: Request, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Response:
        """List the deadlines of orders, the soonest first: what happens next if nothing else does."""
        table = views.order_sagas

        async def local(partitions: set[int]) -> TimerPage:
            here = partitions & table.here()
            rows = [(deadline, table.get(key)) for deadline, key in table.upcoming(limit, here)]
            return TimerPage(
                items=[
                    Timer(order_id=row.order_id, state=row.state, deadline=iso(deadline), attempt=row.attempt)
                    for deadline, row in rows
                    if row is not None
                ],
                waiting=table.timers(here),
                due=table.due(views.clock(), here),
                next_cursor=None,
                partial=here != partitions,
                missing_partitions=sorted(partitions - here),
                as_of=iso(views.clock()),
                **fields(views.freshness(table.name)),
            )

        pages, missing = await elsewhere.pages(request, table, TimerPage, local)
        whole = msgspec.structs.replace(
            merged(pages, missing, limit, lambda timer: f"{timer.deadline} {timer.order_id}"),
            next_cursor=None,  # deadlines move: what comes next is asked for anew
            waiting=sum(page.waiting for page in pages),
            due=sum(page.due for page in pages),
        )
        return page_answer(request, whole)

    return router
