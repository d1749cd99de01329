"""What must be true after the kills: of the log, its tables, the stream and what a subscriber heard.

Every check yields a line for each thing that is not as it must be; the worker has been stopped before.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.domain.rows import OrderSaga, Stock
from app.engine.declarations import TableSpec
from app.engine.embedded_log import EmbeddedLog
from app.engine.records import Record
from app.engine.store import Store
from app.engine.tables import Table
from bridge.log_to_nats import GROUP
from bridge.routes import ROUTES
from tables.analytics import ANALYTICS
from tables.dead_letters import DEAD_LETTERS
from tables.inventory import INVENTORY
from tables.order_sagas import ORDER_SAGAS
from tests.live.kafka_read import KafkaAsRead
from tests.live.marketplace import Heard

AnyLog = EmbeddedLog | KafkaAsRead

COUNTED = ("orders ", "cancelled ", "revenue ", "returned revenue ", "units ", "returned units ")
UNTOLD = ("orders reserved", "orders paid", "orders attention")
"""What the model knows the number of, and what depends on who came first."""

EVERYTHING = 10_000_000
READ_BY_AGENTS = {
    "a4co.advance_order_sagas": ("orders", "payments", "notifications", "timers", "saga-replies"),
    "a4co.apply_stock_commands": ("stock-commands", "stock"),
    "a4co.send_mails": ("mails",),
    "a4co.keep_dead_letters": ("dead-letters", "letter-commands"),
    "a4co.count_orders": ("order-facts",),
}
TABLES: tuple[TableSpec[Any], ...] = (ORDER_SAGAS, INVENTORY, DEAD_LETTERS, ANALYTICS)


async def stream_messages(client: Client, stream: str = "A4CO_EVENTS") -> list[Msg]:
    """Everything in the stream, in order."""
    context = client.jetstream()
    last = (await context.stream_info(stream)).state.last_seq
    subscription = await context.subscribe("", stream=stream, ordered_consumer=True)
    found: list[Msg] = []
    while not found or found[-1].metadata.sequence.stream < last:
        found.append(await subscription.next_msg(10))
    await subscription.unsubscribe()
    return found


def records(log: AnyLog, topic: str) -> list[list[Record]]:
    """Every record of the topic, a list a partition."""
    return [log.read(topic, partition, 0, EVERYTHING) for partition in range(log.partitions(topic))]


def header(record: Record, name: str) -> str:
    return next((value.decode() for found, value in record.headers if found == name), "")


# ---- what was said ---------------------------------------------------------------------------------------


def lost_and_repeated(wanted: Sequence[str], found: Iterable[str]) -> tuple[int, int]:
    """How many of the wanted ids were not found, and how many findings were one too many."""
    counted = Counter(found)
    return len(set(wanted) - counted.keys()), sum(counted.values()) - len(counted)


def order_differences(log: AnyLog, stream: Sequence[Heard], heard: Sequence[Heard]) -> Iterator[str]:
    """Each partition of `outbound` is in the stream in its order and was heard so; its ids are the events' own."""
    place = {answer.identity: position for position, answer in reversed(list(enumerate(stream)))}
    everything: list[str] = []
    for partition in records(log, "outbound"):
        ids = [header(record, "Nats-Msg-Id") for record in partition]
        everything += ids
        positions = [place[identity] for identity in ids if identity in place]
        if positions != sorted(positions):
            yield "answers of one partition went out in another order than they were decided in"
    if len(set(everything)) != len(everything):
        yield f"{len(everything) - len(set(everything))} answers stand twice in the topic outbound"
    for family in {answer.family for answer in stream}:  # a subscription each: there is no order between them
        if [a.identity for a in heard if a.family == family] != [a.identity for a in stream if a.family == family]:
            yield f"{family}.> was not heard as it stands in the stream"
    for answer in heard:
        if answer.event["eventId"] != answer.identity or answer.event["metadata"]["eventId"] != answer.identity:
            yield f"{answer.subject} {answer.identity} has another eventId"


