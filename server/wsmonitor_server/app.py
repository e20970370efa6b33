"""The server: the one owner of the listening socket, of the tasks, and of the process's signals.

`Server` is started and stopped by whoever owns the loop (`run` for a process, `embedded` for a program);
there is one way to stop, `Server.drain`, which both use.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import platform
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, Final

from wsmonitor._version import __version__
from wsmonitor.host import is_loopback
from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR, PROTOCOL_MINOR
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import ConfigurationError

from .auth import Authenticator, Credential, KeySource
from .clock import Clock, SystemClock
from .config import ServerConfig
from .connection import Connection
from .doorway import Doorway
from .framing import Framed, frame_text
from .journal import Journal
from .lag import LagProbe
from .logs import fields
from .pages import Pages, connection_measures, open_files, plain
from .peer import Peer
from .ports import Engine
from .replies import error_info
from .stores.redis.address import SCHEMES
from .tenants import Tenants
from .tls import TlsGate, tls_context
from .transport import CLOSE_GRACE, HandshakeRequest, ReadBuffer

_LOG: Final = logging.getLogger(__name__)

SPREAD_PER_CONNECTION: Final = 0.002
"""Seconds of reconnect spread per connection: 500 handshakes a second are what one core takes with ease."""

MAX_SPREAD: Final = 30.0

BACKLOG: Final = 1_024
"""Connections that the operating system keeps waiting, where it allows so many."""

LOOK_EVERY: Final = 0.1
"""Seconds between two looks of a stopping server at who has ceased to read."""

TELL_EVERY: Final = 10.0
"""Seconds between two lines in the log about what strangers can make happen often."""


class Server:
    """Serves one engine on one port. Implements `peer.Services`.

    Args:
        config: validated.
        engine: the session side; started and stopped by this server.
        keys: what tokens are verified with.
        clock: where time comes from.
        rng: spreads reconnects.
        secret: the discovery file's, for a local server's proof; "" for none.
    """

    def __init__(
        self,
        config: ServerConfig,
        engine: Engine,
        keys: KeySource,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        secret: str = "",
    ) -> None:
        self.config = config
        self.engine = engine
        self.timing = config.timing
        self.limits = config.limits
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.auth = Authenticator(
            keys,
            engine.revoked,
            audience=config.auth.audience,
            issuer=config.auth.issuer,
            tenant_claim=config.auth.tenant_claim,
        )
        self.tenants = Tenants(config.tenant_limits, config.tenants)
        self.instance = engine.node or secrets.token_hex(8)
        self.connections: dict[str, Connection] = {}
        self.peers: dict[Peer, None] = {}  # in the order in which they came
        self.door: Doorway[Connection] = Doorway(
            min(self.limits.handshakes, max(1, open_files() // 4)), self.limits.handshakes_per_address
        )
        self.tasks: set[asyncio.Task[None]] = set()
        self.counters: Counter[str] = Counter()
        self.counted: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by the value of their label
        self.frames_out = 0
        self.bytes_out = 0
        self.draining = False
        self.stopped = False
        self.read_buffer = ReadBuffer()
        self.stop_requested = asyncio.Event()
        self.host = ""
        self.port = 0
        self._rng = rng if rng is not None else random.Random()
        self.frame: Callable[[bytes], bytes] = frame_text
        self._by_subject: Counter[str] = Counter()
        self._numbers = 0
        self._turn = 0
        self._turn_ends = False
        self._dirty: list[Connection] = []
        self._framed: list[Framed] = []
        self._shaking: set[asyncio.Task[None]] = set()
        self._turned_away = 0
        self._told_at = -TELL_EVERY
        self._listener: asyncio.Server | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._drained: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._started_at = self.clock.monotonic()
        self._last_active = self._started_at
        self.journal = Journal(self.instance, self.clock, self.counters)
        self.lag = LagProbe(self.clock.monotonic)
        self.pages = Pages(self, secret)

    # -- life

    async def start(self) -> None:
        """Open the store, then listen.

        Raises:
            ConfigurationError: the address cannot be used, or a certificate cannot be read.
        """
        self._tls = tls_context(self.config)
        await self.engine.start()
        try:
            await self._listen()
        except BaseException:
            self.stopped = True
            await self.engine.stop()
            raise
        self.engine.on_revocation(self._on_revocation)
        self.engine.on_degraded(self._on_degraded)
        self._last_active = self.clock.monotonic()
        self.lag.start()
        _LOG.info("listening", extra=fields(url=self.url, version=__version__, instance=self.instance))

    async def _listen(self) -> None:
        host = "127.0.0.1" if self.config.host == "localhost" else self.config.host
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._new_connection,
                host,
                self.config.port,
                backlog=BACKLOG,
            )
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"port {self.config.port} at {host} is in use by another program; "
                    "choose another with --port, or 0 for any free one"
                ) from exc
            raise ConfigurationError(
                f"cannot listen at {host}:{self.config.port}: {exc.strerror or exc}"
            ) from exc
        address = self._listener.sockets[0].getsockname()
        self.host, self.port = address[0], address[1]

    @property
    def url(self) -> str:
        """Where clients connect to."""
        scheme = "wss" if self.config.tls_cert else "ws"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def uptime(self) -> float:
        """Seconds since it was made."""
        return self.clock.monotonic() - self._started_at

    @property
    def store_kind(self) -> str:
        """``memory``, ``sqlite`` or ``redis``."""
        kind = self.config.store.partition(":")[0] or "memory"
        return "redis" if kind in SCHEMES else kind

    async def drain(self) -> None:
        """Stop: tell each client when to come back, finish what was begun, commit, close (rule 19).

        May be called more than once, also at the same time: all wait for the one end.
        """
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_task(self._drain())
        await asyncio.shield(self._drained)

    async def _drain(self) -> None:
        self.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.drain_timeout
        _LOG.info("draining", extra=fields(connections=len(self.connections)))
        if self._listener is not None:
            self._listener.close()
        spread = self.spread()
        for peer in list(self.peers):
            peer.drain(round(1000 * (0.1 + spread * self._rng.random())))
        while self.tasks and loop.time() < deadline:
            for connection in self.connections.values():
                connection.give_up_pages()
            await asyncio.wait(self.tasks, timeout=min(LOOK_EVERY, deadline - loop.time()))
        for connection in list(self.connections.values()):
            connection.transport.pause_reading()
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.stopped = True
        self.lag.stop()
        await self.pages.readiness.stop()
        try:
            await self.engine.stop()
        finally:
            await self._close_connections(deadline)
            if self._listener is not None:
                await self._listener.wait_closed()
            _LOG.info("stopped")

    async def _close_connections(self, deadline: float) -> None:
        """End all connections: who reads at once, who does not when it reads again, if before *deadline*."""
        for connection in list(self.connections.values()):
            connection.transport.resume_reading()
            if connection.peer is not None:
                connection.peer.finish(CloseCode.DRAINING, "the server is stopping", deadline)
            else:
                connection.abort()
        with contextlib.suppress(TimeoutError):
            # Who reads, and then does not follow, has a grace of its own, which ends before this.
            async with asyncio.timeout_at(max(asyncio.get_running_loop().time() + CLOSE_GRACE, deadline)):
                await self.all_gone()
        for connection in list(self.connections.values()):
            connection.abort()
        # An aborted transport tells its end in the next turn of the loop.
        await self.all_gone()

    def request_stop(self) -> None:
        """Let the owner know that the server should drain."""
        self.stop_requested.set()

    def idle_for(self) -> float:
        """Seconds without an authenticated connection and without pending commands or uploads."""
        now = self.clock.monotonic()
        if self.peers or self.engine.busy():
            self._last_active = now
        return now - self._last_active

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* as a task that a drain waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- connections

    def _new_connection(self) -> asyncio.BaseProtocol:
        self._numbers += 1
        self.counters["connections_total"] += 1
        connection = Connection(self, f"c{self._numbers}")
        if self._tls is not None:
            return TlsGate(self, connection, self._tls)
        return connection.transport

    def shake_hands(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work*, a TLS handshake, as a task. A drain does not wait for it: it ends with its socket."""
        task = asyncio.get_running_loop().create_task(work)
        self._shaking.add(task)
        task.add_done_callback(self._shaking.discard)

    def remote(self, address: str, request: HandshakeRequest) -> str:
        """The client's address for the log: behind a proxy, the one that the proxy saw last."""
        forwarded = request.header("X-Forwarded-For") if self.config.behind_proxy else None
        return forwarded.rsplit(",", 1)[-1].strip()[:64] if forwarded else address

    def may_connect(self, credential: Credential) -> ErrorInfo | None:
        """The limit that one more connection with this token would be beyond; None if it may come."""
        claims = credential.claims
        if len(self.peers) >= self.limits.connections:
            return self.limit("connections")
        if self._by_subject[claims.sub] >= self.limits.connections_per_subject:
            return self.limit("connections_per_subject")
        return self.tenants.of(claims.tenant, self.clock.monotonic()).connect()

    def remember(self, connection: Connection, peer: Peer) -> None:
        """*peer*'s handshake is done."""
        self.door.leave(connection)
        self.peers[peer] = None
        self._by_subject[peer.credential.claims.sub] += 1
        peer.tenant.connections += 1

    def forget(self, peer: Peer) -> None:
        """*peer*'s connection is gone."""
        self.peers.pop(peer, None)
        peer.tenant.connections -= 1
        subject = peer.credential.claims.sub
        self._by_subject[subject] -= 1
        if self._by_subject[subject] <= 0:
            del self._by_subject[subject]
        self._last_active = self.clock.monotonic()

    def arrived(self, connection: Connection, address: str) -> None:
        """*connection* is there, not yet authenticated; for want of room another one has to go."""
        self.connections[connection.ident] = connection
        self._gone.clear()
        # Of a proxy, or of this machine, all the users have one address.
        limited = not (self.config.behind_proxy or is_loopback(address))
        one_too_many = self.door.enter(connection, address, limited=limited)
        if one_too_many is not None:
            self._turn_away(one_too_many)

    def _turn_away(self, connection: Connection) -> None:
        self.counters["handshakes_dropped_total"] += 1
        self._turned_away += 1
        connection.turn_away()
        now = self.clock.monotonic()
        if now - self._told_at >= TELL_EVERY:
            _LOG.warning(
                "connections were dropped that had shown no token: too many of them at once",
                extra=fields(dropped=self._turned_away, waiting=len(self.door), remote=connection.remote),
            )
            self._told_at, self._turned_away = now, 0

    def closed(self, connection: Connection) -> None:
        """*connection* is gone."""
        self.connections.pop(connection.ident, None)
        self.door.leave(connection)
        if not self.connections:
            self._gone.set()

    async def all_gone(self) -> None:
        """Wait until there is no connection."""
        if self.connections:
            await self._gone.wait()

    def framed(self, payloads: tuple[bytes, ...]) -> Framed:
        wall = None if self.engine.holding else self.clock.wall_ns() / 1e9
        framed = Framed(payloads, self._turn, wall)
        self._framed.append(framed)
        self._end_turn()
        return framed

    def flush_soon(self, connection: Connection) -> None:
        """Flush *connection* at the end of this turn of the loop, with all that it has by then."""
        self._dirty.append(connection)
        self._end_turn()

    def _end_turn(self) -> None:
        if not self._turn_ends:
            self._turn_ends = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._turn += 1
        self._turn_ends = False
        framed, self._framed = self._framed, []
        self.frames_out += sum(one.frames_written for one in framed)
        self.bytes_out += sum(one.written * one.size for one in framed)
        # Who comes meanwhile is flushed in the next turn.
        waiting, self._dirty = self._dirty, []
        for connection in waiting:
            connection.flush_now()

    def _on_revocation(self, jti: str) -> None:
        for peer in list(self.peers):
            if peer.credential.claims.jti == jti:
                peer.still_valid()

    def _on_degraded(self) -> None:
        for peer in list(self.peers):
            peer.beat()

    def rotate_keys(self, keys: KeySource) -> None:
        """Verify with *keys* from now on; connections of tokens from before are closed."""
        self.auth.rotate(keys)
        for peer in list(self.peers):
            peer.still_valid()

    # -- what peers ask for

    async def authenticate(self, token: str) -> Credential:
        if self.fetching or self.auth.wants_fetch(token, self.clock.monotonic()):
            await self.fetch_keys()
        return self.auth.verify(token, self.clock.wall_ns() / 1e9)

    async def fetch_keys(self) -> None:
        """Get the key set again, off the loop; all who wait share one fetch."""
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch_keys())
        await asyncio.shield(self._fetching)

    async def _fetch_keys(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.auth.fetch)
        except Exception as exc:  # noqa: BLE001 - whatever a key server does, tokens are then refused
            _LOG.warning("the key set cannot be fetched", extra=fields(error=exc))
        finally:
            self._fetching = None

    @property
    def fetching(self) -> bool:
        """Whether the key set is being fetched now."""
        return self._fetching is not None

    def spread(self) -> float:
        return min(MAX_SPREAD, SPREAD_PER_CONNECTION * len(self.peers))

    def opened(self, peer: Peer) -> None:
        self.counters["opened_total"] += 1
        self.connections[peer.ident].log_opened()

    def fault(self, peer: Peer, what: str) -> str:
        self.counters["faults_total"] += 1
        return self.journal.fault(peer, what)

    def refused(self, peer: Peer, info: ErrorInfo, request: int | None) -> str:
        return self.journal.refused(peer, info, request)

    def done(self, peer: Peer, event: str, **values: object) -> None:
        self.journal.done(peer, event, **values)

    def limit(self, name: str) -> ErrorInfo:
        """The error that names a limit of the whole server."""
        value: int = getattr(self.limits, name)
        return error_info(
            "limit_exceeded",
            f"the limit `{name}` of {value:,} is reached",
            details={"limit": name, "value": value},
        )

    def information(self, *, full: bool) -> dict[str, Any]:
        """Facts for ``wsmonitor status``; *full* for administrators."""
        info: dict[str, Any] = {
            "version": __version__,
            "protocol": f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
            "instance": self.instance,
            "epoch": self.engine.epoch,
            "uptime": round(self.uptime, 3),
            "draining": self.draining,
        }
        if full:
            info |= {
                "url": self.url,
                "python": platform.python_version(),
                "store": self.store_kind,
                "local": self.config.local,
                **plain(connection_measures(self)),
                "engine": self.engine.status(),
            }
        return info
