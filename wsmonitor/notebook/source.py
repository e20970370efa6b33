"""An observer's way to the client: one subscription, by id or by name, told to a `Feed`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from wsmonitor.client import (
    ConnectionStatus,
    EventApplied,
    PhaseChanged,
    Subscription,
    SyncCompleted,
    Target,
    Update,
    connect,
)
from wsmonitor.client.types import SubscriptionPhase
from wsmonitor.protocol.entities import Command, Scalar
from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.ids import directory_topic
from wsmonitor.protocol.messages import CommandReply
from wsmonitor.protocol.reducer import SessionState

from .feed import Feed


class Source(Protocol):
    """Where an observer's data comes from. `ClientSource` is the real one; tests have another."""

    def start(self, feed: Feed) -> None:
        """Tell *feed* from now on, on the client's thread."""

    def live_state(self) -> SessionState | None:
        """The replica, to be read on the client's thread only."""

    def snapshot(self) -> SessionState | None:
        """A copy of the replica, from any thread; None while there is none."""

    def status(self) -> ConnectionStatus:
        """How the link is now; from any thread."""

    def reconnect_now(self) -> None:
        """Try at once, instead of waiting for the next attempt."""

    def command(
        self, name: str, chain: str, step: str, args: dict[str, Scalar], deadline: float
    ) -> Future[Command]:
        """Send a command to the session; the future is of its record."""

    def close(self) -> None:
        """Stop telling, and let go of the connection."""


class ClientSource:
    """A subscription of the process's shared connection.

    Args:
        target: a session's id (it has a ``~``), or a name: then the newest run is followed.
        url, token: as `wsmonitor.client.Target` takes them.
        name: what others see in the presence list.
    """

    def __init__(
        self, target: str, *, url: str | None, token: str | Callable[[], str] | None, name: str
    ) -> None:
        self.target = target
        self._name = name
        self._connection = connect(Target(url=url, token=token, name=name, start=False))
        self._feed: Feed | None = None
        self._directory: Subscription | None = None
        self._subscription: Subscription | None = None

    def start(self, feed: Feed) -> None:
        self._feed = feed
        self._connection.listen(feed.on_status)
        if "~" in self.target:
            self._connection.call_soon(lambda: self._bind(self.target, 0))
        else:
            topic = directory_topic(self.target)
            self._directory = self._connection.subscribe(topic, self._listed)

    # -- following a name, on the client's thread

    def _listed(self, update: Update) -> None:
        """The runs of the name changed: bind to the newest."""
        feed, directory = self._feed, self._directory
        if feed is None or directory is None:
            return
        if isinstance(update, PhaseChanged) and self._subscription is None:
            # There is no run yet: what is known of the list is all there is to tell.
            phase: SubscriptionPhase = "absent" if update.phase == "live" else update.phase
            if not (directory.state and directory.state.listings):
                feed.on_update(PhaseChanged(phase, update.reason))
        if not isinstance(update, (EventApplied, SyncCompleted)) or directory.state is None:
            return
        runs = directory.state.listings.values()
        newest = max(runs, key=lambda listing: (listing.run, listing.id), default=None)
        current = self._subscription
        if newest is not None and (current is None or current.topic != newest.id):
            self._bind(newest.id, newest.run)

    def _bind(self, session_id: str, run: int) -> None:
        old, feed = self._subscription, self._feed
        if feed is None:
            return
        feed.on_run(session_id, run)

        def told(update: Update) -> None:
            # What an earlier run's subscription still has to say is no longer of this observer.
            if self._subscription is subscription:
                feed.on_update(update)

        self._subscription = subscription = self._connection.subscribe(session_id, told)
        if old is not None:
            old.close()

    # -- from any thread

    def live_state(self) -> SessionState | None:
        return None if self._subscription is None else self._subscription.state

    def snapshot(self) -> SessionState | None:
        return None if self._subscription is None else self._subscription.snapshot()

    def status(self) -> ConnectionStatus:
        return self._connection.status

    def reconnect_now(self) -> None:
        self._connection.reconnect_now()

    def command(
        self, name: str, chain: str, step: str, args: dict[str, Scalar], deadline: float
    ) -> Future[Command]:
        if self._subscription is None:
            raise UsageError("there is no session to command yet")
        session = self._subscription.topic
        asked = self._connection.command(
            session, name, chain=chain, step=step, args=args, deadline=deadline, via=self._name
        )
        record: Future[Command] = Future()
        record.set_running_or_notify_cancel()

        def answered(reply: Future[CommandReply]) -> None:
            error = reply.exception()
            if error is None:
                record.set_result(reply.result().command)
            else:
                record.set_exception(error)

        asked.add_done_callback(answered)
        return record

    def close(self) -> None:
        self._feed = None
        self._connection.close()
