"""What is fuzzed: functions from bytes to nothing, which raise when something is wrong.

``codec``     the decoders: a message or a `ProtocolError`, and what was read can be written and read again
``door``      bytes of a TCP connection from its first on, in pieces
``frames``    bytes after a handshake that was let in
``messages``  JSON messages, one a line, after ``hello``

The server is a real one, but for the socket: a transport that keeps what is written. Nothing may raise, no
fault may be logged, what is written has to be what the protocol allows.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from websockets.frames import Frame, Opcode

from tests.server_front.raw import UPGRADE
from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.codec import (
    DamagedPublish,
    decode_client,
    decode_event,
    decode_server,
    encode,
)
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.errors import CATALOGUE, ProtocolError
from wsmonitor.protocol.messages import Error, Event
from wsmonitor_server.connection import Connection
from wsmonitor_server.embedded import EmbeddedServer

MAX_SIZE: Final = 64 * 1024
CLOSES: Final = frozenset({int(code) for code in CloseCode} | {1000, 1001, 1002, 1003, 1006, 1007, 1009})
"""With what a connection may be ended: the protocol's codes, and those of RFC 6455 for broken frames."""


class Wrong(AssertionError):
    """A target found something."""


def codec(data: bytes) -> None:
    """Decode *data* as everything that may come in."""
    for decode in (
        lambda: decode_client(data, MAX_SIZE),
        lambda: decode_server(data),
        lambda: decode_event(data),
    ):
        try:
            message = decode()
        except ProtocolError as exc:
            if exc.code not in CATALOGUE or not str(exc) or len(str(exc)) > 2_000:
                raise Wrong(f"an error that cannot be told: {exc.code!r} {exc}") from exc
            continue
        if message is None or isinstance(message, DamagedPublish):
            continue
        again = encode(message)
        back = decode_event(again) if isinstance(message, Event) else _read(again)
        if encode(back) != again:
            raise Wrong(f"{message} is not what its encoding says: {again!r}")


def _decode_client(data: bytes) -> Any:
    return decode_client(data, MAX_SIZE)


def _read(data: bytes) -> Any:
    try:
        return decode_client(data, 4 * MAX_SIZE)
    except ProtocolError:
        return decode_server(data)


class Pipe(asyncio.Transport):
    """A transport without a socket: what is written is kept, up to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("fuzz", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class _Faults(logging.Handler):
    """Notes what a server logs as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(logging.Formatter().format(record))


