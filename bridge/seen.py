"""What was mirrored lately, so that a repetition is known as one, also after a restart.

It is kept in notes of the log, which are committed with the records they stand for. It decides nothing.
"""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

from app.domain.dialects import Identity
from bridge.bridge_log import BridgeLog

SIZE = 12
"""Bytes of a fingerprint: of a billion messages a day, two are taken for one in 200 million years."""
IN_A_NOTE = 128
"""Fingerprints in a note: what a commit of one message writes anew is 1.5 kB at most."""
NOTES = 512

REMEMBERED = IN_A_NOTE * NOTES


class Written(NamedTuple):
    """The notes to be committed, and what they make of us: the first note's number, and the notes from there on."""

    notes: dict[str, bytes]
    number: int
    pages: list[list[bytes]]


Fingerprint: TypeAlias = Callable[[Identity], bytes | None]


def fingerprints(subject: str) -> Fingerprint:
    """For the messages on a subject, what tells who said what: equal for a repetition, which may differ in its
    metadata. None: it can't be known as one.
    """
    begun = blake2b(f"{subject}\n".encode(errors="replace"), digest_size=SIZE)

    def fingerprint(of: Identity) -> bytes | None:
        if of.event_id is None:
            return None
        digest = begun.copy()  # a new one takes half as long again
        digest.update(f"{of.key}\n{of.event_id}\n".encode(errors="replace"))
        digest.update(of.said)
        return digest.digest()

    return fingerprint


class Seen:
    """The last 65,536 fingerprints of one source, about 8 MB. `plan`, commit its notes, `keep`."""

    def __init__(self, log: BridgeLog, source: str) -> None:
        self._name = f"seen:{source}"
        self.known: set[bytes] = set()
        """All of them."""
        self._pages: deque[list[bytes]] = deque()
        self._number = 0
        """The last page's: page n is in the note n modulo NOTES."""
        pages = [note for slot in range(NOTES) if (note := log.note(self._note(slot)))]
        for page in sorted(pages, key=_number):
            self._number = _number(page)
            self._append(_unpacked(page))
        if not self._pages:
            self._append([])

    def plan(self, prints: Sequence[bytes]) -> Written:
        """What is to be committed for these to be remembered."""
        page, number = self._pages[-1], self._number
        room = IN_A_NOTE - len(page)
        pages = [[*page, *prints[:room]]]
        pages += [list(prints[at : at + IN_A_NOTE]) for at in range(room, len(prints), IN_A_NOTE)]
        notes = {
            self._note(number + step): (number + step).to_bytes(8, "big") + b"".join(page)
            for step, page in enumerate(pages)
        }
        return Written(notes if prints else {}, number, pages)

    def keep(self, written: Written) -> None:
        """It was committed."""
        self._pages.pop()
        for page in written.pages:
            self._append(page)
        self._number = written.number + len(written.pages) - 1

    def _note(self, number: int) -> str:
        return f"{self._name}:{number % NOTES}"

    def _append(self, page: list[bytes]) -> None:
        self._pages.append(page)
        self.known.update(page)
        if len(self._pages) > NOTES:
            self.known.difference_update(self._pages.popleft())

    def __len__(self) -> int:
        return len(self.known)


def _number(page: bytes) -> int:
    return int.from_bytes(page[:8], "big")


def _unpacked(page: bytes) -> list[bytes]:
    return [page[at : at + SIZE] for at in range(8, len(page), SIZE)]
