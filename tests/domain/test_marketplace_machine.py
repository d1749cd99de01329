"""A whole marketplace of pure rules, driven at random: several orders and products, facts in any order and repeated,
commands and replies delayed, deadlines, outside counts. What must always hold is written as invariants.
"""

from collections import Counter, defaultdict, deque
from typing import Any, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from app.domain import stock as stocks
from app.domain.messages import (
    Announce,
    Commit,
    DeadlineReached,
    EmailSent,
    Line,
    MailDelivered,
    MailFailed,
    Message,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    PaymentFailed,
    PaymentSucceeded,
    Refused,
    Release,
    Reserve,
    Reserved,
    Return,
    SendMail,
    StockMoved,
)
from app.domain.order_saga import advance
from app.domain.policy import Policy
from app.domain.rows import OrderSaga, SagaState, Stock

ORDERS = ["ANA", "LUIS", "EVA"]
PRODUCTS = ["CHEESE", "HONEY"]
GONE = {SagaState.CANCELLING, SagaState.CANCELLED, SagaState.CLOSED}
CONFIRMED = {SagaState.CONFIRMED, SagaState.COMPLETED}

Basket: TypeAlias = list[tuple[str, int]]

orders = st.sampled_from(ORDERS)
products = st.sampled_from(PRODUCTS)
baskets = st.lists(st.tuples(products, st.integers(1, 3)), min_size=1, max_size=3)
repeated = st.sampled_from([False, False, False, True])


