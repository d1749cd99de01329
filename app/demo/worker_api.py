"""What the demo asks of the worker over HTTP, as any client would. Decides nothing about the answers."""

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from app.demo.ledger import OnShelf

TIMEOUT = 5.0  # seconds
PAGE = 500


class Snapshot(NamedTuple):
    """The application at one moment: orders by state, products, and records processed since it started."""

    states: dict[str, int]
    products: list[dict[str, Any]]
    processed: float


class WorkerApi:
    """A client of one HTTP server. Every method raises OSError or http.client.HTTPException when it doesn't answer."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.url = f"http://{host}:{port}"

    async def snapshot(self) -> Snapshot:
        """Orders by state, the products, and how much was processed."""
        return await asyncio.to_thread(self._snapshot)

    def _snapshot(self) -> Snapshot:
        states = json.loads(self._request("GET", "/api/orders?limit=1"))["states"]
        products = json.loads(self._request("GET", f"/api/inventory?limit={PAGE}"))["items"]
        metrics = self._request("GET", "/metrics").decode().splitlines()
        processed = sum(float(line.split()[-1]) for line in metrics if line.startswith("events_processed_total{"))
        return Snapshot(states, products, processed)

    async def states_by_order(self) -> dict[str, str]:
        """Every order's state."""
        return await asyncio.to_thread(self._states_by_order)

    def _states_by_order(self) -> dict[str, str]:
        states: dict[str, str] = {}
        cursor = ""
        while True:
            page = json.loads(self._request("GET", f"/api/orders?limit={PAGE}{cursor}"))
            states.update((order["orderId"], order["state"]) for order in page["items"])
            if page["nextCursor"] is None:
                return states
            cursor = f"&cursor={page['nextCursor']}"

    async def import_stock(self, products: list[dict[str, Any]]) -> None:
        """Set products to what the list says."""
        await asyncio.to_thread(self._request, "POST", "/api/stock/import", json.dumps(products).encode())

    def answers(self, path: str) -> Callable[[], Awaitable[bool]]:
        """A probe: whether the path is answered with 200."""

        def ask() -> bool:
            try:
                self._request("GET", path)
            except (OSError, http.client.HTTPException):
                return False
            return True

        async def probe() -> bool:
            return await asyncio.to_thread(ask)

        return probe

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise http.client.HTTPException(f"{self.url}{path} answered {response.status}: {answer[:300]!r}")
        return answer


def shelves(products: list[dict[str, Any]]) -> dict[str, OnShelf]:
    """The products of a snapshot as the ledger compares them."""
    return {product["productId"]: OnShelf(product["onHand"], product["reserved"]) for product in products}
