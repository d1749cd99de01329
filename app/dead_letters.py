"""What is done with dead letters: their records are fetched, and commands about them are put into the log.

The agent of `dead_letters` decides what a command changes, in one transaction with what goes out; so a command that is
given twice, or by two people, or just before a kill, has its effect once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import structlog

from app import topics
from app.domain.causes import caused
from app.domain.dead_letters import DiscardLetter, LetterCommand, ReplayLetter, letter_id, place_of
from app.domain.dialects import Undecodable
from app.engine.log import Log
from app.engine.records import Record, Send
from bridge.dead_letters import StillUnusable, again
from bridge.routes import Routes

logger = structlog.get_logger("a4co.dead_letters")

AT_ONCE = 200
"""Letters of one transaction, at most."""

SLICE = 20
"""Letters that are read between two turns of the loop: about 1 ms."""

LARGEST = 8 * 1024 * 1024 - 16 * 1024
"""Bytes of a message that can go again: a log takes 8 MiB with everything."""

ACCEPTED, STILL_UNUSABLE, GONE = "accepted", "still-unusable", "gone"


class Outcome(NamedTuple):
    """What came of a wish about one letter.

    ACCEPTED; STILL_UNUSABLE: it would be a dead letter again at once, `detail` says why; GONE: its record is not in the
    topic any more.
    """

    letter: str
    outcome: str
    detail: str = ""


class Letters:
    """The dead letters of one log. `routes` tell keys, and topics beside the application's own."""

    def __init__(self, log: Log, routes: Routes, partitions: int, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._routes = routes
        self._known = {topic.name for topic in (*topics.ALL, *routes.more_topics())}
        self._partitions = partitions
        self._clock = clock

    async def record(self, letter: str) -> Record | None:
        """The letter as it is in the topic; None: it is not there any more. Raises ValueError: that is no id."""
        found = [record async for some in self._records([letter]) for _, record in some]
        return found[0] if found else None

    async def replay(
        self, letters: Sequence[str], by: str, *, payload: bytes | None = None, edited: str = "", dry_run: bool = False
    ) -> list[Outcome]:
        """Have each go again where it was to go; with another `payload`, if one is given. On disk when it returns.

        Those of one partition go in the order of their ids, which is that of time.
        """
        outcomes: dict[str, Outcome] = {}
        async for some in self._records(letters):
            sends: list[Send] = []
            for number, (letter, record) in enumerate(some):
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                command = self._replay(letter, record, by, payload, edited)
                if isinstance(command, Outcome):
                    outcomes[letter] = command
                else:
                    outcomes[letter] = Outcome(letter, ACCEPTED)
                    sends += topics.sends_of(command)
            if not dry_run:
                await self._commit(sends)
                logger.info("dead letters to be replayed", letters=len(sends), by=by, edited=bool(edited))
        return [outcomes.get(letter) or Outcome(letter, GONE) for letter in letters]

    def _replay(
        self, letter: str, record: Record, by: str, payload: bytes | None, edited: str
    ) -> ReplayLetter | Outcome:
        try:
            send = again(record, letter, self._key_of, payload)
        except StillUnusable as error:
            why = str(error)
            return Outcome(letter, STILL_UNUSABLE, why if why.startswith(error.reason) else f"{error.reason}: {why}")
        if send.topic not in self._known:
            return Outcome(letter, STILL_UNUSABLE, f"unknown-topic: there is no topic {send.topic!r}")
        if len(send.value or b"") > LARGEST:
            return Outcome(letter, STILL_UNUSABLE, f"too-large: {len(send.value or b'')} bytes")
        return ReplayLetter(
            event_id=caused(letter, "ReplayLetter"),
            key=letter,
            at=self._clock(),
            by=by,
            topic=send.topic,
            of=send.key,
            payload=send.value,
            headers=send.headers,
            edited=edited,
        )

    def _key_of(self, subject: str, payload: bytes) -> str:
        route = self._routes.of(subject)
        if route is None:
            raise Undecodable("unknown-subject", subject)
        return route.identify(subject, payload).key

    async def discard(self, letters: Sequence[str], by: str, reason: str, *, dry_run: bool = False) -> list[Outcome]:
        """Say of each that it is not needed, and why. On disk when it returns."""
        there = {letter for letter in letters if place_of(letter).partition < self._partitions}
        if not dry_run:
            commands = [self._discard(letter, by, reason) for letter in sorted(there)]
            for start in range(0, len(commands), AT_ONCE):
                some = commands[start : start + AT_ONCE]
                await self._commit([send for command in some for send in topics.sends_of(command)])
            logger.info("dead letters to be discarded", letters=len(there), by=by, reason=reason)
        return [Outcome(letter, ACCEPTED if letter in there else GONE) for letter in letters]

    def _discard(self, letter: str, by: str, reason: str) -> LetterCommand:
        return DiscardLetter(
            event_id=caused(letter, "DiscardLetter"), key=letter, at=self._clock(), by=by, reason=reason
        )

    async def _commit(self, sends: Sequence[Send]) -> None:
        if sends:
            await self._log.synced(await self._log.commit(sends))

    async def _records(self, letters: Sequence[str]) -> AsyncIterator[list[tuple[str, Record]]]:
        """The letters that are there, some of them at a time, partition by partition in the order of time."""
        by_partition: dict[int, dict[int, str]] = {}
        for letter in sorted(set(letters)):
            partition, offset = place_of(letter)
            if partition < self._partitions:
                by_partition.setdefault(partition, {})[offset] = letter
        for partition, wanted in by_partition.items():
            offsets = list(wanted)
            while offsets:
                found = await self._log.fetch(topics.DEAD_LETTERS.name, partition, offsets[:AT_ONCE])
                if not found and len(offsets) <= AT_ONCE:
                    break
                yield [(wanted[at.offset], at) for at in found if _id(at) == wanted[at.offset]]
                reached = found[-1].offset if found else offsets[AT_ONCE - 1]
                offsets = [offset for offset in offsets if offset > reached]
                await asyncio.sleep(0)


def _id(record: Record) -> str:
    return letter_id(record.timestamp, record.partition, record.offset)
