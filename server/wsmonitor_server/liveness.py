"""Whether the producers of a session are heard: ``live → stale → lost``, and after the grace ``crashed``.

Written by the server only, by its monotonic clock. ``stale`` at once when the connection goes, or after
``producer_stale`` without a frame; ``lost`` after ``producer_lost``; when it stayed lost for
``producer_crashed``, what it left open is declared crashed. A goodbye ends the watch: silence
is expected then. The server's own downtime never counts: a producer that was loaded after a start
begins anew as stale, and after the server itself stood still everybody's time begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wsmonitor.protocol.defaults import Timing

Verdict = Literal["live", "stale", "lost", "crashed"]


@dataclass(slots=True)
class _Watched:
    heard: float
    connected: bool
    level: Verdict
    lost_at: float = 0.0
    ask: Callable[[], float] | None = None  # when its connection was heard last


class LivenessWatch:
    """The producers of one session that are expected to be heard."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._watched: dict[str, _Watched] = {}

    def __contains__(self, producer: str) -> bool:
        return producer in self._watched

    def __len__(self) -> int:
        return len(self._watched)

    def opened(self, producer: str, now: float, ask: Callable[[], float] | None = None) -> None:
        """A connection holds *producer*. *ask* says when that was heard last, before a verdict."""
        self._watched[producer] = _Watched(now, True, "live", ask=ask)

    def loaded(self, producer: str, level: Verdict, now: float) -> None:
        """*producer* was open when the server stopped: nobody holds it, its time begins anew."""
        self._watched[producer] = _Watched(now, False, level, lost_at=now)

    def heard(self, producer: str, now: float) -> bool:
        """A frame arrived; True when this makes it live again."""
        watched = self._watched.get(producer)
        if watched is None:
            return False
        watched.heard = now
        if watched.level == "live":
            return False
        watched.level = "live"
        return True

    def disconnected(self, producer: str, now: float) -> Verdict | None:
        """Its connection went away; the new verdict if that changes it."""
        watched = self._watched.get(producer)
        if watched is None:
            return None
        watched.connected = False
        watched.heard = now
        if watched.level != "live":
            return None
        watched.level = "stale"
        return "stale"

    def closed(self, producer: str) -> None:
        """It said goodbye."""
        self._watched.pop(producer, None)

    def begin_anew(self, now: float) -> None:
        """The server stood still: that was nobody else's silence, and what arrived meanwhile is unread."""
        for watched in self._watched.values():
            watched.heard = now
            watched.lost_at = now

    def _next(self, watched: _Watched) -> float:
        if watched.level == "live":
            return watched.heard + self._timing.producer_stale
        if watched.level == "stale":
            return watched.heard + self._timing.producer_lost
        return watched.lost_at + self._timing.producer_crashed

    def next_deadline(self) -> float | None:
        """When `handle_timeout` has something to do; None if never."""
        return min(map(self._next, self._watched.values()), default=None)

    def handle_timeout(self, now: float) -> list[tuple[str, Verdict]]:
        """What is due: producers and what they are from now on. A crashed one is watched no longer
        until it is heard of again by `opened`."""
        due: list[tuple[str, Verdict]] = []
        for producer, watched in list(self._watched.items()):
            if self._next(watched) > now:
                continue
            if watched.connected and watched.ask is not None:
                watched.heard = max(watched.heard, watched.ask())
                if self._next(watched) > now:
                    continue
            if watched.level == "live":
                watched.level = "stale"
            elif watched.level == "stale":
                watched.level, watched.lost_at = "lost", now
            elif watched.connected:
                # Its connection still stands, so its frames would be heard: another wait, no verdict.
                watched.lost_at = now
                continue
            else:
                watched.level = "crashed"
                del self._watched[producer]
            due.append((producer, watched.level))
        return due
