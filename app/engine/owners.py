"""Who has which partition of a table: what is asked before a worker answers for one, or asks another worker."""

from typing import Protocol


class Owners(Protocol):
    """Who has the partitions that one lane works on. `silent`: whoever knows that did not answer the last time."""

    silent: bool

    def held(self, partition: int) -> bool:
        """Whether nobody else can have the partition now: its rows here are the newest that there are."""

    def url(self, partition: int) -> str | None:
        """Where another worker that has the partition is asked over HTTP; None: it has nobody else, or is not known."""

    def others_have(self, partitions: int) -> bool:
        """Whether other workers have all of so many partitions, and nothing is to be expected for this one."""

    async def look(self) -> None:
        """Find out anew. It returns also when that failed."""


class Alone:
    """The owners where there is one process only: everything is here."""

    silent = False

    def held(self, _partition: int) -> bool:
        """Always."""
        return True

    def url(self, _partition: int) -> str | None:
        """There is nobody else."""
        return None

    def others_have(self, _partitions: int) -> bool:
        """There are no others."""
        return False

    async def look(self) -> None:
        """There is nothing to find out."""
