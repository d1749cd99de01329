"""The order saga: what happens to an order, whatever arrives and in whatever order it arrives.

It decides every step and its compensation; how it is said is in announcements.py, what a product does in stock.py.

    state             message            -> state             what happens
    ----------------------------------------------------------------------------------------------------------
    (none)            OrderCreated       -> RESERVING         Reserve each product (its lines summed)
    (none)            any other fact     -> PARKED            it waits for order.created
    (none)            Reserved           -> (none)            Release: a hold that nobody owns
    PARKED            OrderCreated       -> RESERVING         Reserve, then the parked facts in their order
    PARKED            any other fact     -> PARKED            it waits too (50 at most, then attention)
    RESERVING         Reserved, not all  -> RESERVING
    RESERVING         Reserved, all held -> AWAITING_PAYMENT  say reserved, ask for the payment
                                         -> as paid           when the payment came early: nothing is asked
                                         -> as confirmed      when the confirmation came early
    RESERVING         Refused            -> CANCELLED         Release the others, say cancelled, mail; refund if paid
    RESERVING         PaymentSucceeded   -> RESERVING         remembered
    RESERVING         OrderConfirmed     -> RESERVING         remembered
    RESERVING         deadline           -> CANCELLED         stock never answered: as an expired reservation
    AWAITING_PAYMENT, PAYMENT_RETRY:
                      PaymentSucceeded   -> CONFIRMED         Commit each product, say confirmed, mail
                                         -> CONFIRMING        when another service confirms
                      OrderConfirmed     -> CONFIRMED         adopted: Commit, mail, say nothing
                      PaymentFailed      -> PAYMENT_RETRY     retryable: asked again after the delay
                                         -> CANCELLED         else: Release, say cancelled, mail
                      deadline           -> CANCELLED         the reservation expired: Release, say cancelled, mail
                                         -> AWAITING_PAYMENT  no answer, or time to retry: ask again
                                         -> CANCELLED         no answer to the last attempt
    CONFIRMING        OrderConfirmed     -> CONFIRMED         Commit, mail
    CONFIRMING        deadline           -> CONFIRMING        attention
    CONFIRMED         mail sent          -> COMPLETED         (at once when there is nobody to tell)
    CONFIRMED         MailFailed         -> CONFIRMED         sent again at the deadline, twice as late each time
                                         -> COMPLETED         given up: attention
    CANCELLING        OrderCancelled     -> CANCELLED         mail
    CANCELLING        deadline           -> CANCELLING        attention
    CANCELLED         mail sent, failed  -> CLOSED            as for CONFIRMED
    before CONFIRMED  OrderCancelled     -> CANCELLED         Release, mail; refund if paid
    CONFIRMED, COMPLETED:
                      OrderCancelled     -> CANCELLED         refund, Return each product, mail
    paid already      PaymentSucceeded   -> same              another payment: refund of the second, attention
    CANCELLING, CANCELLED, CLOSED:
                      PaymentSucceeded   -> same              refund, attention
                      OrderConfirmed     -> same              contradiction, attention
    CONFIRMING, CONFIRMED, COMPLETED:
                      PaymentFailed      -> same              contradiction, in the timeline
    any               OrderDelivered, RefundProcessed, Noted -> same, in the timeline
    any               a mail that is not the state's own     -> same, remembered
    any               the rest           -> same              a duplicate, or nothing to do

COMPLETED and CLOSED are the ends. CLOSED is left by nothing, COMPLETED only by a cancellation from outside.

Roles (Policy): `act`, we decide and publish; `shadow`, we decide and move and publish nothing; `observe`, another
service does it and its event moves us: a paid order waits in CONFIRMING, a lost one (its stock is released already)
in CANCELLING. A refund is asked for whenever the cancel role is not `shadow`: nobody else knows of every payment.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from app.domain import announcements as say
from app.domain.causes import caused
from app.domain.messages import (
    Announce,
    Commit,
    DeadlineReached,
    EmailSent,
    MailDelivered,
    MailFailed,
    Message,
    Money,
    Noted,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderDelivered,
    OrderFact,
    PaymentFailed,
    PaymentSucceeded,
    RefundProcessed,
    Refused,
    Release,
    Reserve,
    Reserved,
    Return,
    SendMail,
)
from app.domain.outcome import Transition
from app.domain.policy import Policy
from app.domain.rows import Held, OrderSaga, SagaState, Step

Parked: TypeAlias = (
    OrderConfirmed
    | OrderCancelled
    | OrderDelivered
    | PaymentSucceeded
    | PaymentFailed
    | RefundProcessed
    | EmailSent
    | Noted
)

MAX_PARKED = 50
MAX_SEEN = 64
MAX_TIMELINE = 100
MAX_ATTENTION = 500  # characters
HALF_A_CENT = 0.005 + 1e-9

S = SagaState
UNPAID = (S.AWAITING_PAYMENT, S.PAYMENT_RETRY)
GOOD = (S.CONFIRMING, S.CONFIRMED, S.COMPLETED)
LOST = (S.CANCELLING, S.CANCELLED, S.CLOSED)
ENDS = {S.CONFIRMED: S.COMPLETED, S.CANCELLED: S.CLOSED}
MAILS = {S.CONFIRMED: say.CONFIRMATION, S.CANCELLED: say.CANCELLATION}


class Move(NamedTuple):
    """A step before it is written into the timeline."""

    saga: OrderSaga
    outputs: tuple[Message, ...] = ()
    outcome: str = "applied"


def advance(saga: OrderSaga | None, message: Message, policy: Policy) -> Transition[OrderSaga]:
    """Apply one message to an order. Never raises; a duplicate gives back the same row object and nothing to say."""
    if isinstance(message, OrderFact) and message.ours:
        return Transition(saga, (), "ignored")
    if saga is None:
        return _meet(message, policy)
    if message.event_id in saga.seen:
        return Transition(saga, (), "duplicate")
    if saga.state is S.PARKED:
        return _park_or_open(saga, message, policy)
    move = _decide(saga, message, policy)
    return Transition(saga, (), move) if isinstance(move, str) else _recorded(move, message, policy)


def _decide(saga: OrderSaga, message: Message, policy: Policy) -> Move | str:
    """The table above. A word instead of a move: that is the outcome, and the row stays as it is."""
    state = saga.state
    match message:
        case Reserved() if state is S.RESERVING and _asked(saga, message.product_id):
            return _hold(saga, message, policy)
        case Refused() if state is S.RESERVING and _asked(saga, message.product_id):
            return _refuse(saga, message, policy)
        case PaymentSucceeded() if message.payment_id in saga.paid:
            return "duplicate"
        case PaymentSucceeded() if state in LOST:
            return _refund_payment(saga, message, "paid-after-cancel", "Pago recibido tras la cancelación")
        case PaymentSucceeded() if saga.paid:
            return _refund_payment(saga, message, "paid-twice", "Pago duplicado")
        case PaymentSucceeded() if state in UNPAID:
            return _settle(_with_payment(saga, message), message, policy)
        case PaymentSucceeded():
            return Move(_with_payment(saga, message))
        case PaymentFailed() if state is S.AWAITING_PAYMENT or (state is S.PAYMENT_RETRY and not message.retryable):
            return _retry_or_give_up(saga, message, policy)
        case PaymentFailed():
            return Move(saga, (), "contradiction" if state in GOOD else "ignored")
        case OrderConfirmed() if state in (S.CONFIRMED, S.COMPLETED):
            return "duplicate"
        case OrderConfirmed() if state in LOST:
            return Move(_noticed(saga, "confirmed-after-cancel"), (), "contradiction")
        case OrderConfirmed():
            return _confirmed_elsewhere(saga, message, policy)
        case OrderCancelled() if state in (S.CANCELLED, S.CLOSED):
            return "duplicate"
        case OrderCancelled():
            return _cancelled_elsewhere(saga, message, policy)
        case EmailSent() | MailDelivered():
            return _mail_went_out(saga, message)
        case MailFailed() if message.template == MAILS.get(state) and message.attempt == saga.mail_attempt:
            return _mail_failed(saga, message, policy)
        case DeadlineReached() if saga.deadline is not None and saga.deadline <= message.at:
            return _deadline(saga, message, policy)
        case OrderDelivered() | RefundProcessed() | Noted():
            return Move(saga)
        case OrderCreated():
            return "duplicate"
    return "ignored"


# ---- the order arrives; what came before it waited ------------------------------------------------------


def _meet(message: Message, policy: Policy) -> Transition[OrderSaga]:
    match message:
        case OrderCreated():
            return _open(message, policy)
        case OrderFact():
            return _park(OrderSaga(order_id=message.key, state=S.PARKED, created_at=message.at), message)
        case Reserved():
            nobody = OrderSaga(order_id=message.key, state=S.CLOSED)
            release = _release(nobody, message, message.product_id, "order-cancelled", announce=False)
            return Transition(None, (release,), "contradiction")
    return Transition(None, (), "ignored")


def _park_or_open(saga: OrderSaga, message: Message, policy: Policy) -> Transition[OrderSaga]:
    match message:
        case OrderCreated():
            return _open(message, policy, saga)
        case OrderFact():
            return _park(saga, message)
    return Transition(saga, (), "ignored")


def _park(saga: OrderSaga, fact: OrderFact) -> Transition[OrderSaga]:
    if len(saga.parked) >= MAX_PARKED:
        full = _noticed(saga, "too many facts before order.created")
        return Transition(_written(full, fact, (), "not kept"), (), "contradiction")
    parked = (*saga.parked, msgspec.to_builtins(fact))
    return Transition(_written(replace(saga, parked=parked), fact, (), "parked"), (), "parked")


def _open(created: OrderCreated, policy: Policy, waited: OrderSaga | None = None) -> Transition[OrderSaga]:
    products: dict[str, Held] = {}
    for line in created.lines:
        before = products.get(line.product_id)
        products[line.product_id] = Held(
            quantity=line.quantity + (before.quantity if before else 0),
            status="asked",
            artisan_id=(before and before.artisan_id) or line.artisan_id,
            product_name=(before and before.product_name) or line.product_name,
        )
    until = created.at + policy.reservation_ttl
    saga = OrderSaga(
        order_id=created.key,
        state=S.RESERVING,
        dialect=created.dialect,
        customer_id=created.customer_id,
        customer_email=created.customer_email or None,
        lines=created.lines,
        total=created.total,
        currency=created.currency,
        created_at=created.at,
        correlation_id=created.correlation_id,
        trace=created.trace,
        products=products,
        reserved_until=until,
        deadline=until,
        attention=waited.attention if waited else None,
    )
    asked = tuple(
        Reserve(
            event_id=caused(created.event_id, "Reserve", product),
            key=product,
            at=created.at,
            source="order-saga",
            order_id=saga.order_id,
            quantity=held.quantity,
            expires_at=until,
            artisan_id=held.artisan_id,
        )
        for product, held in products.items()
    )
    row, outputs, outcome = _recorded(Move(saga, asked), created, policy)
    for builtins in waited.parked if waited else ():
        fact = replace(msgspec.convert(builtins, type=Parked), at=created.at)
        row, more, _ = advance(row, fact, policy)
        outputs += more
    return Transition(row, outputs, outcome)


# ---- stock answers --------------------------------------------------------------------------------------


def _asked(saga: OrderSaga, product: str) -> bool:
    held = saga.products.get(product)
    return held is not None and held.status == "asked"


def _hold(saga: OrderSaga, reserved: Reserved, policy: Policy) -> Move:
    asked = saga.products[reserved.product_id]
    held = replace(
        asked,
        status="held",
        remaining=reserved.remaining,
        artisan_id=asked.artisan_id or reserved.artisan_id,
        product_name=asked.product_name or reserved.product_name,
    )
    saga = replace(saga, products=saga.products | {reserved.product_id: held})
    if any(product.status != "held" for product in saga.products.values()):
        return Move(saga)
    # Where nothing else asks for the payment, "reserved" is the request: it is not said to who has paid.
    settled = bool(saga.paid) or saga.confirmed_early
    said = () if settled and policy.payment_request == "none" else (say.stock_reserved(saga, reserved),)
    if saga.confirmed_early:
        move = _confirm(saga, reserved, policy, publish=False)
    elif saga.paid:
        move = _settle(saga, reserved, policy)
    else:
        move = _ask(saga, reserved, policy)
    return Move(move.saga, said + move.outputs)


def _refuse(saga: OrderSaga, refused: Refused, policy: Policy) -> Move:
    reason = f"Stock insuficiente para producto {refused.product_id}"
    products = saga.products | {refused.product_id: replace(saga.products[refused.product_id], status="refused")}
    saga = replace(saga, products=products)
    said = (say.out_of_stock(saga, refused, reason),) if saga.dialect == "c" else ()
    move = _give_up(saga, refused, policy, reason, "order-cancelled", announce=False)
    return Move(move.saga, said + move.outputs)


def _release(saga: OrderSaga, cause: Message, product: str, reason: str, *, announce: bool) -> Release:
    return Release(
        event_id=caused(cause.event_id, "Release", product),
        key=product,
        at=cause.at,
        source="order-saga",
        order_id=saga.order_id,
        reason=reason,
        announce=announce,
        dialect=saga.dialect,
        correlation_id=saga.correlation_id,
    )


def _give_back(saga: OrderSaga, cause: Message, reason: str, *, announce: bool) -> Move:
    """The compensation of Reserve and of Commit: every unit that the order has, or has asked for, goes back."""
    outputs: list[Message] = []
    products: dict[str, Held] = {}
    for product, held in saga.products.items():
        status = held.status
        if status in ("asked", "held"):
            status = "released"
            outputs.append(_release(saga, cause, product, reason, announce=announce))
        elif status == "committed":
            status = "returned"
            outputs.append(
                Return(
                    event_id=caused(cause.event_id, "Return", product),
                    key=product,
                    at=cause.at,
                    source="order-saga",
                    order_id=saga.order_id,
                    quantity=held.quantity,
                    reason=reason,
                    dialect=saga.dialect,
                    correlation_id=saga.correlation_id,
                ),
            )
        products[product] = held if status == held.status else replace(held, status=status)
    return Move(replace(saga, products=products), tuple(outputs))


# ---- payment --------------------------------------------------------------------------------------------


def _ask(saga: OrderSaga, cause: Message, policy: Policy) -> Move:
    until = saga.reserved_until if saga.reserved_until is not None else cause.at + policy.reservation_ttl
    saga = replace(
        saga,
        state=S.AWAITING_PAYMENT,
        attempt=saga.attempt + 1,
        deadline=min(cause.at + policy.payment_timeout, until),
    )
    if policy.payment_request == "none":
        return Move(saga)
    return Move(saga, (say.payment_asked(saga, cause, policy.payment_request),))


def _with_payment(saga: OrderSaga, paid: PaymentSucceeded) -> OrderSaga:
    saga = replace(
        saga,
        paid=saga.paid | {paid.payment_id: paid.amount},
        payment_reference=saga.payment_reference or paid.transaction_id,
    )
    if abs(paid.amount - saga.total) > HALF_A_CENT:
        saga = _noticed(saga, f"amount-differs: paid {paid.amount}, total {saga.total}")
    if paid.currency != saga.currency:
        saga = _noticed(saga, f"currency-differs: paid {paid.currency}, order {saga.currency}")
    return saga


def _settle(saga: OrderSaga, cause: Message, policy: Policy) -> Move:
    """Held and paid: confirm, or wait until the service whose step it is confirms."""
    if policy.confirm == "observe":
        return Move(replace(saga, state=S.CONFIRMING, deadline=cause.at + policy.payment_timeout))
    return _confirm(saga, cause, policy, publish=True)


def _retry_or_give_up(saga: OrderSaga, failed: PaymentFailed, policy: Policy) -> Move:
    if not failed.retryable or saga.attempt >= policy.payment_max_attempts:
        reason = f"Pago fallido: {failed.error_message}"
        return _give_up(saga, failed, policy, reason, "payment-failed", announce=True)
    again = failed.at + policy.payment_retry_delay
    if saga.reserved_until is not None:
        again = min(again, saga.reserved_until)
    return Move(replace(saga, state=S.PAYMENT_RETRY, deadline=again))


def _refund_payment(saga: OrderSaga, paid: PaymentSucceeded, why: str, reason: str) -> Move:
    """The compensation of a payment that nothing is owed for: it goes back, and a person hears of it."""
    saga = replace(saga, paid=saga.paid | {paid.payment_id: paid.amount})
    return _refund_all(_noticed(saga, f"{why}: {paid.payment_id}"), paid, reason, only=paid.payment_id)


def _refund_all(saga: OrderSaga, cause: Message, reason: str, only: str | None = None) -> Move:
    """Ask once for each payment's refund."""
    due = [paid for paid in saga.paid if paid not in saga.refunds and only in (None, paid)]
    asked = tuple(say.refund_asked(saga, cause, payment, reason) for payment in due)
    return Move(replace(saga, refunds=(*saga.refunds, *due)), asked)


