"""Many deadlines, one timer: a heap whose entries may come up too early, and are then put where they belong.

Deadlines are moved to a later time far more often than they come up: that costs a write into a dictionary.
"""

from __future__ import annotations

import heapq


class Deadlines:
    """Key to its next deadline, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._when: dict[str, float] = {}
        self._entries: dict[str, float] = {}  # when each key comes up in the heap: not later than it is due
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: str, when: float | None) -> None:
        """*key* is due at *when*, and not at what was set before; None: never."""
        if when is None:
            self._when.pop(key, None)
            return
        self._when[key] = when
        entry = self._entries.get(key)
        if entry is None or when < entry:
            self._entries[key] = when
            heapq.heappush(self._heap, (when, key))
            if len(self._heap) > 64 and len(self._heap) > 4 * len(self._when):
                self._entries = dict(self._when)
                self._heap = [(at, one) for one, at in self._when.items()]
                heapq.heapify(self._heap)

    @property
    def soonest(self) -> float | None:
        """Before this nothing is due; it may be that then nothing is due either. Found at once."""
        return self._heap[0][0] if self._heap else None

    def next(self) -> float | None:
        """The earliest deadline."""
        while self._heap:
            at, key = self._heap[0]
            when = self._when.get(key)
            if self._entries.get(key) != at:
                heapq.heappop(self._heap)  # it comes up a second time: it was due earlier meanwhile
            elif when is None:
                heapq.heappop(self._heap)
                del self._entries[key]
            elif when > at:
                self._entries[key] = when
                heapq.heapreplace(self._heap, (when, key))
            else:
                return at
        return None

    def due(self, now: float) -> list[str]:
        """Take the keys whose deadline has come; they have none then."""
        keys: list[str] = []
        while (when := self.next()) is not None and when <= now:
            _, key = heapq.heappop(self._heap)
            del self._when[key], self._entries[key]
            keys.append(key)
        return keys
