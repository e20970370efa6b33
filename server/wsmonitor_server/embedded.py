"""A server inside a program: for tests, for ``WSMONITOR_LOCAL=inline``, for programs that bring their own.

::

    async with EmbeddedServer() as server:
        connect(server.url, server.token())

    with EmbeddedServer.in_thread() as server:      # its own thread and loop
        ...
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from wsmonitor.protocol.defaults import Limits, Timing

from .app import Server
from .assembly import make_engine
from .auth import SecretKey, issue
from .clock import Clock, SystemClock
from .config import ServerConfig, validate
from .ports import Engine

EngineFactory = Callable[[ServerConfig, Clock], Engine]


class EmbeddedServer:
    """A server in the running loop, from ``async with`` to its end.

    Args:
        store: ``memory``, ``sqlite:PATH`` or ``redis://…``.
        key: the secret that tokens are signed with, 32 bytes or more; a random one by default.
        timing, limits: the protocol's defaults by default.
        host, port: where to listen; port 0 for any free one.
        clock: where time comes from.
        engine: makes the session side; the product's own by default.
        settings: further fields of `ServerConfig`.

    Raises:
        ConfigurationError: the key is too short, or a setting cannot work.
    """

    def __init__(
        self,
        *,
        store: str = "memory",
        key: str | bytes | None = None,
        timing: Timing | None = None,
        limits: Limits | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        engine: EngineFactory = make_engine,
        **settings: Any,
    ) -> None:
        if key is None:
            key = secrets.token_bytes(32)
        self._key = key.encode() if isinstance(key, str) else key
        self._keys = SecretKey(self._key)
        self._config = ServerConfig(
            host=host,
            port=port,
            store=store,
            timing=timing if timing is not None else Timing(),
            limits=limits if limits is not None else Limits(),
            **settings,
        )
        validate(self._config)
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._make_engine = engine
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """The running server."""
        if self._server is None:
            raise RuntimeError("the embedded server is not running: use `async with`")
        return self._server

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def engine(self) -> Engine:
        return self.server.engine

    @property
    def key(self) -> bytes:
        """The secret that tokens are signed with."""
        return self._key

    def token(
        self,
        sub: str = "local",
        role: str = "admin",
        sessions: Sequence[str] = ("*",),
        ttl: int = 3600,
        *,
        jti: str | None = None,
        name: str = "",
        tenant: str = "",
    ) -> str:
        """A token for this server.

        Args:
            sub: who.
            role: ``observe``, ``command``, ``publish`` or ``admin``.
            sessions: patterns of session ids.
            ttl: seconds that it is valid.
            jti: its id, by default a random one.
            name: what others see in the presence list.
            tenant: who shares the server with others, and has limits of his own; "" for nobody.
        """
        return issue(
            self._key,
            sub=sub,
            role=role,
            sessions=sessions,
            issued=self._clock.wall_ns() // 1_000_000_000,
            ttl=ttl,
            jti=jti if jti is not None else secrets.token_hex(16),
            name=name,
            tenant=tenant,
        )

    async def start(self) -> None:
        """Open the store and listen; what ``async with`` does."""
        config = self._config
        server = Server(config, self._make_engine(config, self._clock), self._keys, clock=self._clock)
        await server.start()
        self._server = server

    async def drain(self) -> None:
        """Tell the clients, commit, close. Returns when nothing is left."""
        await self.server.drain()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()

    @classmethod
    def in_thread(cls, **arguments: Any) -> ThreadedServer:
        """The same, in a thread and loop of its own, from ``with`` to its end."""
        return ThreadedServer(cls(**arguments))


class ThreadedServer:
    """An `EmbeddedServer` for programs without a loop. ``url``, ``port``, ``token`` as there."""

    def __init__(self, embedded: EmbeddedServer) -> None:
        self._embedded = embedded
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def embedded(self) -> EmbeddedServer:
        return self._embedded

    @property
    def url(self) -> str:
        return self._embedded.url

    @property
    def port(self) -> int:
        return self._embedded.port

    @property
    def key(self) -> bytes:
        return self._embedded.key

    @property
    def token(self) -> Callable[..., str]:
        return self._embedded.token

    def start(self) -> None:
        """Start the thread, and wait until the server listens.

        Raises:
            ConfigurationError: as `Server.start`.
        """
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="wsmonitor-server", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self, timeout: float = 15.0) -> None:
        """Drain, and wait for the thread's end."""
        loop, stop, thread = self._loop, self._stop, self._thread
        if loop is None or stop is None or thread is None or not thread.is_alive():
            return
        # The loop may end by itself between the question and the call.
        try:
            loop.call_soon_threadsafe(stop.set)
        except RuntimeError:
            return
        thread.join(timeout)

    def call(self, work: Callable[[Server], Any], timeout: float = 10.0) -> Any:
        """Run *work* on the server's loop, and return its result."""
        if self._loop is None:
            raise RuntimeError("the embedded server is not running")
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(work(self._embedded.server))
            except BaseException as exc:  # noqa: BLE001 - it is raised in the caller's thread
                done.set_exception(exc)

        self._loop.call_soon_threadsafe(run)
        return done.result(timeout)

    def _run(self, started: Future[None]) -> None:
        asyncio.run(self._serve(started))

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            await self._embedded.start()
        except BaseException as exc:  # noqa: BLE001 - it is raised in the starter's thread
            started.set_exception(exc)
            return
        started.set_result(None)
        stopper = asyncio.ensure_future(self._stop.wait())
        asked = asyncio.ensure_future(self._embedded.server.stop_requested.wait())
        await asyncio.wait({stopper, asked}, return_when=asyncio.FIRST_COMPLETED)
        stopper.cancel()
        asked.cancel()
        await self._embedded.drain()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
