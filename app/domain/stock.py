"""What a product does: holds units for orders, gives them back, lets them go, and says when it runs low.

It decides for one product; whether an order gets all its products is decided in order_saga.py. Always
0 <= reserved <= on_hand, and a hold ends once:

    command         there is a hold        there is none, the order ended          the order is new here
    -----------------------------------------------------------------------------------------------------------------
    Reserve         the same answer        committed: Reserved; else Refused       hold all of it, or Refused
    Release         units free again       duplicate                               noted: a late Reserve is refused
    Commit          units leave on_hand    committed: duplicate; else contradiction  contradiction
    Return          as Release             committed: units come back; else duplicate  units come back (see below)

A Reserve after the order's Release is refused, not answered as the first time: there is no hold to speak of any more,
and the reply has the first one's id, so who heard that one drops this one. A Return for an order that is not
remembered is trusted: `ended` is bounded, the saga's own row is what knows that it was committed.

Counts from outside (StockMoved) that would leave less than is promised to orders are taken as what is promised:
on_hand = max(reported, reserved), outcome "contradiction".
"""

from typing import Any

from msgspec.structs import replace

from app.domain.causes import caused, iso
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
from app.domain.rows import Hold, Stock

MAX_ENDED = 64
MAX_SEEN = 256


def apply(stock: Stock | None, command: Message, *, quiet: bool = False) -> Transition[Stock]:
    """Apply one command or fact to a product. Never raises. `quiet`: decide all the same, announce nothing (shadow)."""
    transition = _decide(stock, command)
    if quiet and transition.outputs:
        said = tuple(output for output in transition.outputs if not isinstance(output, Announce))
        return transition._replace(outputs=said)
    return transition


def _decide(stock: Stock | None, command: Message) -> Transition[Stock]:
    match command:
        case Reserve():
            return _reserve(stock, command)
        case StockMoved() if command.ours:
            return Transition(stock, (), "ignored")
        case StockMoved():
            return _move(stock, command)
        case StockImported():
            return _import(stock, command)
    if stock is None:
        return Transition(None, (), "ignored")
    match command:
        case Release():
            return _release(stock, command, command.reason, announce=command.announce)
        case Commit():
            return _commit(stock, command)
        case Return():
            return _return(stock, command)
    return Transition(stock, (), "ignored")


# ---- for an order ---------------------------------------------------------------------------------------


def _reserve(stock: Stock | None, command: Reserve) -> Transition[Stock]:
    if stock is None:
        return Transition(None, (_refused(command, 0, known=False),))
    hold = stock.holds.get(command.order_id)
    end = stock.ended.get(command.order_id)
    if hold is not None:
        return Transition(stock, (_reserved(stock, command, hold.quantity),), "duplicate")
    if end == "committed":
        return Transition(stock, (_reserved(stock, command, command.quantity),), "duplicate")
    if end is not None:
        return Transition(stock, (_refused(command, stock.available, known=True),), "duplicate")
    if command.quantity > stock.available:
        refused = replace(stock, ended=_end(stock, command.order_id, "refused"), updated_at=command.at)
        return Transition(refused, (_refused(command, stock.available, known=True),))
    after = replace(
        stock,
        holds=stock.holds | {command.order_id: Hold(command.quantity, command.expires_at)},
        held=stock.reserved + command.quantity,
        artisan_id=stock.artisan_id or command.artisan_id or "",
        updated_at=command.at,
    )
    return _levelled(stock, after, command, (_reserved(after, command, command.quantity),))


def _release(stock: Stock, command: Release | Return, reason: str, *, announce: bool) -> Transition[Stock]:
    hold = stock.holds.get(command.order_id)
    if hold is None:
        if command.order_id in stock.ended:
            return Transition(stock, (), "duplicate")
        ended = _end(stock, command.order_id, "released")
        return Transition(replace(stock, ended=ended, updated_at=command.at), (), "ignored")
    after = _without_hold(stock, command, hold, "released")
    said = (_released(after, command, hold.quantity, reason),) if announce else ()
    return _levelled(stock, after, command, said)


def _commit(stock: Stock, command: Commit) -> Transition[Stock]:
    hold = stock.holds.get(command.order_id)
    if hold is None:
        known = stock.ended.get(command.order_id) in ("committed", "returned")
        return Transition(stock, (), "duplicate" if known else "contradiction")
    after = _without_hold(stock, command, hold, "committed")
    return Transition(replace(after, on_hand=stock.on_hand - hold.quantity))


def _return(stock: Stock, command: Return) -> Transition[Stock]:
    if command.order_id in stock.holds:
        return _release(stock, command, command.reason, announce=True)
    if command.event_id in stock.seen or stock.ended.get(command.order_id, "committed") != "committed":
        return Transition(stock, (), "duplicate")
    after = replace(
        stock,
        on_hand=stock.on_hand + command.quantity,
        ended=_end(stock, command.order_id, "returned"),
        seen=_seen(stock, command),
        updated_at=command.at,
    )
    said = (_released(after, command, command.quantity, command.reason),)
    return _levelled(stock, after, command, said)


def _without_hold(stock: Stock, command: Release | Return | Commit, hold: Hold, end: str) -> Stock:
    holds = stock.holds.copy()
    del holds[command.order_id]
    return replace(
        stock,
        holds=holds,
        held=stock.reserved - hold.quantity,
        ended=_end(stock, command.order_id, end),
        updated_at=command.at,
    )


