"""What must become of orders, products and answers: a model of its own, with none of the application's code in it.

What is certain is exact; what depends on who came first is a range.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PRODUCTS = {
    "product_aceite_picual": 1.0,
    "product_miel_azahar": 1.0,
    "product_queso_cabra": 0.4,
    "product_jamon_iberico": 0.2,
}
"""Product -> the part of what will be ordered that is there. Two are enough for all, two are not."""
PRICE = 12.5
ENDS = {"confirmed": "completed", "refused": "closed", "unpaid": "closed", "cancelled": "closed", "returned": "closed"}
STATUSES = {
    "confirmed": {"committed"},
    "refused": {"refused", "released"},
    "unpaid": {"released"},
    "cancelled": {"released"},
    "returned": {"returned"},
}


@dataclass
class Order:
    """What a customer and the payment service will do (by the seed), and what they have done so far."""

    id: str
    lines: tuple[tuple[str, int], ...]
    answers: tuple[str, ...]  # of the payment service, by attempt: paid | retryable | refused
    charged_twice: bool
    paid_early: bool  # before order.created is published
    cancels: str  # "" | at once | when asked to pay | when confirmed
    repeats: int  # order.created published again, with the same event id
    paid: set[str] = field(default_factory=set)  # payments that were published
    cancelled: bool = False

    @property
    def products(self) -> Counter[str]:
        """Its lines, summed."""
        total: Counter[str] = Counter()
        for product, quantity in self.lines:
            total[product] += quantity
        return total

    @property
    def total(self) -> float:
        return PRICE * sum(quantity for _, quantity in self.lines)

    @property
    def pays(self) -> bool:
        return self.paid_early or "paid" in self.answers

    @property
    def attempts(self) -> int:
        return 0 if self.paid_early else len(self.answers)


def plan_orders(number: int, seed: int) -> list[Order]:
    """The orders of a run, always the same for the same seed."""
    chance = random.Random(seed)
    payments = [("paid",)] * 5 + [("retryable", "paid"), ("retryable",) * 3, ("refused",), ("retryable", "refused")]
    cancels = [""] * 14 + ["at once", "when asked to pay", "when confirmed"]
    orders = []
    for n in range(number):
        early = chance.random() < 0.05
        orders.append(
            Order(
                id=f"order-{seed}-{n:05d}",
                lines=tuple((chance.choice(list(PRODUCTS)), chance.randint(1, 3)) for _ in range(chance.randint(1, 3))),
                answers=() if early else chance.choice(payments),
                charged_twice=chance.random() < 0.05,
                paid_early=early,
                cancels=chance.choice(cancels),
                repeats=chance.choice([0] * 6 + [1, 2]),
            )
        )
    return orders


def demand(orders: Iterable[Order]) -> Counter[str]:
    """Units ordered of each product."""
    total: Counter[str] = Counter()
    for order in orders:
        total += order.products
    return total


def allowed(order: Order, scarce: set[str]) -> set[str]:
    """The ends that this order may come to. Only who wants what is scarce may be refused."""
    ends = {"confirmed" if order.pays else "unpaid"}
    if order.cancelled:
        # It is cancelled wherever it stood, unless it had ended badly before.
        ends = {"cancelled", "returned"} if order.pays else {"cancelled", "unpaid"}
        if order.cancels == "when confirmed":
            ends = {"returned"}
    return ends | ({"refused"} if scarce & order.products.keys() else set())


def outcome(row: Mapping[str, Any]) -> str:
    """How an order ended, by what /api/orders/{id} says."""
    if row["state"] == "completed":
        return "confirmed"
    if row["state"] != "closed":
        return f"not yet: {row['state']}"
    if row["cancelledBy"] == "customer":
        return "returned" if any(product["status"] == "returned" for product in row["products"]) else "cancelled"
    return "refused" if str(row["cancelReason"]).startswith("Stock insuficiente") else "unpaid"


def row_differences(order: Order, row: Mapping[str, Any], scarce: set[str]) -> Iterator[str]:
    """Where the order's row is not what the model allows."""
    end = outcome(row)
    if end not in allowed(order, scarce):
        yield f"{order.id} ended ({end}), allowed {sorted(allowed(order, scarce))}"
        return
    refunded = {payment["paymentId"] for payment in row["payments"] if payment["refundRequested"]}
    expected = {
        "state": (row["state"], ENDS[end]),
        "total": (row["total"], order.total),
        "products": ({p["productId"]: p["quantity"] for p in row["products"]}, dict(order.products)),
        "statuses": ({p["status"] for p in row["products"]} - STATUSES[end], set()),
        "payments": ({payment["paymentId"] for payment in row["payments"]}, order.paid),
        "refunds": (len(refunded), len(order.paid) - (end == "confirmed")),
        "deadline": (row["deadline"], None),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            yield f"{order.id} ({end}): {name} is {found}, expected {wanted}"


def said_differences(order: Order, end: str, said: Counter[str]) -> Iterator[str]:
    """Where what was said about the order is not what its end demands. Mails are counted by their template."""
    if end not in ENDS:
        return  # its row tells that already
    products = len(order.products)
    asked = (0, 1) if order.paid_early else (order.attempts, order.attempts)
    held = said["inventory.stock.reserved"] > 0
    given_back = products if (end == "cancelled" and held) or end in ("unpaid", "returned") else 0
    ranges = {
        "inventory.stock.reserved": (
            0 if end in ("refused", "cancelled") else products,
            0 if end == "refused" else products,
        ),
        "payment.initiated": {"refused": (0, 0), "cancelled": (0, max(asked))}.get(end, asked),
        "order.confirmed": (end in ("confirmed", "returned"),) * 2,
        "order.cancelled": (end in ("refused", "unpaid"),) * 2,
        "inventory.stock.released": (given_back, given_back),
        "payment.refund.initiated": (len(order.paid) - (end == "confirmed"),) * 2,
        "order-confirmation": (end == "confirmed", end in ("confirmed", "returned")),
        "order-cancellation": (end != "confirmed",) * 2,
    }
    for what, (least, most) in ranges.items():
        if not least <= said[what] <= most:
            yield f"{order.id} ({end}): {said[what]} x {what}, expected {int(least)} to {int(most)}"
    if 0 < said["inventory.stock.reserved"] < products:
        yield f"{order.id} ({end}): half of the order was said to be reserved"
    for what in said.keys() - ranges.keys():
        yield f"{order.id} ({end}): {what} was said, and nobody expected it"


def counted(order: Order, end: str, said: Counter[str]) -> Counter[str]:
    """What the order counts for in the analytics; of what depends on who came first, what was said of it tells."""
    sold, lost = end in ("confirmed", "returned"), end != "confirmed"
    reasons = {"refused": "out-of-stock", "unpaid": "payment-failed", "cancelled": "customer"}
    asked = said["payment.initiated"]
    total: Counter[str] = Counter(
        {
            "orders opened": 1,
            "orders asked": min(1, asked),
            "orders retries": max(0, asked - 1),
            "orders confirmed": sold,
            "orders cancelled": lost and not sold,
            "orders returned": lost and sold,
            "orders refunds": said["payment.refund.initiated"],
            "revenue EUR": sold * round(order.total * 100),
            "returned revenue EUR": (lost and sold) * round(order.total * 100),
        }
    )
    if end in reasons:
        total[f"cancelled {reasons[end]}"] = 1
    for product, quantity in order.products.items():
        total[f"units EUR {product}"] = sold * quantity
        total[f"returned units EUR {product}"] = (lost and sold) * quantity
    return +total


def shelf_differences(
    shelves: Iterable[Mapping[str, Any]], start: Mapping[str, int], sold: Mapping[str, int]
) -> Iterator[str]:
    """Where a product is not what came in less what was sold, with nothing reserved."""
    found = {shelf["productId"]: (shelf["onHand"], shelf["reserved"], shelf["available"]) for shelf in shelves}
    for product in start:
        left = start[product] - sold.get(product, 0)
        if found.get(product) != (left, 0, left) or left < 0:
            yield f"{product}: (on hand, reserved, available) is {found.get(product)}, expected {(left, 0, left)}"
