"""Which places groups have begun to read: notes that outlive the offsets, which the brokers forget after a while.

A place whose offset is gone although it had one is refused: begun at its start, all that it holds would be done again.
"""

from collections.abc import Callable, Collection, Mapping

from app.engine.errors import OffsetsForgotten
from app.engine.records import Send, TopicPartition

BEGUN = "begun:"
"""Before the name of such a note; then come the group, and topic-partition."""


class Begun:
    """`notes` gives what is noted, and blocks; `ids` has the topics' ids: one that was made anew begins anew."""

    def __init__(self, topic: str, notes: Callable[[], Mapping[str, bytes]], ids: Mapping[str, str]) -> None:
        self._topic = topic
        self._notes = notes
        self._ids = ids

    def mark(self, group: str, place: TopicPartition) -> Send:
        """The record that says so, for the transaction with the place's offset."""
        name = f"{BEGUN}{group}:{place.topic}-{place.partition}"
        return Send(self._topic, name.encode(), self._ids[place.topic].encode(), (), None, 0)

    def check(self, group: str, without_offset: Collection[TopicPartition]) -> None:
        """Blocks. Raises OffsetsForgotten when one of the places had an offset."""
        had = self.places().get(group, ())
        forgotten = [place for place in without_offset if place in had]
        if forgotten:
            named = ", ".join(f"{topic}-{partition}" for topic, partition in forgotten)
            raise OffsetsForgotten(
                f"Kafka has forgotten how far {group} has read {named}: no worker ran for longer than the brokers' "
                "offsets.retention.minutes. Say where to go on, with no worker running: `a4co offsets --forgotten end` "
                "leaves out what came since the last worker ended, `--forgotten start` does everything again"
            )

    def places(self) -> dict[str, set[TopicPartition]]:
        """What every group has begun to read, of the topics as they are. Blocks."""
        places: dict[str, set[TopicPartition]] = {}
        for name, identity in self._notes().items():
            if name.startswith(BEGUN):
                group, _, place = name.removeprefix(BEGUN).rpartition(":")
                topic, _, partition = place.rpartition("-")
                if self._ids.get(topic, "").encode() == identity:
                    places.setdefault(group, set()).add(TopicPartition(topic, int(partition)))
        return places
