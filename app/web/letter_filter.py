"""Which dead letters are wanted, in which order, and how many of them there can be."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple

from fastapi import Query

from app.domain.dead_letters import Letter, LetterState, first_id
from app.web.problems import ProblemError
from app.web.query import Moment, Word, seconds


class Order(StrEnum):
    """NEWEST: the newest first; OLDEST: the oldest first."""

    NEWEST = "newest"
    OLDEST = "oldest"


class Counts(NamedTuple):
    """How many letters there are in each state, for each reason (of the wanted state), and at most wanted in all."""

    states: dict[str, int]
    reasons: dict[str, int]
    most: int


class LetterFilter:
    """A query's filter. `subject` may have `*`; `text` is looked for in id, key, subject, error and excerpt.

    `since` and `until` are when the message became a dead letter; without a zone they are UTC. `all` is for wishes
    about many: without it, they want a filter.
    """

    def __init__(
        self,
        state: LetterState | None = None,
        reason: Word = None,
        subject: Word = None,
        topic: Word = None,
        text: Word = None,
        since: Moment = None,
        until: Moment = None,
        everything: Annotated[bool, Query(alias="all")] = False,
    ) -> None:
        self._state = state
        self._reason = reason
        self._subject = subject
        self._topic = topic
        self._text = text.casefold() if text else None
        self._everything = everything
        self.since = seconds(since)
        self.until = seconds(until)

    def only_open(self) -> None:
        """Want those that are open only. ProblemError: nothing is said, also not that all are wanted."""
        words = (self._reason, self._subject, self._topic, self._text, self.since, self.until)
        if not self._everything and all(word is None for word in words):
            raise ProblemError("no-filter", "Nothing says which dead letters are wanted.")
        self._state = LetterState.OPEN

    def wants(self, letter: Letter) -> bool:
        """Whether the letter is wanted; its time aside."""
        return (
            self._state in (None, letter.state)
            and self._reason in (None, letter.reason)
            and self._topic in (None, letter.topic)
            and (self._subject is None or fnmatchcase(letter.subject, self._subject))
            and (self._text is None or self._text in _text(letter))
        )

    def counts(self, sums: Mapping[str, int]) -> Counts:
        """Of a table's sums: those of state, topic and reason."""
        states = Counter({state.value: 0 for state in LetterState})
        reasons: Counter[str] = Counter()
        most = 0
        for counted, number in sums.items():
            state, topic, reason = counted.split(" ", 2)
            states[state] += number
            if number and self._state in (None, state):
                reasons[reason] += number
                if self._reason in (None, reason) and self._topic in (None, topic):
                    most += number
        return Counts(dict(states), dict(reasons.most_common()), most)


class Selection(NamedTuple):
    """A page of the letters of a filter, from behind the id `after` on."""

    filter: LetterFilter
    order: Order
    limit: int
    after: str | None

    @property
    def backwards(self) -> bool:
        """Whether from the newest to the oldest."""
        return self.order is Order.NEWEST

    def span(self) -> dict[str, Any]:
        """Where a page's search begins and ends."""
        oldest, newest = (None if at is None else first_id(at) for at in (self.filter.since, self.filter.until))
        begin, end = (newest, oldest) if self.backwards else (oldest, newest)
        given = [at for at in (begin, self.after) if at is not None]
        after = (min(given) if self.backwards else max(given)) if given else None
        return {"after": after, "until": end, "limit": self.limit, "backwards": self.backwards}


def _text(letter: Letter) -> str:
    words = (letter.letter_id, letter.of, letter.subject, letter.reason, letter.error, letter.excerpt)
    return "\n".join(words).casefold()
