"""Follow a session by its name: always the newest run, and visibly so.

A target that holds ``~`` is an id, which pins one run. Anything else is a name: its directory topic is
subscribed, the newest run is watched, and when a newer one starts the follower switches, and
says so with `RunChanged` before any update of the new run. A run that this very process has begun
is the newest from that moment on, also before the directory tells it (see `own`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.ids import check_session_id, directory_topic
from wsmonitor.protocol.reducer import SessionState

from .own import own_runs
from .subscription import Counters, Delivery
from .types import BatchApplied, EventApplied, PhaseChanged, PresenceChanged, SubscriptionPhase, SyncCompleted
from .types import Update as SubscriptionUpdate

if TYPE_CHECKING:
    from .connection import Connection
    from .handles import Subscription


@dataclass(frozen=True, slots=True)
class RunChanged:
    """From here on the updates are those of another run.

    Attributes:
        session_id: the run that is followed now.
        run: its number among the runs of its name; 0 while it is not known (a pinned id, or a run of this
            process that the server has not numbered yet): it is told again with the number.
        previous: the run that was followed before; None for the first.
    """

    session_id: str
    run: int
    previous: str | None


FollowUpdate: TypeAlias = SubscriptionUpdate | RunChanged


def is_id(target: str) -> bool:
    """Whether *target* names one run by its id, and not a name."""
    return "~" in target


def follow(
    conn: Connection,
    target: str,
    listener: Callable[[FollowUpdate], None] | None = None,
    *,
    delivery: Delivery = "all",
    interval_ms: int = 1000,
) -> Follower:
    """Watch the newest run of a name, or one run by its id. Returns at once.

    Args:
        conn: the connection to watch through.
        target: a name, or a session id (with ``~``).
        listener: called with each update on the runner's thread.
        delivery, interval_ms: as for `Connection.subscribe`.

    Raises:
        InvalidIdError: the target has characters that an id may not have.
    """
    return Follower(conn, target, listener, delivery, interval_ms)


class Follower:
    """A subscription that changes its session as newer runs start. Made by `follow`."""

    def __init__(
        self,
        conn: Connection,
        target: str,
        listener: Callable[[FollowUpdate], None] | None,
        delivery: Delivery,
        interval_ms: int,
    ) -> None:
        self.target = target
        self.session_id: str | None = None
        self.run = 0
        self._conn = conn
        self._listener = listener
        self._delivery: Delivery = delivery
        self._interval_ms = interval_ms
        self._closed = False
        self._session: Subscription | None = None
        self._names: Subscription | None = None
        self._told: PhaseChanged | None = None
        self._previous: str | None = None
        self._own: str | None = None  # a run of this process that the directory has not listed yet
        self._stop_own: Callable[[], None] | None = None
        self._by_id = is_id(target)
        if self._by_id:
            check_session_id(target)
            self.session_id = target
        # On the runner's thread: where the topic is subscribed already, the first updates come
        # at once, and must find the subscription in its place.
        conn.call_soon(self._begin)

    def __repr__(self) -> str:
        return f"<Follower of {self.target!r}: {self.session_id} {self.phase}>"

    @property
    def pinned(self) -> bool:
        """Whether one run is watched for good."""
        return self._by_id

    @property
    def subscription(self) -> Subscription | None:
        """The subscription of the run that is followed now; None before there is one."""
        return self._session

    @property
    def phase(self) -> SubscriptionPhase:
        """As `Subscription.phase`; ``absent`` also while no run of the name is known."""
        if self._closed:
            return "closed"
        if self._session is not None:
            return self._session.phase
        if self._names is None:
            return "waiting"
        phase = self._names.phase
        return "absent" if phase == "live" else phase

    @property
    def reason(self) -> str:
        """Why it is in this phase, in words."""
        current = self._session or self._names
        return "" if current is None else current.reason

    @property
    def position(self) -> tuple[str, int] | None:
        """The verified ``(epoch, seq)`` in the run that is followed."""
        return None if self._session is None else self._session.position

    @property
    def state(self) -> SessionState | None:
        """The live replica of the run. Only on the runner's thread; never write it."""
        return None if self._session is None else self._session.state

    def snapshot(self) -> SessionState | None:
        """A copy of the verified replica, from any thread."""
        return None if self._session is None else self._session.snapshot()

    @property
    def presence(self) -> PresenceChanged:
        """Who watches the run."""
        return PresenceChanged(0, ()) if self._session is None else self._session.presence

    @property
    def counters(self) -> Counters:
        """What happened so far in the run that is followed."""
        return Counters() if self._session is None else self._session.counters

    def close(self) -> None:
        """Stop watching. The last thing that the listener hears is ``PhaseChanged("closed")``."""
        if self._closed:
            return
        self._closed = True
        if self._stop_own is not None:
            self._stop_own()
        for subscription in (self._session, self._names):
            if subscription is not None:
                subscription.close()
        self._conn.call_soon(lambda: self._tell(PhaseChanged("closed")))

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- on the runner's thread

    def _begin(self) -> None:
        if self._closed or self._conn.closed:
            return
        if self._by_id:
            self._session = self._conn.subscribe(
                self.target, self._pinned, delivery=self._delivery, interval_ms=self._interval_ms
            )
        else:
            self._names = self._conn.subscribe(directory_topic(self.target), self._directory)
            self._stop_own = own_runs.listen(self._conn.place, self.target, self._own_begun)
            self._own_run(own_runs.awaited(self._conn.place, self.target))
            if self._closed:  # by another thread, before there was anything to stop
                self._stop_own()

    def _own_begun(self, session_id: str | None) -> None:
        self._conn.call_soon(lambda: self._own_run(session_id))

    def _own_run(self, session_id: str | None) -> None:
        self._own = session_id
        self._choose()

    def _pinned(self, update: SubscriptionUpdate) -> None:
        self._number(update)
        if not (isinstance(update, PhaseChanged) and update.phase == "closed"):
            self._tell(update)

    def _number(self, update: SubscriptionUpdate) -> None:
        """Say which run it is, if that was not known before."""
        if self.run == 0 and isinstance(update, (SyncCompleted, EventApplied, BatchApplied)):
            state = self.state
            session = None if state is None else state.session
            if session is not None and session.run and self.session_id is not None:
                self.run = session.run
                self._tell(RunChanged(self.session_id, self.run, self._previous))

    def _directory(self, update: SubscriptionUpdate) -> None:
        if self._closed:
            return
        match update:
            case SyncCompleted() | EventApplied() | BatchApplied():
                self._choose()
            case PhaseChanged(phase, reason) if self._session is None:
                self._tell(PhaseChanged("absent" if phase == "live" else phase, reason))

    def _choose(self) -> None:
        names = self._names
        state = None if names is None or self._closed else names.state
        if state is None:
            return
        if self._own in state.listings:
            listed, self._own = self._own, None
            own_runs.listed(self._conn.place, self.target, listed)
        if self._own is not None:
            # What is listed came to the server before it, and is older.
            self._bind(self._own, 0)
            return
        newest = max(state.listings.values(), key=_age, default=None)
        if newest is None:
            return
        known = state.listings.get(self.session_id or "")
        if known is None or _age(newest) > _age(known):
            self._bind(newest.id, newest.run)

    def _bind(self, session_id: str, run: int) -> None:
        if session_id == self.session_id:
            return
        self._previous, self.session_id, self.run = self.session_id, session_id, run
        old, self._session = self._session, None
        if old is not None:
            old.close()
        self._tell(RunChanged(session_id, run, self._previous))
        self._session = self._conn.subscribe(
            session_id, self._of(session_id), delivery=self._delivery, interval_ms=self._interval_ms
        )

    def _of(self, session_id: str) -> Callable[[SubscriptionUpdate], None]:
        def told(update: SubscriptionUpdate) -> None:
            # What still comes from the run before must not mix with the new one's.
            if self._closed or session_id != self.session_id:
                return
            self._number(update)
            if not (isinstance(update, PhaseChanged) and update.phase == "closed"):
                self._tell(update)

        return told

    def _tell(self, update: FollowUpdate) -> None:
        if isinstance(update, PhaseChanged):
            if update == self._told:
                return
            self._told = update
        if self._listener is not None:
            self._listener(update)


def _age(listing: Listing) -> tuple[int, int, str]:
    return (listing.run, int(listing.created or 0), listing.id)


__all__ = ["FollowUpdate", "Follower", "RunChanged", "follow", "is_id"]
