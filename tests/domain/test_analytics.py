"""Counting orders: what adds up, what is counted once, and how exact the times are."""

import math

from hypothesis import given
from hypothesis import strategies as some

from app.domain.analytics import (
    GROWTH,
    MOST_CENTS,
    MOST_NAMES,
    Counted,
    add,
    cents,
    count,
    key_of,
    measured,
    partition_of,
    place_of,
    put,
    quantile,
    spread,
    start_of,
)
from app.domain.messages import BucketOutdated, Counts, Line, OrdersCounted
from app.domain.rows import Bucket, Held, OrderSaga, SagaState

NOON = 1_795_521_600.0


def counted(number: int = 1, offset: int = 7, at: float = NOON, outdated: float | None = NOON + 100) -> Counted:
    return Counted("minute 2026-11-24T12:00Z 3", {"orders": {"opened": number}}, offset, at, outdated)


def bucket(opened: int = 1, offset: int = 7, at: float = NOON, outdated: float | None = NOON + 100) -> Bucket:
    return Bucket(counts={"orders": {"opened": opened}}, offset=offset, at=at, outdated=outdated)


def test_a_record_is_counted_in_its_minute_its_hour_and_its_day() -> None:
    minutes = {int(NOON // 60) + 59: {"orders": {"opened": 1}}, int(NOON // 60) + 60: {"orders": {"opened": 2}}}
    found = {
        each.key: each.counts["orders"]["opened"]
        for each in spread(OrdersCounted(minutes), partition=3, offset=0, at=NOON)
    }
    assert found == {
        "minute 2026-11-24T12:59Z 3": 1,
        "minute 2026-11-24T13:00Z 3": 2,
        "hour 2026-11-24T12:00Z 3": 1,
        "hour 2026-11-24T13:00Z 3": 2,
        "day 2026-11-24T00:00Z 3": 3,
    }


def test_a_key_tells_its_time_and_its_partition() -> None:
    key = key_of("hour", NOON, 17)
    assert (start_of(key), partition_of(key)) == (NOON, 17)


def test_the_same_record_again_counts_nothing() -> None:
    assert count(bucket(5, offset=7), counted(1, offset=7)).outcome == "duplicate"
    assert count(bucket(5, offset=7), counted(1, offset=3)).row == bucket(5, offset=7)
    assert count(bucket(5, offset=7), counted(1, offset=8)).row == bucket(6, offset=8)


def test_a_topic_that_was_made_anew_is_counted_on() -> None:
    assert count(bucket(5, offset=7), counted(1, offset=0, at=NOON + 1)).row == bucket(6, offset=0, at=NOON + 1)


def test_a_clock_that_goes_back_loses_nothing() -> None:
    assert count(bucket(5, offset=7), counted(1, offset=8, at=NOON - 60)).row == bucket(6, offset=8)


def test_a_bucket_goes_when_it_is_due_and_not_before() -> None:
    def goes(at: float) -> BucketOutdated:
        return BucketOutdated(event_id="", key="", at=at)

    assert count(bucket(), goes(NOON + 99)).row == bucket()
    assert count(bucket(), goes(NOON + 100)).row is None
    assert count(bucket(outdated=None), goes(NOON + 1e9)).row == bucket(outdated=None)
    assert count(None, counted(at=NOON + 100)) == (None, (), "ignored")


names = some.dictionaries(some.sampled_from("abc"), some.integers(0, 100), max_size=3)
bags = some.dictionaries(some.sampled_from(["orders", "revenue"]), names, max_size=2)


@given(bags, bags, bags)
def test_counts_add_up_in_any_order(one: Counts, two: Counts, three: Counts) -> None:
    forth: Counts = {}
    back: Counts = {}
    for bag in (one, two, three):
        add(forth, bag)
    for bag in (three, two, one):
        add(back, bag)
    assert {m: n for m, n in forth.items() if n} == {m: n for m, n in back.items() if n}


def test_names_beyond_the_most_are_counted_together() -> None:
    counts: Counts = {}
    for number in range(MOST_NAMES + 5):
        put(counts, "cancelled", f"reason-{number}", 1)
        put(counts, "sales", f"EUR product-{number}", 10)
    assert (len(counts["cancelled"]), counts["cancelled"]["(other)"]) == (MOST_NAMES + 1, 5)
    assert counts["sales"]["EUR (other)"] == 50
    assert sum(counts["sales"].values()) == 10 * (MOST_NAMES + 5)


@given(some.lists(some.floats(0.001, 3e6), min_size=1, max_size=200), some.sampled_from([0.5, 0.95]))
def test_a_quantile_is_within_five_percent(durations: list[float], part: float) -> None:
    places: dict[int, int] = {}
    for seconds in durations:
        places[place_of(seconds)] = places.get(place_of(seconds), 0) + 1
    exact = sorted(durations)[math.ceil(part * len(durations)) - 1]
    found = quantile(places, part)
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact
    assert len(places) < math.log(3e9) / GROWTH + 2


def test_without_durations_there_is_no_quantile() -> None:
    assert quantile({}, 0.5) is None


def test_money_is_counted_in_cents_whatever_the_publisher_says() -> None:
    assert [cents(amount) for amount in (12.5, 0.1 + 0.2, 29.99, 3, 0)] == [1250, 30, 2999, 300, 0]
    assert cents(1e300) == cents(10**400) == MOST_CENTS


def test_an_order_that_was_parked_with_its_payment_opens_and_is_paid_at_once() -> None:
    parked = OrderSaga(order_id="o", state=SagaState.PARKED)
    opened = OrderSaga(
        order_id="o", state=SagaState.RESERVING, created_at=NOON, updated_at=NOON, paid={"p": 10},
        lines=(Line("cheese", 1, 10),), products={"cheese": Held(1, "asked")},
    )  # fmt: skip
    assert measured(None, parked, NOON) == []
    assert [name for measure, name, _ in measured(parked, opened, NOON) if measure == "orders"] == ["opened", "paid"]


def test_whose_product_it_is_may_be_unknown() -> None:
    before = OrderSaga(order_id="o", state=SagaState.AWAITING_PAYMENT, created_at=NOON, attempt=1)
    after = OrderSaga(
        order_id="o", state=SagaState.CONFIRMED, created_at=NOON, confirmed_at=NOON, currency="VALE REGALO", total=1,
        attempt=1, lines=(Line("cheese", 2, 0.5),), products={"cheese": Held(2, "committed")},
    )  # fmt: skip
    found = {(measure, name): number for measure, name, number in measured(before, after, NOON)}
    assert found["artisan units", "VALE_REGALO (unknown)"] == 2
    assert found["artisan sales", "VALE_REGALO (unknown)"] == found["revenue", "VALE_REGALO"] == 100
