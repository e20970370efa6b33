"""Whose turn it is: the recorder shares the interpreter's lock with the cell whose output it hears."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SHORT: Final = 0.0005
"""Seconds of work at a time, at first: what a cell may have to wait when it wants to go on."""
LONG: Final = 0.005
"""The same once work has been waiting for long: what Python's own threads take."""
PATIENT: Final = 0.25
"""Seconds for which work goes on in short turns; there is more then than they can do."""
GAP: Final = 0.0005
"""Seconds between two turns. Not 0: who waits for the lock needs a moment to wake."""


class Turns:
    """Divides a stretch of work on one thread into turns, between which other threads run.

    Args:
        clock: seconds, of any beginning.
        sleep: lets the thread wait for some seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._began = self._since = clock()

    def begin(self) -> None:
        """There was nothing to do until now."""
        self._began = self._since = self._clock()

    def pause(self) -> None:
        """Called often: lets others run when the turn is over."""
        now = self._clock()
        if now - self._since >= (SHORT if now - self._began < PATIENT else LONG):
            self._sleep(GAP)
            self._since = self._clock()
