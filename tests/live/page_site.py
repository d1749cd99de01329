"""A marketplace with the dashboard open in a real Chromium: nats-server, one worker, a payment service, a browser."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from app.demo.envelope import encode, event, now
from app.demo.services import PaymentService
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess
from tests.waiting import need_live

PRICE = 12.5
LOADS = 30_000
"""Milliseconds that the page has for what it is waited for; it needs less than one second on a quiet machine."""

expect.set_options(timeout=LOADS)

QUIET = ["--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-gpu"]


def chromium() -> str:
    """Where Debian's browser is; without one the test is skipped, or fails with REQUIRE_LIVE=1."""
    return shutil.which("chromium") or need_live("chromium is missing: it is a package of Debian")


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """The browser, for several tests."""
    path = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        await browser.close()


class Watched:
    """A page of the dashboard, and what its console said that should not be there."""

    def __init__(self, page: Page, context: BrowserContext) -> None:
        self.page = page
        self.context = context
        self.faults: list[str] = []
        page.set_default_timeout(LOADS)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda told: self.faults.append(told.text) if told.type in ("error", "warning") else None)

    async def until(self, script: str, what: Any = None) -> None:
        """Wait until the script's answer is true."""
        await self.page.wait_for_function(script, arg=what, timeout=LOADS)

    async def connected(self, kind: str = "live") -> None:
        """Wait until the page says of its connection that it is of this kind."""
        await self.until("kind => document.body.dataset.connection === kind", kind)

    async def go(self, place: str) -> None:
        """Another view of the same page."""
        await self.page.evaluate("place => { location.hash = place }", place)

    async def wide(self) -> list[int]:
        """How wide the document is, and how wide the window."""
        found: list[int] = await self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        return found


class PageSite:
    """The marketplace. Its worker takes an order to its end within milliseconds; mails are nobody's business."""

    def __init__(self, folder: Path, browser: Browser, **settings: str) -> None:
        self.nats = NatsServer(folder / "nats")
        given = {"NATS_URL": self.nats.url, "ROLE_NOTIFY": "shadow", "ANALYTICS_DELAY": "0.05", **settings}
        self.worker = WorkerProcess(folder / "worker", **given)
        self._browser = browser
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Everything but pages."""
        await self.nats.start()
        self.worker.start()
        self.client = await nats.connect(self.nats.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
        payments = PaymentService(self.client)
        await payments.listen()
        await self.worker.ready()

    async def stop(self) -> None:
        await self.client.close()
        await self.worker.close()
        self.nats.stop()

    @asynccontextmanager
    async def open(
        self, place: str = "", *, faults: bool = False, kind: str = "live", **context: Any
    ) -> AsyncIterator[Watched]:
        """The page in a window of its own. Its console must be empty in the end, unless `faults` are sought."""
        usual = {"locale": "en-GB", "viewport": {"width": 1280, "height": 900}}
        made = await self._browser.new_context(**usual | context)
        watched = Watched(await made.new_page(), made)
        try:
            await watched.page.goto(f"{self.worker.web}/{place}")
            await watched.connected(kind)
            yield watched
            assert faults or not watched.faults, watched.faults
        finally:
            await made.close()

    # ---- what happens ----------------------------------------------------------------------------------

    async def shelve(self, *products: dict[str, Any]) -> None:
        """Products as they are to be: id, onHand, and what else is not as usual."""
        usual = {"name": "Queso de cabra", "category": "quesos", "artisanId": "artisan-1", "threshold": 5}
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.post(f"{self.worker.web}/api/stock/import", json=[usual | each for each in products])
            assert answer.status_code == 200, answer.text

    async def order(self, order: str, product: str, quantity: int = 1, customer: str = "customer_1") -> None:
        """A customer orders."""
        total = PRICE * quantity
        items = [{"productId": product, "productName": product, "quantity": quantity, "unitPrice": PRICE}]
        data = {
            "customerId": customer, "customerEmail": "cliente@jaen.example", "items": items, "totalAmount": total,
            "currency": "EUR", "createdAt": now(),
        }  # fmt: skip
        await self.client.publish("order.created", encode(event("OrderCreatedEvent", order, data, "order-service")))
        await self.client.flush()

    async def state(self, order: str, state: str) -> None:
        """Wait until the worker says that the order is there."""

        async def there() -> bool:
            answer = await self.worker.answer(f"/api/orders/{order}")
            return answer is not None and answer.status_code == 200 and answer.json()["state"] == state

        await self.worker.until(there, what=f"{order} is not {state}")


async def quiet_for(watched: Watched, seconds: float) -> list[str]:
    """What the page asks for in so many seconds."""
    asked: list[str] = []
    watched.page.on("request", lambda request: asked.append(request.url))
    await asyncio.sleep(seconds)
    return asked
