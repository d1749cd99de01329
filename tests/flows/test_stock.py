"""The shelf over the real log: imports, other services' counts, and when it says that it runs low."""

import pytest

from tests.flows.market import NOW, Market

WARNING = "inventory.stock.warning"


def urgencies(market: Market) -> list[tuple[int, str]]:
    return [(said["currentStock"], said["urgencyLevel"]) for said in market.facts(WARNING)]


# ---- running low ----------------------------------------------------------------------------------------


async def test_running_low_is_said_once_for_each_crossing_and_critical_at_nothing(market: Market) -> None:
    await market.shelves([("miel", 12, 10)])
    await market.order("order-1", ("miel", 1))
    assert urgencies(market) == []
    await market.order("order-2", ("miel", 1))
    assert urgencies(market) == [(10, "medium")]
    await market.order("order-3", ("miel", 4))
    assert urgencies(market) == [(10, "medium")]
    await market.order("order-4", ("miel", 6))
    assert urgencies(market) == [(10, "medium"), (0, "critical")]

    await market.stock_moves("replenished", "miel", changeAmount=20)
    assert urgencies(market) == [(10, "medium"), (0, "critical")]
    await market.order("order-5", ("miel", 15))
    assert urgencies(market) == [(10, "medium"), (0, "critical"), (5, "medium")]


async def test_a_warning_has_what_its_readers_know(market: Market) -> None:
    await market.shelves([("miel", 12, 10)])
    await market.order("order-1", ("miel", 2))
    warning = market.only(WARNING)
    assert (warning["aggregateId"], warning["eventType"]) == ("miel", "LowStockWarningEvent")
    assert warning["eventData"] == {
        "currentStock": 10, "threshold": 10, "artisanId": "artisan-1", "productName": "Miel", "category": "despensa",
        "urgencyLevel": "medium", "lastRestocked": "2027-01-15T08:00:00.000Z",
    }  # fmt: skip


async def test_a_release_that_lifts_the_shelf_makes_the_next_crossing_news_again(market: Market) -> None:
    await market.shelves([("miel", 12, 10)])
    await market.order("order-1", ("miel", 5))
    await market.customer_cancels("order-1")
    assert market.shelf("miel") == (12, 0, 12)
    await market.order("order-2", ("miel", 5))
    assert urgencies(market) == [(7, "medium"), (7, "medium")]


async def test_a_paid_order_leaves_the_level_as_its_reservation_made_it(market: Market) -> None:
    await market.shelves([("miel", 12, 10)])
    await market.order("order-1", ("miel", 5))
    await market.paid("order-1")
    assert market.shelf("miel") == (7, 0, 7)
    assert urgencies(market) == [(7, "medium")]


async def test_an_import_of_an_empty_shelf_is_no_crossing(market: Market) -> None:
    await market.shelves([("miel", 0, 10), ("queso", 3, 10)])
    assert market.said() == []
    await market.order("order-1", ("miel", 1))
    assert market.saga("order-1").state == "closed"


# ---- other services' counts -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["updated", "replenished", "depleted"])
async def test_a_change_counts_before_a_total_and_once_for_each_event(market: Market, kind: str) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    event_id = await market.stock_moves(kind, "aceite", previousStock=30, newStock=20, changeAmount=-10)
    assert market.shelf("aceite") == (40, 2, 38)
    await market.stock_moves(kind, "aceite", previousStock=30, newStock=20, changeAmount=-10, event_id=event_id)
    assert market.shelf("aceite") == (40, 2, 38)
    await market.stock_moves(kind, "aceite", previousStock=30, newStock=20, changeAmount=-10)
    assert market.shelf("aceite") == (30, 2, 28)


async def test_without_a_change_the_total_counts(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.stock_moves("updated", "aceite", newStock=20)
    assert market.shelf("aceite") == (20, 2, 18)
    await market.stock_moves("depleted", "aceite")
    assert market.shelf("aceite") == (2, 2, 0)  # what is promised stays promised


async def test_a_count_below_what_is_promised_is_taken_as_what_is_promised(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 20))
    await market.stock_moves("updated", "aceite", changeAmount=-45)
    assert market.shelf("aceite") == (20, 20, 0)
    await market.paid("order-1")
    assert market.shelf("aceite") == (0, 0, 0)


async def test_the_first_word_about_a_product_makes_it_known_here(market: Market) -> None:
    await market.stock_moves(
        "replenished", "aceite", newStock=30, quantityAdded=5, artisanId="artisan-9", productName="Aceite", threshold=4
    )
    stock = market.stock("aceite")
    assert market.shelf("aceite") == (30, 0, 30)
    assert (stock.artisan_id, stock.name, stock.threshold, stock.last_restocked) == ("artisan-9", "Aceite", 4, NOW)
    await market.order("order-1", ("aceite", 30))
    assert market.saga("order-1").state == "awaiting_payment"


async def test_an_echo_of_our_own_count_changes_nothing(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.stock_moves("updated", "aceite", changeAmount=-10)
    [record] = market.records("stock")
    payload = (record.value or b"").replace(b"event-", b"other-")
    await market.hear("inventory.stock.updated", payload, "aceite", ("a4co-ours", b"1"))
    assert market.shelf("aceite") == (40, 0, 40)


# ---- imports --------------------------------------------------------------------------------------------


async def test_an_import_sets_the_shelf_and_keeps_what_orders_hold(market: Market) -> None:
    await market.stock_is(aceite=50)
    await market.order("order-1", ("aceite", 2))
    await market.shelves([("aceite", 10, 3), ("queso", 25, 5)])
    assert market.shelf("aceite") == (10, 2, 8)
    assert market.shelf("queso") == (25, 0, 25)
    assert market.stock("aceite").threshold == 3
    await market.shelves([("aceite", 1, 0)])
    assert market.shelf("aceite") == (2, 2, 0)
    await market.customer_cancels("order-1")
    assert market.shelf("aceite") == (2, 0, 2)


async def test_an_import_that_lowers_the_shelf_below_its_threshold_is_said(market: Market) -> None:
    await market.shelves([("miel", 50, 10)])
    await market.shelves([("miel", 5, 10)])
    await market.shelves([("miel", 4, 10)])
    assert urgencies(market) == [(5, "medium")]


async def test_many_products_are_imported_in_one_go(market: Market) -> None:
    await market.shelves([(f"product-{number}", number, 0) for number in range(500)])
    assert len(market.rows()["inventory"]) == 500
    assert market.shelf("product-499") == (499, 0, 499)
