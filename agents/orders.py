"""What happens when something arrives about an order: its saga advances. domain/order_saga.py decides how."""

from app import topics
from app.domain import traces
from app.domain.causes import caused
from app.domain.messages import DeadlineReached, Message
from app.domain.order_saga import advance
from app.domain.outcome import Transition
from app.domain.policy import Policy
from app.domain.rows import OrderSaga
from app.engine.declarations import Reducer
from app.engine.records import Headers, Record, Send
from tables.order_sagas import ORDER_SAGAS


def advance_order_sagas(policy: Policy) -> Reducer[OrderSaga]:
    """The agent that owns `order_sagas`."""

    def rule(saga: OrderSaga | None, message: Message) -> Transition[OrderSaga]:
        return advance(saga, message, policy)

    return Reducer(
        name="advance_order_sagas",
        reads=(topics.ORDERS, topics.SAGA_REPLIES, topics.PAYMENTS, topics.NOTIFICATIONS, topics.TIMERS),
        table=ORDER_SAGAS,
        rule=rule,
        encode=topics.sends_of,
        timer=_timer,
        carries=_trace,
        tally=topics.OrderTally,
    )


def _timer(order_id: str, deadline: float, now: float) -> Send:
    event_id = caused(order_id, "deadline", str(deadline))
    due = DeadlineReached(event_id=event_id, key=order_id, at=now, due=deadline, source="timers")
    return topics.sends_of(due)[0]


def _trace(cause: Record, saga: OrderSaga | None) -> Headers:
    """A timer's outputs and a mail's have no cause outside: they are the order's."""
    if saga is None:
        return traces.carried(cause.headers)
    return traces.of_order(cause.headers, saga.order_id, saga.trace)