class House:
    """A server whose front door is tried, again and again, in one loop."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.embedded = EmbeddedServer(
            limits=Limits(message_size=MAX_SIZE, message_rate=1e9, message_burst=2**31)
        )
        self.faults = _Faults()
        self.problems: list[str] = []
        self.tokens: dict[str, str] = {}

    def __enter__(self) -> House:
        logging.getLogger("wsmonitor_server").addHandler(self.faults)
        self.runner.get_loop().set_exception_handler(lambda loop, context: self.problems.append(str(context)))
        self.runner.run(self.embedded.start())
        for role in ("observe", "command", "publish", "admin"):
            self.tokens[role] = self.embedded.token(sub=role, role=role, sessions=("s*", "*~1"), jti=role)
        return self

    def __exit__(self, *what: object) -> None:
        self.runner.run(self.embedded.drain())
        self.runner.close()
        logging.getLogger("wsmonitor_server").removeHandler(self.faults)

    def run(self, *pieces: bytes) -> bytes:
        """A connection that sends *pieces* and then ends; what the server has written.

        Raises:
            Wrong: something was left, logged as a fault, or raised.
        """
        return self.runner.run(self._run(pieces))

    async def _run(self, pieces: tuple[bytes, ...]) -> bytes:
        server = self.embedded.server
        connection = Connection(server, f"f{id(pieces)}")
        pipe = Pipe()
        pipe.protocol = connection.transport
        connection.transport.connection_made(pipe)
        for piece in pieces:
            if pipe.closed:
                break
            connection.transport.data_received(piece)
            await asyncio.sleep(0)
        await self._quiet(connection)
        if not pipe.closed:
            connection.transport.eof_received()
            await self._quiet(connection)
            pipe.abort()
        async with asyncio.timeout(60):
            await server.all_gone()
        left = [*self.problems, *self.faults.seen]
        self.problems.clear()
        self.faults.seen.clear()
        if left or server.counters.pop("faults_total", 0):
            raise Wrong("\n".join(left) or "a fault was counted")
        if server.peers or server._by_subject:
            raise Wrong("the connection was not forgotten")
        return bytes(pipe.written)

    async def _quiet(self, connection: Connection) -> None:
        """Wait until all that was asked for is answered."""
        async with asyncio.timeout(60):
            while connection._lanes or self.embedded.server.tasks:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    # -- targets

    def door(self, data: bytes) -> None:
        """*data* are a connection's first bytes; its first one says into what pieces they are cut."""
        size = (data[0] if data else 0) or 1
        rest = data[1:]
        written = self.run(*(rest[at : at + size * 8] for at in range(0, len(rest), size * 8)))
        if written and not written.startswith(b"HTTP/1.1 "):
            raise Wrong(f"not an answer in HTTP: {written[:100]!r}")

    def frames(self, data: bytes) -> None:
        """*data* come after a handshake that was let in; the first byte says as whom."""
        role = ("observe", "command", "publish", "admin")[data[0] % 4 if data else 0]
        self.check(self.run(self.handshake(role), data[1:]))

    def messages(self, data: bytes) -> None:
        """The lines of *data* are text messages after ``hello``; the first byte says as whom."""
        role = ("observe", "command", "publish", "admin")[data[0] % 4 if data else 0]
        self.say(role, data[1:].split(b"\n"))

    def say(self, role: str, texts: list[bytes]) -> list[Any]:
        """A connection that sends *texts* after ``hello``; the server's messages, all of them checked."""
        hello = text_frame(b'{"type":"hello","major":1,"agent":"fuzz"}')
        return self.check(self.run(self.handshake(role), hello, *map(text_frame, texts)))

    def handshake(self, role: str) -> bytes:
        fields = {**UPGRADE, "Authorization": f"Bearer {self.tokens[role]}"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"GET / HTTP/1.1\r\n{head}\r\n".encode()

    def check(self, written: bytes) -> list[Any]:
        """The server's messages in what it has *written*.

        Raises:
            Wrong: a frame, a message, an error or a close code is not what the protocol allows.
        """
        head, _, rest = written.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise Wrong(f"a good handshake was refused: {head[:200]!r}")
        messages = []
        for opcode, payload in frames_in(rest):
            if opcode is Opcode.TEXT:
                message = decode_server(payload)
                if message is None:
                    raise Wrong(f"no message of this protocol: {payload[:200]!r}")
                if isinstance(message, Error):
                    check_error(message)
                messages.append(message)
            elif opcode is Opcode.CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1000
                if code not in CLOSES and not 3000 <= code < 5000:
                    raise Wrong(f"closed with {code}")
        return messages


def check_error(message: Error) -> None:
    """An error has a code of the catalogue, and words; and none is a fault of ours."""
    info = message.error
    if info.code not in CATALOGUE or info.code == "internal" or not info.message:
        raise Wrong(f"an error that cannot be told: {info}")
    msgspec.json.encode(info).decode("utf-8")


def text_frame(payload: bytes) -> bytes:
    """*payload* as a client's text frame."""
    return Frame(Opcode.TEXT, payload).serialize(mask=True)


def frames_in(data: bytes) -> Iterator[tuple[Opcode, bytes]]:
    """The frames of a server in *data*, the last one perhaps cut off."""
    at = 0
    while at + 2 <= len(data):
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = struct.unpack_from("!H", data, at + 2)[0], at + 4
        elif length == 127:
            length, start = struct.unpack_from("!Q", data, at + 2)[0], at + 10
        if start + length > len(data):
            return
        yield Opcode(data[at] & 15), data[start : start + length]
        at = start + length


@contextmanager
def targets() -> Iterator[dict[str, Callable[[bytes], None]]]:
    """All targets by name, with a server behind them."""
    with House() as house:
        yield {"codec": codec, "door": house.door, "frames": house.frames, "messages": house.messages}