# ---- confirmed, cancelled -------------------------------------------------------------------------------


def _confirm(saga: OrderSaga, cause: Message, policy: Policy, *, publish: bool) -> Move:
    commits = tuple(
        Commit(
            event_id=caused(cause.event_id, "Commit", product),
            key=product,
            at=cause.at,
            source="order-saga",
            order_id=saga.order_id,
        )
        for product in saga.products
    )
    products = {product: replace(held, status="committed") for product, held in saga.products.items()}
    saga = replace(saga, state=S.CONFIRMED, products=products, confirmed_at=cause.at, deadline=None)
    said = (say.order_confirmed(saga, cause),) if publish else ()
    told = _tell(saga, cause, policy)
    return Move(told.saga, commits + said + told.outputs)


def _confirmed_elsewhere(saga: OrderSaga, fact: OrderConfirmed, policy: Policy) -> Move:
    saga = replace(saga, payment_reference=saga.payment_reference or fact.payment_reference)
    if policy.confirm != "observe":
        saga = _noticed(saga, "confirmed-elsewhere")
    if saga.state is S.RESERVING:
        return Move(replace(saga, confirmed_early=True))
    return _confirm(saga, fact, policy, publish=False)


def _give_up(saga: OrderSaga, cause: Message, policy: Policy, reason: str, released: str, *, announce: bool) -> Move:
    """Our own decision to cancel: give the stock back, then say so, or wait for the service whose step it is."""
    back = _give_back(saga, cause, released, announce=announce and policy.reserve == "act")
    saga = replace(back.saga, cancel_reason=reason, cancelled_by="system")
    unreturned = [amount for payment, amount in saga.paid.items() if payment not in saga.refunds]
    owed: Money | None = sum(unreturned) if unreturned else None
    refund = _refund_all(saga, cause, reason)
    if policy.cancel == "observe":
        waiting = replace(refund.saga, state=S.CANCELLING, deadline=cause.at + policy.payment_timeout)
        return Move(waiting, back.outputs + refund.outputs)
    saga = replace(refund.saga, state=S.CANCELLED, deadline=None)
    notified = policy.notify == "act" and saga.customer_email is not None
    said = say.order_cancelled(saga, cause, refund=owed, notified=notified)
    told = _tell(saga, cause, policy)
    return Move(told.saga, (said, *back.outputs, *refund.outputs, *told.outputs))