def mirror_differences(log: AnyLog, stream: Sequence[Msg]) -> Iterator[str]:
    """Every message of the stream that has a route stands in its topic once, byte by byte, in the stream's order; of
    those that say the same again, the first.
    """
    firsts = {said(message): message.metadata.sequence.stream for message in reversed(stream)}
    for topic in {route.topic for route in ROUTES}:
        wanted = {
            m.metadata.sequence.stream: m
            for m in stream
            if (route := ROUTES.of(m.subject)) is not None and route.topic == topic
            if firsts[said(m)] == m.metadata.sequence.stream
        }
        mirrored: Counter[int] = Counter()
        for partition in records(log, topic):
            sequences = [int(header(record, "a4co-seq")) for record in partition]
            mirrored.update(sequences)
            if sequences != sorted(sequences):
                yield f"{topic}: a partition is not in the stream's order"
            for record, sequence in zip(partition, sequences, strict=True):
                message = wanted.get(sequence)
                if message is not None and message.data != record.value:
                    yield f"{topic}: the message {sequence} of the stream has other bytes"
        if mirrored != Counter(wanted.keys()):
            found = f"{mirrored.total()} in the topic, {len(mirrored)} of them different"
            yield f"{topic}: {len(wanted)} messages in the stream, {found}"
    letters = sum(len(partition) for partition in records(log, "dead-letters"))
    if letters:
        yield f"{letters} dead letters"


def said(message: Msg) -> tuple[str, str]:
    """What makes two messages the same one: who published it again may have added to its metadata only."""
    if message.subject not in {route.subject for route in ROUTES}:
        return message.subject, str(message.metadata.sequence.stream)
    event = json.loads(message.data)
    return message.subject, json.dumps([event.get("eventId"), event.get("eventData", event.get("data"))])


# ---- what is remembered ----------------------------------------------------------------------------------


def offset_differences(log: AnyLog) -> Iterator[str]:
    """Everything that is read has been read to its end."""
    for group, topics in (*READ_BY_AGENTS.items(), (GROUP, ("outbound",))):
        for topic in topics:
            for partition in range(log.partitions(topic)):
                committed, end = log.committed(group, topic, partition) or 0, log.end(topic, partition)
                if committed != end:
                    yield f"{group} stands at {committed} of {topic}-{partition}, whose end is {end}"


async def table_differences(log: AnyLog, tables: Path, cold: Path) -> list[str]:
    """The live store, the changelog's last record of each key, and a store built anew in `cold` are the same."""
    found = []
    for spec in TABLES:
        partitions = log.partitions(spec.changelog)
        rebuilt: Table[Any] = Table(spec, log, cold, partitions)
        await rebuilt.open(range(partitions))
        rebuilt.close()
        for partition, changes in enumerate(records(log, spec.changelog)):
            newest = {record.key or b"": record.value for record in changes}
            wanted = _hash((key, value) for key, value in sorted(newest.items()) if value is not None)
            for name, folder in (("live", tables), ("rebuilt", cold)):
                store = Store(folder / spec.name / str(partition), log.identity(spec.changelog))
                end = log.end(spec.changelog, partition)
                # On Kafka the marks of transactions follow the last record.
                stands = store.offset == end if isinstance(log, EmbeddedLog) else store.offset >= end
                if _hash(store.items()) != wanted or not stands:
                    found.append(f"{spec.name}-{partition}: the {name} table is not what the changelog says")
                store.close()
    return found


def _hash(rows: Iterable[tuple[bytes, bytes]]) -> str:
    digest = hashlib.sha256()
    for key, row in rows:
        digest.update(b"%d %s %d %s" % (len(key), key, len(row), row))
    return digest.hexdigest()


