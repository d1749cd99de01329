"""What is sold and who orders what: the products, and an endless list of orders that a seed makes the same each time.

It decides the mix of orders. How an order goes on is told by its customer's name, as with the test cards of a payment
gateway: `services.py` acts on it.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

SEED = 2026
IMPOSSIBLE = 1_000_000  # units that nobody ever has


class Good(NamedTuple):
    """One product. `stock` is what an artisan brings at a time, `price` is in euros, `share` of the orders."""

    product_id: str
    name: str
    category: str
    artisan_id: str
    price: float
    stock: int
    threshold: int
    share: int


GOODS = (
    Good("product_aceite_picual", "Aceite Picual de Úbeda", "aceites", "artisan_olivares_ubeda", 12.5, 50, 10, 4),
    Good("product_queso_cabra", "Queso de cabra de Cazorla", "quesos", "artisan_queseria_cazorla", 9.9, 25, 5, 3),
    Good("product_miel_azahar", "Miel de azahar de Segura", "mieles", "artisan_colmenas_segura", 7.8, 100, 20, 4),
    Good("product_jamon_iberico", "Jamón ibérico de Andújar", "embutidos", "artisan_dehesa_andujar", 89.0, 15, 3, 1),
)
BY_ID = {good.product_id: good for good in GOODS}


class Customer(StrEnum):
    """The customers with whom something happens. All others just pay."""

    BANK_OFFLINE = "customer_bank_offline"  # the first payment fails retryably, the second succeeds
    NO_MONEY = "customer_no_money"  # every payment fails retryably
    CARD_STOLEN = "customer_card_stolen"  # the payment fails for good
    CHANGES_MIND = "customer_changes_mind"  # cancels instead of paying
    REGRETS = "customer_regrets"  # cancels once the order is confirmed: the money and the units go back
    PAYS_TWICE = "customer_pays_twice"  # two payments, each with its own id: the second goes back


class Kind(StrEnum):
    """What is particular about the order itself."""

    PLAIN = "one product"
    SEVERAL = "several products"
    SAME_TWICE = "two lines of one product"
    REPEATED = "published twice with the same eventId"
    TOO_MANY = "more than there is"


DECK: tuple[Kind | Customer, ...] = (
    *[Kind.PLAIN] * 20,
    *[Kind.SEVERAL] * 5,
    *[Kind.SAME_TWICE] * 3,
    *[Kind.REPEATED] * 3,
    *[Kind.TOO_MANY] * 2,
    *[Customer.BANK_OFFLINE] * 2,
    Customer.NO_MONEY,
    Customer.CARD_STOLEN,
    Customer.CHANGES_MIND,
    Customer.REGRETS,
    Customer.PAYS_TWICE,
)
"""Every 40 orders hold all of these, in a new order each time."""


class Planned(NamedTuple):
    """An order before it is placed. A line is a product and its units."""

    customer_id: str
    lines: tuple[tuple[Good, int], ...]
    repeated: bool = False

    def units(self) -> Counter[str]:
        """Units by product, the lines summed."""
        units: Counter[str] = Counter()
        for good, quantity in self.lines:
            units[good.product_id] += quantity
        return units


def planned_orders(seed: int = SEED) -> Iterator[Planned]:
    """Orders without end; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - a mix that can be repeated, not a secret
    yield _planned(Kind.PLAIN, chance)  # the first is to be confirmed soon
    while True:
        for card in chance.sample(DECK, len(DECK)):
            yield _planned(card, chance)


def _planned(card: Kind | Customer, chance: random.Random) -> Planned:
    customer = str(card) if isinstance(card, Customer) else f"customer_{chance.randint(1, 400):03d}"
    good = chance.choices(GOODS, [good.share for good in GOODS])[0]
    quantity = chance.choice((1, 1, 1, 2, 2, 3))
    match card:
        case Kind.SEVERAL:
            picked = chance.sample(GOODS, chance.choice((2, 2, 3)))
            return Planned(customer, tuple((each, chance.choice((1, 1, 2))) for each in picked))
        case Kind.SAME_TWICE:
            return Planned(customer, ((good, quantity), (good, 1)))
        case Kind.TOO_MANY:
            return Planned(customer, ((good, IMPOSSIBLE),))
    return Planned(customer, ((good, quantity),), repeated=card is Kind.REPEATED)


def scaled_stock(orders: Iterable[Planned]) -> dict[str, int]:
    """Stock by product for these orders: enough of two products, too little of the other two."""
    wanted: Counter[str] = Counter()
    for order in orders:
        wanted.update({product: units for product, units in order.units().items() if units < IMPOSSIBLE})
    part = dict(zip(BY_ID, (1.2, 0.7, 1.2, 0.6), strict=True))
    return {product: max(1, round(wanted[product] * part[product])) for product in BY_ID}
