"""What the bridge counts. It decides nothing; whoever shows metrics reads it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class BridgeCounters:
    """Numbers since the start of the process.

    In: mirrored + dead_lettered + ignored = what was read from the stream; `ours` of the mirrored were our own.
    `expired_unread` were removed from the stream before they were read. Out: published (acked by the stream, or sent
    plainly where no stream holds the subject), duplicates_skipped (found in the stream already), rejected (NATS never
    takes them: kept as dead letters). `sessions` counts connections, `resumed_by_time` and `streams_replaced` how often
    the stream was not as it was remembered.
    """

    mirrored: int = 0
    ours: int = 0
    dead_lettered: int = 0
    ignored: int = 0
    expired_unread: int = 0
    resumed_by_time: int = 0
    streams_replaced: int = 0
    published: int = 0
    duplicates_skipped: int = 0
    rejected: int = 0
    sessions: int = 0
    by_subject: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(subject, outcome) -> messages; outcome: mirrored | dead-letter | published | skipped | rejected."""
    on_event: Callable[[str, str, float], None] | None = None
    """Called per message with subject, outcome, and seconds from its (or its record's) storing to done."""

    on_dead_letter: Callable[[str, str], None] | None = None
    """Called per dead letter with the topic it was in (or was to go to) and the reason."""
    on_gap: Callable[[int], None] | None = None
    """Called with how many messages left the stream before they were read."""

    def dead_letter(self, topic: str, reason: str) -> None:
        if self.on_dead_letter is not None:
            self.on_dead_letter(topic, reason)

    def gap(self, messages: int) -> None:
        self.expired_unread += messages
        if self.on_gap is not None:
            self.on_gap(messages)

    def count(self, subject: str, outcome: str, seconds: float) -> None:
        self.by_subject[subject, outcome] += 1
        if self.on_event is not None:
            self.on_event(subject, outcome, seconds)
