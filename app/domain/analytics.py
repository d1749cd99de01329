"""What is counted of orders by minute, hour and day: how far they came, for how much, why not, and how long it took.

A bucket is counts by measure and name, so buckets add up: those of partitions, and hours to a day. It decides what
counts in which minute and how long a bucket is kept; how counts are shown is in series.py.

    measure             names             what is counted
    ----------------------------------------------------------------------------------------------------------
    orders              ORDERS            orders that came so far, each in the minute in which it did
    cancelled           REASONS           why orders were given up before they were confirmed
    revenue             currency          cents of the orders confirmed; `returned revenue`: of those cancelled later
    units               currency product  units confirmed; `returned units`: come back
    sales               currency product  cents of the lines of the orders confirmed; `returned sales`
    artisan units       currency artisan  as for products: `artisan sales`, `returned artisan units` and `sales`
    steps               step place        how long it took (STEPS), in a histogram whose places grow by a tenth
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from app.domain.messages import BucketOutdated, Counts, Money, OrdersCounted
from app.domain.outcome import Transition
from app.domain.rows import Bucket, OrderSaga, SagaState

ORDERS = (
    "opened",
    "reserved",
    "asked",
    "paid",
    "confirmed",
    "cancelled",
    "returned",
    "retries",
    "refunds",
    "attention",
)
"""reserved: all its products; asked: for its payment, and `retries`: again; cancelled: before it was confirmed, and
`returned`: after; refunds: payments whose refund was asked; attention: orders that a person should look at."""

REASONS = (
    "out-of-stock",
    "payment-failed",
    "payment-unanswered",
    "reservation-expired",
    "customer",
    "artisan",
    "admin",
    "system",
    "other",
)
"""Why an order was given up; the last five: who cancelled it."""

STEPS = ("reserved", "paid", "confirmed", "cancelled", "mailed")
"""Since the order was opened; `mailed`: since it was confirmed."""

TELLS = {
    "Stock insuficiente": "out-of-stock",
    "Pago fallido": "payment-failed",
    "Pago sin respuesta": "payment-unanswered",
    "Reserva caducada": "reservation-expired",
}
"""How the saga's own reasons begin."""

MOST_NAMES = 1_000
"""Names of one measure in a bucket; those beyond are counted together, as OTHER."""

OTHER, UNKNOWN = "(other)", "(unknown)"

BY_CURRENCY = frozenset(
    f"{back}{whose}{what}" for back in ("", "returned ") for whose in ("", "artisan ") for what in ("units", "sales")
)

SOLD = ("revenue", "units", "sales", "artisan units", "artisan sales")
RETURNED = tuple(f"returned {measure}" for measure in SOLD)

MOST_CENTS = 10**12
"""Of one amount: what is beyond counts as that, so that no sum outgrows 64 bits."""

MOST = 2**62

GROWTH = math.log(1.1)
"""Each place of a step's histogram ends at 1.1 times the end of the one before, from 1 ms on."""
PLACES = [0.001 * math.exp(place * GROWTH) * (1 + 1e-9) for place in range(300)]
"""Where each place ends, in seconds; the last one holds all that is longer than 70 years."""
PLACED = {step: [f"{step} {place}" for place in range(len(PLACES) + 1)] for step in STEPS}
"""How a step is counted in each place."""

S = SagaState
LOST = (S.CANCELLING, S.CANCELLED, S.CLOSED)
HELD = (S.AWAITING_PAYMENT, S.PAYMENT_RETRY, S.CONFIRMING, S.CONFIRMED, S.COMPLETED)


# ---- adding up ------------------------------------------------------------------------------------------


def put(counts: Counts, measure: str, name: str, number: int) -> None:
    """Count `number` more."""
    names = counts.get(measure)
    if names is None:
        names = counts[measure] = {}
    before = names.get(name)
    if before is None and len(names) >= MOST_NAMES:
        name = f"{name.partition(' ')[0]} {OTHER}" if measure in BY_CURRENCY else OTHER
        before = names.get(name)
    names[name] = number if before is None else min(before + number, MOST)


