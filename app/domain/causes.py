"""Ids and times that follow from their cause, so that a rule which runs twice says the same thing twice.

An id names the event that caused it, never the moment or the machine. It decides nothing else.
"""

from datetime import UTC, datetime
from functools import lru_cache

from uuid_utils import UUID, uuid5

NAMESPACE = UUID("a4c0a4c0-0000-5000-8000-a4c0a4c0a4c0")


def caused(cause: str, kind: str, qualifier: str = "") -> str:
    """The id (uuid5, lower case) of what `kind` of thing follows from the event or entity `cause`."""
    return str(uuid5(NAMESPACE, f"{cause}:{kind}:{qualifier}"))


@lru_cache(maxsize=4096)
def iso(at: float) -> str:
    """Seconds since the epoch -> "2026-11-24T13:35:51.032Z", the wire's form of a time."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
