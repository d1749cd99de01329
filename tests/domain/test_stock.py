"""One product's rules: holds are all or nothing, end once, and nothing is ever promised twice."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from app.domain import stock as rules
from app.domain.messages import (
    Announce,
    Commit,
    Message,
    Refused,
    Release,
    Reserve,
    Reserved,
    Return,
    StockImported,
    StockMoved,
)
from app.domain.outcome import Transition
from app.domain.rows import Stock

HONEY = "HONEY-OF-JAEN"
ANA, LUIS = "ORDER-OF-ANA", "ORDER-OF-LUIS"
IDS: dict[str, Any] = {"event_id": "EVENT-1", "key": HONEY, "at": 1_795_521_600.0}


def honey(on_hand: int = 10, threshold: int = 0) -> Stock:
    return Stock(
        product_id=HONEY, on_hand=on_hand, threshold=threshold, name="Miel", category="miel", artisan_id="MARIA"
    )


def reserve(quantity: int, order: str = ANA, event_id: str = "ASK-1") -> Reserve:
    return Reserve(event_id=event_id, key=HONEY, at=IDS["at"], order_id=order, quantity=quantity, expires_at=IDS["at"])


def release(order: str = ANA, *, announce: bool = True, dialect: str = "a") -> Release:
    return Release(**IDS, order_id=order, reason="payment-failed", announce=announce, dialect=dialect)


def commit(order: str = ANA) -> Commit:
    return Commit(**IDS, order_id=order)


def give_back(quantity: int, order: str = ANA, event_id: str = "BACK-1") -> Return:
    return Return(
        event_id=event_id, key=HONEY, at=IDS["at"], order_id=order, quantity=quantity, reason="order-cancelled"
    )


def moved(event_id: str = "MOVE-1", **data: Any) -> StockMoved:
    return StockMoved(event_id=event_id, key=HONEY, at=IDS["at"] + 60, kind="updated", **data)


def imported(on_hand: int, threshold: int = 3) -> StockImported:
    return StockImported(**IDS, on_hand=on_hand, threshold=threshold, name="Miel", category="miel", artisan_id="MARIA")


def after(stock: Stock | None, *commands: Message) -> Stock:
    for command in commands:
        stock = rules.apply(stock, command).row
    assert stock is not None
    return stock


def warnings(transition: Transition[Stock]) -> list[tuple[str, int]]:
    said = [output for output in transition.outputs if isinstance(output, Announce)]
    return [
        (each.data["urgencyLevel"], each.data["currentStock"])
        for each in said
        if each.kind == "inventory.stock.warning"
    ]


# ---- holds ----------------------------------------------------------------------------------------------


def test_a_reservation_holds_all_of_it_and_answers_the_order() -> None:
    row, (reply,), outcome = rules.apply(honey(10), reserve(4))
    assert row is not None
    assert (row.on_hand, row.reserved, row.available, outcome) == (10, 4, 6, "applied")
    assert isinstance(reply, Reserved)
    assert (reply.key, reply.product_id, reply.quantity, reply.remaining) == (ANA, HONEY, 4, 6)
    assert reply.artisan_id == "MARIA"


def test_more_than_there_is_is_refused_and_nothing_is_held() -> None:
    row, (reply,), _ = rules.apply(after(honey(10), reserve(4)), reserve(7, LUIS, "ASK-2"))
    assert row is not None
    assert row.available == 6
    assert isinstance(reply, Refused)
    assert (reply.key, reply.requested, reply.available, reply.known) == (LUIS, 7, 6, True)


def test_the_last_unit_can_be_held() -> None:
    assert after(honey(4), reserve(4)).available == 0


def test_an_unknown_product_is_refused_without_a_row() -> None:
    row, (reply,), _ = rules.apply(None, reserve(1))
    assert row is None
    assert isinstance(reply, Refused)
    assert reply.known is False


@pytest.mark.parametrize("quantity", [4, 11])
def test_a_repeated_reservation_gets_the_same_answer_and_holds_nothing_more(quantity: int) -> None:
    first = rules.apply(honey(10), reserve(quantity))
    again = rules.apply(first.row, reserve(quantity))
    assert again.row is first.row
    assert again.outputs == first.outputs
    assert again.outcome == "duplicate"


def test_a_refused_order_stays_refused_when_stock_comes_in() -> None:
    stock = after(honey(3), reserve(4), moved(change=10))
    (reply,) = rules.apply(stock, reserve(4)).outputs
    assert isinstance(reply, Refused)


def test_a_committed_order_that_asks_again_is_told_that_it_has_its_units() -> None:
    stock = after(honey(10), reserve(4), commit())
    row, (reply,), _ = rules.apply(stock, reserve(4))
    assert isinstance(reply, Reserved)
    assert row is stock


def test_a_release_gives_the_units_back_and_says_so() -> None:
    row, (said,), _ = rules.apply(after(honey(10), reserve(4)), release(dialect="b"))
    assert row is not None
    assert (row.available, row.holds, row.ended) == (10, {}, {ANA: "released"})
    assert (said.kind, said.aggregate_id, said.dialect) == ("inventory.stock.released", HONEY, "b")
    assert said.data == {
        "orderId": ANA,
        "quantityReleased": 4,
        "reason": "payment-failed",
        "newStock": 10,
        "releasedAt": "2026-11-24T12:00:00.000Z",
        "artisanId": "MARIA",
    }


def test_a_hold_that_was_not_announced_ends_without_a_word() -> None:
    assert rules.apply(after(honey(10), reserve(4)), release(announce=False)).outputs == ()


def test_a_hold_ends_once() -> None:
    stock = after(honey(10), reserve(4), release())
    assert rules.apply(stock, release()) == Transition(stock, (), "duplicate")
    assert rules.apply(stock, commit()) == Transition(stock, (), "contradiction")
    committed = after(honey(10), reserve(4), commit())
    assert rules.apply(committed, commit()) == Transition(committed, (), "duplicate")
    assert rules.apply(committed, release()) == Transition(committed, (), "duplicate")


def test_a_release_before_its_reservation_keeps_the_late_one_out() -> None:
    stock = after(honey(10), release())
    row, (reply,), _ = rules.apply(stock, reserve(4))
    assert row is not None
    assert row.available == 10
    assert isinstance(reply, Refused)


def test_committed_units_leave_for_good() -> None:
    stock = after(honey(10), reserve(4), commit())
    assert (stock.on_hand, stock.reserved, stock.available) == (6, 0, 6)


def test_returned_units_come_back_once() -> None:
    stock = after(honey(10), reserve(4), commit())
    row, (said,), _ = rules.apply(stock, give_back(4))
    assert row is not None
    assert row.on_hand == 10
    assert (said.kind, said.data["reason"]) == ("inventory.stock.released", "order-cancelled")
    assert rules.apply(row, give_back(4)) == Transition(row, (), "duplicate")
    assert rules.apply(row, give_back(4, event_id="BACK-2")) == Transition(row, (), "duplicate")


def test_a_return_for_an_order_that_was_forgotten_is_trusted() -> None:
    assert after(honey(6), give_back(4)).on_hand == 10


def test_a_return_of_what_was_released_is_a_duplicate() -> None:
    stock = after(honey(10), reserve(4), release())
    assert rules.apply(stock, give_back(4)) == Transition(stock, (), "duplicate")


def test_the_orders_that_ended_are_remembered_up_to_a_bound() -> None:
    stock = honey(1000)
    for n in range(300):
        stock = after(stock, reserve(1, f"ORDER-{n}"), release(f"ORDER-{n}"))
    assert len(stock.ended) == rules.MAX_ENDED
    assert "ORDER-299" in stock.ended
    assert "ORDER-0" not in stock.ended


def test_commands_for_a_product_that_is_not_known_are_ignored() -> None:
    for command in (release(), commit(), give_back(1)):
        assert rules.apply(None, command) == Transition(None, (), "ignored")


# ---- from outside ---------------------------------------------------------------------------------------


def test_a_change_is_added_to_what_is_here() -> None:
    stock = after(honey(10), reserve(4), moved(change=5, new_stock=99))
    assert (stock.on_hand, stock.available, stock.last_restocked) == (15, 11, IDS["at"] + 60)


def test_a_count_without_a_change_is_taken_as_it_is() -> None:
    assert after(honey(10), moved(new_stock=7)).on_hand == 7


def test_a_fact_is_applied_once() -> None:
    stock = after(honey(10), moved(change=5))
    assert rules.apply(stock, moved(change=5)) == Transition(stock, (), "duplicate")


def test_our_own_echo_is_ignored() -> None:
    stock = honey(10)
    assert rules.apply(stock, moved(change=5, ours=True)) == Transition(stock, (), "ignored")


def test_the_first_word_about_a_product_makes_its_row() -> None:
    row, outputs, _ = rules.apply(None, moved(change=5, new_stock=20, product_name="Miel", artisan_id="MARIA"))
    assert row is not None
    assert (row.on_hand, row.name, row.artisan_id, outputs) == (20, "Miel", "MARIA", ())


@pytest.mark.parametrize("fact", [{"new_stock": 1}, {"change": -9}])
def test_a_count_below_what_is_promised_is_a_contradiction_and_breaks_no_promise(fact: dict[str, Any]) -> None:
    row, _, outcome = rules.apply(after(honey(10), reserve(4)), moved(**fact))
    assert row is not None
    assert (row.on_hand, row.reserved, row.available, outcome) == (4, 4, 0, "contradiction")


def test_an_import_sets_everything_and_keeps_the_holds() -> None:
    stock = after(replace(honey(10), name="old"), reserve(4), imported(20))
    assert (stock.on_hand, stock.reserved, stock.threshold, stock.name) == (20, 4, 3, "Miel")
    assert rules.apply(stock, imported(2)).outcome == "duplicate"
    below = rules.apply(after(honey(10), reserve(4)), imported(2))
    assert below.row is not None
    assert (below.row.on_hand, below.outcome) == (4, "contradiction")


# ---- running low ----------------------------------------------------------------------------------------


def test_falling_to_the_threshold_warns_once() -> None:
    first = rules.apply(honey(10, threshold=5), reserve(5))
    assert warnings(first) == [("medium", 5)]
    assert first.row is not None
    assert first.row.low
    assert warnings(rules.apply(first.row, reserve(1, LUIS, "ASK-2"))) == []


def test_nothing_left_is_a_crossing_of_its_own() -> None:
    low = after(honey(10, threshold=5), reserve(5))
    empty = rules.apply(low, reserve(5, LUIS, "ASK-2"))
    assert warnings(empty) == [("critical", 0)]
    assert empty.row is not None
    assert warnings(rules.apply(empty.row, commit(LUIS))) == []


def test_without_a_threshold_only_nothing_left_is_low() -> None:
    assert warnings(rules.apply(honey(10), reserve(9))) == []
    assert warnings(rules.apply(honey(10), reserve(10))) == [("critical", 0)]


def test_rising_above_the_threshold_arms_it_again() -> None:
    low = after(honey(10, threshold=5), reserve(5))
    risen = after(low, release())
    assert not risen.low
    assert warnings(rules.apply(risen, reserve(6, LUIS, "ASK-2"))) == [("medium", 4)]


def test_a_warning_has_what_dialect_a_asks_for() -> None:
    row = replace(honey(10, threshold=5), last_restocked=IDS["at"])
    (_, said) = rules.apply(row, reserve(10)).outputs
    assert (said.kind, said.aggregate_id, said.dialect) == ("inventory.stock.warning", HONEY, "a")
    assert said.data == {
        "currentStock": 0,
        "threshold": 5,
        "artisanId": "MARIA",
        "productName": "Miel",
        "category": "miel",
        "urgencyLevel": "critical",
        "lastRestocked": "2026-11-24T12:00:00.000Z",
    }


@pytest.mark.parametrize("fact", [imported(2), moved(new_stock=0, threshold=3)])
def test_the_first_word_about_a_product_is_no_crossing(fact: Message) -> None:
    row, outputs, _ = rules.apply(None, fact)
    assert row is not None
    assert (row.low, outputs) == (True, ())


def test_a_quiet_rule_decides_the_same_and_announces_nothing() -> None:
    loud, quiet = (rules.apply(honey(10, threshold=5), reserve(5), quiet=quiet) for quiet in (False, True))
    assert quiet.row == loud.row
    assert [type(output) for output in quiet.outputs] == [Reserved]


def test_a_row_survives_being_stored() -> None:
    stock = after(honey(10, threshold=5), reserve(5), moved(change=2), release())
    assert msgspec.json.decode(msgspec.json.encode(stock), type=Stock) == stock
