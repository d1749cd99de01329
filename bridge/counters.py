"""What the bridge counts since the start of the process. It decides nothing; whoever shows metrics reads it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bridge.ledger import DEAD, MIRRORED, REPEATED


@dataclass
class BridgeCounters:
    """Numbers since the start of the process; since the first start they are in the ledger.

    In, counted when committed: mirrored + repeated + dead_lettered + ignored = what was read; `ours` of the mirrored
    were our own. `expired_unread` were removed from a stream before they were read, or lost on core NATS. Out:
    published (acked by the stream, or sent plainly where no stream holds the subject), duplicates_skipped (found in the
    stream already), rejected (NATS never takes them: kept as dead letters), withheld (their route is off). `sessions`
    counts connections, `resumed_by_time` and `streams_replaced` how often a stream was not as it was remembered.
    """

    mirrored: int = 0
    repeated: int = 0
    ours: int = 0
    dead_lettered: int = 0
    ignored: int = 0
    expired_unread: int = 0
    resumed_by_time: int = 0
    streams_replaced: int = 0
    published: int = 0
    duplicates_skipped: int = 0
    rejected: int = 0
    withheld: int = 0
    sessions: int = 0
    on_event: Callable[[str, str, int], None] = lambda _subject, _outcome, _number: None
    """Called with subject, outcome and how many; outcome: mirrored | repeated | dead-lettered | published | skipped |
    rejected | withheld."""
    on_dead_letter: Callable[[str, str], None] = lambda _topic, _reason: None
    """Called per dead letter with the topic it was in (or was to go to) and the reason."""
    on_gap: Callable[[int], None] = lambda _messages: None
    """Called with how many messages left the stream before they were read."""

    def dead_letter(self, topic: str, reason: str) -> None:
        self.on_dead_letter(topic, reason)

    def gap(self, messages: int) -> None:
        self.expired_unread += messages
        self.on_gap(messages)

    def settled(self, outcomes: Mapping[tuple[str, str], int], ignored: int) -> None:
        """A batch of the way in is committed: (subject, outcome) -> messages."""
        total = Counter[str]()
        for (subject, outcome), number in outcomes.items():
            total[outcome] += number
            self.on_event(subject, outcome, number)
        self.mirrored += total[MIRRORED]
        self.repeated += total[REPEATED]
        self.dead_lettered += total[DEAD]
        self.ignored += ignored

    def said(self, subject: str, outcome: str, number: int = 1) -> None:
        """What became of messages of the way out."""
        match outcome:
            case "published":
                self.published += number
            case "skipped":
                self.duplicates_skipped += number
            case "withheld":
                self.withheld += number
            case _:
                self.rejected += number
        self.on_event(subject, outcome, number)
