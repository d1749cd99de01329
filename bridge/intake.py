"""What becomes of a message from NATS: a record of its topic, a dead letter, or nothing when it was said before.

It collects a batch and decides by the routes and what the message says of itself only; committing is its user's.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from app.domain import traces
from app.domain.dialects import Identity, Undecodable
from app.engine.records import Headers, Send
from bridge import dead_letters, limits
from bridge.counters import BridgeCounters
from bridge.ledger import DEAD, MIRRORED, REPEATED, Counts
from bridge.ordered_pull import Arrived
from bridge.origin import Origin
from bridge.routes import REMEMBERED, STOCK, USERS, Route, Routes
from bridge.seen import Fingerprint, Seen, fingerprints

logger = logging.getLogger("a4co.bridge")

ENDLESS = (STOCK, USERS)
"""Topics in which nothing comes to an end."""
OURS = ("a4co-ours", b"1")
"""The header of what we said ourselves."""


@dataclass
class Batch:
    """What was read and is not committed yet. `ignored` has no route, or one that is off."""

    sends: list[Send] = field(default_factory=list)
    counts: Counts = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(subject, outcome) -> messages, for the metrics."""
    prints: dict[bytes, None] = field(default_factory=dict)
    read: int = 0
    size: int = 0
    ignored: int = 0
    awaited: bool = False
    """Whether somebody may wait for it: it has more than what we said ourselves."""

    def count(self, route: Route, subject: str, outcome: str, number: int = 1) -> None:
        """So many messages on the subject became this."""
        self.outcomes[subject, outcome] += number
        counted = (route.subject, outcome)
        self.counts[counted] = self.counts.get(counted, 0) + number


class _Subject(msgspec.Struct, frozen=True, gc=False):
    """What all messages on a subject have in common."""

    route: Route
    identify: Callable[[bytes], Identity]
    fingerprint: Fingerprint
    named: tuple[str, bytes]
    endless: bool


class Intake:
    """Takes the messages of one source. `seen` are those that were committed before, `limit` a payload's bytes."""

    def __init__(
        self, source: str, routes: Routes, origin: Origin, counters: BridgeCounters, seen: Seen, limit: int
    ) -> None:
        self.seen = seen
        self.under_way: Mapping[bytes, None] = {}
        """What was taken and is being committed: no more to be taken than what is."""
        self._limit = limit
        self._source = source
        self._place = ("a4co-stream", source.encode())
        self._routes = routes
        self._subjects: dict[str, _Subject | None] = {}
        """Of None nothing crosses."""
        self._origin = origin
        self._counters = counters

    def take(self, messages: Sequence[Arrived], batch: Batch) -> None:
        """Add the messages to the batch. Whatever is in one, its neighbours pass.

        Every microsecond in here is one of each message's: what messages have in common is looked up once.
        """
        if len(self._subjects) > REMEMBERED:
            self._subjects.clear()
        subjects, source, limit, begun = self._subjects, self._place, self._limit, traces.begun
        known, under_way, prints = self.seen.known, self.under_way, batch.prints
        send = batch.sends.append
        mirrored, ignored, size = list[str](), 0, 0
        for message in messages:
            name, data, came = message.subject, message.data, message.headers
            subject = subjects[name] if name in subjects else self._subject(name)
            if subject is None:
                ignored += 1
                continue
            try:
                if came or len(data) > limit:
                    limits.check(message, limit)
                found = subject.identify(data)
                print_ = subject.fingerprint(found)
            except Exception as error:  # noqa: BLE001 - whatever a payload does to the decoder, its neighbours pass
                batch.sends += self._dead(message, subject, error)
                batch.awaited = True
                batch.count(subject.route, name, DEAD)
                continue
            if print_ is not None:
                if print_ in prints or print_ in under_way or print_ in known:
                    batch.count(subject.route, name, REPEATED)
                    continue
                prints[print_] = None
            key = found.key
            # All of an order is one trace where nobody traces; a product's and a user's events go on for ever.
            trace = (came and traces.continued(came)) or (
                traces.begun_once(self._place_of(message)) if subject.endless else begun(key)
            )
            if came:
                headers, ours = self._headers(message, subject)
                batch.awaited = batch.awaited or not ours
            else:
                headers = (subject.named, ("a4co-seq", message.number), source)
                batch.awaited = True
            send(Send(subject.route.topic, key.encode(), data, trace + headers))
            size += len(data)
            mirrored.append(name)
        batch.read += len(messages)
        batch.size += size
        batch.ignored += ignored
        for name, number in Counter(mirrored).items():
            if (subject := subjects[name]) is not None:
                batch.count(subject.route, name, MIRRORED, number)

    def _subject(self, name: str) -> _Subject | None:
        route = self._routes.of(name)
        found = self._subjects[name] = (
            None
            if route is None or not route.mirrored
            else _Subject(
                route,
                route.identifier(name),
                fingerprints(name),
                ("a4co-subject", name.encode()),
                route.topic in ENDLESS,
            )
        )
        return found

    def _headers(self, message: Arrived, subject: _Subject) -> tuple[Headers, bool]:
        """The NATS headers as they came, but for the trace's and any that pass for ours; then ours."""
        place = (subject.named, ("a4co-seq", message.number), self._place)
        came = message.headers
        if not came:
            return place, False
        ours = self._origin.is_ours(message.subject, came, message.data)
        self._counters.ours += ours
        kept = tuple((name, value.encode()) for name, value in came.items() if not _is_reserved(name))
        return (*kept, *place, *((OURS,) if ours else ())), ours

    def _dead(self, message: Arrived, subject: _Subject, error: Exception) -> list[Send]:
        route = subject.route
        reason = error.reason if isinstance(error, Undecodable) else "undecodable"
        place = self._place_of(message)
        trace = traces.continued(message.headers) or traces.begun(place)
        logger.warning(
            "bridge in: %s %d is a dead letter: %s (trace %s)",
            message.subject, message.seq, error, traces.trace_id(trace),
        )  # fmt: skip
        self._counters.dead_letter(route.topic, reason)
        headers, _ours = self._headers(message, subject)
        kept = dead_letters.keep(route.topic, None, message.data, (*trace, *headers), reason, error)
        return [kept, *dead_letters.tell(message.subject, None, message.data, error, place, trace)]

    def _place_of(self, message: Arrived) -> str:
        return f"{self._source}-{message.number.decode()}-{message.stored.decode()}"


@lru_cache(maxsize=1024)
def _is_reserved(name: str) -> bool:
    """Whether a header (in any case) is one that we give a mirrored record ourselves."""
    name = name.lower()
    return name.startswith("a4co-") or name in (traces.TRACEPARENT, traces.TRACESTATE)
