"""Time as an argument: the one place of the server's session side that reads a clock.

Two clocks, because they answer two questions. The *monotonic* clock measures how long something
lasts (liveness, conflation) and never jumps. The *wall* clock says when something happened, for
people and for deadlines that must outlast a restart.
"""

from __future__ import annotations

from .ports import Clock

__all__ = ["Clock", "ManualClock", "SystemClock"]


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        import time

        self.monotonic = time.monotonic
        self.wall_ns = time.time_ns


class ManualClock:
    """A clock for tests: it stands still until it is told to go on."""

    def __init__(self, monotonic: float = 1_000.0, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self._monotonic = monotonic
        self._wall_ns = wall_ns

    def monotonic(self) -> float:
        return self._monotonic

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks."""
        self._monotonic += seconds
        self._wall_ns += round(seconds * 1e9)
