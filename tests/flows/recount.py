"""Counts orders once more, from what is in the log alone: what arrived, and what was said, each by its own time.

It knows nothing of the application's own counting, and only of marketplaces in which all roles are ours.
"""

import json
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

from app import topics
from tests.flows.market import Market

Recount = defaultdict[tuple[str, float], Counter[tuple[str, str]]]
"""Size and start of a bucket -> measure and name -> how many."""

SECONDS = {"minute": 60, "hour": 3600, "day": 86400}


class Recounted:
    """The buckets of a marketplace's log."""

    def __init__(self, market: Market) -> None:
        self.buckets: Recount = defaultdict(Counter)
        self._created: dict[str, dict[str, Any]] = {}
        self._opened: dict[str, float] = {}
        self._confirmed: dict[str, float] = {}
        self._lost: dict[str, float] = {}
        arrived = [(r, topics.subject_of(r), json.loads(r.value or b"")) for r in market.records("orders")]
        for record, subject, event in arrived:
            if subject == "order.created" and event["aggregateId"] not in self._created:
                self._created[event["aggregateId"]] = event["eventData"]
                self._opened[event["aggregateId"]] = record.timestamp
                self._count(record.timestamp, "orders", "opened")
        for subject, event in market.said():
            self._said(subject, event)
        for record, subject, event in arrived:
            if subject == "order.cancelled" and event["aggregateId"] not in self._lost:
                self._cancelled(event["aggregateId"], record.timestamp, event["eventData"]["cancelledBy"])
        self._paid(market)

    def _count(self, at: float, measure: str, name: str, number: int = 1) -> None:
        for size, seconds in SECONDS.items():
            self.buckets[size, at // seconds * seconds][measure, name] += number

    def _said(self, subject: str, event: dict[str, Any]) -> None:
        data = event["eventData"]
        if subject == "payment.initiated":
            self._count(time_of(data["initiatedAt"]), "orders", "asked" if data["attempt"] == 1 else "retries")
            if data["attempt"] == 1:
                self._count(self._opened[data["orderId"]], "orders", "reserved")
        elif subject == "order.confirmed":
            self._confirmed[event["aggregateId"]] = at = time_of(data["confirmedAt"])
            self._count(at, "orders", "confirmed")
            self._sold(event["aggregateId"], at, "")
        elif subject == "order.cancelled":
            begins = {"Stock": "out-of-stock", "Pago fallido": "payment-failed", "Reserva": "reservation-expired"}
            reason = next((r for b, r in begins.items() if data["reason"].startswith(b)), "payment-unanswered")
            self._cancelled(event["aggregateId"], time_of(data["cancelledAt"]), reason)

    def _cancelled(self, order: str, at: float, reason: str) -> None:
        self._lost[order] = at
        if order in self._confirmed:
            self._count(at, "orders", "returned")
            self._sold(order, at, "returned ")
        else:
            self._count(at, "orders", "cancelled")
            self._count(at, "cancelled", reason)

    def _sold(self, order: str, at: float, back: str) -> None:
        data = self._created[order]
        self._count(at, f"{back}revenue", data["currency"], round(data["totalAmount"] * 100))
        for item in data["items"]:
            product, artisan = (f"{data['currency']} {item[of]}" for of in ("productId", "artisanId"))
            self._count(at, f"{back}units", product, item["quantity"])
            self._count(at, f"{back}artisan units", artisan, item["quantity"])
            price = round(item["unitPrice"] * item["quantity"] * 100)
            self._count(at, f"{back}sales", product, price)
            self._count(at, f"{back}artisan sales", artisan, price)

    def _paid(self, market: Market) -> None:
        paid: set[str] = set()
        for record in market.records("payments"):
            order, at = (record.key or b"").decode(), record.timestamp
            if topics.subject_of(record) != "payment.succeeded":
                continue
            if order not in paid and at < self._lost.get(order, at + 1):
                self._count(at, "orders", "paid")
            paid.add(order)


def time_of(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
