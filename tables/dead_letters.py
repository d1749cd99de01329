"""One row a dead letter. Key: its id, which names the partition of its record, and the row is in that one too."""

from collections.abc import Mapping

from app.domain.dead_letters import Letter, place_of
from app.engine.declarations import TableSpec


def counted(letter: Letter) -> str:
    """The sum that a letter counts in: its state, topic and reason."""
    return f"{letter.state.value} {letter.topic} {letter.reason}"


def _sums(letter: Letter) -> Mapping[str, int]:
    return {counted(letter): 1}


def _partition(letter: str, total: int) -> int:
    return place_of(letter).partition % total


DEAD_LETTERS = TableSpec("dead_letters", Letter, sums=_sums, partition=_partition)
