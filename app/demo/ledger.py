"""The demo's own account of what happened, from what a plain NATS subscriber hears and from nothing of the application.

It judges: whether each order got one answer, whether more was sold than there was, whether anything was lost.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg

from app.demo.goods import BY_ID, GOODS

SUBJECTS = ("order.>", "payment.>", "inventory.>", "notification.>")
ENDS = ("completed", "closed")
CONFIRMATION, CANCELLATION = "confirmation", "cancellation"

Mail = tuple[str, str]
"""An order's id, and CONFIRMATION or CANCELLATION."""


@dataclass(slots=True)
class Followed:
    """What was heard of one order. Times are seconds of the monotonic clock."""

    placed_at: float
    units: Counter[str] = field(default_factory=Counter)
    placed: bool = False  # by the demo's order service, not by hand
    asked: int = 0  # payment.initiated
    confirmed: int = 0
    cancelled: int = 0  # by the application
    by_customer: bool = False
    confirmed_at: float | None = None
    reason: str = ""

    @property
    def answered(self) -> bool:
        return bool(self.confirmed or self.cancelled or self.by_customer)

    @property
    def sold(self) -> bool:
        """Confirmed, and still so."""
        return bool(self.confirmed) and not self.by_customer

    def answered_once(self) -> bool:
        """One of the two by the application; a customer's own cancellation needs no answer, or comes after one."""
        answers = self.confirmed + self.cancelled
        return answers <= 1 if self.by_customer else answers == 1


class OnShelf(NamedTuple):
    """What the application says of a product."""

    on_hand: int
    reserved: int


class Finding(NamedTuple):
    """One invariant: whether it holds, and the figures."""

    holds: bool
    what: str
    figures: str


