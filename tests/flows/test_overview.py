"""The application at a glance, and the deadlines to come: by one worker, and put together of several."""

import httpx

from app.domain.dead_letters import Letter, letter_id
from app.domain.rows import SagaState
from tests.flows.shop import NOON, Shop, cheese, order


async def test_a_worker_is_shown_with_its_partitions_and_what_they_amount_to(
    web: httpx.AsyncClient, shop: Shop
) -> None:
    shop.put(order("order-1"), order("order-2", SagaState.COMPLETED, deadline=None), cheese(low=True))
    shop.put(Letter(letter_id=letter_id(NOON, 0, 1), at=NOON, reason="not-json", topic="orders"))
    shop.metrics.processed_many("orders", "applied", 5)
    answer = (await web.get("/api/overview")).json()
    [worker] = answer["items"]
    assert worker["partitions"]["order_sagas"] == [0, 1, 2, 3]
    assert worker["rows"] == {"order_sagas": 2, "inventory": 1, "dead_letters": 1, "analytics": 0}
    assert (worker["holds"], worker["lowProducts"], worker["openLetters"]) == (2, 1, 1)
    assert (worker["timers"], worker["timersDue"]) == (1, 0)
    assert (worker["processed"], worker["started"], worker["ended"]) == (5, 2, 1)
    assert {state: n for state, n in answer["orders"].items() if n} == {"awaiting_payment": 1, "completed": 1}
    assert answer["partitions"]["inventory"] == 4


async def test_an_overview_that_is_still_so_is_not_sent_again(web: httpx.AsyncClient, shop: Shop) -> None:
    shop.put(order("order-1"))
    for path in ("/api/overview", "/api/timers", "/api/orders?limit=1", "/api/inventory", "/api/bridge"):
        etag = (await web.get(path)).headers["etag"]
        assert (await web.get(path, headers={"if-none-match": etag})).status_code == 304, path
    etag = (await web.get("/api/overview")).headers["etag"]
    shop.put(order("order-1", SagaState.CONFIRMED))
    assert (await web.get("/api/overview", headers={"if-none-match": etag})).status_code == 200


async def test_deadlines_are_listed_the_soonest_first(web: httpx.AsyncClient, shop: Shop) -> None:
    shop.put(*(order(f"order-{number}", deadline=NOON + 60 - number * 30) for number in range(5)))
    shop.put(order("order-done", SagaState.COMPLETED, deadline=None))
    answer = (await web.get("/api/timers?limit=3")).json()
    assert [timer["orderId"] for timer in answer["items"]] == ["order-4", "order-3", "order-2"]
    assert answer["items"][0] == {
        "orderId": "order-4", "state": "awaiting_payment", "deadline": "2026-11-24T11:59:00.000Z", "attempt": 1,
    }  # fmt: skip
    assert (answer["waiting"], answer["due"], answer["nextCursor"]) == (5, 3, None)
