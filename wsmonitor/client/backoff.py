"""How long to wait before the next attempt (check 5).

Nominal delays are 1, 2, 4, 8, 16, 30, 30 … seconds. Clients that lost the same server must not come
back together, so each delay is spread at random: up to 8 s by +0 to 25 %, the sixteen over 16 to
20 s, the thirty over 22.5 to 30 s. No delay is ever above 30 s. It never gives up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wsmonitor.protocol.defaults import RECONNECT_DELAYS

CEILING: Final = RECONNECT_DELAYS[-1]


class Backoff:
    """The sequence of delays, from the first failure to the next success.

    Args:
        random: gives numbers in [0, 1), uniformly.
    """

    __slots__ = ("_random", "attempts")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.attempts = 0  # delays given since the last reset

    def next_delay(self, spread: float = 0.0) -> float:
        """The next delay, in seconds.

        Args:
            spread: seconds over which the server asked its clients to spread their return;
                counts on the first delay only.
        """
        nominal = RECONNECT_DELAYS[min(self.attempts, len(RECONNECT_DELAYS) - 1)]
        first = self.attempts == 0
        self.attempts += 1
        if nominal >= CEILING:
            delay = CEILING * (0.75 + 0.25 * self._random())
        else:
            delay = nominal * (1.0 + 0.25 * self._random())
        if first and spread > 0:
            delay += spread * self._random()
        return min(delay, CEILING)

    def longest(self) -> float:
        """The longest delay, in seconds: for what a person has to mend first."""
        self.attempts += 1
        return CEILING * (0.75 + 0.25 * self._random())

    def reset(self) -> None:
        """Begin with the first delay again: the link has proved to be healthy."""
        self.attempts = 0
