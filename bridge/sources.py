"""Where each subject is kept, and so how it is read: durably where that takes nothing from anybody, else as it comes.

A stream belongs to whoever made it. What nobody keeps, we keep in a stream of our own; from another's stream with
limits we read beside its readers; in one that drops what its consumers have acked (interest) we are a consumer too,
by name; from a work queue, where each message is for one consumer, we take nothing and listen beside it.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from nats.aio.client import Client

from bridge.connection import BridgeError
from bridge.jetstream import NoJetStream, StreamState, ensure_stream, streams
from bridge.routes import Routes

logger = logging.getLogger("a4co.bridge")


class Way(StrEnum):
    """How a source is read."""

    OWN = "own stream"
    OTHERS = "another's stream"
    INTEREST = "another's stream, as a durable consumer"
    CORE = "as it comes"


class SourcesChanged(BridgeError):
    """A subject is kept elsewhere now: start again."""


@dataclass(frozen=True)
class Source:
    """Subjects that are read in one way. `why` tells what is not guaranteed of them, and what would change that."""

    way: Way
    subjects: tuple[str, ...]
    stream: StreamState | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """What its place in the log is called by."""
        return self.stream.name if self.stream else "core NATS"


@dataclass(frozen=True)
class Sources:
    """All of them, and every stream that holds something; `own` is ours, None without JetStream."""

    reads: tuple[Source, ...]
    streams: tuple[StreamState, ...]
    own: StreamState | None

    def holder(self, subject: str) -> StreamState | None:
        """The stream that keeps what is published on a subject."""
        return next((stream for stream in self.streams if stream.holds(subject)), None)

    def reads_from_stream(self, subject: str) -> bool:
        """Whether what is published on a subject is read from the stream that keeps it."""
        return any(source.stream is not None and source.stream.holds(subject) for source in self.reads)

    def shape(self) -> frozenset[tuple[Way, str, tuple[str, ...], str]]:
        """What would make it another one if it changed."""
        return frozenset(
            (source.way, source.name, source.subjects, source.stream.created if source.stream else "")
            for source in self.reads
            if source.way is not Way.OWN
        )


async def find_sources(client: Client, own: str, routes: Routes, *, known: Callable[[str], bool]) -> Sources:
    """Look up who keeps each subject, make or widen our own stream for what nobody keeps, and say what is not durable.

    `known` tells whether a source has been read before: where streams were once, we wait for them to be back.

    Raises:
        BridgeError: it can't be known just now, or our own stream can't be had.
    """
    sources = await look(client, own, routes)
    if sources is None:
        if known(own):
            raise NoJetStream(f"JetStream is gone: {own} was read before. Start nats-server with -js, or wait for it")
        return _without_jetstream(routes)
    mine, *_ = sources.reads
    kept = await ensure_stream(client, own, mine.subjects)
    wanted = any(route.mirrored and route.subject in mine.subjects for route in routes)
    reads = [Source(Way.OWN, mine.subjects, kept)] if wanted else []
    reads += [source for source in sources.reads if source.way is not Way.OWN]
    return Sources(tuple(reads), (kept, *(stream for stream in sources.streams if stream.name != own)), kept)


def say(sources: Sources) -> None:
    """Whatever isn't read from our own stream, loudly."""
    for source in sources.reads:
        if source.why:
            logger.warning("bridge in: %s: %s", ", ".join(source.subjects), source.why)


async def look(client: Client, own: str, routes: Routes) -> Sources | None:
    """The same without making anything: first our own stream, which may not be there. None: no JetStream."""
    try:
        found = await streams(client)
    except NoJetStream:
        return None
    there = next((stream for stream in found if stream.name == own), None)
    others = [stream for stream in found if stream.name != own and stream.subjects]
    mine: list[str] = []
    theirs: dict[str, list[str]] = {}
    for subject in (route.subject for route in routes):
        holders = [stream for stream in others if stream.overlaps(subject)]
        for stream in holders:
            theirs.setdefault(stream.name, []).append(subject)
        if not holders:
            mine.append(subject)
        elif not any(stream.holds(subject) for stream in holders):
            theirs.setdefault("", []).append(subject)  # a pattern, of which others keep a part only
    mirrored = {route.subject for route in routes if route.mirrored}
    reads = [Source(Way.OWN, tuple(mine), there)]
    core: list[Source] = []
    for name, subjects in theirs.items():
        read = tuple(subject for subject in subjects if subject in mirrored)
        holder = next((stream for stream in others if stream.name == name), None)
        if read:
            source = _read(own, read, holder)
            (reads if source.stream is not None else core).append(source)
    return Sources((*reads, *_together(core)), (*([there] if there else []), *others), there)


def _read(own: str, subjects: tuple[str, ...], stream: StreamState | None) -> Source:
    if stream is None:
        why = f"a part of it is in streams of others, so {own} can't keep the rest: make routes of its parts"
        return Source(Way.CORE, subjects, None, f"{AT_MOST_ONCE}: {why}")
    if stream.retention == "interest":
        why = f"the stream {stream.name} keeps what we have not read for as long as we are away: watch its size"
        return Source(Way.INTEREST, subjects, stream, why)
    if stream.retention == "workqueue":
        why = (
            f"the stream {stream.name} is a work queue, in which a message is for one consumer only; we take nothing "
            f"from it. For a durable way, edit it to limits retention, or take these subjects out of it"
        )
        return Source(Way.CORE, subjects, None, f"{AT_MOST_ONCE}: {why}")
    return Source(Way.OTHERS, subjects, stream)


AT_MOST_ONCE = "read as it comes, and what is published while the bridge is away is LOST to it"


def _together(core: Iterable[Source]) -> list[Source]:
    """One subscription a subject, however many streams are in its way."""
    sources = list(core)
    if not sources:
        return []
    subjects = tuple(dict.fromkeys(subject for source in sources for subject in source.subjects))
    return [Source(Way.CORE, subjects, None, "; ".join(dict.fromkeys(source.why for source in sources)))]


def _without_jetstream(routes: Routes) -> Sources:
    why = f"{AT_MOST_ONCE}: there is no JetStream. Start nats-server with -js, and it is kept"
    subjects = tuple(route.subject for route in routes if route.mirrored)
    return Sources((Source(Way.CORE, subjects, None, why),), (), None)
