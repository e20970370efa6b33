"""What the checks share: a publisher, an observer, a bare socket, and a link that can be broken."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from wsmonitor.client import Connection, EventApplied, EventsReplayed, Subscription, Target, connect
from wsmonitor.client.types import ConnectionStatus, PublicationListener, Update
from wsmonitor.protocol.changes import ChainChange, Change, CommandChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Command, CommandSpec, ErrorInfo
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.embedded import EmbeddedServer

PATIENCE = 15.0
T = TypeVar("T")


async def until(condition: Callable[[], T], what: str = "", patience: float = PATIENCE) -> T:
    """Wait until *condition* gives something true, and give that."""
    deadline = time.monotonic() + patience
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, what or "the condition was not reached"
        await asyncio.sleep(0.005)


async def blocking(function: Callable[..., T], *args: Any) -> T:
    """Call a blocking part of the client without stopping the server, which has this loop."""
    return await asyncio.to_thread(function, *args)


# ---------------------------------------------------------------------------- the product's clients


class Observer:
    """One observer on a connection of its own, which keeps what it was told, and by which thread."""

    def __init__(self, conn: Connection, topic: str, **options: Any) -> None:
        self.conn = conn
        self.updates: list[Update] = []
        self.received: dict[int, float] = {}  # seq to when it was handed over (monotonic)
        self.threads: set[int] = set()
        self.overlaps = 0
        self._inside = False
        self.statuses: list[ConnectionStatus] = []
        self._stop = conn.listen(self.statuses.append)
        self.sub: Subscription = conn.subscribe(topic, self._told, **options)

    def _told(self, update: Update) -> None:
        if self._inside:
            self.overlaps += 1
        self._inside = True
        self.threads.add(threading.get_ident())
        if isinstance(update, EventApplied):
            self.received[update.event.seq] = time.monotonic()
        self.updates.append(update)
        self._inside = False

    def of(self, kind: type[T]) -> list[T]:
        return [update for update in list(self.updates) if isinstance(update, kind)]

    @property
    def live_seqs(self) -> list[int]:
        """The events that were applied live, in the order in which they were told."""
        return [update.event.seq for update in self.of(EventApplied)]

    @property
    def all_seqs(self) -> list[int]:
        """Every event that was told, live or as history, in order."""
        seqs: list[int] = []
        for update in list(self.updates):
            if isinstance(update, EventApplied):
                seqs.append(update.event.seq)
            elif isinstance(update, EventsReplayed):
                seqs.extend(event.seq for event in update.events)
        return seqs

    def state(self) -> SessionState:
        state = self.sub.snapshot()
        assert state is not None, f"{self.sub.topic} is {self.sub.phase}: {self.sub.reason}"
        return state

    async def live(self) -> None:
        await until(lambda: self.sub.phase == "live", f"{self.sub.topic} did not become live")

    async def at(self, seq: int) -> None:
        """Wait until *seq* is applied and verified."""
        await until(
            lambda: self.sub.phase == "live" and (self.sub.position or ("", 0))[1] >= seq,
            f"seq {seq} did not arrive; position {self.sub.position}",
        )


class Owner(PublicationListener):
    """What a publication told."""

    def __init__(self) -> None:
        self.rejections: list[tuple[int, Change | None, ErrorInfo]] = []
        self.commands: list[Command] = []
        self.publication: Any = None
        self.obey = True

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        self.rejections.append((number, change, error))

    def command(self, command: Command) -> None:
        self.commands.append(command)
        if self.obey:
            self.publication.submit(CommandChange(id=command.id, state="accepted"))
            if command.name == "pause":
                self.publication.submit(SessionChange(state="paused"))
            self.publication.submit(CommandChange(id=command.id, state="applied"))


class Publisher:
    """A producer with a session of one chain."""

    def __init__(self, conn: Connection, session: str, producer: str = "p1") -> None:
        self.session = session
        self.owner = Owner()
        self.publication = self.owner.publication = conn.publication(session, producer, self.owner)

    def begin(self, *, commands: tuple[CommandSpec, ...] = ()) -> None:
        self.submit(
            SessionChange(
                name=self.session.partition("~")[0],
                state="running",
                tags=("nightly",),
                attributes={"owner": "alice"},
                commands=commands,
            ),
            ChainChange(id="load", name="load", state="running"),
        )

    def submit(self, *changes: Change) -> None:
        for change in changes:
            assert self.publication.submit(change) is not None

    def step(self, ident: str, **fields: Any) -> None:
        self.submit(StepChange(id=ident, chain="load", name=ident, **fields))

    async def flush(self) -> None:
        assert await blocking(self.publication.flush, PATIENCE), "not everything was committed"


@dataclass
class Scene:
    """A running server, and how to join it. Everything that was opened is closed at the end."""

    server: EmbeddedServer
    timing: Timing | None = None  # the clients', where it differs from the defaults
    connections: list[Connection] = field(default_factory=list)

    def token(self, sub: str, role: str = "observe", sessions: tuple[str, ...] = ("*",), **more: Any) -> str:
        return self.server.token(sub=sub, role=role, sessions=sessions, **more)

    async def connect(
        self, sub: str, role: str = "observe", sessions: tuple[str, ...] = ("*",), *, url: str | None = None
    ) -> Connection:
        conn = connect(
            Target(url=url or self.server.url, token=self.token(sub, role, sessions), name=sub),
            timing=self.timing,
        )
        self.connections.append(conn)
        await blocking(conn.wait_live, PATIENCE)
        return conn

    async def observe(
        self,
        topic: str,
        sub: str = "observer",
        *,
        sessions: tuple[str, ...] = ("*",),
        url: str | None = None,
        role: str = "observe",
        **options: Any,
    ) -> Observer:
        observer = Observer(await self.connect(sub, role, sessions, url=url), topic, **options)
        await until(
            lambda: observer.sub.phase not in ("waiting", "syncing"), "the subscription was not answered"
        )
        return observer

    async def publish(self, session: str, *, url: str | None = None, **options: Any) -> Publisher:
        publisher = Publisher(await self.connect(f"publisher of {session}", "publish", url=url), session)
        publisher.begin(**options)
        await publisher.flush()
        return publisher

    def head(self, topic: str) -> tuple[str, int, str]:
        """The server's committed head: epoch, seq, digest."""
        return self.server.engine.heads([topic])[topic]

    async def agreed(self, *observers: Observer) -> None:
        """AGREE: wait until traffic has stopped, then hold every observer's digest against the server's."""
        for observer in observers:
            await observer.at(self.head(observer.sub.topic)[1])
            epoch, seq, digest = self.head(observer.sub.topic)
            state = observer.state()
            assert (state.epoch, state.seq, state.digest) == (epoch, seq, digest)

    async def close(self) -> None:
        for conn in self.connections:
            await blocking(conn.close)


