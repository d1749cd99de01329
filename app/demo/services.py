"""The simulated services: orders, payments and the artisans' stock. They speak NATS in dialect A only, as the originals
do: core publish, no headers, no knowledge of the application. What they do is decided by the customer's name.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from app.demo.envelope import encode, event, new_id, now, repeated
from app.demo.goods import BY_ID, Customer, Planned

DELIVERY_DELAY = 5.0
"""Seconds from a warning that stock is low to the artisan's delivery."""

EVERY_REPEATED = 16
"""One in so many payment.succeeded is published twice."""


class OrderService:
    """Places orders, and cancels those whose customers want it. `placed` hears each order's id beforehand."""

    source = "order-service"

    def __init__(self, nats: Client, placed: Callable[[str], None]) -> None:
        self._nats = nats
        self._placed = placed
        self._wavering: dict[str, str] = {}

    async def listen(self) -> None:
        """Hear what becomes of the orders."""
        await self._nats.subscribe("inventory.stock.reserved", cb=self._on_reserved)
        await self._nats.subscribe("order.confirmed", cb=self._on_confirmed)

    async def run(self, orders: Iterable[Planned], per_second: float) -> None:
        """Place the orders, so many a second."""
        began = time.monotonic()
        for number, order in enumerate(orders):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            await self._place(order)

    async def _place(self, order: Planned) -> None:
        order_id = new_id("order")
        if order.customer_id in (Customer.CHANGES_MIND, Customer.REGRETS):
            self._wavering[order_id] = order.customer_id
        created = event("OrderCreatedEvent", order_id, _order_data(order), self.source)
        self._placed(order_id)
        await self._nats.publish("order.created", encode(created))
        if order.repeated:
            await self._nats.publish("order.created", encode(repeated(created)))

    async def _on_reserved(self, message: Msg) -> None:
        order_id = json.loads(message.data)["eventData"]["orderId"]
        if self._wavering.get(order_id) == Customer.CHANGES_MIND:
            await self._cancel(order_id, "El cliente ha cambiado de idea", refund=False)

    async def _on_confirmed(self, message: Msg) -> None:
        order_id = json.loads(message.data)["aggregateId"]
        if self._wavering.get(order_id) == Customer.REGRETS:
            await self._cancel(order_id, "El cliente se arrepiente de la compra", refund=True)

    async def _cancel(self, order_id: str, reason: str, *, refund: bool) -> None:
        del self._wavering[order_id]
        data = {
            "reason": reason,
            "cancelledAt": now(),
            "cancelledBy": "customer",
            "refundRequired": refund,
            "notificationSent": False,
        }
        await self._nats.publish("order.cancelled", encode(event("OrderCancelledEvent", order_id, data, self.source)))


def _order_data(order: Planned) -> dict[str, Any]:
    items = [
        {
            "productId": good.product_id,
            "productName": good.name,
            "quantity": quantity,
            "unitPrice": good.price,
            "artisanId": good.artisan_id,
            "totalPrice": round(good.price * quantity, 2),
        }
        for good, quantity in order.lines
    ]
    return {
        "customerId": order.customer_id,
        "customerEmail": f"{order.customer_id}@jaen.example",
        "items": items,
        "totalAmount": round(sum(good.price * quantity for good, quantity in order.lines), 2),
        "currency": "EUR",
        "deliveryAddress": {
            "street": "Calle Real 123",
            "city": "Jaén",
            "state": "Andalucía",
            "postalCode": "23001",
            "country": "España",
        },
        "createdAt": now(),
    }


