"""A blocking face on the client for commands that watch: what happened, one thing at a time.

Listeners run on the client's thread and must not block; a command writes to terminals and pipes,
which can. Between the two stands a queue with a limit. A reader that is too slow loses the oldest
items, is told how many, and the state that it is shown next is complete all the same.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from wsmonitor.client.types import (
    ConnectionStatus,
    PresenceChanged,
    SubscriptionPhase,
    SyncCompleted,
    Update,
)
from wsmonitor.protocol.entities import Session
from wsmonitor.protocol.reducer import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from wsmonitor.client import Connection
    from wsmonitor.client.follow import FollowUpdate

LIMIT: Final = 50_000
"""Items kept for a slow reader."""


@dataclass(frozen=True, slots=True)
class Linked:
    """The connection changed."""

    status: ConnectionStatus


@dataclass(frozen=True, slots=True)
class Bound:
    """The name means this run from here on."""

    session: str
    run: int


@dataclass(frozen=True, slots=True)
class Told:
    """The subscription told something.

    ``record`` is the session's own record after it, so that no state of it is ever passed over;
    ``state`` is set with `SyncCompleted`: the verified copy.
    """

    session: str
    update: Update
    record: Session | None = None
    state: SessionState | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The reader was too slow: so many items were dropped."""

    count: int


Item: TypeAlias = Linked | Bound | Told | Lost


class Feed:
    """What one target (a name or an id) and the connection tell, in order.

    Use as a context manager; `next` from one thread.

    Attributes:
        session: the id that is watched; "" while a name has no run yet.
        watching: how many watch, as the server last told.
    """

    def __init__(self, connection: Connection, target: str, *, limit: int = LIMIT) -> None:
        self.connection = connection
        self.target = target
        self.session = ""
        self.run = 0
        self.watching = 0
        self._limit = limit
        self._items: deque[Item] = deque()
        self._dropped = 0
        self._ready = threading.Condition()
        self._stops: list[Callable[[], None]] = []
        self._following = threading.Event()

    def __enter__(self) -> Feed:
        from wsmonitor.client.follow import follow

        self._stops.append(self.connection.listen(lambda status: self._put(Linked(status))))
        self._follower = follow(self.connection, self.target, self._listen)
        self._following.set()
        self._stops.append(self._follower.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stop in self._stops:
            stop()

    def next(self, timeout: float | None) -> Item | None:
        """The next item; None when there was none for *timeout* seconds."""
        with self._ready:
            # In slices, because a wait without an end cannot be interrupted on every platform.
            deadline = None if timeout is None else time.monotonic() + timeout
            while not self._items and not self._dropped:
                left = 60.0 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return None
                self._ready.wait(min(left, 60.0))
            if self._dropped:
                count, self._dropped = self._dropped, 0
                return Lost(count)
            return self._items.popleft()

    @property
    def phase(self) -> SubscriptionPhase:
        """How the subscription is; ``absent`` also while the name has no run yet."""
        return self._follower.phase

    def snapshot(self) -> SessionState | None:
        """The state as it is now; None while nothing was received."""
        return self._follower.snapshot()

    def _listen(self, update: FollowUpdate) -> None:
        from wsmonitor.client.follow import RunChanged

        # The first update may come while `follow` is still on its way back to `__enter__`.
        self._following.wait()
        if isinstance(update, RunChanged):
            self.session, self.run = update.session_id, update.run
            self._put(Bound(update.session_id, update.run))
            return
        if isinstance(update, PresenceChanged):
            self.watching = update.count
        live = self._follower.state
        record = live.session if live is not None else None
        state = live.copy() if live is not None and isinstance(update, SyncCompleted) else None
        self._put(Told(self.session, update, record, state))

    def _put(self, item: Item) -> None:
        with self._ready:
            if len(self._items) >= self._limit:
                self._items.popleft()
                self._dropped += 1
            self._items.append(item)
            self._ready.notify()
