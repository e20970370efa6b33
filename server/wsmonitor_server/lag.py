"""How late the loop is: what everything of a server waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .metrics import SECONDS, Histogram

EVERY: Final = 0.5
"""Seconds between two looks."""


class LagProbe:
    """A timer that is due every `EVERY` seconds, and counts how late it was.

    Attributes:
        seconds: how late, so far.
        last: how late it was the last time, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = Histogram(SECONDS)
        self.last = 0.0
        self._clock = clock
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._arm()

    def stop(self) -> None:
        """May be called without `start`, and twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._due = self._clock() + EVERY
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._look)

    def _look(self) -> None:
        self.last = max(0.0, self._clock() - self._due)
        self.seconds.observe(self.last)
        self._arm()
