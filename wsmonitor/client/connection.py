"""The client's public handles: one shared connection per (server, credentials), many users.

Everything here may be called from any thread. Listeners are called on the runner's thread, one at a
time and in order; they must return quickly.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Scalar
from wsmonitor.protocol.errors import ConnectionFailedError, UsageError, WaitTimeoutError, WsMonitorError
from wsmonitor.protocol.ids import check_id, check_session_id, check_topic
from wsmonitor.protocol.messages import (
    ClientMessage,
    CommandReply,
    CommandRequest,
    HistoryGet,
    HistoryPage,
    LogsGet,
    LogsPage,
    ServerMessage,
    Status,
    StatusGet,
    ValueGet,
    ValuePage,
)

from . import runner as runners
from .driver import Lasting
from .handles import Subscription
from .publishing import Publication
from .resolve import resolver_for
from .shared import SharedConnection, acquire, release
from .subscription import Delivery
from .types import ConnectionStatus, PublicationListener, Target, Update

if TYPE_CHECKING:
    from .spoolfile import SpoolFile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ValueBytes:
    """A page of a large value.

    Attributes:
        data: the bytes from ``offset``.
        offset: where they begin.
        total: bytes of the whole value.
        mime: its type, where the server knows it.
    """

    data: bytes
    offset: int
    total: int
    mime: str = ""


def connect(target: Target | None = None, *, timing: Timing | None = None) -> Connection:
    """A handle on the connection to a server; returns at once, and connects in the background.

    All handles of a process for the same server and credentials share one WebSocket. It is closed
    when the last of them is.

    Args:
        target: which server, and with what credentials. By default what the environment says, else
            the running local server.
        timing: other times than the defaults, mainly for tests; counts for the first handle.

    Raises:
        ConfigurationError: the address is not a WebSocket address, or `Target.ssl` does not fit it.
        InsecureError: a token would go unencrypted to another machine.
    """
    target = target or Target()
    key, resolver = resolver_for(target)
    shared = acquire(key, resolver, target.name, timing)
    if target.start and shared.resolver.allow_start():
        # It has been looking only, so far: now that it may start one, there is nothing to wait for.
        shared.input(shared.core.link.reconnect_now)
    return Connection(shared)


@asynccontextmanager
async def aconnect(
    target: Target | None = None, *, timing: Timing | None = None
) -> AsyncIterator[Connection]:
    """`connect` for ``async with``: closes without blocking the caller's loop.

    Futures are awaited with `asyncio.wrap_future`, updates read with `Subscription.updates`.
    """
    async with connect(target, timing=timing) as connection:
        yield connection


class Connection:
    """A handle on a shared connection. Use it as a context manager, sync or async, or `close` it."""

    def __init__(self, shared: SharedConnection) -> None:
        self._shared = shared
        self._subscriptions: dict[Subscription, None] = {}  # ordered: closed as they came
        self._publications: dict[Publication, None] = {}
        self._stops: dict[Callable[[], None], None] = {}
        self._closed = False

    def __repr__(self) -> str:
        status = self.status
        return f"<Connection {status.phase} {status.url or 'to the local server'}>"

    @property
    def status(self) -> ConnectionStatus:
        """How the link is. Immutable; safe to read from any thread."""
        link = self._shared.core.link
        return replace(link.status, last_frame_at=link.last_frame)

    @property
    def closed(self) -> bool:
        """Whether this handle was closed, or belongs to a parent process."""
        return self._closed or self._shared.abandoned

    @property
    def place(self) -> tuple[object, ...]:
        """The server that this leads to, whatever the credentials: the same for the same server's handles."""
        return self._shared.place

    @property
    def on_runner(self) -> bool:
        """Whether the caller is on the runner's thread, where nothing may block."""
        return self._shared.runner.here

    def listen(self, fn: Callable[[ConnectionStatus], None]) -> Callable[[], None]:
        """Be told of every change of the status, on the runner's thread. Gives what ends it.

        The present status is told first.
        """
        listeners = self._shared.core.status_listeners
        active = threading.Event()
        active.set()

        def tell(status: ConnectionStatus) -> None:
            if active.is_set():
                fn(replace(status, last_frame_at=self._shared.core.link.last_frame))

        def begin() -> None:
            if active.is_set():
                listeners.append(tell)
                tell(self._shared.core.link.status)

        def stop() -> None:
            active.clear()
            self._stops.pop(stop, None)
            self.call_soon(lambda: listeners.remove(tell) if tell in listeners else None)

        self._stops[stop] = None
        self.call_soon(begin)
        return stop

    def wait_for(
        self, condition: Callable[[ConnectionStatus], bool], timeout: float | None = None
    ) -> ConnectionStatus:
        """Block until *condition* holds for the status. Not on the runner's thread.

        Raises:
            WaitTimeoutError: it did not within *timeout* seconds; says how the link is.
        """
        self._may_block()
        with self._shared.lock:
            if not self._shared.changed.wait_for(lambda: condition(self.status), timeout):
                status = self.status
                raise WaitTimeoutError(
                    f"the connection is {status.phase} after {timeout:g} s"
                    + (f": {status.reason}" if status.reason else "")
                )
            return self.status

    def wait_live(self, timeout: float | None = 30.0) -> ConnectionStatus:
        """Block until the link is live.

        Raises:
            ConnectionFailedError: it failed for good.
            WaitTimeoutError: it was not live within *timeout* seconds.
        """
        status = self.wait_for(lambda s: s.phase in ("live", "failed", "closed"), timeout)
        if status.phase != "live":
            raise ConnectionFailedError(status.code, status.reason or f"the connection is {status.phase}")
        return status

    # -- watching

    def subscribe(
        self,
        topic: str,
        listener: Callable[[Update], None] | None = None,
        *,
        delivery: Delivery = "all",
        interval_ms: int = 1000,
    ) -> Subscription:
        """Watch a session, by its id, or a directory topic. Returns at once.

        Args:
            topic: a session id or ``/directory`` or ``/directory/NAME``.
            listener: called with each `Update` on the runner's thread.
            delivery: "all" events, or batches of the "latest" states.
            interval_ms: the least time between two batches.

        Raises:
            InvalidIdError: the topic has characters that a session's id or name may not have.
        """
        self._usable()
        check_topic(topic)
        handle = Subscription(self, topic, listener, delivery, interval_ms)
        self._subscriptions[handle] = None
        self.call_soon(lambda: self._shared.attach(handle))
        return handle

    # -- publishing

    def publication(
        self,
        session: str,
        producer: str,
        listener: PublicationListener,
        *,
        agent: str = "",
        limit_changes: int = 50_000,
        limit_bytes: int = 32 * 1024 * 1024,
        keep: bool = False,
    ) -> Publication:
        """Publish as *producer* of *session*: a spool that empties itself when the link is up.

        Args:
            keep: whether what cannot be delivered is kept on disk, for ``wsmonitor spool flush``; without
                effect where the server is one inside this process.

        Raises:
            InvalidIdError: the session's or the producer's id has characters that ids may not have.
            UsageError: this connection publishes as that producer already.
        """
        self._usable()
        check_session_id(session)
        check_id(producer, "producer id")
        if any((p.session, p.producer) == (session, producer) for p in tuple(self._publications)):
            raise UsageError(f"this connection publishes as {producer!r} of {session!r} already")
        keep_for = self._shared.resolver.lasting() if keep else None
        limits = {"limit_changes": limit_changes, "limit_bytes": limit_bytes}
        handle = Publication(self, session, producer, listener, agent, limits, keep_for)
        self._publications[handle] = None
        return handle

    def publish_kept(self, file: SpoolFile, listener: PublicationListener) -> Publication:
        """Publish what an earlier process had left in *file*, as that process.

        Raises:
            SpoolError: the file cannot be read.
        """
        self._usable()
        facts = file.facts
        keep_for = Lasting(facts.url, facts.ca, facts.insecure)
        handle = Publication(self, facts.session, facts.producer, listener, facts.agent, {}, keep_for, file)
        self._publications[handle] = None
        return handle

    # -- requests

    def request(self, build: Callable[[int], ClientMessage], timeout: float = 30.0) -> Future[ServerMessage]:
        """Send a request, as soon as the link is live, and never twice.

        Args:
            build: makes the message, given its request number.
            timeout: seconds, the wait for the link included.

        Returns:
            a future of the answer. It fails with `RequestError` (refused), `ConnectionFailedError`
            (the link was lost before the answer came) or `RequestTimeoutError`.
        """
        self._usable()
        future: Future[ServerMessage] = Future()
        future.set_running_or_notify_cancel()

        def answered(message: ServerMessage) -> None:
            future.set_result(message)

        def failed(error: WsMonitorError) -> None:
            future.set_exception(error)

        core = self._shared.core
        if not self._shared.runner.call_soon(
            lambda: self._shared.driver.input(core.request, build, answered, failed, timeout)
        ):
            failed(ConnectionFailedError("connection_lost", "the connection is closed"))
        return future

    def command(
        self,
        session: str,
        name: str,
        *,
        chain: str = "",
        step: str = "",
        args: Mapping[str, Scalar] | None = None,
        key: str | None = None,
        deadline: float = 30.0,
        via: str = "",
        timeout: float = 30.0,
    ) -> Future[CommandReply]:
        """Ask a session's producer to do something; the future has the record as it was made.

        What becomes of the command is told to all subscribers of the session by its record.

        Args:
            key: the idempotency key, 32 hexadecimal digits: the same key is the same command, so it
                is safe to send again. By default a new one.
            deadline: seconds from now after which it must no longer be accepted.
            via: what the asking program calls itself.
        """
        return cast(
            "Future[CommandReply]",
            self.request(
                lambda request: CommandRequest(
                    request=request,
                    session=session,
                    key=key or secrets.token_hex(16),
                    name=name,
                    chain=chain,
                    step=step,
                    args=dict(args or {}),
                    deadline_ms=max(1, round(deadline * 1000)),
                    via=via,
                ),
                timeout,
            ),
        )

    def fetch_value(
        self, session: str, sha256: str, offset: int = 0, length: int = 262_144, *, timeout: float = 30.0
    ) -> Future[ValueBytes]:
        """Read a page of a large value: up to *length* bytes from *offset*."""
        asked = self.request(
            lambda request: ValueGet(
                request=request, session=session, sha256=sha256, offset=offset, length=length
            ),
            timeout,
        )

        def page(message: ServerMessage) -> ValueBytes:
            assert isinstance(message, ValuePage)
            return ValueBytes(base64.b64decode(message.data), message.offset, message.total, message.mime)

        return _then(asked, page)

    def fetch_logs(
        self, session: str, step: str, first: int = 1, limit: int = 256, *, timeout: float = 30.0
    ) -> Future[LogsPage]:
        """Read log records of a step, from number *first*."""
        return cast(
            "Future[LogsPage]",
            self.request(
                lambda request: LogsGet(
                    request=request, session=session, step=step, first=first, limit=limit
                ),
                timeout,
            ),
        )

    def fetch_history(
        self, session: str, first: int = 1, limit: int = 256, *, timeout: float = 30.0
    ) -> Future[HistoryPage]:
        """Read kept events of a session, from *first*."""
        return cast(
            "Future[HistoryPage]",
            self.request(
                lambda request: HistoryGet(request=request, session=session, first=first, limit=limit),
                timeout,
            ),
        )

    def server_status(self, *, timeout: float = 30.0) -> Future[dict[str, Any]]:
        """Ask the server for its state."""
        asked = self.request(lambda request: StatusGet(request=request), timeout)
        return _then(asked, lambda message: cast(Status, message).info)

    # -- the rest

    def reconnect_now(self) -> None:
        """Do not wait for the next attempt. From ``failed``, too, this tries again."""
        self._shared.input(self._shared.core.link.reconnect_now)

    def call_soon(self, fn: Callable[[], None]) -> bool:
        """Run *fn* on the runner's thread, soon. False when there is none any more."""
        return not self._shared.abandoned and self._shared.runner.call_soon(fn)

    def call_later(self, delay: float, fn: Callable[[], None]) -> Callable[[], None]:
        """Run *fn* on the runner's thread after *delay* seconds; gives what cancels it."""
        return self._shared.runner.call_later(delay, fn)

    def close(self, timeout: float = 2.0) -> None:
        """Close what was opened through this handle, and the link if nobody else uses it.

        Waits up to *timeout* seconds until nothing remains (not on the runner's thread).
        """
        if self._closed:
            return
        self._closed = True
        shared = self._shared
        if shared.abandoned:
            return
        for subscription in tuple(self._subscriptions):
            subscription.close()
        for publication in tuple(self._publications):
            publication._abandon()
        for stop in tuple(self._stops):
            stop()
        if not release(shared) or timeout <= 0 or shared.runner.here:
            return
        if shared.ended.wait(timeout) and runners.current() is not shared.runner:
            shared.runner.join(timeout)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)

    def _usable(self) -> None:
        if self._shared.abandoned:
            raise UsageError("this connection belongs to the parent process; connect again after a fork")
        if self._closed:
            raise UsageError("this connection is closed")

    def _may_block(self) -> None:
        if self._shared.runner.here:
            raise UsageError("this would block the connection's own thread; use a callback instead")


def _then(asked: Future[ServerMessage], convert: Callable[[ServerMessage], T]) -> Future[T]:
    """A future of what *convert* makes of the answer."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()

    def done(future: Future[ServerMessage]) -> None:
        error = future.exception()
        if error is not None:
            result.set_exception(error)
            return
        try:
            result.set_result(convert(future.result()))
        except Exception as exc:  # noqa: BLE001  # told to the one who waits
            result.set_exception(exc)

    asked.add_done_callback(done)
    return result