def add(counts: Counts, more: Mapping[str, Mapping[str, int]]) -> None:
    """Count all of `more` too."""
    for measure, names in more.items():
        ours = counts.get(measure) or {}
        for name, number in names.items():
            before = ours.get(name)  # nearly always there, and far from MOST
            if before is None or before > MOST - number:
                put(counts, measure, name, number)
                ours = counts[measure]
            else:
                ours[name] = before + number


def place_of(seconds: float) -> int:
    """Where a duration stands in the histogram; what a place says of it is within 5 % (of what is under 1 ms: 1 ms)."""
    return bisect_left(PLACES, seconds)


def seconds_at(place: int) -> float:
    """The duration that a place stands for."""
    return math.exp(place * GROWTH) * 2 / 2.1 / 1000 if place else 0.001


def quantile(places: Mapping[int, int], part: float) -> float | None:
    """The duration (s) that `part` of those counted were not above, within 5 %; None: there are none."""
    rank = math.ceil(part * sum(places.values()))
    for place, number in sorted(places.items()):
        rank -= number
        if rank <= 0 < number:
            return seconds_at(place)
    return None


# ---- what an order's step counts for ---------------------------------------------------------------------


def measured(before: OrderSaga | None, after: OrderSaga, at: float) -> list[tuple[str, str, int]]:
    """What an order's change counts for: measure, name, how many. `at`: when the log had the message that changed it.

    It counts for the minute of the message's own time (`after.updated_at`), which is the one of what it follows from:
    late or again, it counts for the same one. It never raises.
    """
    was, state = S.PARKED if before is None else before.state, after.state
    asked, refunds = (0, 0) if before is None else (before.attempt, len(before.refunds))
    noticed = after.attention is not None and (before is None or before.attention is None)
    found: list[tuple[str, str, int]] = []
    if noticed:
        found.append(("orders", "attention", 1))
    if state is S.PARKED:
        return found
    if len(after.refunds) > refunds:
        found.append(("orders", "refunds", len(after.refunds) - refunds))
    if was is S.PARKED:
        found.append(("orders", "opened", 1))
    if after.attempt > asked:
        found.append(("orders", "retries" if asked else "asked", 1))
    since = at - after.created_at
    if was is S.RESERVING and state in HELD:
        found += [("orders", "reserved", 1), _step("reserved", since)]
    if after.paid and was not in LOST and not (before and before.paid):
        found += [("orders", "paid", 1), _step("paid", since)]
    if after.confirmed_at is not None and (before is None or before.confirmed_at is None):
        found += [("orders", "confirmed", 1), _step("confirmed", since), *_sold(after, SOLD)]
    elif state is S.COMPLETED and was is S.CONFIRMED:
        found.append(_step("mailed", at - (after.confirmed_at or at)))
    if state in LOST and was not in LOST:
        if after.confirmed_at is not None:
            found += [("orders", "returned", 1), *_sold(after, RETURNED)]
        else:
            found += [("orders", "cancelled", 1), ("cancelled", _reason(after), 1), _step("cancelled", since)]
    return found


def _step(step: str, seconds: float) -> tuple[str, str, int]:
    return "steps", PLACED[step][place_of(seconds)], 1


