"""Where a live feed stands: a position in every partition, as one opaque word that any worker understands."""

import base64
import binascii
import copy
import hashlib
from collections.abc import Mapping, Sequence

from app.engine.records import TopicPartition

WHOSE = 6
"""Bytes that tell the log."""
OFFSET = 5
"""Bytes of an offset."""


class Places:
    """Positions that move, of the partitions given, of one log (`identities`: what tells its topics from others)."""

    def __init__(self, partitions: Sequence[TopicPartition], identities: str) -> None:
        self.partitions = tuple(partitions)
        self._numbers = {place: at for at, place in enumerate(self.partitions)}
        whose = f"{identities} {len(self.partitions)}".encode()
        self._whose = hashlib.blake2b(whose, digest_size=WHOSE).digest()
        self._packed = bytearray(self._whose) + bytes(OFFSET * len(self.partitions))

    def at(self, place: TopicPartition) -> int:
        """The partition's number among all."""
        return self._numbers[place]

    def move(self, at: int, offset: int) -> None:
        """The partition of this number stands at `offset` now."""
        start = WHOSE + OFFSET * at
        self._packed[start : start + OFFSET] = offset.to_bytes(OFFSET, "big")

    def move_all(self, positions: Mapping[TopicPartition, int]) -> None:
        """The same of several."""
        for place, offset in positions.items():
            self.move(self._numbers[place], offset)

    def copy(self) -> "Places":
        """The same, to move apart from these."""
        other = copy.copy(self)
        other._packed = self._packed.copy()  # noqa: SLF001 - one of us
        return other

    def positions(self) -> dict[TopicPartition, int]:
        """Where each stands."""
        return self._unpacked(self._packed)

    def word(self) -> str:
        """Where all stand."""
        return base64.urlsafe_b64encode(self._packed).decode().rstrip("=")

    def line(self) -> bytes:
        """The same as the `id:` of an event."""
        return b"id: %b\n" % base64.urlsafe_b64encode(self._packed).rstrip(b"=")

    def read(self, word: str) -> dict[TopicPartition, int] | None:
        """The positions that a word stands for; None: it is none of this log."""
        try:
            packed = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(packed) != len(self._packed) or not packed.startswith(self._whose):
            return None
        return self._unpacked(packed)

    def _unpacked(self, packed: bytes | bytearray) -> dict[TopicPartition, int]:
        return {
            place: int.from_bytes(packed[start : start + OFFSET], "big")
            for place, start in zip(self.partitions, range(WHOSE, len(packed), OFFSET), strict=True)
        }
