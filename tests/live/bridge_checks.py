"""What must be true of a bridge after the kills: of the stream, of the topics, and of its ledger."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from bridge.connection import connect
from bridge.jetstream import stream_state
from bridge.ledger import Account
from bridge.ordered_pull import OrderedPull
from bridge.routes import ROUTES
from tests.live.bridge_load import ACKED
from tests.live.bridge_site import STREAM
from tests.live.kill_checks import AnyLog, header, records


class Stored(NamedTuple):
    """A message of the stream. `said` is equal for repetitions: the same subject, eventId and data."""

    seq: int
    subject: str
    event_id: str
    key: str
    number: int
    said: bytes
    digest: bytes


async def stored(url: str, progress: Callable[[int, int], None]) -> list[Stored]:
    """Everything that is in the stream and crosses, in order."""
    connection = await connect([url], "the comparison")
    client = connection.client
    last = (await stream_state(client, STREAM)).last_seq
    found: list[Stored] = []
    read = 0
    try:
        async with OrderedPull(client, STREAM, seq=1) as pull:
            while read < last:
                for message in await pull.take(1_000):
                    read = message.seq
                    if ROUTES.of(message.subject) is not None:
                        found.append(_read(message.seq, message.subject, message.data))
                progress(read, last)
    finally:
        await connection.close()
    return found


def _read(seq: int, subject: str, data: bytes) -> Stored:
    event = json.loads(data)
    said = json.dumps([subject, event["eventId"], event["eventData"]]).encode()
    return Stored(
        seq, subject, event["eventId"], event["aggregateId"], event["eventData"]["number"],
        hashlib.blake2b(said, digest_size=12).digest(), _digest(data),
    )  # fmt: skip


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=12).digest()


@dataclass
class Found:
    """What the topics have of the stream."""

    lost: int = 0
    duplicates: int = 0
    disorder: int = 0
    repeated: int = 0
    """Messages of the stream that say again what an earlier one said, and have no record."""


def compare_in(stream: Sequence[Stored], log: AnyLog, differences: list[str]) -> Found:
    """The topics have of each thing that was said the first message, its bytes, once, in the stream's order."""
    firsts: dict[bytes, Stored] = {}
    for message in stream:
        firsts.setdefault(message.said, message)
    found = Found(repeated=len(stream) - len(firsts))
    for topic in {route.topic for route in ROUTES}:
        wanted = {m.seq: m for m in firsts.values() if ROUTES[m.subject].topic == topic}
        mirrored: Counter[int] = Counter()
        for partition in records(log, topic):
            before, numbers = 0, dict[str, int]()
            for record in partition:
                seq = int(header(record, "a4co-seq"))
                mirrored[seq] += 1
                found.disorder += seq < before
                before = seq
                if seq not in wanted:
                    found.duplicates += 1
                    continue
                message = wanted[seq]
                if message.key.startswith(ACKED):
                    found.disorder += message.number < numbers.get(message.key, 0)
                    numbers[message.key] = message.number
                if _digest(record.value or b"") != message.digest:
                    differences.append(f"{topic}: the message {seq} of the stream has other bytes")
        lost = wanted.keys() - mirrored.keys()
        if lost:
            differences.append(f"{topic}: {len(lost)} messages of the stream are missing, from {min(lost)} on")
        found.lost += len(lost)
        found.duplicates += sum(times - 1 for times in mirrored.values())
    letters = sum(len(partition) for partition in records(log, "dead-letters"))
    if letters:
        differences.append(f"{letters} dead letters")
    return found


def compare_out(stream: Iterable[Stored], log: AnyLog, differences: list[str]) -> Found:
    """The stream has each record of `outbound` once, and those of a partition in their order; its id is the event's."""
    places: dict[str, list[int]] = defaultdict(list)
    for message in stream:
        places[message.event_id].append(message.seq)
    found = Found()
    for number, partition in enumerate(records(log, "outbound")):
        ids = [header(record, "Nats-Msg-Id") for record in partition]
        lost = [identity for identity in ids if identity not in places]
        if lost:
            differences.append(f"outbound-{number}: {len(lost)} are not in the stream, from {lost[0]} on")
        found.lost += len(lost)
        found.duplicates += sum(len(places[identity]) - 1 for identity in ids if identity in places)
        order = [places[identity][0] for identity in ids if identity in places]
        found.disorder += sum(later < earlier for earlier, later in pairwise(order))
    return found


def ledger_differences(account: Account, stream: Sequence[Stored], found: Found) -> Iterator[str]:
    """It balances, and is what the stream and the topics say."""
    if account.unaccounted or account.passed_over or account.gone:
        yield f"the ledger: {account.unaccounted} unaccounted, {account.passed_over} passed over, {account.gone} gone"
    mirrored, repeated, dead = (sum(line[at] for line in account.routes.values()) for at in range(3))
    counted = {"mirrored": mirrored, "repeated": repeated, "dead": dead}
    true = {"mirrored": len(stream) - found.repeated, "repeated": found.repeated, "dead": 0}
    if counted != true:
        yield f"the ledger says {counted}, and it is {true}"


def newest_account(notes: Iterable[tuple[bytes, bytes | None]]) -> Account:
    """Of our own stream, among the records of the topic `notes`."""
    values = [value for name, value in notes if name == f"nats:{STREAM}".encode()]
    assert values, "the bridge has noted nothing"
    return Account.unpacked(values[-1] or b"")
