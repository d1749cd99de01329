"""What the saga says, word by word: one function per announcement or mail. When it is said is decided in order_saga.py.

The data is dialect A's eventData; an order of dialect C gets the few fields more that its readers know.
"""

from functools import lru_cache
from typing import Any

from app.domain.causes import caused, iso
from app.domain.messages import Announce, Message, Money, Refused, SendMail
from app.domain.rows import OrderSaga

CONFIRMATION = "order-confirmation"
CANCELLATION = "order-cancellation"
DELIVERY_SECONDS = 3 * 24 * 3600.0  # the estimate that the order service gives


@lru_cache(maxsize=256)
def tracking_number(order_id: str) -> str:
    """The word TRK and 13 digits, always the same for an order."""
    return f"TRK{int(caused(order_id, 'tracking').replace('-', ''), 16) % 10**13:013d}"


def announce(saga: OrderSaga, cause: Message, kind: str, aggregate_id: str, data: dict[str, Any]) -> Announce:
    """An announcement about the order, caused by the message being applied."""
    return Announce(
        event_id=caused(cause.event_id, kind, aggregate_id),
        key=saga.order_id,
        at=cause.at,
        source="order-saga",
        kind=kind,
        aggregate_id=aggregate_id,
        data=data,
        dialect=saga.dialect,
        correlation_id=saga.correlation_id,
        causation_id=cause.event_id,
    )


def stock_reserved(saga: OrderSaga, cause: Message) -> Announce:
    """One announcement for the whole order; dialects that speak per product fan it out."""
    items = [
        {
            "productId": product,
            "quantityReserved": held.quantity,
            "remainingStock": held.remaining or 0,
            "artisanId": held.artisan_id or "",
        }
        for product, held in saga.products.items()
    ]
    expiry = saga.reserved_until if saga.reserved_until is not None else cause.at
    data = {
        "orderId": saga.order_id,
        "items": items,
        "reservationExpiry": iso(expiry),
        "reservedAt": iso(cause.at),
    }
    return announce(saga, cause, "inventory.stock.reserved", saga.order_id, data)


def out_of_stock(saga: OrderSaga, refused: Refused, reason: str) -> Announce:
    """Dialect C only: A has no subject for a refusal."""
    item = {
        "productId": refused.product_id,
        "requestedQuantity": refused.requested,
        "availableQuantity": refused.available,
    }
    data = {
        "orderId": saga.order_id,
        "reason": reason,
        "unavailableItems": [item],
        "failedAt": iso(refused.at),
    }
    return announce(saga, refused, "inventory.out_of_stock", saga.order_id, data)


def payment_asked(saga: OrderSaga, cause: Message, kind: str) -> Announce:
    """The request for payment number `saga.attempt`. Each attempt is a payment of its own, so a second charge shows."""
    payment_id = caused(saga.order_id, "payment", str(saga.attempt))
    data = {
        "orderId": saga.order_id,
        "customerId": saga.customer_id,
        "amount": saga.total,
        "currency": saga.currency,
        "paymentMethod": "card",
        "paymentGateway": "stripe",
        "initiatedAt": iso(cause.at),
        "attempt": saga.attempt,
        "paymentId": payment_id,
    }
    aggregate_id = saga.order_id if kind.startswith("order.") else payment_id
    return announce(saga, cause, kind, aggregate_id, data)


def order_confirmed(saga: OrderSaga, cause: Message) -> Announce:
    """`saga` as it is once confirmed."""
    data: dict[str, Any] = {
        "confirmedAt": iso(cause.at),
        "estimatedDelivery": iso(cause.at + DELIVERY_SECONDS),
        "paymentReference": saga.payment_reference or "",
        "artisanNotified": True,
        "trackingNumber": tracking_number(saga.order_id),
    }
    if saga.dialect == "c":
        payment_id = next(iter(saga.paid), saga.payment_reference or "")
        data |= {"paymentId": payment_id, "totalAmount": saga.total, "currency": saga.currency} | _who(saga)
    return announce(saga, cause, "order.confirmed", saga.order_id, data)


def order_cancelled(saga: OrderSaga, cause: Message, *, refund: Money | None, notified: bool) -> Announce:
    """`saga` as it is once cancelled. `refund` is what goes back to the customer, None when nothing was paid."""
    data: dict[str, Any] = {
        "reason": saga.cancel_reason or "",
        "cancelledAt": iso(cause.at),
        "cancelledBy": "system",
        "refundRequired": refund is not None,
        "notificationSent": notified,
    }
    if refund is not None:
        data["refundAmount"] = refund
    if saga.dialect == "c":
        data |= _who(saga)
    return announce(saga, cause, "order.cancelled", saga.order_id, data)


def refund_asked(saga: OrderSaga, cause: Message, payment_id: str, reason: str) -> Announce:
    """The whole payment goes back."""
    data = {
        "originalPaymentId": payment_id,
        "orderId": saga.order_id,
        "amount": saga.paid[payment_id],
        "currency": saga.currency,
        "reason": reason,
    }
    return announce(saga, cause, "payment.refund.initiated", payment_id, data)


def email_sent(saga: OrderSaga, cause: Message, template: str, message_id: str) -> Announce:
    """A mail of ours was handed to the mail server."""
    data = {
        "recipientEmail": saga.customer_email or "",
        "subject": mail_subject(template, saga.order_id),
        "template": template,
        "variables": _mail_facts(saga, template),
        "sentAt": iso(cause.at),
        "provider": "smtp",
        "messageId": message_id,
    }
    return announce(saga, cause, "notification.email.sent", f"email_{caused(saga.order_id, template)}", data)


def mail_asked(saga: OrderSaga, cause: Message, template: str) -> SendMail:
    """Attempt number `saga.mail_attempt` of the order's mail."""
    lines = [
        {
            "name": line.product_name or line.product_id,
            "quantity": line.quantity,
            "unitPrice": line.unit_price,
        }
        for line in saga.lines
    ]
    return SendMail(
        event_id=caused(cause.event_id, "SendMail", f"{template}:{saga.mail_attempt}"),
        key=saga.order_id,
        at=cause.at,
        source="order-saga",
        template=template,
        recipient=saga.customer_email or "",
        variables=_mail_facts(saga, template) | {"lines": lines, "total": saga.total, "currency": saga.currency},
        attempt=saga.mail_attempt,
        dialect=saga.dialect,
    )


def mail_subject(template: str, order_id: str) -> str:
    """The subject line that the marketplace's customers know."""
    return f"Orden #{order_id} cancelada" if template == CANCELLATION else f"Confirmación de pedido #{order_id}"


def _mail_facts(saga: OrderSaga, template: str) -> dict[str, Any]:
    if template == CANCELLATION:
        facts = {"reason": saga.cancel_reason or "", "refundRequired": bool(saga.refunds)}
        return {"orderId": saga.order_id} | facts
    delivery = iso((saga.confirmed_at or saga.updated_at) + DELIVERY_SECONDS)
    tracking = tracking_number(saga.order_id)
    return {"orderId": saga.order_id, "trackingNumber": tracking, "estimatedDelivery": delivery}


def _who(saga: OrderSaga) -> dict[str, Any]:
    return {"orderId": saga.order_id, "customerId": saga.customer_id}
