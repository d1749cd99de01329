"""What becomes of a message from NATS: a record of its topic, a dead letter, or nothing when it was said before.

It collects a batch and decides by the routes and what the message says of itself only; committing is its user's.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from app.domain import traces
from app.domain.dialects import Undecodable
from app.engine.records import Headers, Send
from bridge import dead_letters, limits
from bridge.counters import BridgeCounters
from bridge.ledger import DEAD, MIRRORED, OUTCOMES, REPEATED, Counts
from bridge.ordered_pull import Arrived
from bridge.origin import Origin
from bridge.routes import STOCK, USERS, Route, Routes
from bridge.seen import Seen, fingerprint

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
        self._origin = origin
        self._counters = counters

    def take(self, messages: Sequence[Arrived], batch: Batch) -> None:
        """Add the messages to the batch. Whatever is in one, its neighbours pass."""
        batch.read += len(messages)
        route_of = self._routes.of
        subjects: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
        for message in messages:
            subject = message.subject
            route = route_of(subject)
            if route is None or not route.mirrored:
                batch.ignored += 1
                continue
            try:
                outcome = self._take(message, route, batch)
            except Exception as error:  # noqa: BLE001 - whatever a payload does to the decoder, its neighbours pass
                batch.sends += self._dead(message, route, error)
                batch.awaited = True
                outcome = DEAD
            subjects[outcome].append(subject)
        for outcome, of_them in subjects.items():
            for subject, number in Counter(of_them).items():
                batch.outcomes[subject, outcome] += number
                if (route := route_of(subject)) is not None:
                    counted = (route.subject, outcome)
                    batch.counts[counted] = batch.counts.get(counted, 0) + number

    def _take(self, message: Arrived, route: Route, batch: Batch) -> str:
        seq, _time, _pending, subject, came, data = message
        if came or len(data) > self._limit:
            limits.check(message, self._limit)
        key, event_id, said = route.identify(subject, data)
        print_ = fingerprint(subject, key, event_id, said)
        if print_ is not None:
            if print_ in batch.prints or print_ in self.under_way or print_ in self.seen.known:
                return REPEATED
            batch.prints[print_] = None
        trace: Headers = ()
        if came:
            trace = traces.continued(came)
            headers, ours = self._headers(message)
            batch.awaited = batch.awaited or not ours
        else:
            headers = (_named(subject), ("a4co-seq", b"%d" % seq), self._place)
            batch.awaited = True
        # All of an order is one trace where nobody traces; a product's and a user's events go on for ever.
        trace = trace or traces.begun(self._place_of(message) if route.topic in ENDLESS else key)
        batch.sends.append(Send(route.topic, key.encode(), data, trace + headers))
        batch.size += len(data)
        return MIRRORED

    def _headers(self, message: Arrived) -> tuple[Headers, bool]:
        """The NATS headers as they came, but for the trace's and any that pass for ours; then ours."""
        place = (_named(message.subject), ("a4co-seq", b"%d" % message.seq), self._place)
        came = message.headers
        if not came:
            return place, False
        ours = self._origin.is_ours(message.subject, came, message.data)
        self._counters.ours += ours
        kept = tuple((name, value.encode()) for name, value in came.items() if not _is_reserved(name))
        return (*kept, *place, *((OURS,) if ours else ())), ours

    def _dead(self, message: Arrived, route: Route, error: Exception) -> list[Send]:
        reason = error.reason if isinstance(error, Undecodable) else "undecodable"
        place = self._place_of(message)
        trace = traces.continued(message.headers) or traces.begun(place)
        logger.warning(
            "bridge in: %s %d is a dead letter: %s (trace %s)",
            message.subject, message.seq, error, traces.trace_id(trace),
        )  # fmt: skip
        self._counters.dead_letter(route.topic, reason)
        headers, _ours = self._headers(message)
        kept = dead_letters.keep(route.topic, None, message.data, (*trace, *headers), reason, error)
        return [kept, *dead_letters.tell(message.subject, None, message.data, error, place, trace)]

    def _place_of(self, message: Arrived) -> str:
        return f"{self._source}-{message.seq}-{message.time}"


@lru_cache(maxsize=1024)
def _is_reserved(name: str) -> bool:
    """Whether a header (in any case) is one that we give a mirrored record ourselves."""
    name = name.lower()
    return name.startswith("a4co-") or name in (traces.TRACEPARENT, traces.TRACESTATE)


@lru_cache(maxsize=4096)
def _named(subject: str) -> tuple[str, bytes]:
    return ("a4co-subject", subject.encode())
