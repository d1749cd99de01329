"""The ledger of the way in: for each route, what was read and what became of it. Nothing may be missing.

    read = mirrored + repeated + dead-lettered + ignored

It is committed with the records that it counts, so it is exact over every crash; verify.py compares it with what is in
the streams and in the topics.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Self

MIRRORED, REPEATED, DEAD = "mirrored", "repeated", "dead-lettered"
OUTCOMES = (MIRRORED, REPEATED, DEAD)

Counts = dict[tuple[str, str], int]
"""(route, outcome) -> messages."""


@dataclass(frozen=True)
class Account:
    """One source's note: how far it was read, and what became of all of it.

    `seq`, `time` (ns since the epoch) and `stream_created` are the last message's; of core NATS they are 0 and "".
    `read` and `ignored` (without a route, or with one that is off) count messages since the first start, `routes` those
    of each route by outcome. `read_before` of them were read before `begin`, the sequence at which this stream was
    begun; `gone` were dropped from it before we read them.
    """

    seq: int = 0
    time: int = 0
    stream_created: str = ""
    begin: int = 1
    gone: int = 0
    read: int = 0
    read_before: int = 0
    ignored: int = 0
    routes: Mapping[str, list[int]] = field(default_factory=dict)

    @classmethod
    def unpacked(cls, note: bytes) -> Self:
        """The account in a note. What an older version wrote is taken for its position only."""
        found = json.loads(note)
        return cls(**{"begin": found["seq"] + 1, **found})

    def packed(self) -> bytes:
        """The note."""
        return json.dumps(asdict(self)).encode()

    def begun(self, seq: int, stream_created: str) -> Self:
        """The same, at the beginning of another stream: its next message is `seq`."""
        return replace(
            self, seq=seq - 1, time=0, stream_created=stream_created, begin=seq, gone=0, read_before=self.read
        )

    def after(self, counts: Counts, *, read: int, ignored: int) -> Self:
        """The same with a batch that was read."""
        routes = dict(self.routes)
        for (route, outcome), number in counts.items():
            line = routes[route] = list(routes.get(route, (0,) * len(OUTCOMES)))
            line[OUTCOMES.index(outcome)] += number
        return replace(self, read=self.read + read, ignored=self.ignored + ignored, routes=routes)

    @property
    def unaccounted(self) -> int:
        """Messages that were read and became nothing that is known. Anything but 0 is a defect of ours."""
        return self.read - self.ignored - sum(sum(counts) for counts in self.routes.values())

    @property
    def passed_over(self) -> int:
        """Of a stream that is read whole: sequences from `begin` on that were neither read nor found gone; 0."""
        return (self.seq - self.begin + 1) - (self.read - self.read_before) - self.gone