def _cancelled_elsewhere(saga: OrderSaga, fact: OrderCancelled, policy: Policy) -> Move:
    """It is said already: we compensate and do not say it again."""
    announced = saga.state is not S.RESERVING and policy.reserve == "act"
    back = _give_back(saga, fact, "order-cancelled", announce=announced)
    saga = replace(back.saga, cancel_reason=fact.reason, cancelled_by=fact.cancelled_by)
    refund = _refund_all(saga, fact, fact.reason)
    told = _tell(replace(refund.saga, state=S.CANCELLED, deadline=None), fact, policy)
    return Move(told.saga, back.outputs + refund.outputs + told.outputs)


# ---- telling the customer -------------------------------------------------------------------------------


def _tell(saga: OrderSaga, cause: Message, policy: Policy) -> Move:
    """CONFIRMED or CANCELLED was just reached: send its mail, or end at once when there is nobody to tell."""
    template = MAILS[saga.state]
    if saga.customer_email is None or template in saga.told:
        return Move(_ended(saga))
    if policy.notify == "observe":
        return Move(saga)
    saga = replace(saga, mail_attempt=1)
    mail = say.mail_asked(saga, cause, template)
    return Move(_ended(saga) if policy.notify == "shadow" else saga, (mail,))


def _mail_went_out(saga: OrderSaga, message: EmailSent | MailDelivered) -> Move:
    template = _template(message.template)
    ours = (say.email_sent(saga, message, template, message.message_id),) if isinstance(message, MailDelivered) else ()
    if template not in saga.told:
        saga = replace(saga, told=(*saga.told[-7:], template))
    return Move(_ended(saga) if MAILS.get(saga.state) == template else saga, ours)