def step_differences(log: AnyLog) -> Iterator[str]:
    """At every step of the changelog 0 <= reserved <= on hand, reserved is the holds' sum, and a hold ended once."""
    held: defaultdict[str, set[str]] = defaultdict(set)
    ended: defaultdict[str, set[str]] = defaultdict(set)
    for partition in records(log, INVENTORY.changelog):
        for record in partition:
            row = msgspec.json.decode(record.value or b"", type=Stock)
            holds = sum(hold.quantity for hold in row.holds.values())
            if not 0 <= holds <= row.on_hand or row.reserved != holds:
                yield f"{row.product_id}: reserved {row.reserved}, holds {holds}, on hand {row.on_hand}"
            ended[row.product_id] |= held[row.product_id] - row.holds.keys()
            if again := ended[row.product_id] & row.holds.keys():
                yield f"{row.product_id}: held again after its end: {sorted(again)[:3]}"
            held[row.product_id] = set(row.holds)


def web_differences(log: AnyLog, orders: Iterable[dict[str, Any]], shelves: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What HTTP said is what the changelog says."""
    sagas = {row.order_id: row for row in _newest(log, ORDER_SAGAS, OrderSaga)}
    for order in orders:
        saga = sagas.pop(order["orderId"], None)
        if saga is None or (saga.state, len(saga.timeline)) != (order["state"], len(order["timeline"])):
            yield f"{order['orderId']}: HTTP says {order['state']}, the changelog {saga and saga.state}"
    if sagas:
        yield f"{len(sagas)} orders in the changelog that HTTP doesn't know: {sorted(sagas)[:3]}"
    stocks = {row.product_id: (row.on_hand, row.reserved) for row in _newest(log, INVENTORY, Stock)}
    shown = {shelf["productId"]: (shelf["onHand"], shelf["reserved"]) for shelf in shelves}
    if stocks != shown:
        yield f"the inventory is {shown} by HTTP and {stocks} by the changelog"


def _newest(log: AnyLog, spec: TableSpec[Any], row_type: Any) -> Iterator[Any]:
    for partition in records(log, spec.changelog):
        newest = {record.key: record.value for record in partition}
        for value in newest.values():
            yield msgspec.json.decode(value or b"", type=row_type)


def count_differences(log: AnyLog, wanted: Counter[str], heard: Iterable[Heard]) -> Iterator[str]:
    """What the analytics count altogether is what the model counts, and confirmations are in their own minutes."""
    sizes: dict[str, Counter[str]] = {"minute": Counter(), "hour": Counter(), "day": Counter()}
    minutes: Counter[str] = Counter()
    for partition in records(log, ANALYTICS.changelog):
        newest = {(record.key or b"").decode(): record.value for record in partition}
        for key, value in newest.items():
            size, minute, _ = key.split(" ")
            for measure, names in json.loads(value or b"{}").get("counts", {}).items():
                sizes[size].update({f"{measure} {name}": number for name, number in names.items()})
                if (size, measure) == ("minute", "orders"):
                    minutes[minute] += names.get("confirmed", 0)
    for size, found in sizes.items():
        ours = {name: number for name, number in found.items() if name.startswith(COUNTED) and name not in UNTOLD}
        if ours != dict(wanted):
            both = {name: (ours.get(name, 0), wanted[name]) for name in sorted(ours.keys() | wanted.keys())}
            yield f"the {size}s (count, model): { ({name: pair for name, pair in both.items() if pair[0] != pair[1]}) }"
    confirmed = {a.identity: a.event["eventData"]["confirmedAt"] for a in heard if a.subject == "order.confirmed"}
    said = Counter(f"{at[:16]}Z" for at in confirmed.values())
    if +minutes != said:
        yield f"confirmed by minute: {dict(+minutes)}, and said {dict(said)}"


def said_by_order(heard: Iterable[Heard]) -> dict[str, Counter[str]]:
    """Order id -> what was said about it: subjects, and for mails their template."""
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for answer in {answer.identity: answer for answer in heard}.values():
        data = answer.event["eventData"]
        if answer.subject == "inventory.stock.warning":
            continue
        order = data.get("orderId") or data.get("variables", {}).get("orderId") or answer.event["aggregateId"]
        said[order][data["template"] if answer.subject == "notification.email.sent" else answer.subject] += 1
    return dict(said)