class PaymentService:
    """Answers every payment.initiated once, and every refund that is asked for."""

    source = "payment-service"

    def __init__(self, nats: Client) -> None:
        self._nats = nats
        self._asked: Counter[str] = Counter()
        self._succeeded = 0

    async def listen(self) -> None:
        """Hear what is to be paid."""
        await self._nats.subscribe("payment.initiated", cb=self._on_initiated)
        await self._nats.subscribe("payment.refund.initiated", cb=self._on_refund)

    async def _on_initiated(self, message: Msg) -> None:
        asked = json.loads(message.data)
        payment_id, data = asked["aggregateId"], asked["eventData"]
        self._asked[data["orderId"]] += 1
        match data["customerId"]:
            case Customer.CHANGES_MIND:
                return
            case Customer.CARD_STOLEN:
                await self._fail(payment_id, data, "CARD_STOLEN", "Tarjeta denunciada como robada", retryable=False)
            case Customer.NO_MONEY:
                await self._fail(payment_id, data, "CARD_DECLINED", "Tarjeta rechazada por el banco", retryable=True)
            case Customer.BANK_OFFLINE if self._asked[data["orderId"]] == 1:
                await self._fail(payment_id, data, "BANK_OFFLINE", "El banco no responde", retryable=True)
            case Customer.PAYS_TWICE:
                await self._succeed(payment_id, data)
                await self._succeed(new_id("payment"), data)
            case _:
                await self._succeed(payment_id, data)

    async def _succeed(self, payment_id: str, asked: Mapping[str, Any]) -> None:
        fees = round(asked["amount"] * 0.014 + 0.25, 2)
        data = {
            "orderId": asked["orderId"],
            "transactionId": new_id("txn"),
            "amount": asked["amount"],
            "currency": asked["currency"],
            "fees": fees,
            "netAmount": round(asked["amount"] - fees, 2),
            "processedAt": now(),
            "paymentGateway": "stripe",
        }
        succeeded = event("PaymentSucceededEvent", payment_id, data, self.source)
        await self._nats.publish("payment.succeeded", encode(succeeded))
        self._succeeded += 1
        if self._succeeded % EVERY_REPEATED == 0:  # as when a subscriber of theirs failed
            await self._nats.publish("payment.succeeded", encode(repeated(succeeded)))

    async def _fail(self, payment_id: str, asked: Mapping[str, Any], code: str, text: str, *, retryable: bool) -> None:
        data = {
            "orderId": asked["orderId"],
            "errorCode": code,
            "errorMessage": text,
            "retryable": retryable,
            "failedAt": now(),
            "paymentGateway": "stripe",
            "failureReason": text,
            "customerNotified": False,
        }
        await self._nats.publish("payment.failed", encode(event("PaymentFailedEvent", payment_id, data, self.source)))

    async def _on_refund(self, message: Msg) -> None:
        asked = json.loads(message.data)["eventData"]
        data = {
            "originalPaymentId": asked["originalPaymentId"],
            "orderId": asked["orderId"],
            "amount": asked["amount"],
            "currency": asked["currency"],
            "reason": asked["reason"],
            "processedAt": now(),
            "refundMethod": "original",
            "customerNotified": True,
        }
        processed = event("RefundProcessedEvent", asked["originalPaymentId"], data, self.source)
        await self._nats.publish("payment.refund.processed", encode(processed))


class Artisans:
    """Bring stock: at the beginning, and later some seconds after a warning that it is low."""

    source = "inventory-service"

    def __init__(self, nats: Client) -> None:
        self._nats = nats
        self._on_the_way: set[str] = set()

    async def bring(self, product_id: str, units: int, before: int = 0) -> None:
        """Publish one delivery."""
        data = {
            "previousStock": before,
            "newStock": before + units,
            "changeAmount": units,
            "updateReason": "restock",
            "updatedBy": BY_ID[product_id].artisan_id,
            "updatedAt": now(),
            "artisanId": BY_ID[product_id].artisan_id,
        }
        updated = event("StockUpdatedEvent", product_id, data, self.source)
        await self._nats.publish("inventory.stock.updated", encode(updated))

    async def listen(self) -> None:
        """Bring more whenever something runs low."""
        await self._nats.subscribe("inventory.stock.warning", cb=self._on_warning)

    async def _on_warning(self, message: Msg) -> None:
        warning = json.loads(message.data)
        product_id = warning["aggregateId"]
        if product_id in self._on_the_way or product_id not in BY_ID:
            return
        self._on_the_way.add(product_id)
        left = warning["eventData"]["currentStock"]
        asyncio.get_running_loop().call_later(DELIVERY_DELAY, self._deliver, product_id, left)

    def _deliver(self, product_id: str, left: int) -> None:
        self._on_the_way.discard(product_id)
        if not self._nats.is_closed:
            self._delivery = asyncio.ensure_future(self.bring(product_id, BY_ID[product_id].stock, left))
