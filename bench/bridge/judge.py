"""What a run is judged by: every message is there once, those of a key in order; and how fast the last of them came."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.bridge.messages import Told
from bench.programs import Wrong

MEASURED_FROM = 0.2
"""The part of the messages after which the clock starts: programs have started by then."""


@dataclass
class Judge:
    """Hears of everything that came, place by place. `told` says what a number stands for; times are in seconds."""

    wanted: range
    told: Callable[[int], Told]
    times: list[float] = field(default_factory=list)
    _came: set[int] = field(default_factory=set)
    _last: dict[tuple[str, str], int] = field(default_factory=dict)
    _twice: list[int] = field(default_factory=list)
    _disordered: list[int] = field(default_factory=list)

    def hear(self, number: int, at: float) -> None:
        """One message, behind those that were heard before in its place."""
        self.times.append(at)
        if number in self._came:
            self._twice.append(number)
        self._came.add(number)
        _, topic, key = self.told(number)
        if number < self._last.get((topic, key), -1):
            self._disordered.append(number)
        self._last[topic, key] = number

    @property
    def complete(self) -> bool:
        """Whether as many came as are wanted."""
        return len(self.times) >= len(self.wanted)

    def speed(self, *, ordered: bool) -> float:
        """Messages a second from MEASURED_FROM on.

        Raises:
            Wrong: one is missing, twice, not wanted, or (`ordered`) came before one of the same key that was first.
        """
        missing = [number for number in self.wanted if number not in self._came]
        more = self._came - set(self.wanted)
        for what, numbers in (("missing", missing), ("twice", self._twice), ("not of this run", list(more))):
            if numbers:
                raise Wrong(f"{len(numbers)} of {len(self.wanted)} messages are {what}, the first is {numbers[0]}")
        if ordered and self._disordered:
            number = self._disordered[0]
            raise Wrong(f"{len(self._disordered)} came before others of their key: {number}, {self.told(number)}")
        times = sorted(self.times)
        first = int(len(times) * MEASURED_FROM)
        return (len(times) - first) / max(0.001, times[-1] - times[first])
