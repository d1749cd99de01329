"""Who has a partition's store open in this process: the table's owner, or who stands by. The owner comes first."""

import threading


class Claims:
    """The claims on one table's stores. Whoever stands by asks again and again whether a store is wanted."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted: set[int] = set()
        self._followed: set[int] = set()

    def want(self, partition: int) -> None:
        """The owner wants it: nobody stands by from now on."""
        with self._changed:
            self._wanted.add(partition)

    def wait(self, partition: int) -> None:
        """On a thread: return when whoever stood by has let go of what the owner wants."""
        with self._changed:
            while partition in self._followed:
                self._changed.wait()

    def give_back(self, partition: int) -> None:
        """The owner has closed it."""
        with self._changed:
            self._wanted.discard(partition)

    def follow(self, partition: int) -> bool:
        """Take it to stand by. False: it is wanted, or taken."""
        with self._changed:
            if partition in self._wanted or partition in self._followed:
                return False
            self._followed.add(partition)
            return True

    def is_wanted(self, partition: int) -> bool:
        """Whether the owner wants it."""
        return partition in self._wanted

    def let_go(self, partition: int) -> None:
        """Whoever stood by has closed it."""
        with self._changed:
            self._followed.discard(partition)
            self._changed.notify_all()