def _template(name: str) -> str:
    """Other services' names for the two mails that the saga waits for."""
    if "cancel" in name:
        return say.CANCELLATION
    return say.CONFIRMATION if "confirm" in name else name


def _mail_failed(saga: OrderSaga, failed: MailFailed, policy: Policy) -> Move:
    if failed.permanent or failed.attempt >= policy.mail_max_attempts:
        return Move(_noticed(_ended(saga), f"mail-failed: {failed.error}"))
    return Move(replace(saga, deadline=failed.at + policy.mail_retry_delay * 2 ** (failed.attempt - 1)))


def _ended(saga: OrderSaga) -> OrderSaga:
    return replace(saga, state=ENDS[saga.state], deadline=None)


# ---- time -----------------------------------------------------------------------------------------------


def _deadline(saga: OrderSaga, reached: DeadlineReached, policy: Policy) -> Move:
    state = saga.state
    if state in MAILS:
        saga = replace(saga, mail_attempt=saga.mail_attempt + 1, deadline=None)
        return Move(saga, (say.mail_asked(saga, reached, MAILS[state]),))
    if state is S.CONFIRMING or state is S.CANCELLING or saga.paid:
        return Move(_noticed(replace(saga, deadline=None), f"overdue: {state.value}"))
    if saga.reserved_until is not None and reached.at >= saga.reserved_until:
        announced = state is not S.RESERVING
        return _give_up(saga, reached, policy, "Reserva caducada", "reservation-expired", announce=announced)
    if state is S.AWAITING_PAYMENT and saga.attempt >= policy.payment_max_attempts:
        return _give_up(saga, reached, policy, "Pago sin respuesta", "payment-failed", announce=True)
    return _ask(saga, reached, policy)


