"""One moment on two clocks, as the client's machines are given it.

Liveness, ages and delays use the monotonic clock. Token expiry, and noticing that the computer
slept, need the wall clock: a monotonic clock may stand still while it sleeps.
"""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """One moment.

    Attributes:
        mono: seconds of the monotonic clock.
        wall: seconds since 1970 UTC.
    """

    mono: float
    wall: float
