"""Every state meets every message, under every kind of policy: each pair has an outcome and leaves a sound row."""

from collections.abc import Callable
from itertools import permutations, product

import msgspec
import pytest

from app.domain.messages import Message
from app.domain.policy import Policy
from app.domain.rows import OrderSaga, SagaState
from tests.domain.saga_story import (
    CANCELLATION,
    Story,
    a_cancelled_order,
    a_closed_order,
    a_completed_order,
    a_confirmed_order,
    a_held_order,
    an_order,
    cancelled_by,
    confirmed_by_others,
    deadline,
    delivered,
    held,
    mail_delivered,
    mail_failed,
    mail_sent_by_others,
    noted,
    ordered,
    paid,
    payment_failed,
    refund_processed,
    refused,
)

OUTCOMES = {"applied", "duplicate", "ignored", "parked", "contradiction", "shadow"}
WAITING = Policy(confirm="observe", cancel="observe")

STATES: dict[str, Callable[[], Story]] = {
    "none": Story,
    "parked": lambda: Story().when(paid()),
    "reserving": an_order,
    "awaiting_payment": a_held_order,
    "payment_retry": lambda: a_held_order().when(payment_failed()),
    "confirming": lambda: a_held_order(WAITING).when(paid()),
    "confirmed": a_confirmed_order,
    "cancelling": lambda: a_held_order(WAITING).when(payment_failed(retryable=False)),
    "cancelled": a_cancelled_order,
    "completed": a_completed_order,
    "closed": a_closed_order,
}

MESSAGES: list[Callable[[], Message]] = [
    ordered,
    lambda: held("CHEESE"),
    lambda: held("UNKNOWN"),
    lambda: refused("CHEESE"),
    paid,
    lambda: paid("PAY-2", transaction="TXN-2"),
    payment_failed,
    lambda: payment_failed(retryable=False),
    confirmed_by_others,
    cancelled_by,
    delivered,
    refund_processed,
    noted,
    mail_sent_by_others,
    lambda: mail_sent_by_others(CANCELLATION),
    mail_delivered,
    lambda: mail_delivered(CANCELLATION),
    mail_failed,
    lambda: mail_failed(permanent=True, template=CANCELLATION),
    deadline,
]

POLICIES = [
    Policy(),
    Policy(payment_request="none", notify="observe"),
    WAITING,
    Policy(reserve="shadow", confirm="shadow", cancel="shadow", notify="shadow"),
]


def sound(saga: OrderSaga) -> None:
    """What holds of every row, whatever happened."""
    statuses = {held.status for held in saga.products.values()}
    if saga.state in (SagaState.CONFIRMED, SagaState.COMPLETED):
        assert statuses == {"committed"}
    if saga.state in (SagaState.CANCELLING, SagaState.CANCELLED, SagaState.CLOSED):
        assert statuses <= {"released", "refused", "returned"}
        assert set(saga.refunds) == set(saga.paid)
    if saga.state in (SagaState.COMPLETED, SagaState.CLOSED):
        assert saga.deadline is None
    assert set(saga.refunds) <= set(saga.paid)
    assert len(set(saga.refunds)) == len(saga.refunds)
    stored = msgspec.json.decode(msgspec.json.encode(saga), type=OrderSaga)
    assert stored == saga


def test_the_list_of_states_is_complete() -> None:
    assert set(STATES) - {"none"} == {state.value for state in SagaState}
    for name, story in STATES.items():
        row = story().row
        assert (row.state.value if row else "none") == name


@pytest.mark.parametrize("policy", POLICIES, ids=["act", "observe-mail", "observe", "shadow"])
@pytest.mark.parametrize("state", STATES)
def test_every_message_has_an_outcome_in_every_state(state: str, policy: Policy) -> None:
    for message, late in product(MESSAGES, (1.0, 5000.0)):
        story = STATES[state]()
        story.policy = policy
        before = story.row
        story.when(message(), after=late)
        assert story.outcome in OUTCOMES
        if story.outcome == "duplicate":
            assert story.row is before
            assert story.outputs == ()
        if story.row is not None:
            sound(story.row)
        again, outputs = story.row, story.outputs
        story.when(message())  # told again with another id: never an exception either
        assert story.outcome in OUTCOMES
        assert again is None or len(outputs) == len({output.event_id for output in outputs})


def test_all_orders_of_the_seven_main_events_end_the_same() -> None:
    events: list[Callable[[], Message]] = [
        ordered,
        lambda: held("CHEESE", 2),
        lambda: held("HONEY"),
        lambda: noted("payment.initiated"),
        paid,
        confirmed_by_others,
        mail_sent_by_others,
    ]
    messages = [msgspec.structs.replace(make(), event_id=f"MAIN-{n}") for n, make in enumerate(events)]
    replies = {"MAIN-1", "MAIN-2"}
    ends = set()
    for order in permutations(messages):
        story = Story()
        story.when(*order)
        # Stock answers only who asked: replies that came before the order are answers to nobody, and come again.
        created = next(n for n, message in enumerate(order) if message.event_id == "MAIN-0")
        story.when(*(reply for reply in order[:created] if reply.event_id in replies))
        saga = story.saga
        sound(saga)
        ends.add((saga.state, saga.payment_reference is not None, tuple(saga.paid), saga.refunds))
        assert sum(output == "order.confirmed" for output in map(_kind, story.history)) <= 1
    assert ends == {(SagaState.COMPLETED, True, ("PAY-1",), ())}


def _kind(output: object) -> str:
    return getattr(output, "kind", "")
