"""The one owner of the client's socket: it drives a `ClientCore` on the runner's loop.

Time and threads are the runner's: blocking work (finding a server, asking a token provider, looking a name
up) goes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from wsmonitor.protocol.codec import encode
from wsmonitor.protocol.defaults import SUBPROTOCOL
from wsmonitor.protocol.errors import ConfigurationError, ProtocolError

from .actions import Action, Call, Disconnect, FetchToken, Locate, Open, Send, Tell
from .core import ClientCore
from .errors import NotLocatedError
from .opening import CLOSE_TIMEOUT, open_socket, refusal, words
from .reading import ReadingConnection
from .runner import Runner, log
from .trust import Trust, tls_words

WATCH_INTERVAL: Final = 1.0
"""Seconds between looks at the discovery file while there is no link: one `stat`, and no traffic."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is, and the token for it.

    Attributes:
        url: ``ws://`` or ``wss://``.
        token: what is sent in the handshake.
        looked: where a server was looked for, in words.
        renewable: whether another token can be had.
        trust: what its certificate is checked against; None without TLS.
        context: made of that.
    """

    url: str
    token: str = field(repr=False)
    looked: tuple[str, ...] = ()
    renewable: bool = False
    trust: Trust | None = None
    context: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Lasting:
    """Where another process can deliver later what this one could not.

    Attributes:
        url: the server's address; "" for this user's local server.
        ca: the PEM file that it was checked against; "" for none that can be named.
        insecure: whether it was said that tokens may go there unencrypted.
    """

    url: str = ""
    ca: str = ""
    insecure: bool = False


class Resolver(Protocol):
    """Finds the server, and tokens for it. Its methods may block: they run on threads of their own."""

    def resolve(self, *, fresh: bool) -> Endpoint:
        """Raises `NotLocatedError` (to be tried again) or `ConfigurationError` (not to be)."""

    def token(self) -> str:
        """A fresh token."""

    def allow_start(self) -> bool:
        """From now on a server may be started; True if that is new."""

    def lasting(self) -> Lasting | None:
        """Where what cannot be delivered now may be later, by another process; None where the server will not
        outlive this process."""

    def watched(self) -> str | None:
        """The file whose change says that another attempt is worth while; None when there is none."""


class Driver:
    """Carries out what one `ClientCore` asks for.

    Args:
        runner: whose loop to live on.
        core: the machines.
        lock: held while the machines work, so that other threads can read a consistent state.
        resolver: finds the server.
        ended: called on the runner's thread when nothing of this driver remains.
    """

    def __init__(
        self,
        runner: Runner,
        core: ClientCore,
        lock: contextlib.AbstractContextManager[bool],
        resolver: Resolver,
        ended: Callable[[], None],
    ) -> None:
        self._runner = runner
        self._loop = runner.loop
        self._core = core
        self._lock = lock
        self._resolver = resolver
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._ws: ReadingConnection | None = None
        self._out: deque[str | bytes] = deque()
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._arming = False
        self._performing = False
        self._watch: asyncio.TimerHandle | None = None
        self._mark: object = None
        self._lookup: asyncio.Future[Endpoint] | None = None
        self._endpoint: Endpoint | None = None
        self._closed = False

    # ------------------------------------------------------------------ from the connection

    def start(self) -> None:
        """Begin to connect. On the runner's thread."""
        self.input(self._core.link.start)

    def close(self) -> None:
        """End everything. On the runner's thread; ``ended`` is called when it is done."""
        if self._closed:
            return
        self._closed = True
        self.input(self._core.link.close)
        self._task(self._finish())

    def abandon(self) -> None:
        """In a forked child: let go of the parent's socket, without a word on it.

        The descriptor is pointed at nothing rather than closed: its number stays taken, so that
        the inherited objects cannot close somebody else's file later.
        """
        ws = self._ws
        sock = None if ws is None else ws.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nothing, sock.fileno(), inheritable=False)
        finally:
            os.close(nothing)

    def input(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Give the machines an input: *function* is called with the present moment; then act."""
        try:
            with self._lock:
                function(self._runner.now(), *args, **kwargs)
        except Exception as exc:  # noqa: BLE001  # the link shows it, and tries again
            log.exception("the connection could not handle an input")
            self._fault(exc)
        self.perform()

    def perform(self) -> None:
        """Carry out what the machines ask for, until they are at rest."""
        if self._performing:
            return  # a listener caused this; the loop below goes on
        self._performing = True
        try:
            self._carry_out()
        finally:
            self._performing = False
        if not self._arming:
            # Once per turn of the loop, however many messages arrived in it.
            self._arming = True
            self._loop.call_soon(self._arm)

    # ------------------------------------------------------------------ actions

    def _carry_out(self) -> None:
        while True:
            with self._lock:
                actions = self._core.take(self._runner.now())
            if not actions:
                break
            for action in actions:
                self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Tell():
                try:
                    action.listener(action.update)
                except Exception:  # noqa: BLE001  # it is the listener's, and logged
                    log.exception("a listener failed")
            case Call():
                try:
                    action.function()
                except Exception:  # noqa: BLE001  # it is the listener's, and logged
                    log.exception("a listener failed")
            case Send():
                self._out.append(encode(action.message))
                if not self._flushing and self._ws is not None:
                    self._flushing = True
                    self._task(self._flush(self._ws))
            case Locate():
                self._task(self._locate(action))
            case Open():
                self._connecting = self._task(self._connect(action))
            case FetchToken():
                self._task(self._fetch_token(action))
            case Disconnect():
                self._disconnect(action)

    def _disconnect(self, action: Disconnect) -> None:
        ws, self._ws = self._ws, None
        unsent = list(self._out)
        self._out.clear()
        if ws is None:
            if self._connecting is not None:
                self._connecting.cancel()
        elif action.abort:
            ws.transport.abort()
        else:
            self._task(self._close_politely(ws, action, unsent))

    async def _close_politely(
        self, ws: ReadingConnection, action: Disconnect, unsent: list[str | bytes]
    ) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                # A publication's goodbye is among these when a program ends.
                for message in unsent:
                    await ws.send(message, text=True)
                await ws.close(action.code, action.reason)
        except ConnectionClosed:
            pass
        except (TimeoutError, OSError):
            ws.transport.abort()

    async def _locate(self, action: Locate) -> None:
        link = self._core.link
        try:
            self._mark = self._file_mark()
            if self._lookup is None or self._lookup.done():
                self._lookup = self._runner.in_thread(
                    lambda: self._resolver.resolve(fresh=action.fresh), "wsmonitor-locate"
                )
            # One that hangs is waited for by the next attempt too: threads must not pile up.
            endpoint = await asyncio.shield(self._lookup)
        except NotLocatedError as exc:
            self.input(link.not_located, action.attempt, exc.code, str(exc), looked=exc.looked, fatal=False)
            self._watch_file()
        except ConfigurationError as exc:
            looked = getattr(exc, "looked", ())
            self.input(link.not_located, action.attempt, exc.code, str(exc), looked=looked, fatal=True)
        except Exception as exc:  # noqa: BLE001  # shown as the link's reason
            log.debug("locating failed", exc_info=True)
            reason = f"{type(exc).__name__}: {exc}"
            self.input(link.not_located, action.attempt, "connection_lost", reason, looked=(), fatal=False)
        else:
            self._endpoint = endpoint
            self.input(
                link.located,
                action.attempt,
                endpoint.url,
                endpoint.token,
                looked=endpoint.looked,
                renewable=endpoint.renewable,
            )

    async def _fetch_token(self, action: FetchToken) -> None:
        token: str | None = None
        try:
            token = await self._runner.in_thread(self._resolver.token, "wsmonitor-token")
        except Exception:  # noqa: BLE001  # a provider may raise anything
            log.warning("no fresh token", exc_info=True)
        self.input(self._core.link.token_fetched, action.attempt, token)

    async def _connect(self, action: Open) -> None:
        link, attempt = self._core.link, action.attempt
        ws: ReadingConnection | None = None
        endpoint = self._endpoint
        trust, context = (None, None) if endpoint is None else (endpoint.trust, endpoint.context)
        try:
            ws = await open_socket(action.url, action.token, self._runner, context)
            if link.attempt != attempt or link.status.phase != "connecting":
                return
            if ws.subprotocol != SUBPROTOCOL:
                raise InvalidHandshake(f"the server at {action.url} does not speak {SUBPROTOCOL}")
            self._ws = ws
            self._out.clear()
            self.input(link.opened, attempt)
            ws.read(self._receive)
            await ws.recv(decode=False)  # raises when it ends
        except ConnectionClosed as exc:
            received = exc.rcvd
            code = received.code if received is not None else 1006
            reason = (
                "the connection broke" if received is None else f"the server closed the connection ({code}"
            )
            if received is not None:
                reason += f": {received.reason})" if received.reason else ")"
            self._gone(ws)
            self.input(link.lost, attempt, code, reason)
        except InvalidStatus as exc:
            code_word, reason = refusal(exc)
            self.input(link.refused, attempt, exc.response.status_code, code_word, reason)
        except (InvalidHandshake, InvalidURI, OSError, EOFError, TimeoutError) as exc:
            if told := tls_words(exc, action.url, trust):
                self.input(link.untrusted, attempt, told)
            else:
                self.input(link.lost, attempt, 1006, words(exc, action.url))
        finally:
            self._gone(ws)
            if ws is not None:
                ws.transport.abort()

    def _gone(self, ws: ReadingConnection | None) -> None:
        if ws is not None and self._ws is ws:
            self._ws = None
            self._out.clear()

    def _receive(self, messages: Sequence[bytes]) -> None:
        """Messages arrived: each is carried out before the next is read, so that listeners see its state."""
        core, lock, recent = self._core, self._lock, self._runner.recent
        moment = self._runner.now()
        self._performing = True  # what listeners cause is carried out here
        try:
            for data in messages:
                try:
                    with lock:
                        moment = recent(moment)
                        core.receive(moment, data)
                        actions = core.take(moment)
                except ProtocolError as exc:
                    self._fault(exc)
                    break  # the link is down: what is left is of a connection that is no more
                except Exception as exc:  # noqa: BLE001  # the link shows it, and tries again
                    log.exception("a message could not be handled")
                    self._fault(exc)
                    break
                for action in actions:
                    self._do(action)
                if not core.at_rest:
                    self._carry_out()
        finally:
            self._performing = False
        self.perform()

    def _fault(self, exc: Exception) -> None:
        link = self._core.link
        with self._lock:
            link.fault(
                self._runner.now(),
                link.attempt,
                f"a message could not be handled: {type(exc).__name__}: {exc}",
            )

    async def _flush(self, ws: ReadingConnection) -> None:
        try:
            while self._out and self._ws is ws:
                await ws.send(self._out.popleft(), text=True)
        except ConnectionClosed:
            pass  # the reader sees it too, and knows the close code
        finally:
            self._flushing = False
            if self._out and self._ws is not None and not self._closed:
                self._flushing = True
                self._task(self._flush(self._ws))

    # ------------------------------------------------------------------ time

    def _arm(self) -> None:
        self._arming = False
        if self._closed:
            return
        deadline = self._core.next_deadline()
        if deadline == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._timeout)

    def _timeout(self) -> None:
        self._timer = self._timer_at = None
        self.input(self._core.handle_timeout)

    # ------------------------------------------------------------------ the discovery file

    def _file_mark(self) -> object:
        path = self._resolver.watched()
        if path is None:
            return None
        try:
            found = os.stat(path)  # noqa: PTH116  # one system call, no Path object
        except OSError:
            return False
        return (found.st_mtime_ns, found.st_ino)

    def _watch_file(self) -> None:
        if self._watch is None and not self._closed and self._mark is not None:
            self._watch = self._loop.call_later(WATCH_INTERVAL, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._closed or self._core.link.status.phase != "waiting":
            return
        mark = self._file_mark()
        if mark and mark != self._mark:
            self.input(self._core.link.reconnect_now)
        else:
            self._watch_file()

    # ------------------------------------------------------------------ the end

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("a task of the connection failed", exc_info=exc)
            if isinstance(exc, Exception):
                self._fault(exc)
                self.perform()

    async def _finish(self) -> None:
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()
        self._timer = self._watch = None
        me = asyncio.current_task()
        others = [task for task in self._tasks if task is not me]
        if others:
            await asyncio.wait(others, timeout=CLOSE_TIMEOUT)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # In a later turn, so that this task itself is over by then.
        self._loop.call_soon(self._ended)