class Ledger:
    """Listens to everything on NATS, on a connection of its own."""

    def __init__(self) -> None:
        self.orders: dict[str, Followed] = {}
        self.brought: Counter[str] = Counter()
        self.sold: Counter[str] = Counter()
        self.most_oversold = 0
        self.heard = 0
        self.heard_of_us = 0
        self.repeated_by_us = 0
        self.repeated_by_services = 0
        self.dead_letters = 0
        self.first_confirmed_at: float | None = None
        self._seen: set[str] = set()

    async def listen(self, nats: Client) -> None:
        """Follow everything from now on."""
        for subject in SUBJECTS:
            await nats.subscribe(subject, cb=self._on_message)

    async def _on_message(self, message: Msg) -> None:
        # The marketplace's services publish without headers; the application gives each of its events an id there.
        self.hear(message.subject, message.data, by_us="Nats-Msg-Id" in (message.headers or {}))

    def placed(self, order_id: str) -> None:
        """The demo's order service is about to publish this order."""
        self.orders[order_id] = Followed(time.monotonic(), placed=True)

    def hear(self, subject: str, payload: bytes, *, by_us: bool) -> None:
        """Take one message into account, the application's (`by_us`) or another's. Not dialect A: it only counts."""
        self.heard += 1
        self.heard_of_us += by_us
        if subject.endswith(".dlq"):
            self.dead_letters += 1
            return
        try:
            event = json.loads(payload)
            event_id, data, key = event["eventId"], event["eventData"], event["aggregateId"]
            known = event_id in self._seen
            self._seen.add(event_id)
            self.repeated_by_us += known and by_us
            self.repeated_by_services += known and not by_us
            self._account(subject, key, data, known=known)
        except (ValueError, TypeError, KeyError, AttributeError):
            return

    def _account(self, subject: str, key: str, data: Mapping[str, Any], *, known: bool) -> None:
        match subject:
            case "order.created":
                order = self.orders.setdefault(key, Followed(time.monotonic()))
                if not order.units:
                    for item in data["items"]:
                        order.units[item["productId"]] += item["quantity"]
            case "order.confirmed" if key in self.orders:
                self._confirm(self.orders[key])
            case "order.cancelled" if key in self.orders and data.get("cancelledBy") == "system":
                self.orders[key].cancelled += 1
                self.orders[key].reason = data["reason"]
            case "order.cancelled" if key in self.orders and not self.orders[key].by_customer:
                if self.orders[key].sold:
                    self.sold.subtract(self.orders[key].units)
                self.orders[key].by_customer = True
            case "inventory.stock.updated" | "inventory.stock.replenished" if not known:
                self.brought[key] += data.get("changeAmount", 0)
            case "payment.initiated" if data["orderId"] in self.orders:
                self.orders[data["orderId"]].asked += 1

    def _confirm(self, order: Followed) -> None:
        order.confirmed += 1
        if order.confirmed > 1:
            return
        order.confirmed_at = time.monotonic()
        self.first_confirmed_at = self.first_confirmed_at or order.confirmed_at
        if not order.by_customer:
            self.sold.update(order.units)
        self.most_oversold = max(self.most_oversold, self.oversold())

    def oversold(self) -> int:
        """Units that were confirmed to customers and were never brought."""
        return sum(max(0, self.sold[product] - self.brought[product]) for product in BY_ID)

    def overdue(self, seconds: float) -> int:
        """Orders of the demo's own that nothing was heard of for so long."""
        before = time.monotonic() - seconds
        return sum(order.placed and not order.answered and order.placed_at < before for order in self.orders.values())

    def ours(self) -> dict[str, Followed]:
        """The orders that the demo placed."""
        return {order_id: order for order_id, order in self.orders.items() if order.placed}

    def latencies(self) -> list[float]:
        """Seconds from order.created to order.confirmed, sorted, of the orders that paid at the first request."""
        return sorted(
            order.confirmed_at - order.placed_at
            for order in self.orders.values()
            if order.confirmed_at is not None and order.asked == 1
        )

    def mails_due(self) -> Counter[Mail]:
        """The mails that the customers must have had by now."""
        due: Counter[Mail] = Counter()
        for order_id, order in self.orders.items():
            if order.confirmed:
                due[order_id, CONFIRMATION] = 1
            if order.cancelled or order.by_customer:
                due[order_id, CANCELLATION] = 1
        return due

    def outcomes(self) -> Counter[str]:
        """Orders by how they ended, in words."""
        return Counter(_outcome(order) for order in self.orders.values())

    def judge(self, states: Mapping[str, str], shelves: Mapping[str, OnShelf], mails: Counter[Mail]) -> list[Finding]:
        """Compare with what the application says, and what the mail sink counted."""
        ours = self.ours()
        ended = sum(states.get(order_id) in ENDS for order_id in ours)
        lost = sum(order_id not in states for order_id in ours)
        once = sum(order.answered_once() for order in ours.values())
        due = self.mails_due()
        missing, extra = (due - mails).total(), (mails - due).total()
        off = [name for name in BY_ID if shelves.get(name) != OnShelf(self.brought[name] - self.sold[name], 0)]
        negative = sum(max(0, shelf.reserved - shelf.on_hand) for shelf in shelves.values())
        oversold = max(self.most_oversold, negative)
        return [
            Finding(ended == len(ours), "every order ended", f"{ended} of {len(ours)}"),
            Finding(oversold == 0, f"oversold {oversold}", "units confirmed beyond what was brought"),
            Finding(lost == 0, f"lost {lost}", "orders published and unknown to the application"),
            Finding(once == len(ours), "one answer for each order", f"{once} of {len(ours)}, heard on NATS"),
            Finding(
                self.repeated_by_us == 0, "nothing said twice", f"{self.repeated_by_us} eventIds of ours heard again"
            ),
            Finding(
                not missing and not extra,
                "one mail for each end",
                f"{mails.total()} sent, {missing} missing, {extra} too many",
            ),
            Finding(
                not off,
                "stock = brought - sold",
                f"{len(GOODS) - len(off)} of {len(GOODS)} products, nothing left reserved"
                if not off
                else f"wrong for {', '.join(off)}",
            ),
            Finding(self.dead_letters == 0, "no dead letters", f"{self.dead_letters} on *.dlq"),
        ]


def _outcome(order: Followed) -> str:
    if order.by_customer:
        return "cancelled by the customer" + (", money and units went back" if order.confirmed else "")
    if order.confirmed:
        return "confirmed" if order.asked <= 1 else "confirmed after another payment request"
    if order.reason.startswith("Stock insuficiente"):
        return "cancelled: out of stock"
    if order.reason.startswith("Pago fallido"):
        return "cancelled: payment failed"
    return f"cancelled: {order.reason}" if order.cancelled else "not answered"
