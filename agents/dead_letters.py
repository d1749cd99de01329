"""What happens when a message could not be used, and when somebody says what to do about it. domain/ decides how."""

from app import topics
from app.domain.dead_letters import Letter, keep
from app.engine.declarations import Reducer
from tables.dead_letters import DEAD_LETTERS

KEEP_DEAD_LETTERS = "keep_dead_letters"


def keep_dead_letters() -> Reducer[Letter]:
    """The agent that owns `dead_letters`."""
    return Reducer(
        name=KEEP_DEAD_LETTERS,
        reads=(topics.DEAD_LETTERS, topics.LETTER_COMMANDS),
        table=DEAD_LETTERS,
        rule=keep,
        encode=topics.sends_of,
    )