# ---- from outside ---------------------------------------------------------------------------------------


def _move(stock: Stock | None, fact: StockMoved) -> Transition[Stock]:
    if stock is not None and fact.event_id in stock.seen:
        return Transition(stock, (), "duplicate")
    before = stock or Stock(product_id=fact.key)
    # The first word about a product is best an absolute one; after it, changes keep what happened here meanwhile.
    if fact.change is not None and (stock is not None or fact.new_stock is None):
        reported = before.on_hand + fact.change
    elif fact.new_stock is not None:
        reported = fact.new_stock
    else:
        return Transition(stock, (), "ignored")
    on_hand = max(reported, before.reserved)
    after = replace(
        before,
        on_hand=on_hand,
        name=fact.product_name or before.name,
        category=fact.category or before.category,
        artisan_id=fact.artisan_id or before.artisan_id,
        threshold=before.threshold if fact.threshold is None else fact.threshold,
        last_restocked=fact.at if on_hand > before.on_hand else before.last_restocked,
        seen=_seen(before, fact),
        updated_at=fact.at,
    )
    moved = _levelled(stock, after, fact)
    return moved._replace(outcome="contradiction") if on_hand != reported else moved


def _import(stock: Stock | None, fact: StockImported) -> Transition[Stock]:
    if stock is not None and fact.event_id in stock.seen:
        return Transition(stock, (), "duplicate")
    before = stock or Stock(product_id=fact.key)
    on_hand = max(fact.on_hand, before.reserved)
    after = replace(
        before,
        on_hand=on_hand,
        threshold=fact.threshold,
        name=fact.name,
        category=fact.category,
        artisan_id=fact.artisan_id,
        last_restocked=fact.at if on_hand > before.on_hand else before.last_restocked,
        seen=_seen(before, fact),
        updated_at=fact.at,
    )
    imported = _levelled(stock, after, fact)
    return imported._replace(outcome="contradiction") if on_hand != fact.on_hand else imported


# ---- running low ----------------------------------------------------------------------------------------


def _levelled(
    before: Stock | None, after: Stock, cause: Message, outputs: tuple[Message, ...] = ()
) -> Transition[Stock]:
    """Keep the level, and announce when it got worse. The first word about a product is no crossing."""
    depleted = after.available == 0
    low = depleted or after.available <= after.threshold
    if (low, depleted) == (after.low, after.depleted):
        return Transition(after, outputs)
    worse = (low and not after.low) or (depleted and not after.depleted)
    crossed = worse and before is not None and (after.threshold > 0 or before.available > 0)
    after = replace(after, low=low, depleted=depleted)
    return Transition(after, (*outputs, _warning(after, cause)) if crossed else outputs)


# ---- words ----------------------------------------------------------------------------------------------


def _reserved(stock: Stock, command: Reserve, quantity: int) -> Reserved:
    return Reserved(
        event_id=caused(command.event_id, "reply"),
        key=command.order_id,
        at=command.at,
        source="stock",
        product_id=command.key,
        quantity=quantity,
        remaining=stock.available,
        artisan_id=stock.artisan_id or command.artisan_id,
        product_name=stock.name or None,
    )


def _refused(command: Reserve, available: int, *, known: bool) -> Refused:
    return Refused(
        event_id=caused(command.event_id, "reply"),
        key=command.order_id,
        at=command.at,
        source="stock",
        product_id=command.key,
        requested=command.quantity,
        available=available,
        known=known,
    )


def _released(stock: Stock, command: Release | Return, quantity: int, reason: str) -> Announce:
    data = {
        "orderId": command.order_id,
        "quantityReleased": quantity,
        "reason": reason,
        "newStock": stock.available,
        "releasedAt": iso(command.at),
        "artisanId": stock.artisan_id,
    }
    correlation = command.correlation_id or command.order_id
    return _announce(command, "inventory.stock.released", data, command.dialect, correlation)


def _warning(stock: Stock, cause: Message) -> Announce:
    data: dict[str, Any] = {
        "currentStock": stock.available,
        "threshold": stock.threshold,
        "artisanId": stock.artisan_id,
        "productName": stock.name,
        "category": stock.category,
        "urgencyLevel": "critical" if stock.depleted else "medium",
    }
    if stock.last_restocked is not None:
        data["lastRestocked"] = iso(stock.last_restocked)
    return _announce(cause, "inventory.stock.warning", data, "a")


def _announce(
    cause: Message, kind: str, data: dict[str, Any], dialect: str, correlation: str | None = None
) -> Announce:
    return Announce(
        event_id=caused(cause.event_id, kind),
        key=cause.key,
        at=cause.at,
        source="stock",
        kind=kind,
        aggregate_id=cause.key,
        data=data,
        dialect=dialect,
        correlation_id=correlation,
        causation_id=cause.event_id,
    )


def _end(stock: Stock, order_id: str, how: str) -> dict[str, str]:
    """`ended` with one more, newest last, the oldest forgotten."""
    ended = stock.ended.copy()
    ended.pop(order_id, None)
    ended[order_id] = how
    if len(ended) > MAX_ENDED:
        del ended[next(iter(ended))]
    return ended


def _seen(stock: Stock, fact: Message) -> tuple[str, ...]:
    return (*stock.seen[-MAX_SEEN + 1 :], fact.event_id)
