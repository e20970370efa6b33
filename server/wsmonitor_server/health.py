"""Whether the store takes writes, as far as is known, and since when it does not.

Watchers have to be told: while the server takes nothing, what they see stands still, though the link is
good and the programs are heard. It is known from commits; without any, the store is asked.
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

    def told(self, failure: StoreError | None) -> None:
        """How a write ended: None for well."""
        old = self.degraded
        if failure is None:
            if old is not None:
                self.degraded = None
                log.warning("changes are taken again")
                self._changed()
        elif old is None or old.code != failure.code:
            since = old.since if old is not None else str(self._wall_ns())
            self.degraded = Degraded(code=failure.code, reason=failure.message, since=since)
            log.error("no changes can be taken: %s", failure)
            self._changed()
