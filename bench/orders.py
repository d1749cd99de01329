"""The messages that the benches publish: dialect A, of the size and form of the marketplace's own."""

import itertools
import uuid
from typing import Any

PRODUCTS = ("product_aceite_picual", "product_queso_cabra", "product_miel_azahar", "product_jamon_iberico")
NEXT = itertools.cycle(PRODUCTS)
TIME = "2026-11-24T13:35:51.032Z"


def envelope(event_type: str, aggregate_id: str, data: dict[str, Any], source: str) -> dict[str, Any]:
    """Dialect A's envelope with an id of its own."""
    event_id = str(uuid.uuid4())
    return {
        "eventId": event_id,
        "eventType": event_type,
        "aggregateId": aggregate_id,
        "eventVersion": 1,
        "occurredOn": TIME,
        "eventData": data,
        "metadata": {
            "eventId": event_id,
            "correlationId": f"{source}-{event_id[:13]}",
            "publishedAt": TIME,
            "version": "1.0",
            "source": source,
        },
    }


def order_created(order: str) -> dict[str, Any]:
    """An order of two units of one product, 25 EUR."""
    item = {
        "productId": next(NEXT),
        "productName": "Aceite Picual de Úbeda",
        "quantity": 2,
        "unitPrice": 12.5,
        "artisanId": "artisan_olivares_ubeda",
        "totalPrice": 25,
    }
    data = {
        "customerId": "customer_123",
        "customerEmail": "cliente@jaen.example",
        "items": [item],
        "totalAmount": 25,
        "currency": "EUR",
        "deliveryAddress": {
            "street": "Calle Real 123",
            "city": "Jaén",
            "state": "Andalucía",
            "postalCode": "23001",
            "country": "España",
        },
        "estimatedDelivery": TIME,
        "createdAt": TIME,
    }
    return envelope("OrderCreatedEvent", order, data, "order-service")


def payment_succeeded(order: str) -> dict[str, Any]:
    """The order's payment, 25 EUR."""
    data = {
        "orderId": order,
        "transactionId": f"txn_{order}",
        "amount": 25,
        "currency": "EUR",
        "fees": 0.75,
        "netAmount": 24.25,
        "processedAt": TIME,
        "paymentGateway": "stripe",
        "authorizationCode": "auth_1",
    }
    return envelope("PaymentSucceededEvent", f"payment_{order}", data, "payment-service")
