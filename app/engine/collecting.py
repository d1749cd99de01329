"""How often Python looks for cycles of objects that nobody has any more."""

import gc

THRESHOLDS = (50_000, 20, 50)
"""At all that is new after so many new objects, 20 such times, and 50 of those. Rows and records have no cycles, and
there are many: with Python's own (700, 10, 10), it took 10 to 18 % of the time."""


def collect_seldom() -> None:
    """For this process, as long as it lives."""
    gc.set_threshold(*THRESHOLDS)
