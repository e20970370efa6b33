"""Making work last: so that somebody can watch it, the same work is done again until its time has come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

REST = 0.02
"""Seconds between two repetitions: a demonstration should not take a whole core."""


class Pace:
    """Spreads *units* pieces of work evenly over *seconds*, whoever does them in whatever thread.

    Args:
        seconds: how long it all should take; 0 for as fast as can be.
        units: how many pieces there will be.
        clock: monotonic seconds.
    """

    def __init__(self, seconds: float, units: int, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._units = max(units, 1)
        self._clock = clock
        self._begun = clock()
        self._done = 0
        self._lock = threading.Lock()
        self._hurry = threading.Event()

    def hurry(self) -> None:
        """From now on, as fast as can be."""
        self._hurry.set()

    def unit(self, work: Callable[[], T]) -> T:
        """Do one piece of work, and do it again until its time has come. The first result counts."""
        result = work()
        with self._lock:
            self._done += 1
            due = self._begun + self._seconds * self._done / self._units
        while (left := due - self._clock()) > 0 and not self._hurry.wait(min(left, REST)):
            if self._clock() < due:
                work()
        return result
