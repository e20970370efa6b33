"""Connections between simulated processes: what TCP promises, and no more.

Bytes of one direction arrive in order, whole or not at all, in pieces that have nothing to do with the
writes, after a latency that varies. Everything else is a fault that a plan can ask for:

- **reset**: both ends learn that the connection is gone, at any byte of the stream;
- **black hole**: nothing arrives any more and nobody is told (a half-open link, a partition);
- **stall**: nothing arrives for a while, then everything does;
- **refused** and **unreachable** for new connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .world import Process, World

WINDOW: Final = 128 * 1024
"""Bytes that the two kernels hold between the programs; beyond, they stay in the sender's user space."""

NEVER: Final = float("inf")


class Network:
    """All connections of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.connections: list[Connection] = []
        self.latency = (0.0002, 0.003)
        self.fragment = 0.15  # the part of writes that arrive in pieces
        self.partitioned: set[frozenset[str]] = set()  # pairs of hosts that do not hear each other
        self.deaf: set[tuple[str, str]] = set()  # from the first to the second nothing arrives
        self.behind: dict[tuple[str, int], list[tuple[str, int]]] = {}  # a proxy, and where it leads
        self.wrote: Callable[[Endpoint, bytes], None] = lambda endpoint, data: None
        self.delivered: Callable[[Endpoint, bytes], None] = lambda endpoint, data: None
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._port = 40_000

    # -- what the loops ask for

    def listen(self, process: Process, factory: Any, host: str, port: int) -> Listener:
        """Open a listening socket."""
        if port == 0:
            self._port += 1
            port = self._port
        known = self._listeners.get((host, port))
        if known is not None and known.open:
            raise OSError(98, "address in use")
        listener = Listener(self, process, factory, host, port)
        self._listeners[host, port] = listener
        return listener

    async def connect(self, process: Process, factory: Any, host: str, port: int) -> tuple[Any, Any]:
        """A client's connection; the caller has its own limit of time."""
        loop = process.loop
        if not process.effect():
            await loop.create_future()
        listener = self._listeners.get(self._chosen(host, port))
        await self._wait(process, self.delay())
        if listener is not None and self.parted(process.host, listener.process.host):
            # A lost SYN is sent again for two minutes; nobody here waits so long.
            await self._wait(process, 127.0)
            raise TimeoutError(110, "connection timed out")
        if listener is None or not listener.open or not listener.process.alive:
            raise ConnectionRefusedError(111, "connection refused")
        connection = Connection(self, process, listener.process)
        client = connection.client
        client.protocol = factory()
        self.connections.append(connection)
        # The kernel there has accepted; the program hears of it when it runs.
        listener.process.loop.call_soon(self._accept, listener, connection.server)
        client.protocol.connection_made(client)
        return client, client.protocol

    def _chosen(self, host: str, port: int) -> tuple[str, int]:
        """Where a connection to there leads: a proxy takes one of those that listen, whichever."""
        places = self.behind.get((host, port))
        if not places:
            return host, port
        known = [(place, self._listeners.get(place)) for place in places]
        open_ones = [place for place, one in known if one is not None and one.open]
        return self.world.random.choice(open_ones or places)

    def _accept(self, listener: Listener, server: Endpoint) -> None:
        if not server.closed:
            server.protocol = listener.factory()
            server.protocol.connection_made(server)

    async def _wait(self, process: Process, delay: float) -> None:
        future = process.loop.create_future()
        handle = process.loop.call_later(delay, lambda: future.done() or future.set_result(None))
        try:
            await future
        finally:
            handle.cancel()

    # -- what the world does

    def delay(self) -> float:
        """One way's latency."""
        return self.world.random.uniform(*self.latency)

    def apart(self, one: str, other: str) -> bool:
        """Whether nothing gets from one host to the other."""
        return frozenset((one, other)) in self.partitioned or (one, other) in self.deaf

    def parted(self, one: str, other: str) -> bool:
        """Whether one of two ways is closed: then no connection can be made."""
        return self.apart(one, other) or self.apart(other, one)

    def part(self, one: str, other: str) -> None:
        """Let nothing through between two hosts; connections stay open, half dead."""
        self.partitioned.add(frozenset((one, other)))

    def heal(self, one: str, other: str) -> None:
        """Let everything through again. What was sent meanwhile is sent again by TCP."""
        self.partitioned.discard(frozenset((one, other)))
        self.deaf -= {(one, other), (other, one)}
        for connection in list(self.connections):
            connection.to_server.go_on()
            connection.to_client.go_on()

    def died(self, process: Process) -> None:
        """The kernel closes a dead process's sockets."""
        for listener in self._listeners.values():
            if listener.process is process:
                listener.open = False
        for connection in list(self.connections):
            for endpoint in (connection.client, connection.server):
                if endpoint.process is process:
                    endpoint.vanish()

    def discard(self) -> None:
        """The run is over: no end of a connection is to be closed by the garbage collector later."""
        for connection in self.connections:
            connection.client.closed = connection.server.closed = True

    def forget(self, connection: Connection) -> None:
        """Both ends are closed."""
        if connection in self.connections:
            self.connections.remove(connection)


