"""An observer's way to the client: one subscription, by id or by name, told to a `Feed`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Protocol

from wsmonitor.client import ConnectionStatus, Target, ValueBytes, connect
from wsmonitor.client.follow import Follower, FollowUpdate, RunChanged, follow
from wsmonitor.client.types import Ssl
from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.entities import Command, Scalar
from wsmonitor.protocol.errors import ConnectionFailedError, UsageError, WsMonitorError
from wsmonitor.protocol.messages import CommandReply, Event, LogsPage
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

    def call_soon(self, fn: Callable[[], None]) -> bool:
        """Run *fn* on the client's thread, after all that was begun before; False when that has ended."""

    def command(
        self,
        name: str,
        chain: str,
        step: str,
        args: dict[str, Scalar],
        deadline: float,
        *,
        session: str = "",
        key: str | None = None,
    ) -> Future[Command]:
        """Send a command; the future is of its record.

        *session*: the id of the run that is meant, by default the one that is followed now; *key*: see
        `Connection.command`. Raises `UsageError` when there is no session.
        """

    def fetch_value(self, session: str, sha256: str, offset: int, length: int) -> Future[ValueBytes]:
        """Read a page of a large value of the run *session*."""

    def fetch_logs(self, session: str, step: str, first: int, limit: int) -> Future[LogsPage]:
        """Read log records of a step of the run *session*, from number *first*."""

    def history(self, timeout: float) -> list[Event]:
        """The events that the server keeps of this session, oldest first; none where it cannot be asked."""

    def close(self) -> None:
        """Stop telling, and let go of the connection."""


class ClientSource:
    """A subscription of the process's shared connection.

    Args:
        target: a session's id (it has a ``~``), or a name: then the newest run is followed.
        url, token, ssl, insecure: as `wsmonitor.client.Target` takes them.
        name: what others see in the presence list.
    """

    def __init__(
        self,
        target: str,
        *,
        url: str | None,
        token: str | Callable[[], str] | None,
        name: str,
        ssl: Ssl | None = None,
        insecure: bool | None = None,
    ) -> None:
        self.target = target
        self._name = name
        self._connection = connect(
            Target(url=url, token=token, name=name, start=False, ssl=ssl, insecure=insecure)
        )
        self._feed: Feed | None = None
        self._follower: Follower | None = None

    def start(self, feed: Feed) -> None:
        self._feed = feed
        self._connection.listen(feed.on_status)
        # On the client's thread: the first update must find the follower in its place.
        self._connection.call_soon(self._begin)

    def _begin(self) -> None:
        if self._feed is not None:
            self._follower = follow(self._connection, self.target, self._told)

    def _told(self, update: FollowUpdate) -> None:
        if self._feed is None:
            return
        if isinstance(update, RunChanged):
            self._feed.on_run(update.session_id, update.run)
        else:
            self._feed.on_update(update)

    # -- from any thread

    def live_state(self) -> SessionState | None:
        return None if self._follower is None else self._follower.state

    def snapshot(self) -> SessionState | None:
        return None if self._follower is None else self._follower.snapshot()

    def status(self) -> ConnectionStatus:
        return self._connection.status

    def reconnect_now(self) -> None:
        self._connection.reconnect_now()

    def call_soon(self, fn: Callable[[], None]) -> bool:
        return self._connection.call_soon(fn)

    def command(
        self,
        name: str,
        chain: str,
        step: str,
        args: dict[str, Scalar],
        deadline: float,
        *,
        session: str = "",
        key: str | None = None,
    ) -> Future[Command]:
        follower = self._follower
        if not session and (follower is None or follower.session_id is None):
            raise UsageError("there is no session to command yet")
        record: Future[Command] = Future()
        record.set_running_or_notify_cancel()

        def answered(reply: Future[CommandReply]) -> None:
            error = reply.exception()
            if error is None:
                record.set_result(reply.result().command)
            else:
                record.set_exception(error)

        def ask() -> None:
            # Behind what was begun on this thread before: a run that the server has just refused to take
            # is not the one that is meant.
            meant = session or (follower.session_id if follower is not None else None) or ""
            self._connection.command(
                meant, name, chain=chain, step=step, args=args, key=key, deadline=deadline, via=self._name
            ).add_done_callback(answered)

        if not self._connection.call_soon(ask):
            record.set_exception(ConnectionFailedError("connection_lost", "the connection is closed"))
        return record

    def fetch_value(self, session: str, sha256: str, offset: int, length: int) -> Future[ValueBytes]:
        return self._connection.fetch_value(session, sha256, offset, length)

    def fetch_logs(self, session: str, step: str, first: int, limit: int) -> Future[LogsPage]:
        return self._connection.fetch_logs(session, step, first, limit)

    def history(self, timeout: float) -> list[Event]:
        session = None if self._follower is None else self._follower.session_id
        if session is None or not self._connection.status.live or self._connection.on_runner:
            return []
        deadline = monotonic() + timeout
        events: list[Event] = []
        first = 1
        try:
            while True:
                left = max(0.001, deadline - monotonic())
                page = self._connection.fetch_history(session, first, 1000, timeout=left).result(left)
                events += map(decode_event, page.events)
                if not page.events or events[-1].seq >= page.head:
                    return events
                first = events[-1].seq + 1
        except (WsMonitorError, TimeoutError):
            return events

    def close(self) -> None:
        self._feed = None
        if self._follower is not None:
            self._follower.close()
        self._connection.close()
