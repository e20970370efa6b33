"""What is due when, by the one timer of the session side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from .deadlines import Deadlines
from .ports import Clock

log = logging.getLogger(__name__)

LATE: Final = 5.0
"""Seconds by which a timer may be late before that counts as this process having stood still."""

AGAIN: Final = 60.0
"""Seconds until something is looked at again that has failed."""


class Agenda:
    """Keys and their deadlines.

    Args:
        clock: where the time comes from; the loop's timer only says when to look at it.
        due: called with each key whose time has come, and the time: monotonic seconds, nanoseconds of the
            wall clock. The key has no deadline then. What it raises is logged.
        stood_still: called before that, when the timer came so late that nobody can have been heard.
        gather: called at first: for deadlines that are to be set before any is looked at.
    """

    def __init__(
        self,
        clock: Clock,
        due: Callable[[str, float, int], None],
        *,
        stood_still: Callable[[float], None],
        gather: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._due = due
        self._stood_still = stood_still
        self._gather = gather
        self._deadlines = Deadlines()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._timer_due = 0.0
        self._looking = False
        self._stopped = False

    @property
    def waiting(self) -> bool:
        """Whether a timer is set."""
        return self._timer is not None and not self._timer.cancelled()

    def set(self, key: str, when: float | None) -> None:
        """*key* is due at *when* (monotonic seconds), and not at what was set before; None: never."""
        self._deadlines.set(key, when)
        self._schedule()

    def next(self) -> float | None:
        """The earliest deadline, in monotonic seconds."""
        return self._deadlines.next()

    def look(self) -> None:
        """Do what is due by the clock."""
        self._gather()
        self._timer_at = None
        self._looking = True
        now, now_ns = self._clock.monotonic(), self._clock.wall_ns()
        for key in self._deadlines.due(now):
            try:
                self._due(key, now, now_ns)
            except Exception:
                # One session's fault must not stop the clock of the others.
                log.exception("%s: a fault in what is due", key)
                self._deadlines.set(key, now + AGAIN)
        self._looking = False
        self._schedule()

    def close(self) -> None:
        """No new timer; the one that is set still comes (see `stop`)."""
        self._stopped = True

    def stop(self) -> None:
        """Nothing is due any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        when = self._deadlines.soonest
        if self._looking or self._stopped or when is None:
            return
        if self._timer_at is not None and self._timer_at <= when:
            return  # a timer that comes too early finds nothing, and is set anew
        if self._timer is not None:
            self._timer.cancel()
        now = self._clock.monotonic()
        delay = max(0.0, when - now)
        self._timer_at = when
        self._timer_due = now + delay
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        late = self._clock.monotonic() - self._timer_due
        if late > LATE:
            self._stood_still(late)
        self.look()
