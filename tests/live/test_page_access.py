"""The dashboard for everybody: in two languages and two themes, by keyboard, on a phone, and for assistive tools."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.async_api import expect

from app.demo.envelope import encode, event
from tests.live.page_site import PageSite, Watched, browsing

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

CHEESE = "product_queso"
TWICE = "order_paid_twice_with_a_rather_long_identifier_1795889793173"
VIEWS = {
    "overview": "#/",
    "orders": "#/orders?state=completed",
    "order": f"#/orders/{TWICE}",
    "attention": "#/attention",
    "stock": "#/stock",
}

FOCUSABLE = "a[href], button:not([disabled]), input, select, textarea, [tabindex='0']"

NOW_FOCUSED = """focusable => {
    const found = document.activeElement;
    if (!found || found === document.body) return null;
    const shown = found.matches(".node-link") ? found.querySelector("rect") : found;
    const style = getComputedStyle(shown);
    const seen = found.matches(".node-link")
        ? parseFloat(style.strokeWidth) > 3
        : style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    const place = [...document.querySelectorAll(focusable)].indexOf(found);
    return { place, seen, what: found.outerHTML.slice(0, 120) };
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PageSite]:
    """A market with something in every panel."""
    async with browsing() as browser:
        site = PageSite(tmp_path_factory.mktemp("page"), browser, PAYMENT_RETRY_DELAY="600")
        await site.start()
        await _is_empty(site)
        await site.shelve({"productId": CHEESE, "onHand": 9, "threshold": 5})
        await site.order("order_plain", CHEESE, 3)
        await site.order(TWICE, CHEESE, customer="customer_pays_twice")
        await site.order("order_too_much", CHEESE, 1000)
        await site.order("order_no_money", CHEESE, customer="customer_no_money")
        nonsense = event("OrderCreatedEvent", "order_nonsense", {"items": "none"}, "order-service")
        await site.client.publish("order.created", encode(nonsense))
        await site.state(TWICE, "completed")
        await site.state("order_no_money", "payment_retry")
        yield site
        await site.stop()


async def _is_empty(site: PageSite) -> None:
    """Before the first order the page says how to make some."""
    async with site.open() as seen:
        await expect(seen.page.locator(".welcome")).to_contain_text("make demo")
        assert await seen.wide() == [1280, 1280]


async def _filled(seen: Watched, view: str) -> None:
    rows = {"overview": ".latest, .attention_panel .row", "order": ".lanes .step"}.get(view, "li.row")
    await expect(seen.page.locator(rows).first).to_be_visible()


async def test_the_browser_s_language_is_spoken_and_the_other_one_is_remembered(site: PageSite) -> None:
    async with site.open(locale="es-ES") as seen:
        page = seen.page
        await expect(page.locator(".flow h2")).to_have_text("Flujo de la saga")
        await expect(page.locator("html")).to_have_attribute("lang", "es")
        await expect(page.get_by_role("button", name="Español")).to_have_attribute("aria-pressed", "true")
        await page.get_by_role("button", name="English").click()
        await expect(page.get_by_role("button", name="Español")).to_have_attribute("aria-pressed", "false")
        await expect(page.locator(".flow h2")).to_have_text("Flow of the saga")
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("lang", "en")
        await expect(page.locator(".flow h2")).to_have_text("Flow of the saga")


async def test_both_languages_have_all_words(site: PageSite) -> None:
    async with site.open() as seen:
        keys = "name => import(`/static/words_${name}.js`).then(words => Object.keys(words.default))"
        english, spanish = await seen.page.evaluate(keys, "en"), await seen.page.evaluate(keys, "es")
        assert sorted(english) == sorted(spanish)


async def test_the_system_s_theme_is_worn_and_another_one_is_remembered(site: PageSite) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    async with site.open(color_scheme="dark") as seen:
        dark = await seen.page.evaluate(paper)
        await seen.page.get_by_role("button", name="Theme").click()
        light = await seen.page.evaluate(paper)
        assert light != dark
        await seen.page.reload()
        assert await seen.page.evaluate(paper) == light
        await seen.page.emulate_media(color_scheme="light")
        assert await seen.page.evaluate(paper) == light


async def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(site: PageSite) -> None:
    async with site.open() as seen:
        page = seen.page
        await _filled(seen, "overview")
        wanted = await page.locator(FOCUSABLE).evaluate_all(
            "all => [...all.keys()].filter(place => all[place].getClientRects().length)"
        )
        reached: list[int] = []
        for _ in range(2 * len(wanted) + 10):
            await page.keyboard.press("Tab")
            now: dict[str, Any] | None = await page.evaluate(NOW_FOCUSED, FOCUSABLE)
            if now is None:
                break
            assert now["seen"], f"one can't see that the focus is on {now['what']}"
            reached.append(now["place"])
        assert set(wanted) <= set(reached)
        assert reached == sorted(reached), "the order of the tab key is that of the page"
        await page.locator('.attention_panel a[href^="#/orders/"]').first.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_contain_text(TWICE)
        await page.get_by_label("Open order").fill("order_plain")
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_contain_text("order_plain")


@pytest.mark.parametrize("locale", ["es-ES", "en-GB"])
async def test_on_a_phone_nothing_has_to_be_scrolled_sideways(site: PageSite, locale: str) -> None:
    phone = {"width": 390, "height": 844}
    async with site.open(viewport=phone, has_touch=True, is_mobile=True, locale=locale) as seen:
        for view, place in VIEWS.items():
            await seen.go(place)
            await _filled(seen, view)
            assert await seen.wide() == [390, 390], view


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(site: PageSite, theme: str) -> None:
    async with site.open(color_scheme=theme, reduced_motion="reduce") as seen:
        await seen.page.evaluate(AXE_FILE_PATH.read_text("utf-8"))
        for view, place in VIEWS.items():
            await seen.go(place)
            await _filled(seen, view)
            found = await seen.page.evaluate("axe.run().then(found => found.violations)")
            bad = [
                f"{view}: {each['id']} ({each['impact']}): {each['help']}: {node['html'][:200]}"
                for each in found
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"]
            ]
            assert not bad, "\n".join(bad)


async def test_whoever_wants_no_motion_sees_none(site: PageSite) -> None:
    async with site.open(reduced_motion="reduce") as seen:
        await site.order("order_calm", CHEESE)
        await expect(seen.page.locator('.latest a[href="#/orders/order_calm"]')).to_be_visible()
        assert await seen.page.locator(".dot").count() == 0
        assert await seen.page.evaluate("document.getAnimations().length") == 0