@asynccontextmanager
async def scene(*, client: Timing | None = None, **settings: Any) -> AsyncIterator[Scene]:
    """A server in this loop, and what joins it."""
    async with EmbeddedServer(**settings) as server:
        made = Scene(server, client)
        try:
            yield made
        finally:
            await made.close()


# ---------------------------------------------------------------------------- a bare socket


class Wire:
    """A WebSocket without any of the product's client code: messages as plain JSON values."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[str] = []  # every text that came, as it came

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.socket.send(json.dumps(message))

    async def receive(self, patience: float = PATIENCE) -> dict[str, Any]:
        async with asyncio.timeout(patience):
            text = await self.socket.recv()
        assert isinstance(text, str), "the protocol uses text messages only"
        self.seen.append(text)
        message: dict[str, Any] = msgspec.json.decode(text)
        return message

    async def expect(self, *types: str) -> dict[str, Any]:
        """The next message of one of *types*; others are passed over (and kept in ``seen``)."""
        while True:
            message = await self.receive()
            if message["type"] in types:
                return message

    async def hello(self) -> dict[str, Any]:
        await self.send({"type": "hello", "major": 1, "agent": "bare socket"})
        return await self.expect("welcome")

    async def subscribe(self, topic: str, generation: int = 1, **fields: Any) -> dict[str, Any]:
        """Subscribe and pull every page; gives ``synced``, or ``removed``."""
        await self.send({"type": "subscribe", "topic": topic, "generation": generation, **fields})
        begin = await self.expect("sync_begin", "removed")
        if begin["type"] == "removed":
            return begin
        number = 0
        while True:
            await self.send({"type": "sync_next", "topic": topic, "generation": generation, "page": number})
            page = await self.expect("sync_page")
            number += 1
            if page.get("last"):
                return await self.expect("synced")

    async def closed(self, patience: float = PATIENCE) -> int:
        """Read to the end; the close code (1006 without a close frame)."""
        async with asyncio.timeout(patience):
            try:
                while True:
                    text = await self.socket.recv()
                    self.seen.append(str(text))
            except ConnectionClosed as exc:
                return exc.rcvd.code if exc.rcvd is not None else 1006


@asynccontextmanager
async def wire(
    url: str,
    token: str | None,
    *,
    hello: bool = True,
    subprotocols: tuple[str, ...] = ("wsmonitor.v1",),
    **more: Any,
) -> AsyncIterator[Wire]:
    """A bare connection. Without *token* no ``Authorization`` is sent."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with websocket(
        url,
        additional_headers=headers,
        subprotocols=[Subprotocol(one) for one in subprotocols],
        compression=None,
        ping_interval=None,
        max_size=None,
        close_timeout=1,
        **more,
    ) as socket:
        bare = Wire(socket)
        if hello:
            await bare.hello()
        yield bare


# ---------------------------------------------------------------------------- a link that can be broken


class Proxy:
    """A TCP relay in front of the server: cut it, freeze it, refuse, or end idle links as firewalls do."""

    def __init__(self, target_port: int, idle_limit: float | None) -> None:
        self._target = target_port
        self._idle_limit = idle_limit
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self.attempts: list[float] = []  # when each connection was tried (monotonic)
        self.refusing = False
        self.idled = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every link, without a close frame."""
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing through any more, in either direction, with the sockets open."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts.append(time.monotonic())
        if self.refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, there}
            await asyncio.gather(self._relay(reader, there), self._relay(back, writer))
        except (OSError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            for one in (writer, there):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_limit):
                    data = await reader.read(65536)
            except TimeoutError:
                self.idled += 1
                raise
            await self._flowing.wait()
            if not data:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.thaw()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


def proxy(server: EmbeddedServer, *, idle_limit: float | None = None) -> Proxy:
    """A relay to *server*; with ``idle_limit`` it ends links in which a direction was silent that long."""
    return Proxy(server.port, idle_limit)


@contextmanager
def measured() -> Iterator[Callable[[], float]]:
    """Seconds since the block began."""
    begun = time.monotonic()
    yield lambda: time.monotonic() - begun


async def gather(*work: Awaitable[T]) -> list[T]:
    return list(await asyncio.gather(*work))
