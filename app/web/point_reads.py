"""The reads that services make all the time, of one row that is here, answered without what most requests need.

What it says and when it is said is decided by the endpoints: anything but a plain GET of a row that is here is theirs.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import Scope, Send

from app.engine.errors import PartitionElsewhere
from app.web.inventory import CHECK, check_answer
from app.web.orders import PATH, order_answer
from app.web.security import HEADERS
from app.web.views import Views

SECURITY = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class _Read(NamedTuple):
    """The path before its key, the key's name, and what gives the row and answers with it."""

    path: str
    key: str
    row: Callable[[str], Any]
    answer: Callable[[Any], Response]


class PointReads:
    """Of one worker's views."""

    def __init__(self, views: Views) -> None:
        self._metrics = views.metrics
        stock, orders = views.inventory, views.order_sagas
        self._reads = (
            _Read(CHECK, "{productId}", stock.get, lambda row: check_answer(row, views.freshness(stock.name))),
            _Read(PATH, "{orderId}", orders.get, lambda row: order_answer(row, views.freshness(orders.name))),
        )

    async def answered(self, scope: Scope, send: Send) -> bool:
        """Whether it was one of these, and is answered."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
            return False
        began = perf_counter()
        before, _, key = scope["path"].rpartition("/")
        for path, name_of_key, row_of, answer in self._reads:
            if before == path:
                try:
                    row = row_of(key)
                except PartitionElsewhere:
                    return False
                if row is None or any(name == b"if-none-match" for name, _ in scope["headers"]):
                    return False
                response = answer(row)
                headers = [*response.raw_headers, *SECURITY]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": response.body})
                self._metrics.requested("GET", f"{path}/{name_of_key}", 200, perf_counter() - began)
                return True
        return False