def _sold(saga: OrderSaga, measures: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """What was sold, or came back: by line, so that a product on two lines is added up."""
    revenue, units, sales, artisan_units, artisan_sales = measures
    currency, products = saga.currency.replace(" ", "_"), saga.products
    found = [(revenue, currency, cents(saga.total))]
    for line in saga.lines:
        product, quantity, price = line.product_id, line.quantity, cents(line.unit_price * line.quantity)
        name, artisan = f"{currency} {product}", f"{currency} {products[product].artisan_id or UNKNOWN}"
        found += (
            (units, name, quantity),
            (sales, name, price),
            (artisan_units, artisan, quantity),
            (artisan_sales, artisan, price),
        )
    return found


def cents(amount: Money) -> int:
    """Hundredths of the currency's unit, rounded."""
    return round(amount * 100) if amount < MOST_CENTS / 100 else MOST_CENTS


def _reason(saga: OrderSaga) -> str:
    """One of REASONS."""
    by, said = saga.cancelled_by or "", saga.cancel_reason or ""
    if by != "system":
        return by if by in REASONS[4:7] else "other"
    return next((reason for begin, reason in TELLS.items() if said.startswith(begin)), "system")


# ---- buckets --------------------------------------------------------------------------------------------


class Size(NamedTuple):
    """How long a bucket is, and how long it is kept behind its end (None: for ever), in seconds."""

    seconds: int
    kept: float | None


SIZES = {"minute": Size(60, 48 * 3600.0), "hour": Size(3600, 90 * 86400.0), "day": Size(86400, None)}
"""In UTC."""


def key_of(size: str, start: float, partition: int) -> str:
    """As in "hour 2026-11-24T13:00Z 3": keys of one size sort by their time."""
    return f"{first_key(size, start)}{partition}"


@lru_cache(maxsize=1024)
def first_key(size: str, start: float) -> str:
    """What sorts before every key of that bucket, or of a later one."""
    return f"{size} {datetime.fromtimestamp(start, UTC).strftime('%Y-%m-%dT%H:%MZ')} "


def start_of(key: str) -> float:
    """The time (s) at which the key's bucket begins."""
    return datetime.fromisoformat(key.split(" ")[1]).timestamp()


def partition_of(key: str) -> int:
    """The partition whose orders are counted."""
    return int(key.rpartition(" ")[2])


# ---- messages -------------------------------------------------------------------------------------------


class Counted(NamedTuple):
    """What one record counts for in one bucket. `at`, `offset` are the record's."""

    key: str
    counts: Counts
    offset: int
    at: float
    outdated: float | None


def spread(said: OrdersCounted, *, partition: int, offset: int, at: float) -> tuple[Counted, ...]:
    """The record's counts for each bucket that they belong to."""
    buckets: dict[tuple[str, int], Counts] = {}
    for minute, counts in said.minutes.items():
        for name, size in SIZES.items():
            start = minute * 60 // size.seconds * size.seconds
            if (name, start) in buckets:
                add(buckets[name, start], counts)
            else:
                buckets[name, start] = {measure: names.copy() for measure, names in counts.items()}
    return tuple(
        Counted(
            key_of(name, start, partition),
            counts,
            offset,
            at,
            None if (kept := SIZES[name].kept) is None else start + SIZES[name].seconds + kept,
        )
        for (name, start), counts in buckets.items()
    )


def count(bucket: Bucket | None, message: Counted | BucketOutdated) -> Transition[Bucket]:
    """The bucket after the message. A record that it has already changes nothing, nor one that comes too late."""
    if isinstance(message, BucketOutdated):
        if bucket is None or bucket.outdated is None or bucket.outdated > message.at:
            return Transition(bucket, (), "ignored")
        return Transition(None)
    if bucket is None:
        if message.outdated is not None and message.outdated <= message.at:
            return Transition(None, (), "ignored")
        return Transition(
            Bucket(counts=message.counts, offset=message.offset, at=message.at, outdated=message.outdated)
        )
    # A topic that was made anew has small offsets again, and later times.
    if message.offset <= bucket.offset and message.at <= bucket.at:
        return Transition(bucket, (), "duplicate")
    counts = {measure: names.copy() for measure, names in bucket.counts.items()}
    add(counts, message.counts)
    return Transition(
        Bucket(counts=counts, offset=message.offset, at=max(bucket.at, message.at), outdated=bucket.outdated)
    )
