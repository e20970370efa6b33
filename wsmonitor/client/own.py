"""The runs that this process itself has begun, and that no directory has told it about yet.

Who publishes a run and then watches its name means that run. The server's directory tells it a moment
later, and much later while the link is down; until then the newest run that it lists is an older
one, whose end must not be taken for this one's. So publications note here, on the caller's thread,
which run they begin, and followers of the name count it as the newest from that moment on: the server
numbers runs in the order in which it hears of them, so one that it has not listed is newer than all
that it has.

An entry goes when the directory lists the run, or when it turns out that there will be none.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

REMEMBERED: Final = 10_000
"""Runs that are remembered as begun, and names of which one is awaited; the oldest are forgotten."""

_Place = tuple[object, ...]
_Listener = Callable[[str | None], None]
_V = TypeVar("_V")


class OwnRuns:
    """See the module's docstring. Thread-safe; a *place* is a server, whatever the credentials."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: OrderedDict[tuple[_Place, str], None] = OrderedDict()
        self._awaited: OrderedDict[tuple[_Place, str], str] = OrderedDict()
        self._listeners: dict[tuple[_Place, str], list[_Listener]] = {}

    def begun(self, place: _Place, name: str, session_id: str) -> None:
        """A run of *name* is published from here. Said again (after a loss), it changes nothing."""
        with self._lock:
            if (place, session_id) in self._begun:
                return
            _remember(self._begun, (place, session_id), None)
            _remember(self._awaited, (place, name), session_id)
            listeners = tuple(self._listeners.get((place, name), ()))
        for listener in listeners:
            listener(session_id)

    def awaited(self, place: _Place, name: str) -> str | None:
        """The newest run of *name* that was begun here and is not listed yet."""
        with self._lock:
            return self._awaited.get((place, name))

    def listed(self, place: _Place, name: str, session_id: str) -> None:
        """The directory has the run: whoever follows it now learns the newest from there."""
        with self._lock:
            if self._awaited.get((place, name)) == session_id:
                del self._awaited[place, name]

    def withdrawn(self, place: _Place, name: str, session_id: str) -> None:
        """The server has not taken the run, and will not: the name means an older one again."""
        with self._lock:
            if self._awaited.get((place, name)) != session_id:
                return
            del self._awaited[place, name]
            listeners = tuple(self._listeners.get((place, name), ()))
        for listener in listeners:
            listener(None)

    def listen(self, place: _Place, name: str, listener: _Listener) -> Callable[[], None]:
        """Be told, on any thread, of a run that is begun, or by None of a withdrawal. Gives what ends it."""
        key = (place, name)
        with self._lock:
            self._listeners.setdefault(key, []).append(listener)

        def stop() -> None:
            with self._lock:
                kept = [other for other in self._listeners.get(key, ()) if other is not listener]
                if kept:
                    self._listeners[key] = kept
                else:
                    self._listeners.pop(key, None)

        return stop

    def forked(self) -> None:
        """In a forked child: the parent's followers are not ours, and nobody holds the lock any more.

        What the parent has begun stays: a child that watches the name means the same run.
        """
        self._lock = threading.Lock()
        self._listeners = {}


def _remember(kept: OrderedDict[tuple[_Place, str], _V], key: tuple[_Place, str], value: _V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)


own_runs: Final = OwnRuns()
