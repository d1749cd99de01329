"""The HTTP face over plain tables in memory: what services, operators and Prometheus are told."""

import json
from typing import Any

import httpx
import msgspec
import pytest

from app.domain.rows import Held, Hold, SagaState, Step
from app.engine.declarations import TableSpec
from app.metrics.worker import Metrics
from app.stock_file import Product
from app.web.analytics import PAGES
from app.web.pages import page
from app.web.stock_lines import StockLine
from tests.flows.shop import NOON, MemoryTable, Shop, cheese, order

JSON = {"content-type": "application/json; charset=utf-8"}
FRESH = {"lag": 0, "stale": False}
NOON_ISO = "2026-11-24T12:00:00.000Z"


def assert_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"/docs#{kind}"
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path
    assert problem["title"]
    assert problem["detail"]
    return problem


# ---- the order service's check -------------------------------------------------------------------------


async def test_check_says_how_many_units_can_be_sold(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese())
    response = await web.get("/api/inventory/check/product_queso_cabra")
    assert response.status_code == 200
    assert response.json() == {"productId": "product_queso_cabra", "available": 20, "asOf": NOON_ISO} | FRESH


@pytest.mark.parametrize(("quantity", "sufficient"), [(20, True), (21, False)])
async def test_check_with_a_quantity_says_whether_it_is_enough(
    shop: Shop, web: httpx.AsyncClient, quantity: int, sufficient: bool
) -> None:
    shop.put(cheese())
    response = await web.get("/api/inventory/check/product_queso_cabra", params={"quantity": quantity})
    assert response.json()["quantity"] == quantity
    assert response.json()["sufficient"] is sufficient


async def test_unknown_product_is_a_404_problem_and_not_zero_units(web: httpx.AsyncClient) -> None:
    problem = assert_problem(await web.get("/api/inventory/check/product_unicornio"), 404, "unknown-product")
    assert "product_unicornio" in problem["detail"]
    assert_problem(await web.get("/api/inventory/product_unicornio"), 404, "unknown-product")


async def test_while_tables_are_rebuilt_a_missing_row_is_503_and_not_404(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese())
    shop.not_ready = {"tables": "recovering"}
    for path in ("/api/inventory/check/product_unicornio", "/api/orders/order-1"):
        response = await web.get(path)
        assert assert_problem(response, 503, "not-ready")["reasons"] == {"tables": "recovering"}
        assert int(response.headers["retry-after"]) > 0
    assert (await web.get("/api/inventory/check/product_queso_cabra")).status_code == 200


# ---- inventory -----------------------------------------------------------------------------------------


async def test_a_product_shows_its_holds_and_when_they_expire(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese(last_restocked=NOON - 3600))
    assert (await web.get("/api/inventory/product_queso_cabra")).json() == {
        "productId": "product_queso_cabra",
        "name": "Queso de cabra",
        "category": "quesos",
        "artisanId": "artisan_sierra",
        "onHand": 25,
        "reserved": 5,
        "available": 20,
        "threshold": 5,
        "low": False,
        "asOf": NOON_ISO,
        "lag": 0,
        "stale": False,
        "lastRestocked": "2026-11-24T11:00:00.000Z",
        "holds": [
            {"orderId": "order-1", "quantity": 2, "expiresAt": "2026-11-24T12:30:00.000Z"},
            {"orderId": "order-2", "quantity": 3, "expiresAt": "2026-11-24T12:01:00.000Z"},
        ],
    }


async def test_products_can_be_listed_by_low(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese(product_id="miel", low=True), cheese(product_id="aceite"), cheese(product_id="jamon", low=True))

    async def listed(**params: str) -> list[str]:
        answer = (await web.get("/api/inventory", params=params)).json()
        assert answer["asOf"] == NOON_ISO
        assert answer["nextCursor"] is None
        return [item["productId"] for item in answer["items"]]

    assert await listed() == ["aceite", "jamon", "miel"]
    assert await listed(low="true") == ["jamon", "miel"]
    assert await listed(low="false") == ["aceite"]


# ---- pages ---------------------------------------------------------------------------------------------


