"""Takes the pictures of docs/dashboard.md, of a demo that trades: `make screenshots`."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Error, Page

from tests.live.nats_server import free_ports
from tests.live.page_site import browsing
from tests.live.worker_process import environment

PICTURES = Path(__file__).parents[2] / "docs" / "dashboard"
TRADES = float(os.environ.get("SECONDS", "600"))
"""Seconds that the demo trades before the pictures are taken: the charts show minutes."""

LOOKS = 185.0
"""Seconds that the page is open before: its sparklines show three minutes."""

DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


async def main() -> None:
    """Start the demo, look at it, write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        web = free_ports(1)[0]
        settings = {"DATA_DIR": folder, "WEB_PORT": str(web), "WORKER_NAME": "jaen-1"}
        command = [str(Path(sys.executable).parent / "a4co"), "demo"]
        demo = subprocess.Popen(command, cwd=folder, env=environment(settings), stdout=subprocess.DEVNULL)
        try:
            async with browsing() as browser:
                await _take(browser, f"http://127.0.0.1:{web}")
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(20)


async def _take(browser: Browser, url: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    await _answers(url)
    await asyncio.sleep(max(0.0, TRADES - LOOKS))
    light = await _page(browser, url, color_scheme="light", viewport=DESK)
    dark = await _page(browser, url, color_scheme="dark", viewport=DESK)
    phone = await _page(browser, url, color_scheme="light", viewport=PHONE, locale="es-ES", device_scale_factor=2)
    await asyncio.sleep(min(TRADES, LOOKS))
    failed = await asyncio.to_thread(_an_order_that_could_not_be_paid, url)
    order = await _page(browser, f"{url}/#/orders/{failed}", color_scheme="light", viewport=DESK)
    with contextlib.suppress(Error):
        await light.locator(".low .row").first.wait_for(timeout=60_000)  # something is low every now and then
    whole = {"light": light, "order": order}
    for name, page in (whole | {"dark": dark, "phone": phone}).items():
        await page.screenshot(path=PICTURES / f"{name}.png", full_page=name in whole)


async def _answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(urllib.request.urlopen, f"{url}/ready", timeout=5)
            return
        await asyncio.sleep(0.2)
    raise TimeoutError(url)


async def _page(browser: Browser, url: str, **options: Any) -> Page:
    page = await (await browser.new_context(**{"locale": "en-GB"} | options)).new_page()
    await page.goto(url)
    return page


def _an_order_that_could_not_be_paid(url: str) -> str:
    """One with a retry and an end."""
    with urllib.request.urlopen(f"{url}/api/orders?state=closed&customer=customer_no_money&limit=1") as answer:
        return str(json.load(answer)["items"][0]["orderId"])


if __name__ == "__main__":
    asyncio.run(main())
