"""How much may be written down of what others can make happen often. Pure: the time is passed in."""

from __future__ import annotations

from .limiter import TokenBucket


class Quota:
    """Lines of a log: *burst* at once, *rate* per second in the long run.

    Attributes:
        left_out: lines that were left out since the last one.
    """

    __slots__ = ("_bucket", "left_out")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._bucket = TokenBucket(rate, burst, now)
        self.left_out = 0

    def take(self, now: float) -> int | None:
        """Whether a line may be written at *now* (monotonic seconds).

        Returns:
            How many were left out before it; None when it is to be left out itself.
        """
        if not self._bucket.take(now):
            self.left_out += 1
            return None
        before, self.left_out = self.left_out, 0
        return before