# ---- the record -----------------------------------------------------------------------------------------


def _noticed(saga: OrderSaga, why: str) -> OrderSaga:
    """A person should look at it. The reasons pile up, each once."""
    before = saga.attention
    if before is not None and why in before:
        return saga
    return replace(saga, attention=(why if before is None else f"{before}; {why}")[:MAX_ATTENTION])


def _recorded(move: Move, message: Message, policy: Policy) -> Transition[OrderSaga]:
    """Write the step into the timeline, and hold back what a shadow role would have said."""
    if "shadow" not in (policy.reserve, policy.confirm, policy.cancel, policy.notify):
        return Transition(_written(move.saga, message, move.outputs, move.outcome), move.outputs, move.outcome)
    silent = _silent(policy)
    spoken = tuple(output for output in move.outputs if _what(output) not in silent)
    outcome = "shadow" if len(spoken) < len(move.outputs) else move.outcome
    return Transition(_written(move.saga, message, move.outputs, move.outcome, silent), spoken, outcome)


def _silent(policy: Policy) -> frozenset[str]:
    """What is decided and not said."""
    silent: set[str] = set()
    if policy.reserve == "shadow":
        silent |= {"inventory.stock.reserved", "inventory.out_of_stock"}
    if policy.confirm == "shadow":
        silent |= {"order.confirmed"}
    if policy.cancel == "shadow":
        silent |= {"order.cancelled", "payment.refund.initiated"}
    if policy.notify == "shadow":
        silent |= {"SendMail", "notification.email.sent"}
    return frozenset(silent)


