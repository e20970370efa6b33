"""How fast publishing may send."""

from __future__ import annotations


class Pacer:
    """How many messages publishing may send: a bucket, well below the server's own limit.

    Args:
        rate: messages per second, sustained.
        burst: messages at once.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float = 250.0, burst: int = 250) -> None:
        self.rate = rate
        self.burst = burst
        self._level = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take one message's leave, if there is one."""
        self._fill(now)
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def next_at(self, now: float) -> float:
        """When there will be leave for one message."""
        self._fill(now)
        return now if self._level >= 1.0 else now + (1.0 - self._level) / self.rate

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(float(self.burst), self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