async def pages_of(web: httpx.AsyncClient, path: str, **params: str) -> list[list[str]]:
    """The ids of every page, until there is no cursor."""
    pages = []
    for _ in range(100):
        answer = (await web.get(path, params=params)).json()
        pages.append([item.get("orderId") or item["productId"] for item in answer["items"]])
        if answer["nextCursor"] is None:
            return pages
        params["cursor"] = answer["nextCursor"]
    raise AssertionError("the cursor leads nowhere")


async def test_pages_have_every_order_once_and_the_last_one_is_not_empty(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(*(order(f"pedido-ñ/{number}") for number in range(6)))
    pages = await pages_of(web, "/api/orders", limit="2")
    assert pages == [[f"pedido-ñ/{number}" for number in pair] for pair in ((0, 1), (2, 3), (4, 5))]


async def test_the_longest_ids_that_a_publisher_may_use_have_pages_and_a_view(
    shop: Shop, web: httpx.AsyncClient
) -> None:
    ids = [letter * 256 for letter in ("a", "ñ", "🫒")]
    shop.put(*map(order, ids), *(cheese(product_id=each) for each in ids))
    assert await pages_of(web, "/api/orders", limit="1") == [[each] for each in ids]
    assert await pages_of(web, "/api/inventory", limit="1") == [[each] for each in ids]
    for each in ids:
        assert (await web.get(f"/api/orders/{each}")).json()["orderId"] == each
        assert (await web.get(f"/api/inventory/check/{each}")).json()["productId"] == each


async def test_pages_of_one_state_have_only_its_orders(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(*(order(f"order-{n}", SagaState.CLOSED if n % 3 else SagaState.CONFIRMED) for n in range(9)))
    pages = await pages_of(web, "/api/orders", state="confirmed", limit="2")
    assert pages == [["order-0", "order-3"], ["order-6"]]


async def test_an_order_that_arrives_between_two_pages_shifts_nothing(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(order("b"), order("d"), order("f"))
    first = (await web.get("/api/orders", params={"limit": 2})).json()
    shop.put(order("a"), order("e"))
    second = (await web.get("/api/orders", params={"limit": 2, "cursor": first["nextCursor"]})).json()
    assert [item["orderId"] for item in second["items"]] == ["e", "f"]


async def test_a_filter_looks_at_a_bounded_number_of_rows_and_goes_on_by_the_cursor() -> None:
    table: MemoryTable[int] = MemoryTable(TableSpec("numbers", int))
    table.rows = {f"{number:04}": number for number in range(1000)}
    found: list[int] = []
    after, calls = None, 0
    while calls == 0 or after is not None:
        got = await page(
            table, table.here(), after=after, limit=5, wanted=lambda number: number % 400 == 399, scanned=300
        )
        after, found, calls = got.last, found + got.rows, calls + 1
    assert found == [399, 799]
    assert calls == 4


@pytest.mark.parametrize("cursor", ["%%%", "a", "_w", "ñ"])
async def test_a_cursor_that_is_not_ours_is_refused(web: httpx.AsyncClient, cursor: str) -> None:
    assert_problem(await web.get("/api/orders", params={"cursor": cursor}), 400, "invalid-cursor")


# ---- orders --------------------------------------------------------------------------------------------


async def test_a_list_of_orders_has_summaries_and_counts_per_state(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(order("order-1"), order("order-2", SagaState.COMPLETED, deadline=None), order("order-3"))
    answer = (await web.get("/api/orders", params={"state": "awaiting_payment", "limit": 1})).json()
    assert answer["items"] == [
        {
            "orderId": "order-1",
            "state": "awaiting_payment",
            "customerId": "customer_123",
            "total": 25,
            "currency": "EUR",
            "units": 2,
            "createdAt": "2026-11-24T11:59:50.000Z",
            "updatedAt": NOON_ISO,
            "deadline": "2026-11-24T12:15:00.000Z",
            "cancelReason": None,
            "attention": None,
        }
    ]
    assert answer["states"] == {state.value: 0 for state in SagaState} | {"awaiting_payment": 2, "completed": 1}


async def test_an_order_shows_how_it_came_to_where_it_stands(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(order(paid={"payment-1": 25, "payment-2": 25}, refunds=("payment-2",), payment_reference="txn-1"))
    answer = (await web.get("/api/orders/order-1")).json()
    assert answer["state"] == "awaiting_payment"
    assert answer["customerEmail"] == "cliente@jaen.com"
    assert answer["lines"][0]["unitPrice"] == 12.5
    assert answer["products"] == [
        {"productId": "product_queso_cabra", "quantity": 2, "status": "held", "remaining": 23}
    ]
    assert answer["payments"] == [
        {"paymentId": "payment-1", "amount": 25, "refundRequested": False},
        {"paymentId": "payment-2", "amount": 25, "refundRequested": True},
    ]
    assert answer["timeline"] == [
        {
            "at": "2026-11-24T11:59:50.000Z",
            "what": "order.created",
            "direction": "in",
            "detail": "",
            "eventId": "e-1",
        },
        {"at": NOON_ISO, "what": "Reserve", "direction": "out", "detail": "", "eventId": ""},
    ]
    assert answer["reservedUntil"] == "2026-11-24T12:30:00.000Z"
    assert answer["asOf"] == NOON_ISO
    assert "seen" not in answer


async def test_unknown_order_is_a_404_problem(web: httpx.AsyncClient) -> None:
    assert_problem(await web.get("/api/orders/order-404"), 404, "unknown-order")


# ---- import --------------------------------------------------------------------------------------------


def product_line(**changes: Any) -> dict[str, Any]:
    line = {
        "productId": "product_miel_azahar",
        "name": "Miel de azahar",
        "category": "mieles",
        "artisanId": "artisan_colmena",
        "onHand": 100,
        "threshold": 10,
    }
    return {key: value for key, value in (line | changes).items() if value is not ...}


async def test_an_import_hands_over_the_whole_list(shop: Shop, web: httpx.AsyncClient) -> None:
    body = [product_line(), product_line(productId="product_queso_cabra", onHand=25)]
    response = await web.post("/api/stock/import", json=body)
    assert response.status_code == 200
    assert response.json() == {"imported": 2, "asOf": NOON_ISO}
    (lines,) = shop.imports
    assert [(line.product_id, line.on_hand) for line in lines] == [
        ("product_miel_azahar", 100),
        ("product_queso_cabra", 25),
    ]


async def test_an_import_takes_what_the_command_line_sends(shop: Shop, web: httpx.AsyncClient) -> None:
    product = Product("product_miel_azahar", "Miel de azahar", "mieles", "artisan_colmena", 100, 10)
    assert (await web.post("/api/stock/import", content=msgspec.json.encode([product]), headers=JSON)).json()[
        "imported"
    ] == 1
    await web.post("/api/stock/import", json=[product_line()])
    assert shop.imports[0] == shop.imports[1] == [StockLine(**msgspec.structs.asdict(product))]


async def test_one_bad_line_and_nothing_is_imported(shop: Shop, web: httpx.AsyncClient) -> None:
    body = [
        product_line(),
        product_line(productId="b", onHand=-1),
        product_line(productId="c", threshold=...),
        product_line(productId="d", onHand=True),
        product_line(productId="e", onHand=1.5),
        product_line(productId=""),
        product_line(productId="f", colour="red"),
        product_line(),
        "aceite",
    ]
    problem = assert_problem(await web.post("/api/stock/import", json=body), 422, "invalid-stock")
    assert [error["line"] for error in problem["errors"]] == [2, 3, 4, 5, 6, 7, 8, 9]
    causes = dict(zip(range(2, 10), (error["cause"] for error in problem["errors"]), strict=True))
    assert "onHand" in causes[2]
    assert "threshold" in causes[3]
    assert "colour" in causes[7]
    assert "product_miel_azahar" in causes[8]
    assert shop.imports == []


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"3", b'["\xff"]', b"[" * 100_000, b"[1e999]"])
async def test_a_body_that_is_no_list_is_refused(shop: Shop, web: httpx.AsyncClient, body: bytes) -> None:
    response = await web.post("/api/stock/import", content=body, headers=JSON)
    assert_problem(response, 422, "invalid-stock")
    assert shop.imports == []


async def test_only_json_of_at_most_a_mebibyte_is_read(shop: Shop, web: httpx.AsyncClient) -> None:
    form = await web.post("/api/stock/import", data={"productId": "x"})
    assert_problem(form, 415, "not-json")
    long = json.dumps([product_line(name="m" * 100)]).encode()
    fits = await web.post("/api/stock/import", content=long.ljust(1024 * 1024), headers=JSON)
    assert fits.status_code == 200
    large = await web.post("/api/stock/import", content=long.ljust(1024 * 1024 + 1), headers=JSON)
    assert_problem(large, 413, "body-too-large")
    assert len(shop.imports) == 1


# ---- errors and headers --------------------------------------------------------------------------------


async def test_what_is_not_there_is_a_problem_too(web: httpx.AsyncClient) -> None:
    assert_problem(await web.get("/api/nada"), 404, "no-such-page")
    assert_problem(await web.get("/api/orders/"), 404, "no-such-page")
    response = await web.delete("/api/orders")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/api/orders?limit=0", "limit"),
        ("/api/orders?limit=501", "limit"),
        ("/api/orders?state=lost", "state"),
        ("/api/inventory?low=perhaps", "low"),
        ("/api/inventory/check/miel?quantity=0", "quantity"),
        ("/api/inventory/check/miel?quantity=1.5", "quantity"),
    ],
)
async def test_a_wrong_parameter_is_named(web: httpx.AsyncClient, path: str, parameter: str) -> None:
    problem = assert_problem(await web.get(path), 422, "invalid-request")
    assert [error["parameter"] for error in problem["errors"]] == [parameter]
    assert problem["errors"][0]["cause"]


async def test_a_failure_of_ours_tells_nothing_of_the_inside(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.inventory.rows["broken"] = "not a row"  # type: ignore[assignment]
    response = await web.get("/api/inventory/broken")
    assert_problem(response, 500, "internal-error")
    assert "Attribute" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/health", "/docs", "/metrics", "/api/orders", "/api/nada"])
async def test_every_answer_has_the_security_headers(web: httpx.AsyncClient, path: str) -> None:
    headers = (await web.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'self'" in headers["content-security-policy"]


# ---- health --------------------------------------------------------------------------------------------


async def test_health_has_the_shape_that_the_marketplace_knows(web: httpx.AsyncClient) -> None:
    response = await web.get("/health")
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"service", "status", "timestamp", "checks"}
    assert (answer["service"], answer["status"], answer["timestamp"]) == ("a4co-streams", "healthy", NOON_ISO)
    assert set(answer["checks"]) == {"nats", "database", "memory"}
    assert answer["checks"]["memory"]["residentBytes"] > 1_000_000


@pytest.mark.parametrize(
    ("nats", "database", "expected"),
    [
        ("degraded", "healthy", (200, "degraded")),
        ("degraded", "unhealthy", (503, "unhealthy")),
        ("unhealthy", "healthy", (503, "unhealthy")),
    ],
)
async def test_health_is_as_good_as_the_worst_check(
    shop: Shop, web: httpx.AsyncClient, nats: str, database: str, expected: tuple[int, str]
) -> None:
    shop.checks = {"nats": {"status": nats}, "database": {"status": database}}
    response = await web.get("/health")
    assert (response.status_code, response.json()["status"]) == expected
    assert response.json()["checks"]["nats"] == {"status": nats}


async def test_ready_or_when_to_come_back_and_why(shop: Shop, web: httpx.AsyncClient) -> None:
    assert (await web.get("/ready")).json() == {"ready": True}
    shop.not_ready = {"inventory": "2 partitions recovering"}
    response = await web.get("/ready")
    problem = assert_problem(response, 503, "not-ready")
    assert problem["ready"] is False
    assert problem["reasons"] == {"inventory": "2 partitions recovering"}
    assert int(response.headers["retry-after"]) > 0


# ---- documents -----------------------------------------------------------------------------------------

PATHS = {
    "/api/analytics/buckets",
    "/api/analytics/dashboard",
    "/api/analytics/stock",
    *(f"/api/analytics/{series}{form}" for series in PAGES for form in ("", ".{form}")),
    "/api/bridge",
    "/api/overview",
    "/api/timers",
    "/api/dead-letters",
    "/api/dead-letters/discard",
    "/api/dead-letters/replay",
    "/api/dead-letters/{letterId}",
    "/api/dead-letters/{letterId}/discard",
    "/api/dead-letters/{letterId}/replay",
    "/api/inventory",
    "/api/inventory.{form}",
    "/api/inventory/check",
    "/api/inventory/check/{productId}",
    "/api/inventory/{productId}",
    "/api/live",
    "/api/orders",
    "/api/orders.{form}",
    "/api/orders/{orderId}",
    "/api/stock/import",
    "/health",
    "/metrics",
    "/ready",
}


async def test_openapi_lists_every_path_and_every_reference_in_it_leads_somewhere(web: httpx.AsyncClient) -> None:
    response = await web.get("/openapi.json")
    document = response.json()
    assert set(document["paths"]) == PATHS
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    used = {part.split('"')[0] for part in response.text.replace(" ", "").split('"$ref":"')[1:]}
    assert used
    assert used <= defined
    parameters = document["paths"]["/api/orders/{orderId}"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == ["orderId", "wait_for", "timeout"]


async def test_docs_list_every_operation_and_load_nothing_from_elsewhere(web: httpx.AsyncClient) -> None:
    page_text = (await web.get("/docs")).text
    for path in PATHS:
        assert path in page_text
    assert "://" not in page_text
    assert "<script" not in page_text
    assert "<style" not in page_text  # the CSP would refuse it
    assert (await web.get("/docs.css")).headers["content-type"].startswith("text/css")


async def test_the_type_of_a_problem_leads_to_its_line_in_the_docs(web: httpx.AsyncClient) -> None:
    path, anchor = (await web.get("/api/nada")).json()["type"].split("#")
    assert f'id="{anchor}"' in (await web.get(path)).text


# ---- metrics -------------------------------------------------------------------------------------------

NAMES = set(
    """
events_published_total events_processed_total events_processing_time_seconds events_failed_total saga_started_total
saga_completed_total saga_compensations_total saga_active saga_duration_seconds inventory_reservations_active
inventory_reservations_expired_total payments_processed_total orders_by_state timers_due oversold dead_letters_total
bridge_in_total bridge_in_gone_total bridge_in_waiting bridge_in_unaccounted
bridge_mirrored_total bridge_published_total bridge_lag bridge_active bridge_gap_total log_commits_total
log_commit_seconds process_resident_memory_bytes
""".split()  # noqa: SIM905 - more readable than a list
)


async def test_metrics_have_every_name_from_the_start(web: httpx.AsyncClient) -> None:
    response = await web.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    told = {line.split()[2] for line in response.text.splitlines() if line.startswith("# TYPE")}
    assert told >= NAMES
    assert "oversold 0.0" in response.text


LINE = {
    "source": "A4CO_EVENTS", "way": "own stream", "position": 12, "waiting": 3, "waitingSeconds": 1.5,
    "keptSeconds": 604800.0, "read": 12, "ignored": 1, "gone": 2, "unaccounted": 0,
    "routes": {"order.created": {"mirrored": 8, "repeated": 2, "dead-lettered": 1}},
}  # fmt: skip


async def test_the_ledger_of_the_bridge_is_shown_and_measured(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.ledger = [LINE]
    shop.metrics.bridge.ledger = lambda: shop.ledger
    answer = (await web.get("/api/bridge")).json()
    assert answer == {
        "here": True, "problem": None, "lagIn": 0, "lagOut": 0, "notDurable": [], "sources": [LINE],
    }  # fmt: skip
    assert shop.metric("bridge_in_total", route="order.created", outcome="repeated") == 2
    assert shop.metric("bridge_in_gone_total", source="A4CO_EVENTS") == 2
    assert shop.metric("bridge_in_waiting_seconds", source="A4CO_EVENTS") == 1.5
    shop.crossing = {"stands_by": True, "problem": None, "lag_in": 0, "lag_out": 0}
    shop.ledger = []
    assert (await web.get("/api/bridge")).json()["here"] is False


async def test_metrics_tell_requests_by_the_path_that_is_declared(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.put(cheese())
    for path in ("product_queso_cabra", "product_unicornio", "product_minotauro"):
        await web.get(f"/api/inventory/check/{path}")
    for number in range(3):
        await web.get(f"/no/such/place/{number}")
    await web.request("BREW", "/api/orders")
    check = {"method": "GET", "route": "/api/inventory/check/{productId}"}
    assert shop.metric("http_requests_total", **check, status="200", status_class="2xx") == 1
    assert shop.metric("http_requests_total", **check, status="404", status_class="4xx") == 2
    assert shop.metric("http_request_duration_seconds_count", **check) == 3
    assert shop.metric("http_requests_total", method="GET", route="other", status="404", status_class="4xx") == 3
    assert shop.metric("http_request_duration_seconds_count", method="other", route="/api/orders") == 1


async def test_metrics_have_the_names_that_existing_dashboards_ask_for(shop: Shop, web: httpx.AsyncClient) -> None:
    shop.metrics.published("order.confirmed", n=3)
    shop.metrics.took("order.created", "", 0.02, 5)
    shop.put(order(state=SagaState.COMPLETED, deadline=None), order("order-2", SagaState.CLOSED, deadline=None))
    lines = (await web.get("/metrics")).text.splitlines()
    assert 'event_published_total{event_type="OrderConfirmedEvent",subject="order.confirmed"} 3.0' in lines
    assert "# TYPE event_processing_duration_seconds histogram" in lines
    created = '{event_type="OrderCreatedEvent",subject="order.created"}'
    assert f"event_processing_duration_seconds_count{created} 5.0" in lines
    assert "saga_success_total 1.0" in lines
    assert 'order_status_count{status="closed"} 1.0' in lines
    assert len(lines) == len(set(lines))


async def test_metrics_of_events_have_bounded_labels(shop: Shop, web: httpx.AsyncClient) -> None:
    metrics = shop.metrics
    metrics.published("order.confirmed", "OrderConfirmedEvent")
    metrics.processed("orders", "applied", 0.002, "order.created", "OrderCreatedEvent")
    metrics.processed_many("orders", "duplicate", 7)
    metrics.took("order.created", "OrderCreatedEvent", 0.02, 9)
    for number in range(1000):
        metrics.failed(f"evil.{number}", "Evil")
        metrics.failed("order.created", f"Evil{number}")
        metrics.took("order.created", f"Evil{number}", 0.1)
        metrics.dead_lettered("orders", f"reason {number}")
    created = {"subject": "order.created", "eventType": "OrderCreatedEvent"}
    assert shop.metric("events_published_total", subject="order.confirmed", eventType="OrderConfirmedEvent") == 1
    assert shop.metric("events_processed_total", topic="orders", outcome="applied") == 1
    assert shop.metric("events_processed_total", topic="orders", outcome="duplicate") == 7
    assert shop.metric("events_processing_time_seconds_bucket", le="0.0025", **created) == 1
    assert shop.metric("events_processing_time_seconds_count", **created) == 10
    assert shop.metric("events_processing_time_seconds_sum", **created) == pytest.approx(0.182)
    assert shop.metric("events_failed_total", subject="other", eventType="other") == 1000
    assert len((await web.get("/metrics")).text.splitlines()) < 600


async def test_metrics_follow_a_saga_from_its_order_to_its_end(shop: Shop) -> None:
    shop.put(order(state=SagaState.RESERVING), order("order-2", SagaState.PARKED))
    assert shop.metric("saga_started_total") == 1
    assert shop.metric("saga_active") == 1
    shop.put(order(deadline=NOON - 1))
    assert shop.metric("timers_due") == 1
    shop.put(order(state=SagaState.CONFIRMED, paid={"payment-1": 25}, deadline=None))
    shop.put(order(state=SagaState.COMPLETED, paid={"payment-1": 25}, deadline=None, updated_at=NOON + 20))
    shop.put(order(state=SagaState.COMPLETED, paid={"payment-1": 25}, deadline=None, updated_at=NOON + 99))
    assert shop.metric("saga_started_total") == 1
    assert shop.metric("saga_active") == 0
    assert shop.metric("timers_due") == 0
    assert shop.metric("saga_completed_total", outcome="completed") == 1
    assert shop.metric("saga_completed_total", outcome="cancelled") == 0
    assert shop.metric("saga_duration_seconds_sum") == 30
    assert shop.metric("payments_processed_total", status="succeeded") == 1
    assert shop.metric("orders_by_state", state="completed") == 1
    assert shop.metric("saga_compensations_total") == 0


async def test_metrics_count_what_a_cancelled_order_undoes(shop: Shop) -> None:
    failed = Step(NOON, "payment.failed", "in", event_id="e-2")
    shop.put(order())
    shop.put(order(state=SagaState.PAYMENT_RETRY, timeline=(*order().timeline, failed)))
    again = (order().timeline[1], failed, msgspec.structs.replace(failed, event_id="e-3"))  # bounded: the oldest left
    released = {"product_queso_cabra": Held(2, "released")}
    shop.put(order(state=SagaState.CANCELLED, timeline=again, products=released, deadline=None))
    shop.put(order(state=SagaState.CLOSED, timeline=again, products=released, deadline=None))
    assert shop.metric("payments_processed_total", status="failed") == 2
    assert shop.metric("saga_compensations_total") == 1
    assert shop.metric("saga_completed_total", outcome="cancelled") == 1


async def test_metrics_count_what_is_tried_once_more(shop: Shop) -> None:
    shop.put(order(attempt=1))
    shop.put(order(attempt=2), order(attempt=3, mail_attempt=1))
    shop.put(order(attempt=3, mail_attempt=2))
    assert shop.metric("saga_retries_total", step="payment") == 2
    assert shop.metric("saga_retries_total", step="mail") == 1


async def test_metrics_count_holds_those_that_ran_out_and_units_oversold(shop: Shop) -> None:
    shop.put(cheese())
    assert shop.metric("inventory_reservations_active") == 2
    shop.put(cheese(holds={"order-1": Hold(2, NOON + 1800)}, ended={"order-2": "released"}, updated_at=NOON + 60))
    assert shop.metric("inventory_reservations_active") == 1
    assert shop.metric("inventory_reservations_expired_total") == 1
    shop.put(cheese(holds={}, on_hand=23, ended={"order-1": "released"}, updated_at=NOON + 70))
    assert shop.metric("inventory_reservations_expired_total") == 1  # released before its time
    assert shop.metric("oversold") == 0
    shop.put(cheese(on_hand=3))
    assert shop.metric("oversold") == 2


async def test_metrics_are_right_again_after_a_restart(shop: Shop) -> None:
    marked = order("order-2", SagaState.CLOSED, deadline=None, attention="paid after its cancellation")
    shop.put(order("order-1"), marked, cheese(low=True))
    restarted = Metrics(lambda: NOON + 3600)
    restarted.watch_tables({"order_sagas": shop.order_sagas, "inventory": shop.inventory})
    assert restarted.orders_by_state(range(4))["awaiting_payment"] == 1
    assert restarted.registry.get_sample_value("saga_active") == 1
    assert restarted.registry.get_sample_value("orders_need_attention") == 1
    assert restarted.registry.get_sample_value("timers_due") == 1
    assert restarted.registry.get_sample_value("inventory_reservations_active") == 2
    assert restarted.registry.get_sample_value("inventory_low_products") == 1
    assert restarted.registry.get_sample_value("saga_started_total") == 0


async def test_readings_of_others_are_taken_at_the_scrape(shop: Shop) -> None:
    waiting = [3.0]
    shop.metrics.watch("bridge_lag", lambda: waiting[0], "in")
    waiting[0] = 5.0
    assert shop.metric("bridge_lag", direction="in") == 5
    with pytest.raises(KeyError):
        shop.metrics.watch("no_such_gauge", lambda: 0.0)


async def test_an_event_counts_under_the_type_that_its_subject_has(web: httpx.AsyncClient, shop: Shop) -> None:
    shop.metrics.published("order.confirmed")
    shop.metrics.published("payment.requested.v1")
    text = (await web.get("/metrics")).text
    assert 'events_published_total{eventType="OrderConfirmedEvent",subject="order.confirmed"} 1.0' in text
    assert 'events_published_total{eventType="payment.requested.v1",subject="payment.requested.v1"} 1.0' in text
