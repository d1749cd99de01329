"""Which events of the live feed a client wants."""

from typing import Annotated

from fastapi import Query, Request

from app.domain.dead_letters import LetterState
from app.domain.rows import SagaState
from app.web.live.events import Kind, LiveEvent
from app.web.problems import Fault, ProblemError
from app.web.query import Word

STATES = frozenset({*SagaState, *LetterState})
KINDS = frozenset(Kind)

Words = Annotated[list[str] | None, Query(max_length=20)]


class LiveFilter:
    """A query's filter; what is given must all be true. `kinds` and `state`: words with commas, or given again.

    `state` is an order's or a dead letter's, `customerId` an order's. `orderId` and `productId` are also looked for in
    a dead letter's key. An order has the products of its lines.

    Raises:
        ProblemError: there is no such kind or state, or no such parameter.
    """

    def __init__(
        self,
        request: Request,
        kinds: Annotated[Words, Query(description=f"of {', '.join(sorted(KINDS))}")] = None,
        state: Annotated[Words, Query(description=f"of {', '.join(sorted(STATES))}")] = None,
        customer: Annotated[Word, Query(alias="customerId")] = None,
        order: Annotated[Word, Query(alias="orderId")] = None,
        product: Annotated[Word, Query(alias="productId")] = None,
    ) -> None:
        unknown = sorted(request.query_params.keys() - PARAMETERS)
        if unknown:
            raise ProblemError("invalid-filter", f"There is no parameter {', '.join(unknown)}.")
        self._kinds = _words("kinds", kinds, KINDS)
        self._states = _words("state", state, STATES)
        self._customer = customer
        self._order = order
        self._product = product

    def wants(self, event: LiveEvent) -> bool:
        """Whether the event is wanted."""
        if event.kind is None:
            return True
        return (
            (self._kinds is None or event.kind in self._kinds)
            and (self._states is None or event.state in self._states)
            and self._customer in (None, event.customer)
            and (self._order is None or self._order in event.orders)
            and (self._product is None or self._product in event.products)
        )


PARAMETERS = frozenset({"kinds", "state", "customerId", "orderId", "productId", "after"})


def _words(name: str, given: list[str] | None, known: frozenset[str]) -> frozenset[str] | None:
    if given is None:
        return None
    words = frozenset(word for each in given for word in each.split(","))
    unknown = sorted(words - known)
    if unknown:
        cause = f"there is no {', '.join(map(repr, unknown))}; there are {', '.join(sorted(known))}"
        raise ProblemError("invalid-filter", f"{name}: {cause}.", [Fault(parameter=name, cause=cause)])
    return words
