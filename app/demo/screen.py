"""What the demo shows: where everything is, counters while it runs, and the summary and verdict. Decides nothing."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.demo.goods import BY_ID
from app.demo.ledger import ENDS, Finding, Ledger
from app.demo.servers import TIMERS
from app.settings import Settings

UNUSUAL = ("parked", "confirming", "cancelling")  # states that are shown only when there is an order in them


@dataclass
class Counters:
    """The figures of one moment. `seconds` since the first order; products as the API lists them."""

    seconds: float = 0.0
    placed: int = 0
    states: dict[str, int] = field(default_factory=dict)
    events_per_second: float = 0.0
    mails: int = 0
    oversold: int = 0
    lost: int = 0
    products: Sequence[dict[str, Any]] = ()

    def headline(self) -> str:
        """Everything in one line."""
        under_way = sum(count for state, count in self.states.items() if state not in ENDS)
        return (
            f"{self.seconds:6.1f} s  orders {self.placed}  completed {self.states.get('completed', 0)}  "
            f"closed {self.states.get('closed', 0)}  under way {under_way}  "
            f"events/s {self.events_per_second:.0f}  mails {self.mails}  oversold {self.oversold}  lost {self.lost}"
        )


class Screen(Protocol):
    """Where the demo is watched."""

    def show(self, counters: Counters) -> None:
        """The counters of this moment."""

    def tell(self, text: str) -> None:
        """Something that happened once."""


class Lines:
    """A line for each time: for a pipe, a log."""

    def show(self, counters: Counters) -> None:
        self.tell(counters.headline())

    def tell(self, text: str) -> None:
        click.echo(text)


class Picture:
    """The counters in place: for a terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, counters: Counters) -> None:
        self._live.update(_picture(counters), refresh=True)

    def tell(self, text: str) -> None:
        self._live.console.print(text)


@contextmanager
def watched() -> Iterator[Screen]:
    """The screen that fits where stdout goes."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    with Live(auto_refresh=False, console=Console(highlight=False)) as live:
        yield Picture(live)


def say(word: str, text: str) -> None:
    """One line of the block at the start."""
    click.echo(f"{word:<8}{text}")


def near(path: Path) -> str:
    """The path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def say_timers(settings: Settings) -> None:
    """Which of the settings are scaled, and what they are else."""
    named = [f"{name} {seconds:g} s (not {getattr(settings, name.lower()):g})" for name, seconds in TIMERS.items()]
    half = len(named) // 2
    say("timers", f"scaled for the demo: {', '.join(named[:half])},")
    say("", ", ".join(named[half:]))


def say_try(api: str, nats: str) -> None:
    """Commands that work while it runs."""
    order = {
        "eventId": "by-hand-1",
        "eventType": "OrderCreatedEvent",
        "aggregateId": "order_by_hand",
        "eventData": {
            "customerId": "you",
            "customerEmail": "you@jaen.example",
            "items": [{"productId": "product_aceite_picual", "quantity": 1, "unitPrice": 12.5}],
            "totalAmount": 12.5,
        },
    }
    say("try", f"curl -s {api}/api/inventory/check/product_aceite_picual")
    say("", f"nats pub -s {nats} order.created '{json.dumps(order, separators=(',', ':'))}'")
    say("", f"curl -s {api}/api/orders/order_by_hand")


def _picture(counters: Counters) -> Group:
    line = Text.assemble(
        (f"{counters.seconds:6.1f} s   ", "bold"),
        f"orders {counters.placed}   events/s {counters.events_per_second:.0f}   mails {counters.mails}   ",
        *_alarm("oversold", counters.oversold),
        "   ",
        *_alarm("lost", counters.lost),
    )
    states = Table(box=None, pad_edge=False, header_style="dim")
    seen = {state: count for state, count in counters.states.items() if count or state not in UNUSUAL}
    for state in seen:
        states.add_column(state.replace("_", " "), justify="right")
    states.add_row(*(str(count) for count in seen.values()))
    shelves = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("product", "on hand", "reserved", "available"):
        shelves.add_column(name, justify="left" if name == "product" else "right")
    shelves.add_column("")
    for product in counters.products:
        note = "sold out" if product["available"] <= 0 else "low" if product["low"] else ""
        units = [str(product[name]) for name in ("onHand", "reserved", "available")]
        shelves.add_row(product["name"], *units, Text(note, "yellow"))
    return Group("", line, "", states, "", shelves)


def _alarm(word: str, number: int) -> tuple[tuple[str, str], ...]:
    return ((f"{word} {number}", "green" if number == 0 else "bold red"),)


def summary(ledger: Ledger, mails: int, products: Sequence[dict[str, Any]], seconds: float) -> None:
    """The tables at the end."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    orders = Table()
    orders.add_column(f"{len(ledger.orders)} orders in {seconds:.1f} s")
    orders.add_column("orders", justify="right")
    for outcome, count in ledger.outcomes().most_common():
        orders.add_row(outcome, str(count))
    stock = Table()
    for name in ("stock", "brought", "sold", "on hand", "reserved"):
        stock.add_column(name, justify="left" if name == "stock" else "right")
    for product in products:
        name = product["productId"]
        figures = (ledger.brought[name], ledger.sold[name], product["onHand"], product["reserved"])
        stock.add_row(product["name"], *map(str, figures))
    console.print(orders, stock)
    click.echo(
        f"mails {mails}; heard on NATS: {ledger.heard_of_us} events of the application, "
        f"{ledger.heard - ledger.heard_of_us} of the services ({ledger.repeated_by_services} with an eventId again)"
    )
    times = ledger.latencies()
    if times:
        p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
        click.echo(
            f"order.created to order.confirmed, as heard on NATS: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms "
            f"({len(times)} orders that paid at the first request)"
        )


def verdict(findings: Iterable[Finding]) -> bool:
    """One line an invariant. Returns whether all of them hold."""
    good = True
    for finding in findings:
        good = good and finding.holds
        click.echo(f"{'ok  ' if finding.holds else 'FAIL'}  {finding.what:<28}{finding.figures}")
    return good


def delivered(stock: dict[str, int]) -> str:
    """What the artisans brought, in words."""
    return ", ".join(f"{units} {BY_ID[product].name}" for product, units in stock.items())
