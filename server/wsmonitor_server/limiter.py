"""A token bucket. Pure: the time is passed in."""

from __future__ import annotations


class TokenBucket:
    """Allows *burst* at once and *rate* per second in the long run.

    Args:
        rate: per second.
        burst: the bucket's size.
        now: the time at which it is full (monotonic seconds).
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one. False when there is none."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
