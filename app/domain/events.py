"""The wire's own types: the envelopes and data of the events that the rules read, in every dialect.

They check shapes and bounds and decide nothing. Fields that are not named here are allowed; a text may have any length,
and who reads it keeps MAX_TEXT characters.
"""

from typing import Annotated

from msgspec import Meta, Struct

MAX_ID = 256  # characters
MAX_ITEMS = 10_000
MAX_QUANTITY = 1_000_000
MAX_TEXT = 500  # characters of any other text that the rules keep: a row is written whole at each of its changes

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Quantity = Annotated[int, Meta(gt=0, le=MAX_QUANTITY)]
Amount = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Change = Annotated[int, Meta(ge=-1_000_000_000, le=1_000_000_000)]
Currency = Annotated[str, Meta(min_length=1, max_length=16)]


class Wire(Struct, frozen=True, rename="camel"):
    """What all of them share: camelCase, and nothing is converted ("2" and 2.0 are no quantity)."""


# ---- envelopes ------------------------------------------------------------------------------------------


class SharedEvent(Wire, frozen=True, kw_only=True):
    """Dialect C, unwrapped."""

    event_id: Id
    event_type: str | None = None


class DomainEvent(SharedEvent, frozen=True, kw_only=True):
    """Dialects A and B. `aggregate_id` is the order, the product, the payment or the mail, by subject."""

    aggregate_id: Id | None = None


# ---- orders ---------------------------------------------------------------------------------------------


class Item(Wire, frozen=True, kw_only=True):
    product_id: Id
    quantity: Quantity
    unit_price: Amount
    product_name: str | None = None
    artisan_id: str | None = None


class OrderCreatedData(Wire, frozen=True, kw_only=True):
    customer_id: Id
    customer_email: str | None = None
    items: Annotated[list[Item], Meta(min_length=1, max_length=MAX_ITEMS)]
    total_amount: Amount
    currency: Currency | None = None


class OrderConfirmedData(Wire, frozen=True, kw_only=True):
    payment_reference: str | None = None
    payment_id: str | None = None  # dialect C


class OrderCancelledData(Wire, frozen=True, kw_only=True):
    reason: str = ""
    cancelled_by: str | None = None


class OrderDeliveredData(Wire, frozen=True, kw_only=True):
    recipient_name: str | None = None


# ---- payments -------------------------------------------------------------------------------------------


class PaymentSucceededData(Wire, frozen=True, kw_only=True):
    payment_id: Id | None = None
    transaction_id: Id | None = None
    payment_intent_id: Id | None = None  # dialect C
    amount: Amount
    currency: Currency | None = None


class PaymentFailedData(Wire, frozen=True, kw_only=True):
    payment_id: Id | None = None
    error_code: str | None = None
    error_message: str | None = None
    failure_reason: str | None = None
    reason: str | None = None  # dialect C
    retryable: bool | None = None


class RefundProcessedData(Wire, frozen=True, kw_only=True):
    original_payment_id: Id | None = None
    payment_id: Id | None = None
    amount: Amount


# ---- mails, stock ---------------------------------------------------------------------------------------


class EmailSentData(Wire, frozen=True, kw_only=True):
    recipient_email: str = ""
    template: str = ""


class StockMovedData(Wire, frozen=True, kw_only=True):
    """inventory.stock.updated, replenished and depleted: each service fills what it knows."""

    new_stock: Count | None = None
    current_stock: Count | None = None
    change_amount: Change | None = None
    quantity_added: Change | None = None
    threshold: Count | None = None
    artisan_id: str | None = None
    product_name: str | None = None
    category: str | None = None
