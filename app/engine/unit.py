"""What one batch does to a partition's rows, until it is committed."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from app.engine.changes import Change
from app.engine.declarations import Reducer, Transition
from app.engine.records import Record, Send
from app.engine.tables import TablePartition

Row = TypeVar("Row")

UNREAD: Any = object()
"""In the place of a row that was not read yet."""


class Unit(Generic[Row]):
    """What one batch has done so far: rows read and changed, messages to send."""

    def __init__(self, part: TablePartition[Row], reducer: Reducer[Row]) -> None:
        self.sends: list[Send] = []
        self.before: dict[str, Row | None] = {}
        self._rows: dict[str, Row | None] = {}
        self._part = part
        self._rule = reducer.rule
        self._encode = reducer.encode
        self._carries = reducer.carries
        self.tally = reducer.tally(part.partition) if reducer.tally is not None else None

    def fold(self, message: Any, record: Record) -> str:
        if type(message) is tuple:  # a message may be a named one
            return self._fold_all(message, record)
        key = message.key
        row = self._rows.get(key, UNREAD)
        if row is UNREAD:
            row = self.before[key] = self._part.get(key)
        transition: Transition = self._rule(row, message)
        after, outputs = transition.row, transition.outputs
        # Nothing of a message is kept unless all of it could be computed.
        sends = self._sends(outputs, record, after) if outputs else ()
        if self.tally is not None and after is not row:
            self.tally.add(row, after, record.timestamp)
        self.sends += sends
        self._rows[key] = after
        return transition.outcome

    def _sends(self, outputs: tuple[Any, ...], record: Record, row: Row | None) -> Sequence[Send]:
        carried = self._carries(record, row)
        if len(outputs) == 1:
            return self._encode(outputs[0], carried)
        return [send for output in outputs for send in self._encode(output, carried)]

    def _fold_all(self, messages: tuple[Any, ...], record: Record) -> str:
        """Fold each into the row of its own; they are not told to a tally."""
        sends, rows, outcomes = list[Send](), dict[str, Row | None](), set[str]()
        for message in messages:
            key = message.key
            if key not in self._rows:
                self._rows[key] = self.before[key] = self._part.get(key)
            transition: Transition = self._rule(self._rows[key], message)
            sends += self._sends(transition.outputs, record, transition.row) if transition.outputs else ()
            rows[key] = transition.row
            outcomes.add(transition.outcome)
        self.sends += sends
        self._rows |= rows
        return outcomes.pop() if len(outcomes) == 1 else "applied"

    def changes(self, at_once: int) -> Iterator[list[Change[Row]]]:
        """Every row that is another than before, so many at once."""
        encode, before = self._part.encode, self.before
        changed = [(key, row) for key, row in self._rows.items() if row is not before[key]]
        for start in range(0, len(changed), at_once):
            yield [
                Change(key, row, None if row is None else encode(row), before[key])
                for key, row in changed[start : start + at_once]
            ]
