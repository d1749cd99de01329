"""The dashboard in a real Chromium, on a real worker and NATS: it shows what happens while it happens."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.live.nats_server import free_ports
from tests.live.page_site import PageSite, Watched, browsing, quiet_for
from tests.live.worker_process import WorkerProcess

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

CHEESE, OLIVES, HONEY = "product_queso", "product_aceitunas", "product_miel"
MARKUP = "<img src=x onerror=alert(1)>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PageSite]:
    site = PageSite(tmp_path_factory.mktemp("page"), browser, PAYMENT_RETRY_DELAY="600")
    await site.start()
    await site.shelve({"productId": CHEESE, "onHand": 1000})
    yield site
    await site.stop()


async def test_an_order_appears_on_an_open_page_and_opens_as_a_picture(site: PageSite) -> None:
    async with site.open() as seen:
        page = seen.page
        await page.evaluate("window.stayed = true")
        await site.order("order_live_1", CHEESE, 3)
        link = page.locator('.latest a[href="#/orders/order_live_1"]')
        await expect(link).to_have_text("order_live_1")
        await expect(page.locator(".latest .row").filter(has_text="order_live_1")).to_contain_text("€37.50")
        await expect(page.locator('[data-state="completed"] .node-number')).not_to_have_text("0")
        await expect(page.locator('[data-way="confirmed-completed"]')).to_have_class("way good busy")
        await link.click()
        await expect(page.locator("h1")).to_contain_text("order_live_1")
        await expect(page.locator("svg.lanes g.step")).to_have_count(9)
        steps = await page.locator(".timeline li.step .what").all_text_contents()
        assert steps[:5] == ["order.created", "Reserve", "Reserved", "inventory.stock.reserved", "payment.initiated"]
        assert steps[5:] == ["payment.succeeded", "Commit", "order.confirmed", "SendMail"]
        assert await page.evaluate("window.stayed")


async def test_what_was_counted_is_there_as_figures_and_as_a_picture(site: PageSite) -> None:
    await site.order("order_counted", CHEESE)
    await site.state("order_counted", "completed")
    await site.worker.until(lambda: _counted(site), what="it is not counted")
    async with site.open() as seen:
        await expect(seen.page.locator(".confirmed_part .number")).to_have_text("100%")
        await expect(seen.page.locator(".to_confirmed .number")).to_contain_text("s")
        await expect(seen.page.locator(".pace canvas")).to_be_visible()
        await expect(seen.page.locator(".pace .nothing")).to_be_hidden()


async def _counted(site: PageSite) -> bool:
    return any(row["confirmed"] for row in (await site.worker.get("/api/analytics/orders", bucket="minute"))["items"])


async def test_a_product_that_runs_low_is_shown_until_it_is_filled_up(site: PageSite) -> None:
    await site.shelve({"productId": OLIVES, "name": "Aceitunas", "onHand": 7, "threshold": 5})
    async with site.open() as seen:
        shelf = seen.page.locator(f'.low [data-product="{OLIVES}"]')
        await expect(shelf).to_have_count(0)
        await site.order("order_olives", OLIVES, 4)
        await expect(shelf).to_contain_text("3 left")
        await seen.go("#/stock")
        await expect(shelf).to_contain_text("threshold 5")
        await site.shelve({"productId": OLIVES, "name": "Aceitunas", "onHand": 70, "threshold": 5})
        await expect(shelf).to_have_count(0)


async def test_a_failing_payment_is_seen_in_the_flow_in_its_timer_and_in_its_timeline(site: PageSite) -> None:
    async with site.open() as seen:
        await site.order("order_no_money", CHEESE, customer="customer_no_money")
        await expect(seen.page.locator('[data-state="payment_retry"] .node-number')).to_have_text("1")
        timer = seen.page.locator(".timers .row").filter(has_text="order_no_money")
        await expect(timer).to_contain_text("asks for the payment again")
        await seen.go("#/orders/order_no_money")
        await expect(seen.page.locator(".order-title")).to_contain_text("Payment retry")
        await expect(seen.page.locator(".timeline li.bad")).to_contain_text("Tarjeta rechazada por el banco")


async def test_an_order_that_needs_a_person_comes_to_the_list_with_its_reason(site: PageSite) -> None:
    async with site.open("#/attention") as seen:
        await site.order("order_paid_twice", CHEESE, customer="customer_pays_twice")
        row = seen.page.locator(".attention .row").filter(has_text="order_paid_twice")
        await expect(row).to_contain_text("Paid twice")
        await expect(seen.page.locator("nav .tally")).to_have_text("1")


async def test_text_from_outside_stays_text(site: PageSite) -> None:
    await site.shelve({"productId": HONEY, "name": MARKUP, "onHand": 1, "threshold": 5})
    async with site.open() as seen:
        await site.order("order_<b>bold", HONEY, customer=MARKUP)
        await expect(seen.page.locator(f'.low [data-product="{HONEY}"] .name')).to_have_text(MARKUP)
        await seen.page.locator(".latest a", has_text="<b>bold").click()
        await expect(seen.page.locator("h1")).to_contain_text("order_<b>bold")
        await expect(seen.page.locator(".order-head")).to_contain_text(MARKUP)
        assert await seen.page.locator("main img, main b").count() == 0


async def test_an_order_that_is_not_there_yet_appears_when_it_comes(site: PageSite) -> None:
    async with site.open("#/orders/order_later", faults=True) as seen:
        await expect(seen.page.locator("h1")).to_have_text("There is no order order_later.")
        await site.order("order_later", CHEESE)
        await expect(seen.page.locator(".order-title .state")).to_have_text("Completed")
        assert [fault for fault in seen.faults if "404" not in fault] == []


async def test_the_page_asks_for_little_and_for_nothing_while_nobody_looks(site: PageSite) -> None:
    async with site.open() as seen:
        same: list[str] = []
        seen.page.on("response", lambda answer: same.append(answer.url) if answer.status == 304 else None)
        asked = await quiet_for(seen, 4.5)
        assert len(asked) <= 8, asked
        assert any(url.endswith("/api/overview") for url in same), "an answer that is the same is not sent again"
        await _look_away(seen, hidden=True)
        assert await quiet_for(seen, 3) == []
        await site.order("order_unseen", CHEESE)
        await _look_away(seen, hidden=False)
        await expect(seen.page.locator('.latest a[href="#/orders/order_unseen"]')).to_be_visible()


async def _look_away(seen: Watched, *, hidden: bool) -> None:
    """As if another tab were in front (or this one again): no driver can do that without a window."""
    await seen.page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def test_without_a_live_feed_the_page_asks_and_says_so(site: PageSite) -> None:
    async with site.open(faults=True) as seen:
        await seen.page.route("**/api/live*", lambda route: route.fulfill(status=503))
        await seen.page.reload()
        await seen.connected("polling")
        await expect(seen.page.locator("#notices")).to_contain_text("no live feed")
        number = seen.page.locator('[data-state="completed"] .node-number')
        await expect(number).to_have_text(re.compile(r"\d+"))
        before = int(await number.text_content() or 0)
        await site.order("order_asked_for", CHEESE)
        await expect(number).to_have_text(str(before + 1))
        assert [fault for fault in seen.faults if "503" not in fault] == []


async def test_the_page_catches_up_by_itself_when_the_worker_was_killed(site: PageSite) -> None:
    async with site.open(faults=True) as seen:
        await seen.page.evaluate("window.stayed = true")
        site.worker.kill()
        await seen.connected("away")
        await expect(seen.page.locator("#notices")).to_contain_text("The worker does not answer")
        await site.order("order_meanwhile", CHEESE, 2)
        site.worker.start()
        await seen.connected()
        await expect(seen.page.locator('.latest a[href="#/orders/order_meanwhile"]')).to_be_visible()
        await expect(seen.page.locator("#notices")).to_be_empty()
        assert await seen.page.evaluate("window.stayed")
        assert [fault for fault in seen.faults if "ERR_" not in fault and "503" not in fault] == []


async def test_while_nats_is_away_the_page_says_that_it_may_be_old_and_why(site: PageSite) -> None:
    async with site.open(faults=True) as seen:
        site.nats.stop()
        await seen.connected("stale")
        await expect(seen.page.locator("#notices")).to_contain_text("nats")
        await site.nats.start()
        await seen.connected()
        assert [fault for fault in seen.faults if "503" not in fault] == []


async def test_a_worker_that_is_not_ready_says_why_and_how_far_it_is(browser: Browser, site: PageSite) -> None:
    nobody = free_ports(1)[0]
    folder = site.worker.folder / "waits"
    worker = WorkerProcess(folder, NATS_URL=site.nats.url, KAFKA_URL=f"kafka://127.0.0.1:{nobody}")
    worker.start()
    page = await browser.new_page(locale="en-GB")
    try:
        await worker.until(lambda: worker.answer("/ready"))
        await page.goto(worker.web)
        await expect(page.locator("#notices")).to_contain_text("kafka")
        await expect(page.locator("#notices")).to_contain_text("not ready")
        # How far a recovery is comes in the same answer; one that takes long enough to be seen takes minutes to make.
        problem = {"type": "/docs#not-ready", "status": 503, "reasons": {"tables": "recovering, 37 %"}}
        await page.route("**/ready", lambda route: route.fulfill(status=503, json=problem))
        await expect(page.locator("#notices progress")).to_have_js_property("value", 37)
        await expect(page.locator("#notices")).to_contain_text("rebuilding its tables: 37 %")
    finally:
        await page.close()
        await worker.close()
