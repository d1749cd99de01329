"""The wire's own types: the envelopes and data of the events that the rules read, in every dialect.

They check shapes and bounds and decide nothing. Fields that are not named here are allowed and kept.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt
from pydantic.alias_generators import to_camel

MAX_ID = 256  # characters
MAX_ITEMS = 10_000
MAX_QUANTITY = 1_000_000
MAX_TEXT = 500  # characters of any other text that the rules keep: a row is written whole at each of its changes

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Quantity = Annotated[StrictInt, Field(gt=0, le=MAX_QUANTITY)]
Amount = Annotated[StrictInt | StrictFloat, Field(ge=0)]
Count = Annotated[StrictInt, Field(ge=0, le=1_000_000_000)]
Change = Annotated[StrictInt, Field(ge=-1_000_000_000, le=1_000_000_000)]
Currency = Annotated[str, Field(min_length=1, max_length=16)]
Text = Annotated[str, AfterValidator(lambda text: text[:MAX_TEXT])]


class Wire(BaseModel):
    """What all of them share: camelCase, nothing converted, no NaN and no Infinity."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, strict=True, extra="allow", allow_inf_nan=False
    )


# ---- envelopes ------------------------------------------------------------------------------------------


class DomainEvent(Wire):
    """Dialects A and B. `aggregate_id` is the order, the product, the payment or the mail, by subject."""

    event_id: Id
    event_type: str | None = None
    aggregate_id: Id | None = None
    event_data: dict[str, Any]


class SharedEvent(Wire):
    """Dialect C, unwrapped."""

    event_id: Id
    event_type: str | None = None


# ---- orders ---------------------------------------------------------------------------------------------


class Item(Wire):
    product_id: Id
    quantity: Quantity
    unit_price: Amount
    product_name: Text | None = None
    artisan_id: Text | None = None


class OrderCreatedData(Wire):
    customer_id: Id
    customer_email: Text | None = None
    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]
    total_amount: Amount
    currency: Currency | None = None


class OrderConfirmedData(Wire):
    payment_reference: Text | None = None
    payment_id: Text | None = None  # dialect C


class OrderCancelledData(Wire):
    reason: str = ""
    cancelled_by: str | None = None


class OrderDeliveredData(Wire):
    recipient_name: Text | None = None


# ---- payments -------------------------------------------------------------------------------------------


class PaymentSucceededData(Wire):
    payment_id: Id | None = None
    transaction_id: Id | None = None
    payment_intent_id: Id | None = None  # dialect C
    amount: Amount
    currency: Currency | None = None


class PaymentFailedData(Wire):
    payment_id: Id | None = None
    error_code: str | None = None
    error_message: str | None = None
    failure_reason: str | None = None
    reason: str | None = None  # dialect C
    retryable: StrictBool | None = None


class RefundProcessedData(Wire):
    original_payment_id: Id | None = None
    payment_id: Id | None = None
    amount: Amount


# ---- mails, stock ---------------------------------------------------------------------------------------


class EmailSentData(Wire):
    recipient_email: str = ""
    template: str = ""


class StockMovedData(Wire):
    """inventory.stock.updated, replenished and depleted: each service fills what it knows."""

    new_stock: Count | None = None
    current_stock: Count | None = None
    change_amount: Change | None = None
    quantity_added: Change | None = None
    threshold: Count | None = None
    artisan_id: Text | None = None
    product_name: Text | None = None
    category: Text | None = None