class Marketplace(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(
            [
                Policy(),
                Policy(payment_request="none", notify="observe"),
                Policy(confirm="observe", cancel="observe"),
                Policy(confirm="shadow", cancel="shadow", notify="shadow", reserve="shadow"),
            ]
        ),
        start=st.integers(3, 8),
        ana=baskets,
        luis=baskets,
    )
    def open_the_market(self, policy: Policy, start: int, ana: Basket, luis: Basket) -> None:
        self.policy = policy
        self.now = 1_795_521_600.0
        self.sagas: dict[str, OrderSaga] = {}
        self.stocks: dict[str, Stock] = {
            product: Stock(product_id=product, on_hand=start, threshold=2) for product in PRODUCTS
        }
        self.expected = dict.fromkeys(PRODUCTS, start)  # on_hand, by the books
        self.commands: dict[str, deque[Message]] = {product: deque() for product in PRODUCTS}
        self.replies: list[Message] = []
        self.mails: list[SendMail] = []
        self.told: list[Message] = []  # facts, to be told again
        self.said: Counter[tuple[str, str]] = Counter()
        self.ends: dict[tuple[str, str], str] = {}  # (order, product) -> how its hold ended
        self.committed: dict[tuple[str, str], int] = {}
        self.returned: set[tuple[str, str]] = set()
        self.reached: dict[str, list[SagaState]] = defaultdict(list)
        self.count = 0
        self.order("ANA", ana)
        self.order("LUIS", luis)

    # ---- what arrives ---------------------------------------------------------------------------------

    @rule(order=orders, lines=baskets)
    def order_is_created(self, order: str, lines: Basket) -> None:
        self.order(order, lines)

    def order(self, order: str, lines: Basket) -> None:
        items = tuple(Line(product, quantity, 2.0) for product, quantity in lines)
        total = sum(item.quantity * item.unit_price for item in items)
        email = None if order == "EVA" else "ana@jaen.example"
        self.tell(
            OrderCreated(
                **self.ids(order), customer_id="C", lines=items, total=total, customer_email=email, dialect="c"
            )
        )

    @rule(order=orders, payment=st.sampled_from(["PAY-1", "PAY-1", "PAY-2"]))
    def payment_succeeds(self, order: str, payment: str) -> None:
        self.tell(PaymentSucceeded(**self.ids(order), payment_id=payment, transaction_id=payment, amount=4.0))

    @rule(order=orders, retryable=st.sampled_from([True, True, False]))
    def payment_fails(self, order: str, *, retryable: bool) -> None:
        self.tell(
            PaymentFailed(**self.ids(order), payment_id="PAY", error_code="NO", error_message="no", retryable=retryable)
        )

    @rule(order=orders, really=st.sampled_from([False, False, True]))
    def customer_cancels(self, order: str, *, really: bool) -> None:
        if really:
            self.tell(OrderCancelled(**self.ids(order), reason="changed my mind", cancelled_by="customer"))

    @rule(order=orders)
    def another_service_confirms(self, order: str) -> None:
        self.tell(OrderConfirmed(**self.ids(order)))

    @rule(order=orders, template=st.sampled_from(["order-confirmation", "order-cancellation", "welcome"]))
    def another_service_mails(self, order: str, template: str) -> None:
        self.tell(EmailSent(**self.ids(order), template=template, recipient="r"))

    @rule(data=st.data())
    def an_old_fact_is_told_again(self, data: st.DataObject) -> None:
        if self.told:
            self.advance(data.draw(st.sampled_from(self.told)))

    # ---- what is under way ----------------------------------------------------------------------------

    @rule()
    def all_that_is_under_way_arrives(self) -> None:
        while self.replies or any(self.commands.values()):
            for product in PRODUCTS:
                while self.commands[product]:
                    self.apply(self.commands[product].popleft())
            while self.replies:
                self.advance(self.replies.pop())

    @rule(product=products, again=repeated)
    def stock_takes_a_command(self, product: str, *, again: bool) -> None:
        if self.commands[product]:
            command = self.commands[product].popleft()
            self.apply(command)
            if again:
                self.apply(command)

    @rule(data=st.data(), again=repeated)
    def the_saga_hears_a_reply(self, data: st.DataObject, *, again: bool) -> None:
        if self.replies:
            reply = self.replies.pop(data.draw(st.integers(0, len(self.replies) - 1)))
            self.advance(reply)
            if again:
                self.advance(reply)

    @rule(delivered=st.booleans(), permanent=st.booleans())
    def a_mail_is_tried(self, *, delivered: bool, permanent: bool) -> None:
        if self.mails:
            mail = self.mails.pop(0)
            ids: dict[str, Any] = {"event_id": f"{mail.event_id}:result", "key": mail.key, "at": self.now}
            result: Message = MailDelivered(**ids, template=mail.template, message_id="<m@a4co>")
            if not delivered:
                result = MailFailed(
                    **ids, template=mail.template, attempt=mail.attempt, error="no", permanent=permanent
                )
            self.advance(result)

    @rule(seconds=st.sampled_from([1.0, 40.0, 40.0, 301.0, 301.0, 901.0, 1801.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for order, saga in list(self.sagas.items()):
            if saga.deadline is not None and saga.deadline <= self.now:
                self.advance(DeadlineReached(**self.ids(order), due=saga.deadline))

    @rule(order=orders)
    def a_stale_deadline_arrives(self, order: str) -> None:
        saga = self.sagas.get(order)
        if saga is not None and (saga.deadline is None or saga.deadline > self.now):
            self.advance(DeadlineReached(**self.ids(order), due=self.now))
            assert self.sagas[order] is saga

    @rule(product=products, change=st.integers(-4, 6), again=repeated)
    def stock_moves_outside(self, product: str, change: int, *, again: bool) -> None:
        before = self.stocks[product]
        moved = StockMoved(**self.ids(product), kind="updated", change=change)
        self.apply(moved)
        self.expected[product] += max(before.on_hand + change, before.reserved) - before.on_hand
        if again:
            self.apply(moved)

    # ---- the shell: routes outputs as the agents do -------------------------------------------------------

    def ids(self, key: str) -> dict[str, Any]:
        self.count += 1
        self.now += 0.001
        return {"event_id": f"EVENT-{self.count}", "key": key, "at": self.now}

    def tell(self, fact: Message) -> None:
        self.told.append(fact)
        self.advance(fact)

    def advance(self, message: Message) -> None:
        before = self.sagas.get(message.key)
        row, outputs, outcome = advance(before, replace(message, at=max(message.at, self.now)), self.policy)
        if outcome == "duplicate":
            assert row is before
            assert outputs == ()
        if row is not None:
            self.sagas[message.key] = row
            if before is None or before.state is not row.state:
                self.reached[message.key].append(row.state)
        self.route(outputs)

    def apply(self, command: Message) -> None:
        before = self.stocks[command.key]
        row, outputs, _ = stocks.apply(before, command)
        assert row is not None
        self.stocks[command.key] = row
        self.keep_books(before, row, command)
        self.route(outputs)

    def keep_books(self, before: Stock, after: Stock, command: Message) -> None:
        product = command.key
        if isinstance(command, StockMoved):
            return
        assert isinstance(command, Reserve | Release | Commit | Return)
        hold = (command.order_id, product)
        if command.order_id in after.holds and command.order_id not in before.holds:
            assert hold not in self.ends, "held again after its hold ended"
        if command.order_id in before.holds and command.order_id not in after.holds:
            assert hold not in self.ends, "ended twice"
            self.ends[hold] = type(command).__name__
        if isinstance(command, Commit) and self.ends.get(hold) == "Commit" and hold not in self.committed:
            self.committed[hold] = before.holds[command.order_id].quantity
            self.expected[product] -= self.committed[hold]
        if isinstance(command, Return) and hold in self.committed and hold not in self.returned:
            self.returned.add(hold)
            self.expected[product] += self.committed[hold]

    def route(self, outputs: tuple[Any, ...]) -> None:
        for output in outputs:
            if isinstance(output, Reserved | Refused):
                self.replies.append(output)
            elif isinstance(output, SendMail):
                self.mails.append(output)
            elif isinstance(output, Announce):
                self.said[output.kind, output.aggregate_id] += 1
            else:
                self.commands[output.key].append(output)

    # ---- what always holds ------------------------------------------------------------------------------

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        for stock in self.stocks.values():
            assert stock.reserved == sum(hold.quantity for hold in stock.holds.values())
            assert 0 <= stock.reserved <= stock.on_hand

    @invariant()
    def no_unit_is_lost(self) -> None:
        assert {product: stock.on_hand for product, stock in self.stocks.items()} == self.expected

    @invariant()
    def a_saga_ends_once_and_stays_ended(self) -> None:
        for states in self.reached.values():
            assert states.count(SagaState.CLOSED) <= 1
            assert states.count(SagaState.COMPLETED) <= 1
            assert SagaState.CLOSED not in states[:-1]
            if SagaState.COMPLETED in states[:-1]:
                after = states[states.index(SagaState.COMPLETED) + 1 :]
                assert after[0] in (SagaState.CANCELLED, SagaState.CLOSED)

    @invariant()
    def each_thing_is_said_once(self) -> None:
        once = ("order.confirmed", "order.cancelled", "inventory.stock.reserved")
        assert not [said for said, times in self.said.items() if times > 1 and said[0] in once]

    @invariant()
    def what_was_paid_for_nothing_is_refunded(self) -> None:
        for saga in self.sagas.values():
            assert len(set(saga.refunds)) == len(saga.refunds)
            kept = set(saga.paid) - set(saga.refunds)
            assert len(kept) <= 1
            assert not (kept and saga.state in GONE)

    def teardown(self) -> None:
        """Let everything arrive: then stock and sagas agree, hold by hold."""
        if not hasattr(self, "sagas"):
            return
        self.all_that_is_under_way_arrives()
        self.no_unit_is_lost()
        for order, saga in self.sagas.items():
            ended = {product: self.ends.get((order, product)) for product in saga.products}
            holding = {product for product in saga.products if order in self.stocks[product].holds}
            if saga.state in CONFIRMED:
                assert set(ended.values()) == {"Commit"}
                assert not {hold for hold in self.returned if hold[0] == order}
            if saga.state in GONE:
                assert not holding
                kept = {hold for hold in self.committed if hold[0] == order} - self.returned
                assert not kept


Marketplace.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestMarketplace = Marketplace.TestCase
