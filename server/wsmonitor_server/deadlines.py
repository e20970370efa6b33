"""Many deadlines, one timer: a heap in which an outdated entry is passed over when it comes up."""

from __future__ import annotations

import heapq


class Deadlines:
    """Key to its next deadline, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._when: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: str, when: float | None) -> None:
        """*key* is due at *when*, and not at what was set before; None: never."""
        if when is None:
            self._when.pop(key, None)
        elif self._when.get(key) != when:
            self._when[key] = when
            heapq.heappush(self._heap, (when, key))
            # Deadlines are moved far more often than they come up.
            if len(self._heap) > 64 and len(self._heap) > 4 * len(self._when):
                self._heap = [(at, one) for one, at in self._when.items()]
                heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The earliest deadline."""
        while self._heap and self._when.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[str]:
        """Take the keys whose deadline has come; they have none then."""
        keys: list[str] = []
        while (when := self.next()) is not None and when <= now:
            _, key = heapq.heappop(self._heap)
            del self._when[key]
            keys.append(key)
        return keys
