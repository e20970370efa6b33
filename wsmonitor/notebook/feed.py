"""What one observer is told by the client, on its way to the view, the traits and those who wait.

The client's thread puts in; it is never kept waiting. The sender's thread takes out, with `drain`:
it alone touches the view.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from wsmonitor.client.types import (
    BatchApplied,
    ConnectionStatus,
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SyncCompleted,
    SyncStarted,
    Update,
)
from wsmonitor.protocol.entities import Entity, ErrorInfo, Session
from wsmonitor.protocol.errors import ConnectionFailedError
from wsmonitor.protocol.reducer import SessionState

from .chronicle import Chronicle
from .facts import Facts, Watch
from .view import Now, View

INBOX_LIMIT: Final = 20_000
"""Updates that may wait for a sender that does not come (a call that holds the interpreter lock).
Beyond it they are given up for one look at the whole replica."""

ERROR_LIMIT: Final = 100

_Whole: TypeAlias = tuple[tuple[str, Entity], ...]


def now() -> Now:
    """The present, on both clocks."""
    return Now(time.monotonic(), time.time())


class Feed:
    """See the module's docstring.

    Args:
        view: what is shown.
        state: the live replica, to be read on the client's thread only.
        changed: called after every change, on the client's thread.
        clock: both clocks' present.
    """

    def __init__(
        self,
        view: View,
        state: Callable[[], SessionState | None],
        changed: Callable[[], None],
        clock: Callable[[], Now] = now,
    ) -> None:
        self.view = view
        self.watch = Watch()
        self.chronicle = Chronicle()
        self.status = ConnectionStatus()
        self.presence = 0
        self.errors: deque[ErrorInfo] = deque(maxlen=ERROR_LIMIT)
        self.errors_told = 0
        self.flooded = 0  # how often the inbox was given up
        self._state = state
        self._changed = changed
        self._clock = clock
        self._inbox: deque[Callable[[View, Now], None]] = deque()

    # -- the client's thread

    def on_status(self, status: ConnectionStatus) -> None:
        """The link's status is another."""
        old, self.status = self.status, status
        moment = self._clock()
        if not status.live:
            self.watch.current(False)
        if status.phase in ("waiting", "failed") and (status.phase, status.attempt) != (
            old.phase,
            old.attempt,
        ):
            self.report(
                status.code or "unreachable",
                status.reason or "no connection",
                retryable=status.phase == "waiting",
            )
        if (status.phase, status.attempt) != (old.phase, old.attempt):
            self._note(moment, "connection", status.phase, status.reason)
        if (status.degraded is None) != (old.degraded is None) and status.live:
            degraded = status.degraded
            self._note(moment, "connection", *(("degraded", degraded.reason) if degraded else ("live", "")))
        if status.phase == "failed":
            self.watch.end(ConnectionFailedError(status.code, status.reason or status.code))
        self._put(lambda view, _: view.connection(status, moment))

    def on_run(self, session_id: str, run: int) -> None:
        """The name that is watched means this run now."""
        moment = self._clock()
        switched = self.watch.facts.session_id not in ("", session_id)
        if switched:
            self.watch.tell(lambda _: Facts())
            self.chronicle.restart()
        self._put(lambda view, _: view.bound(session_id, run, switched, moment))

    def on_update(self, update: Update) -> None:
        """Something happened to the subscription."""
        moment = self._clock()
        match update:
            case EventApplied(event, entity):
                self.chronicle.applied(event, entity)
                self._put(lambda view, _: view.applied(event, entity))
                self._verified(event.seq, entity)
            case SyncCompleted(epoch, seq, previous, reset):
                self._take_whole(epoch, seq)
                again = previous is not None
                state = self._state()
                if reset:
                    self.chronicle.restart()
                ident = "" if state is None else state.topic
                self._note(moment, "sync", "verified", f"full state at event {seq}", ident)
                self._put(lambda view, _: view.synced(epoch, seq, reset, again, moment))
            case EventsReplayed(events):
                self.chronicle.replayed(events)
                self._put(lambda view, _: view.replayed(events))
            case GapFound(first, last):
                self._note(moment, "gap", "", f"events {first} to {last} are no longer kept")
                self._put(lambda view, _: view.gap(first, last, moment))
            case PhaseChanged(phase, reason):
                if phase == "live":
                    self.watch.current(True)
                elif phase != "absent":
                    self.watch.current(False)
                if phase == "not_available":
                    self.report("not_available", reason or "the session is not available")
                self._put(lambda view, _: view.subscription(phase, reason, moment))
            case PresenceChanged(count, names):
                self.presence = count
                self._put(lambda view, _: view.presence(count, names))
            case BatchApplied() | SyncStarted():
                pass

    def _note(self, moment: Now, kind: str, state: str, text: str, ident: str = "") -> None:
        self.chronicle.link(moment.at(self.status.clock_offset), kind, state, text, ident)

    def _verified(self, seq: int, entity: Entity | None) -> None:
        if isinstance(entity, Session):
            session = entity
            detail = session.error.message if session.error is not None else session.reason
            self.watch.tell(
                lambda facts: replace(
                    facts, session_id=session.id, seq=seq, state=session.state, detail=detail
                )
            )
        else:
            self.watch.tell(lambda facts: replace(facts, seq=seq))

    def _take_whole(self, epoch: str, seq: int) -> None:
        state = self._state()
        if state is None:
            return
        entities: _Whole = tuple(state)
        self._put(lambda view, _: view.replace(entities, epoch, seq))
        session = state.session
        if session is not None:
            detail = session.error.message if session.error is not None else session.reason
            self.watch.tell(lambda _: Facts(session.id, seq, session.state, detail, True))

    def report(self, code: str, message: str, *, retryable: bool = False, traceback: str = "") -> None:
        """Something is to be seen in the observer's errors."""
        details = {"traceback": traceback} if traceback else {}
        self.errors.append(ErrorInfo(code=code, message=message, retryable=retryable, details=details))
        self.errors_told += 1
        self._changed()

    def _put(self, change: Callable[[View, Now], None]) -> None:
        if len(self._inbox) >= INBOX_LIMIT:
            self.flooded += 1
            self._inbox.clear()
            state = self._state()
            if state is not None:
                entities, epoch, seq = tuple(state), state.epoch, state.seq
                self._inbox.append(lambda view, _: view.replace(entities, epoch, seq))
        self._inbox.append(change)
        self._changed()

    # -- the sender's thread

    def drain(self, moment: Now) -> bool:
        """Bring the view up to date; whether there was anything."""
        busy = False
        while self._inbox:
            try:
                change = self._inbox.popleft()
            except IndexError:  # given up by the client's thread in between
                break
            change(self.view, moment)
            busy = True
        return busy
