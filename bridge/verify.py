"""Compares what the streams have with what is in the topics: a message that is nowhere is a gap.

It looks on from outside, while the bridge runs or not, and believes nothing but the two: the ledger, which the bridge
keeps as it goes, is checked against them.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import nats.errors

from app import topics
from app.domain.dialects import Undecodable
from app.engine.log import TopicState
from app.engine.records import Record
from app.nats_settings import NatsOptions
from bridge.connection import BridgeError, connect
from bridge.frames import FrameClient
from bridge.jetstream import ApiError, StreamState, rfc3339, stream_state
from bridge.ledger import Account
from bridge.ordered_pull import OrderedPull
from bridge.routes import Routes
from bridge.seen import fingerprints

BATCH = 1_000
NAMED = 20
"""Gaps that are named; more are counted."""

Tell = Callable[[str, int, int], None]
"""Called with what is read, how much of it is done, and how much there is."""


class Looked(Protocol):
    """A log that is looked at from outside."""

    def notes(self) -> dict[str, bytes]: ...
    async def describe(self) -> dict[str, TopicState]: ...
    def span(self, topic: str, partition: int) -> tuple[int, int]: ...
    def replay(self, topic: str, partition: int, offset: int) -> Iterator[list[Record]]: ...


class Gap(NamedTuple):
    """A message of a stream that was passed over. `stored`: when, RFC 3339."""

    seq: int
    subject: str
    stored: str


@dataclass
class Finding:
    """What was found of one source. `problem`: why it could not be compared."""

    source: str
    account: Account
    problem: str = ""
    first: int = 0
    """The first sequence that was compared; `account.seq` is the last."""
    mirrored: int = 0
    dead_lettered: int = 0
    repeated: int = 0
    not_routed: int = 0
    twice: int = 0
    """Messages that stand in the topics more than once."""
    gaps: list[Gap] = field(default_factory=list)
    missing: int = 0
    """All gaps, also those that are not named."""

    @property
    def balanced(self) -> bool:
        """Whether every message is accounted for, here and in the ledger."""
        return not (self.problem or self.missing or self.twice or self.account.unaccounted)


class _Found:
    """Which sequences of a stream from `first` to `last` are in the topics, and how."""

    TOPIC, DEAD = 1, 2

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.twice = 0
        self._how = bytearray(max(0, last - first + 1))

    def add(self, seq: int, how: int) -> None:
        if self.first <= seq <= self.last:
            self.twice += self._how[seq - self.first] != 0
            self._how[seq - self.first] = how

    def how(self, seq: int) -> int:
        return self._how[seq - self.first]


async def verify(
    log: Looked, servers: Sequence[str], name: str, options: NatsOptions, routes: Routes, tell: Tell
) -> list[Finding]:
    """Compare every source that was ever read.

    Raises:
        LogFailed, BridgeError: one of the two can't be read.
    """
    connection = await connect(servers, name, options)
    try:
        return await _verify(log, connection.client, routes, tell)
    except (nats.errors.Error, TimeoutError) as error:
        raise BridgeError(str(error) or repr(error)) from error
    finally:
        await connection.close()


async def _verify(log: Looked, client: FrameClient, routes: Routes, tell: Tell) -> list[Finding]:
    # The order counts: what the accounts say is in the topics when those are read afterwards.
    noted = await asyncio.to_thread(log.notes)
    accounts = {name[5:]: Account.unpacked(note) for name, note in noted.items() if name.startswith("nats:")}
    findings = {name: Finding(name, account) for name, account in sorted(accounts.items())}
    found: dict[str, _Found] = {}
    streams: dict[str, StreamState] = {}
    for name, finding in findings.items():
        stream = await _stream(client, finding)
        if stream is not None:
            streams[name] = stream
            finding.first = max(stream.first_seq, finding.account.begin)
            found[name] = _Found(finding.first, finding.account.seq)
    known = await log.describe()
    places = [
        (topic, partition)
        for topic in [*dict.fromkeys(route.topic for route in routes), topics.DEAD_LETTERS.name]
        if topic in known
        for partition in range(known[topic].partitions)
    ]
    await asyncio.to_thread(_mark, log, places, found, tell)
    for name, stream in streams.items():
        findings[name].twice = found[name].twice
        absent = await _compare(client, stream, routes, findings[name], found[name], tell)
        await asyncio.to_thread(_leave_out_repeated, log, places, absent, routes, findings[name], tell)
    return list(findings.values())


async def _stream(client: FrameClient, finding: Finding) -> StreamState | None:
    if not finding.account.stream_created:
        finding.problem = "" if finding.source == "core NATS" else "nothing of it was read"
        return None
    try:
        stream = await stream_state(client, finding.source)
    except ApiError as error:
        finding.problem = f"the stream can't be read: {error}"
        return None
    if stream.created != finding.account.stream_created:
        finding.problem = f"this stream was made {stream.created}, and the one that was mirrored before"
        return None
    return stream


def _records(
    log: Looked, places: Sequence[tuple[str, int]], tell: Tell, what: str
) -> Iterator[tuple[str, list[Record]]]:
    spans = {place: log.span(*place) for place in places}
    total = sum(end - first for first, end in spans.values())
    done = 0
    for (topic, partition), (first, end) in spans.items():
        for batch in log.replay(topic, partition, first):
            yield topic, batch
            tell(what, done + batch[-1].offset + 1 - first, total)
        done += end - first
    tell(what, total, total)


def _mark(log: Looked, places: Sequence[tuple[str, int]], found: Mapping[str, _Found], tell: Tell) -> None:
    for topic, batch in _records(log, places, tell, "topics"):
        how = _Found.DEAD if topic == topics.DEAD_LETTERS.name else _Found.TOPIC
        for record in batch:
            place = dict(record.headers)
            # What an agent put away stands in its topic too, and what was replayed is a letter as well.
            if topics.LETTER in place or (how == _Found.DEAD and "a4co-offset" in place):
                continue
            stream = found.get(place.get("a4co-stream", b"").decode())
            if stream is not None and "a4co-seq" in place:
                stream.add(int(place["a4co-seq"]), how)


class _Absent(NamedTuple):
    gap: Gap
    print: bytes | None


async def _compare(
    client: FrameClient, stream: StreamState, routes: Routes, finding: Finding, found: _Found, tell: Tell
) -> list[_Absent]:
    """Count what is there; what is not in the topics comes back."""
    absent: list[_Absent] = []
    last = finding.account.seq
    if finding.first > last:
        return absent
    async with OrderedPull(client, stream.name, seq=finding.first) as pull:
        over = pull.pending == 0
        while not over:
            for message in await pull.take(BATCH):
                over = over or message.seq >= last or message.pending == 0
                if message.seq > last:
                    break
                route = routes.of(message.subject)
                if route is None or not route.mirrored:
                    finding.not_routed += 1
                    continue
                match found.how(message.seq):
                    case _Found.TOPIC:
                        finding.mirrored += 1
                    case _Found.DEAD:
                        finding.dead_lettered += 1
                    case _:
                        gap = Gap(message.seq, message.subject, rfc3339(message.time))
                        absent.append(_Absent(gap, _print(routes, message.subject, message.data)))
            tell(stream.name, min(message.seq, last) - finding.first + 1, last - finding.first + 1)
    return absent


def _print(routes: Routes, subject: str, payload: bytes) -> bytes | None:
    route = routes.of(subject)
    try:
        return None if route is None else fingerprints(subject)(route.identify(subject, payload))
    except Undecodable:
        return None


def _leave_out_repeated(
    log: Looked,
    places: Sequence[tuple[str, int]],
    absent: Sequence[_Absent],
    routes: Routes,
    finding: Finding,
    tell: Tell,
) -> None:
    """What was said before is in the topics once, by another sequence."""
    wanted = {each.print for each in absent if each.print is not None}
    there: set[bytes | None] = set()
    if wanted:
        for topic, batch in _records(log, places, tell, "repetitions"):
            if topic != topics.DEAD_LETTERS.name:
                there.update(
                    print_
                    for record in batch
                    if (print_ := _print(routes, topics.subject_of(record), record.value or b"")) in wanted
                )
    for each in absent:
        if each.print is not None and each.print in there:
            finding.repeated += 1
        else:
            finding.missing += 1
            if len(finding.gaps) < NAMED:
                finding.gaps.append(each.gap)
