"""One connection's I/O: ties the transport, the peer's machine, its lanes and its one timer together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.entities import ErrorInfo

from .auth import AuthError, Credential
from .framing import CHUNK
from .http import Answer, Page, Upgrade, classify, error_answer, unreadable
from .journal import who
from .lanes import Lanes
from .logs import fields
from .peer import Peer
from .replies import error_info
from .transport import CLOSE_GRACE, HandshakeRequest, WebSocketTransport

if TYPE_CHECKING:
    from .app import Server

_LOG: Final = logging.getLogger("wsmonitor_server.connection")

KNOWN_CODES: Final = frozenset({*map(int, CloseCode), 1000, 1001, 1002, 1003, 1006, 1007, 1009, 1011})
"""Close codes that are counted one by one; what else clients send is one more."""

CLOSE_AFTER_UPGRADE: Final = 1.0
"""Seconds that a refused browser's connection may stay open for the close frame."""


class Connection:
    """Implements `transport.Handler` and `peer.Wire`."""

    __slots__ = (
        "_bulk_lock",
        "_cut",
        "_dirty",
        "_drained",
        "_ending",
        "_lanes",
        "_loop",
        "_server",
        "_timer",
        "_timer_at",
        "_upgraded",
        "browser",
        "ident",
        "known",
        "peer",
        "remote",
        "transport",
    )

    def __init__(self, server: Server, ident: str) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.ident = ident
        self.transport = WebSocketTransport(
            self, max_size=server.limits.message_size, buffer=server.read_buffer
        )
        self.peer: Peer | None = None
        self.remote = ""
        self.browser = False
        self.known: Credential | None = None  # of one that is turned away although its token is in order
        self._upgraded = False
        self._lanes = Lanes(server.tasks, self._pressure)
        self._bulk_lock = asyncio.Lock()
        self._drained: deque[asyncio.Future[None]] = deque()
        self._dirty = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._cut: Callable[[], None] | None = None
        self._ending: tuple[int, str, float] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being carried out, or an answer waits."""
        return bool(self._lanes) or (self.peer is not None and bool(self.peer.outbox))

    # -- transport.Handler

    def knocked(self, address: object, cut: Callable[[], None]) -> None:
        """The socket is there: from *address*, as the system gives it. *cut* drops it."""
        host = str(address[0]) if isinstance(address, tuple) else str(address)
        self.remote = f"{host}:{address[1]}" if isinstance(address, tuple) else host
        self._cut = cut
        # A client that sends its handshake byte by byte must not hold a connection (slowloris).
        self._arm(self._server.clock.monotonic() + self._server.timing.handshake_timeout)
        self._server.arrived(self, host)

    def opened(self, address: object) -> None:
        if self._cut is None:
            self.knocked(address, self.transport.abort)

    def turn_away(self) -> None:
        """There is no room for those who have shown no token: tell, as far as it can be told, and go."""
        answer = error_answer(self._server.limit("handshakes"), status=503)
        self._log(logging.DEBUG, "connection dropped: too many without a token")
        self.transport.say(answer.status, answer.headers, answer.body)
        self.abort()

    def abort(self) -> None:
        """Drop the socket at once."""
        self.transport.abort()
        if self._cut is not None:
            self._cut()

    def heard(self) -> None:
        if self.peer is not None:
            self.peer.heard()

    def requested(self, request: HandshakeRequest) -> None:
        server = self._server
        self.remote = server.remote(self.remote, request)
        what = classify(
            request.path,
            upgrade=request.wants_upgrade,
            authorization=request.header("Authorization"),
            subprotocols=request.header("Sec-WebSocket-Protocol"),
            origin=request.header("Origin"),
            origins=server.config.origins,
            pages=server.pages.names,
        )
        if isinstance(what, Answer):
            self._answer(what)
        elif isinstance(what, Page):
            server.spawn(self._page(what))
        elif server.draining:
            self._answer(error_answer(error_info("draining", "the server is stopping")))
        elif server.fetching or server.auth.wants_fetch(what.token, server.clock.monotonic()):
            server.spawn(self._fetch_then_authenticate(request, what))
        else:
            self._authenticate(request, what)

    def unreadable(self, *, too_large: bool) -> tuple[int, Mapping[str, str], bytes]:
        answer = self._correlated(unreadable(too_large=too_large))
        return answer.status, answer.headers, answer.body

    def text(self, data: bytes) -> None:
        if self.peer is not None:
            self._server.counters["messages_in_total"] += 1
            self._server.counters["received_bytes_total"] += len(data)
            self.peer.receive(data)

    def part(self) -> None:
        if self.peer is not None:
            self.peer.receive_part()

    def binary(self) -> None:
        if self.peer is not None:
            self.peer.receive_binary()

    def oversize(self) -> bytes:
        return self.peer.oversize() if self.peer is not None else b"{}"

    def stopped(self) -> None:
        if self.peer is not None:
            self.peer.straight = None

    def writable(self) -> None:
        self.flush_soon()

    def lost(self, code: int, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.peer is not None:
            self._server.forget(self.peer)
            self._server.counted["closed_total"][str(code) if code in KNOWN_CODES else "other"] += 1
            self.peer.lost()
            left_out = self._server.journal.closed(self.ident)
            self._log(logging.INFO, "connection closed", code=code, reason=reason, left_out=left_out or None)
        self._wake()
        self._server.closed(self)

    # -- peer.Wire

    def flush_soon(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.stopped()
            self._server.flush_soon(self)

    def flush_now(self) -> None:
        """Write what the socket takes; whole frames, in as few writes as there are chunks."""
        self._dirty = False
        peer, transport = self.peer, self.transport
        if peer is None or not transport.open:
            return
        outbox = peer.outbox
        if outbox and peer.still_valid():
            holding = self._server.engine.holding
            while outbox and not transport.paused:
                frames = outbox.take_control() if holding else outbox.take(CHUNK)
                if not frames:
                    break
                self._server.frames_out += outbox.count
                self._server.bytes_out += transport.write(frames)
        if not outbox and peer.phase != "closed":
            peer.straight = transport.sink
        if self._drained and not outbox.bulk_waiting:
            self._wake()
        if self._ending is not None and not outbox:
            (code, reason, until), self._ending = self._ending, None
            # What the kernel has taken needs no patience of ours.
            more = until - self._loop.time() if transport.buffered() else 0.0
            transport.close(code, reason, grace=max(CLOSE_GRACE, more))

    def write_rest(self, data: bytes, taken: int) -> None:
        self.transport.write_rest(data, taken)

    def close(self, code: int, reason: str, *, flush: bool) -> None:
        if flush:
            self.flush_now()
        if self.transport.buffered():
            # It does not read: a close frame would wait behind what it does not take.
            self._loop.call_later(CLOSE_AFTER_UPGRADE, self.transport.abort)
        self.transport.close(code, reason)
        self._wake()

    def finish(self, code: int, reason: str, until: float) -> None:
        self._ending = (code, reason, until)
        self.flush_now()
        self._wake()

    def give_up_pages(self) -> None:
        """The server stops: what is made for a client that does not read holds nobody up."""
        if self.transport.paused:
            for waiter in self._drained:
                waiter.cancel()
            self._drained.clear()

    def run(self, lane: Hashable, size: int, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._lanes.put(lane, size, job)

    def idle(self, lane: Hashable) -> bool:
        return self._lanes.idle(lane)

    def forget_waiting(self) -> None:
        self._lanes.drop()

    def bulk(self) -> AbstractAsyncContextManager[None]:
        return self._bulk()

    @property
    def bulk_free(self) -> bool:
        return not (self._bulk_lock.locked() or (self.peer is not None and self.peer.outbox.bulk_waiting))

    async def turn(self) -> None:
        await asyncio.sleep(0)

    def rearm(self) -> None:
        if self.peer is None or self.peer.phase == "closed":
            return
        deadline = self.peer.next_deadline()
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._arm(deadline)

    def _arm(self, deadline: float) -> None:
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._server.clock.monotonic()), self._tick)

    @property
    def held(self) -> bool:
        return not self.transport.reading and not self.transport.paused

    # -- the handshake

    async def _page(self, page: Page) -> None:
        answer = await self._server.pages.answer(page)
        # Not a refusal: whoever asks whether the server is ready has got the answer.
        self.transport.respond(answer.status, answer.headers, answer.body)

    async def _fetch_then_authenticate(self, request: HandshakeRequest, upgrade: Upgrade) -> None:
        await self._server.fetch_keys()
        self._authenticate(request, upgrade)

    def _authenticate(self, request: HandshakeRequest, upgrade: Upgrade) -> None:
        server = self._server
        self.browser = upgrade.browser
        try:
            credential = server.auth.verify(upgrade.token, server.clock.wall_ns() / 1e9)
        except AuthError as exc:
            self._refuse(request, exc.info)
            return
        info = server.may_connect(credential)
        if info is not None:
            self.known = credential
            full = info.details["limit"] == "connections"
            self._refuse(request, info, 503 if full else None)
            return
        self._accept(request, credential)

    def _accept(self, request: HandshakeRequest, credential: Credential) -> None:
        server = self._server
        wrong = self.transport.accept(request)
        if wrong is not None:
            self._answer(error_answer(error_info("bad_message", wrong)))
            return
        self._upgraded = True
        self.peer = Peer(ident=self.ident, credential=credential, services=server, wire=self)
        server.remember(self, self.peer)
        # The handshake's timer goes on: when it comes too early, it is set anew.
        self.rearm()

    def _refuse(self, request: HandshakeRequest, info: ErrorInfo, status: int | None = None) -> None:
        """Programs get the HTTP answer; a browser cannot read it, and is told by the close code."""
        if not self.browser:
            self._answer(error_answer(info, status))
            return
        wrong = self.transport.accept(request)
        if wrong is not None:
            self._answer(error_answer(error_info("bad_message", wrong)))
            return
        self._upgraded = True
        self._turned_away(info, 101)
        full = info.code == "limit_exceeded"
        self.transport.close(CloseCode.TOO_MANY_CONNECTIONS if full else CloseCode.UNAUTHORIZED, info.code)

    def _answer(self, answer: Answer) -> None:
        answer = self._correlated(answer)
        self.transport.respond(answer.status, answer.headers, answer.body)

    def _correlated(self, answer: Answer) -> Answer:
        """A refusal with the id by which its line is found in the log, which is written now."""
        if answer.info is None:
            return answer
        correlation = self._turned_away(answer.info, answer.status)
        return error_answer(msgspec.structs.replace(answer.info, correlation=correlation), answer.status)

    def _turned_away(self, info: ErrorInfo, status: int) -> str:
        self._server.counted["handshakes_refused_total"][info.code] += 1
        return self._server.journal.turned_away(self, info, status)

    # -- inside

    def _tick(self) -> None:
        self._timer = None
        if self.peer is not None:
            self.peer.handle_timeout()
            self.rearm()
        elif not self._upgraded:
            self._server.journal.stranger("handshake timed out", self)
            self.abort()

    def _pressure(self, too_much: bool) -> None:
        if too_much:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    @asynccontextmanager
    async def _bulk(self) -> AsyncIterator[None]:
        async with self._bulk_lock:
            while self.peer is not None and self.peer.outbox.bulk_waiting and self.transport.open:
                if self._server.draining and self.transport.paused:
                    raise asyncio.CancelledError
                waiter: asyncio.Future[None] = self._loop.create_future()
                self._drained.append(waiter)
                await waiter
            yield

    def _wake(self) -> None:
        while self._drained:
            waiter = self._drained.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _log(self, level: int, event: str, **values: object) -> None:
        peer = self.peer
        ids = {"connection": self.ident} if peer is None else who(peer)
        agent = peer.hello.agent if peer is not None and peer.hello is not None else ""
        _LOG.log(level, event, extra=fields(**ids, remote=self.remote, agent=agent, **values))

    def log_opened(self) -> None:
        """The hello came: say who it is."""
        self._log(logging.INFO, "connection opened")
