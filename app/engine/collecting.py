"""When Python looks for cycles of objects that nobody has any more: often, so that each look is brief.

Python itself looks when there are so many more objects than before, at all that is new. A worker that has as many as it
keeps lets go of old ones for new ones: it looked seldom, and stood still for 60 ms each time.
"""

import asyncio
import functools
import gc
import time

THRESHOLDS = (50_000, 20, 50)
"""Python's own looks, where nothing else does (its default is 700, 10, 10, which takes 10 to 18 % of the time)."""

SOON, LATE = 0.1, 1.0
"""Seconds between two looks at what is new. Rows, messages and records are not looked at (`gc=False`)."""

SHARE = 0.02
"""Of the time is taken for looks, about: when one takes long, the next one comes later, up to LATE."""

ALL = 600.0
"""Seconds between two looks at everything but what was there at the start."""


def collect_briefly() -> None:
    """For this process, and as long as the running loop runs."""
    gc.set_threshold(*THRESHOLDS)
    _freeze()
    loop = asyncio.get_running_loop()

    def look(since: float) -> None:
        began = time.perf_counter()
        everything = began - since > ALL
        gc.collect(2 if everything else 1)
        took = time.perf_counter() - began
        wait = min(max(SOON, took / SHARE), LATE)
        loop.call_later(wait, look, began if everything else since)

    loop.call_later(SOON, look, time.perf_counter())


@functools.cache
def _freeze() -> None:
    """Modules, types and functions stay. Done once a process: to count what is frozen already takes Python 25 ms."""
    gc.collect()
    gc.freeze()
