"""Whether the store takes writes, as far as is known, and since when it does not.

Watchers have to be told: while the server takes nothing, what they see stands still, though the link is
good and the programs are heard. It is known from commits; without any, the store is asked.

A store without room may still take what is small, and refuse the next commit. So one that succeeds does not
prove that there is room again: the store is asked that at once, and believed without it only when
nothing was refused for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from wsmonitor.protocol.messages import Degraded

from .stores.base import StoreError

log = logging.getLogger(__name__)

CHECK_EVERY: Final = 5.0
"""Seconds between two questions to a store that failed: a disk that has room again is soon found out."""

ROOM: Final = 4 * 1024 * 1024
"""Bytes that a store must have room for before it counts as one that takes writes again: some commits, large
ones, with their log."""

CALM: Final = 30.0
"""Seconds without a refusal after which a commit that succeeds is proof enough."""


class StoreHealth:
    """See the module's text. Pure: the owner asks the store, and says what came of it.

    Args:
        wall_ns: nanoseconds UTC.
        changed: called when `degraded` is another.

    Attributes:
        degraded: what is wrong; None while all is well.
    """

    def __init__(self, wall_ns: Callable[[], int], changed: Callable[[], None]) -> None:
        self.degraded: Degraded | None = None
        self._wall_ns = wall_ns
        self._changed = changed
        self._refused_at = 0.0
        self._down_ns = 0

    @property
    def seconds_down(self) -> float:
        """For how long no changes were taken, in all."""
        return (self._down_ns + self._since()) / 1e9

    def _since(self) -> int:
        return 0 if self.degraded is None else max(0, self._wall_ns() - int(self.degraded.since))

    def refused(self, failure: StoreError, now: float) -> None:
        """A commit failed; *now* is the monotonic clock."""
        self._refused_at = now
        self.ailing(failure)

    def ailing(self, failure: StoreError) -> None:
        """A commit would fail."""
        old = self.degraded
        if old is None or (old.code, old.reason) != (failure.code, failure.message):
            since = old.since if old is not None else str(self._wall_ns())
            self.degraded = Degraded(code=failure.code, reason=failure.message, since=since)
            log.error("no changes can be taken: %s", failure)
            self._changed()

    def committed(self, now: float) -> bool:
        """A commit succeeded. True: whether there is room again is not known, and is to be asked now."""
        if self.degraded is None:
            return False
        if self.degraded.code == "read_only" and now < self._refused_at + CALM:
            return True
        self.well()
        return False

    def well(self) -> None:
        """The store takes writes."""
        if self.degraded is not None:
            self._down_ns += self._since()
            self.degraded = None
            log.warning("changes are taken again")
            self._changed()