class Listener:
    """A listening socket; stands for `asyncio.Server`, too."""

    def __init__(self, network: Network, process: Process, factory: Any, host: str, port: int) -> None:
        self.network = network
        self.process = process
        self.factory = factory
        self.host = host
        self.port = port
        self.open = True
        self.sockets = (self,)

    def getsockname(self) -> tuple[str, int]:
        return self.host, self.port

    def close(self) -> None:
        self.open = False

    async def wait_closed(self) -> None:
        return None


class Connection:
    """Two endpoints, and a stream each way."""

    def __init__(self, network: Network, client: Process, server: Process) -> None:
        self.network = network
        self.client = Endpoint(network, self, client, f"{client.name}>{server.name}")
        self.server = Endpoint(network, self, server, f"{server.name}>{client.name}")
        self.to_server = Stream(network, self.client, self.server)
        self.to_client = Stream(network, self.server, self.client)
        self.client.out, self.client.into = self.to_server, self.to_client
        self.server.out, self.server.into = self.to_client, self.to_server

    def reset(self) -> None:
        """A box in between forgets the connection: both ends are told by a reset."""
        self.client.broken(ConnectionResetError(104, "connection reset by peer"))
        self.server.broken(ConnectionResetError(104, "connection reset by peer"))

    def swallow(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self.to_server.stalled_until = NEVER
        self.to_client.stalled_until = NEVER

    def stall(self, until: float) -> None:
        """Nothing arrives before *until*."""
        for stream in (self.to_server, self.to_client):
            stream.stalled_until = max(stream.stalled_until, until)
            self.network.world.at(until, stream.go_on)


class Stream:
    """The bytes of one direction."""

    def __init__(self, network: Network, source: Endpoint, target: Endpoint) -> None:
        self.network = network
        self.world = network.world
        self.source = source
        self.target = target
        self.stalled_until = 0.0
        self.cut_after: int | None = None  # bytes until the connection is reset
        self.waiting: deque[bytes] = deque()  # sent, not yet taken by the program there
        self.size = 0
        self.ended = False  # the sender has closed its side
        self._told_end = False
        self._last = 0.0
        self._scheduled = 0

    def send(self, data: bytes) -> None:
        pieces = self._pieces(data)
        for piece in pieces:
            self.waiting.append(piece)
            self.size += len(piece)
            self._schedule()

    def end(self) -> None:
        """No more bytes come."""
        self.ended = True
        self._schedule()

    def _pieces(self, data: bytes) -> list[bytes]:
        random = self.world.random
        if len(data) < 2 or random.random() >= self.network.fragment:
            return [data]
        cuts = sorted({random.randrange(1, len(data)) for _ in range(random.randint(1, 3))})
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _schedule(self) -> None:
        self._last = max(self._last, self.world.now + self.network.delay())
        self._scheduled += 1
        self.world.at(self._last, self._arrive)

    def _arrive(self) -> None:
        self._scheduled -= 1
        self.go_on()

    def go_on(self) -> None:
        """Hand over what has arrived, if the way is free and the program there reads."""
        world, target = self.world, self.target
        if world.now < self.stalled_until:
            return
        if self.network.apart(self.source.process.host, target.process.host):
            return
        if target.closed or not target.process.alive:
            if self.waiting and not self.source.closed and self.source.process.alive and not target.silent:
                self.waiting.clear()
                self.size = 0
                self.source.broken(ConnectionResetError(104, "connection reset by peer"))
            return
        # What is scheduled behind this has not arrived yet.
        while len(self.waiting) > self._scheduled and target.reading:
            piece = self.waiting.popleft()
            if self.cut_after is not None and len(piece) >= self.cut_after:
                piece = piece[: self.cut_after]
                self._hand_over(piece)
                world.note(self.source.name, "reset in the middle")
                self.source.connection.reset()
                return
            if self.cut_after is not None:
                self.cut_after -= len(piece)
            self.size -= len(piece)
            self._hand_over(piece)
        self.source.relieved()
        if self.ended and not self.waiting and not self._told_end and target.reading:
            self._told_end = True
            target.process.loop.call_soon(target.at_end)

    def _hand_over(self, piece: bytes) -> None:
        if piece:
            self.network.delivered(self.target, piece)
            self.target.process.loop.call_soon(self.target.received, piece)


class Endpoint(asyncio.Transport):
    """One end: what asyncio calls a transport."""

    out: Stream
    into: Stream

    def __init__(self, network: Network, connection: Connection, process: Process, name: str) -> None:
        super().__init__()
        self.network = network
        self.connection = connection
        self.process = process
        self.name = name
        self.protocol: Any = None
        self.reading = True
        self.closed = False  # the program is done with it, or it was told that it is gone
        self.silent = False  # gone without a word: the computer lost its power
        self._closing = False
        self._high = 64 * 1024
        self._low = 16 * 1024
        self._paused = False
        self._eof_sent = False

    # -- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in ("peername", "sockname"):
            return (self.process.host, 1)
        return default

    def is_closing(self) -> bool:
        return self._closing or self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return max(0, self.out.size - WINDOW)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def write(self, data: Any) -> None:
        if self.closed or self._eof_sent or not data or not self.process.effect():
            return
        data = bytes(data)
        self.network.wrote(self, data)
        self.out.send(data)
        if not self._paused and self.get_write_buffer_size() > self._high:
            self._paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._eof_sent and not self.closed and self.process.effect():
            self._eof_sent = True
            self.out.end()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            self.process.loop.call_soon(self.into.go_on)

    def is_reading(self) -> bool:
        return self.reading

    def close(self) -> None:
        if self.is_closing():
            return
        self._closing = True
        self.reading = False
        if not self._eof_sent and self.process.effect():
            self._eof_sent = True
            self.out.end()
        self._finish_close()

    def abort(self) -> None:
        if self.closed:
            return
        self._lost(None)
        if self.process.effect():
            self._reset_other()

    # -- from the streams

    def received(self, data: bytes) -> None:
        if not self.closed and not self._closing and self.protocol is not None:
            self.protocol.data_received(data)

    def at_end(self) -> None:
        if self.closed or self._closing or self.protocol is None:
            return
        if not self.protocol.eof_received():
            self.close()

    def relieved(self) -> None:
        """The other side has taken something."""
        if self.closed or not self.process.alive:
            return
        if self._paused and self.get_write_buffer_size() <= self._low:
            self._paused = False
            self.process.loop.call_soon(self._resume_writing)
        if self._closing:
            self._finish_close()

    def broken(self, exc: Exception) -> None:
        """The connection is gone, and this end is told."""
        if not self.closed and self.process.alive:
            self.out.waiting.clear()
            self.process.loop.call_soon(self._lost, exc)

    def vanish(self) -> None:
        """The process of this end has died: its kernel sends what it had taken, then closes."""
        if self.closed:
            return
        self.closed = True
        if self.silent:
            self.out.stalled_until = NEVER
            return
        self.into.waiting.clear()
        self.out.end()
        self._reset_other(after=True)

    # -- inside

    def _resume_writing(self) -> None:
        if not self.closed:
            self.protocol.resume_writing()

    def _finish_close(self) -> None:
        if self.get_write_buffer_size() == 0 and not self.closed:
            self._lost(None)

    def _lost(self, exc: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        if exc is not None or not self._closing:
            self.out.waiting.clear()
            self.out.size = 0
        if self.protocol is not None:
            self.process.loop.call_soon(self.protocol.connection_lost, exc)
        other = self.connection.server if self is self.connection.client else self.connection.client
        if other.closed or not other.process.alive:
            self.network.forget(self.connection)

    def _reset_other(self, *, after: bool = False) -> None:
        """A reset, or the end of a dead program's stream, travels to the other side."""
        connection, world = self.connection, self.network.world
        other = connection.server if self is connection.client else connection.client
        stream = self.out

        def tell() -> None:
            if world.now < stream.stalled_until:
                if stream.stalled_until < NEVER:
                    world.at(stream.stalled_until, tell)
                return
            if self.network.apart(self.process.host, other.process.host):
                world.later(1.0, tell)
                return
            if after and stream.waiting and not other.closed and other.reading:
                stream.go_on()
            other.broken(ConnectionResetError(104, "connection reset by peer"))
            self.network.forget(connection)

        world.later(self.network.delay(), tell)