def _written(
    saga: OrderSaga,
    message: Message,
    outputs: tuple[Message, ...],
    outcome: str,
    silent: frozenset[str] = frozenset(),
) -> OrderSaga:
    detail = _detail(message) if outcome == "applied" else f"{outcome}: {_detail(message)}"
    steps = [Step(message.at, _what(message), "in", detail, message.event_id)]
    for output in outputs:
        what = _what(output)
        steps.append(Step(output.at, what, "out", "shadow" if what in silent else _detail(output), output.event_id))
    return replace(
        saga,
        updated_at=message.at,
        seen=(*saga.seen[-MAX_SEEN + 1 :], message.event_id),
        timeline=(*saga.timeline, *steps)[-MAX_TIMELINE:],
    )


WORDS: dict[type[Message], str] = {
    **{each: each.__name__ for each in (Reserve, Release, Commit, Return, Reserved, Refused)},
    **{each: each.__name__ for each in (SendMail, MailDelivered, MailFailed, DeadlineReached)},
    OrderCreated: "order.created",
    OrderConfirmed: "order.confirmed",
    OrderCancelled: "order.cancelled",
    OrderDelivered: "order.delivered",
    PaymentSucceeded: "payment.succeeded",
    PaymentFailed: "payment.failed",
    RefundProcessed: "payment.refund.processed",
    EmailSent: "notification.email.sent",
}


DETAILS: dict[type[Message], Callable[[Any], str]] = {
    **dict.fromkeys((Reserved, Refused), lambda reply: reply.product_id),
    **dict.fromkeys((Reserve, Release, Commit, Return), lambda command: command.key),
    **dict.fromkeys((EmailSent, SendMail, MailDelivered), lambda mail: mail.template),
    PaymentSucceeded: lambda paid: f"{paid.payment_id} {paid.amount} {paid.currency}",
    PaymentFailed: lambda failed: failed.error_message,
    OrderCancelled: lambda fact: fact.reason,
    Announce: lambda said: said.aggregate_id,
    MailFailed: lambda failed: failed.error,
}


def _what(message: Message) -> str:
    """A fact's subject, a command's or a reply's name."""
    return WORDS.get(type(message)) or cast(Announce | Noted, message).kind


def _detail(message: Message) -> str:
    said: Callable[[Any], str] | None = DETAILS.get(type(message))
    return said(message) if said is not None else ""
