"""Histograms of times, cheap to write."""

from __future__ import annotations

from bisect import bisect_right
from operator import add
from typing import Final

__all__ = ["KEPT_VALUES", "TIME_BOUNDS", "Histogram"]

TIME_BOUNDS: Final = (
    0.00001,
    0.000025,
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the buckets of a time, in seconds."""


KEPT_VALUES: Final = 512
"""How many values a histogram keeps before it counts them."""


class Histogram:
    """Counts values by the bucket that they fall in. One thread observes; any thread may read.

    Values are kept as they come, and counted many at a time, which takes a third of the time. What is counted and what
    is kept change places in one assignment, so a reader never misses a value nor meets one twice.
    """

    __slots__ = ("_state",)

    def __init__(self, buckets: tuple[int, ...] = (0,) * (len(TIME_BOUNDS) + 1), total: float = 0.0) -> None:
        kept: list[float] = []
        self._state = buckets, total, kept  # the last bucket has no bound

    def observe(self, seconds: float) -> None:
        """Take in a value. The observing thread only."""
        kept = self._state[2]
        kept.append(seconds)
        if len(kept) >= KEPT_VALUES:
            self.settle()

    @property
    def kept(self) -> list[float]:
        """The list that values may be appended to, until there are ``KEPT_VALUES``. The observing thread only."""
        return self._state[2]

    def settle(self) -> list[float]:
        """Count what is kept, and return the list that values may be appended to from now on, until there are
        ``KEPT_VALUES`` of them.

        The observing thread only.
        """
        kept: list[float] = []
        self._state = (*self.read(), kept)
        return kept

    def read(self) -> tuple[tuple[int, ...], float]:
        """Return how many values fell into each bucket, and their sum in seconds. Any thread may call."""
        buckets, total, kept = self._state
        if not kept:
            return buckets, total
        values = sorted(kept)
        counts = []
        start = 0
        for count, bound in zip(buckets, TIME_BOUNDS, strict=False):
            stop = bisect_right(values, bound, start)
            counts.append(count + stop - start)
            start = stop
        # Those below 0 count as 0: by the clock, a turn may begin a moment before it was asked for.
        return (*counts, buckets[-1] + len(values) - start), total + sum(values[bisect_right(values, 0.0) :])

    @property
    def count(self) -> int:
        """How many values there were."""
        buckets, _, kept = self._state
        return sum(buckets) + len(kept)

    def copy(self) -> Histogram:
        """Return these numbers, which count no further. Any thread may call."""
        return Histogram(*self.read())

    def merge(self, other: Histogram) -> None:
        """Add what another one has counted."""
        (mine, total), (theirs, their_total) = self.read(), other.read()
        self._state = tuple(map(add, mine, theirs)), total + their_total, []
