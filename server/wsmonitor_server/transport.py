"""The WebSocket framing under one connection. The one module that knows the library.

`WebSocketTransport` is an `asyncio.Protocol` around the library's sans-IO ``ServerProtocol``: the library
parses the handshake and the frames that come in, answers pings, and runs the closing handshake. What
goes out is framed by us, in `framing`, because an event has to be framed once for all who get it,
and because everything of one loop turn has to go into one write. That is allowed by the framing's
rules as long as no extension is negotiated (none is offered), the connection is open, and no
fragmented message is being sent (none ever is).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol, cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, PayloadTooBig, SecurityError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.defaults import SUBPROTOCOL

from .framing import frame_text

HIGH_WATER: Final = 64 * 1024
"""Bytes that may wait in the user-space send buffer before writing pauses."""

CLOSE_GRACE: Final = 2.0
"""Seconds for the other side to end the connection after a close frame; then it is aborted."""

MAX_UNREAD: Final = 64 * 1024
"""Bytes of answers to pings that may wait, beyond what is buffered, for a client that does not read them."""

# The library logs whole requests at DEBUG, tokens included: this level keeps that out of every log.
_LOG: Final = logging.getLogger("wsmonitor_server.websockets")
_LOG.setLevel(logging.WARNING)


class HandshakeRequest:
    """The HTTP request of a handshake: path with query, and headers."""

    __slots__ = ("_request", "path")

    def __init__(self, request: Request) -> None:
        self._request = request
        self.path = request.path

    def header(self, name: str) -> str | None:
        """The header's values, joined by a comma; None when it is missing."""
        values = self._request.headers.get_all(name)
        return ", ".join(values) if values else None

    @property
    def wants_upgrade(self) -> bool:
        return "websocket" in (self.header("Upgrade") or "").lower()


_CONTROL: Final = frozenset({Opcode.PING, Opcode.PONG, Opcode.CLOSE})


class Handler(Protocol):
    """What a transport tells its owner. All calls come from the loop's thread."""

    def opened(self, address: object) -> None:
        """The connection is there, with its address as the system gives it."""

    def heard(self) -> None:
        """Bytes arrived."""

    def requested(self, request: HandshakeRequest) -> None:
        """To be answered with `respond` or `accept`."""

    def unreadable(self, *, too_large: bool) -> tuple[int, Mapping[str, str], bytes]:
        """What arrived is no HTTP request: the answer's status, headers and body."""

    def text(self, data: bytes) -> None: ...
    def part(self) -> None:
        """A frame that is no whole message: a ping or pong, or a part of a message that is to come."""

    def binary(self) -> None: ...
    def oversize(self) -> bytes:
        """A message above the limit: the payload to send before the connection is closed with 1009."""

    def stopped(self) -> None:
        """What `WebSocketTransport.sink` gave is not to be called any more: bytes wait, or it is over."""

    def writable(self) -> None:
        """The send buffer has room again."""

    def lost(self, code: int, reason: str) -> None:
        """The connection is gone; nothing more will be told."""


READ_SIZE: Final = 256 * 1024
"""Bytes that are read at once."""


class ReadBuffer:
    """Where all connections of one loop read into, one after the other.

    Without it, each read asks the system for a quarter of a megabyte of memory, and gives it back.
    """

    __slots__ = ("view",)

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))


class WebSocketTransport(asyncio.BufferedProtocol):
    """One connection's bytes.

    Args:
        handler: is told what arrives.
        max_size: bytes of the largest message.
        buffer: shared with others of the same loop.
    """

    __slots__ = (
        "_answered",
        "_buffer",
        "_deaf",
        "_direct",
        "_ended",
        "_fragments",
        "_grace",
        "_handler",
        "_loop",
        "_oversize",
        "_protocol",
        "_requested",
        "_transport",
        "_unread",
        "paused",
        "reading",
    )

    def __init__(self, handler: Handler, *, max_size: int, buffer: ReadBuffer) -> None:
        self._handler = handler
        self._buffer = buffer
        self._protocol = ServerProtocol(
            subprotocols=[Subprotocol(SUBPROTOCOL)], extensions=None, max_size=max_size, logger=_LOG
        )
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fragments: list[bytes] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._oversize = False
        self._requested = False
        self._answered = False
        self._ended = False
        self._deaf = False
        self._direct: Callable[[bytes], int] | None = None
        self._unread = 0
        self.paused = False
        self.reading = True

    # -- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = self._transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Without it the kernel's buffer grows to megabytes, and a reader that has stalled is not seen.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, HIGH_WATER)
        self._direct = direct(self._transport, self._loop)
        self._handler.opened(self._transport.get_extra_info("peername"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer.view[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Bytes that were read."""
        self._handler.heard()
        if self._requested and not self._answered:
            # Nobody of the standard sends anything between a handshake and its answer.
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._requested = True
                self._handler.requested(HandshakeRequest(event))
            elif isinstance(event, Frame):
                self._frame_received(event)
        if not self._requested and (fault := self._protocol.handshake_exc) is not None:
            self._refuse_unreadable(fault)
            return
        if isinstance(self._protocol.parser_exc, PayloadTooBig) and not self._oversize:
            # The library has put its close frame into its own queue: the reason goes out before it.
            self._oversize = True
            self._raw_write(frame_text(self._handler.oversize()))
        if self._answered or not self._requested:
            self._write_library()
        if self._protocol.state is not State.OPEN:
            self._handler.stopped()

    def eof_received(self) -> bool | None:
        if self._requested and not self._answered and self._transport is not None:
            # It has asked, and wants to hear no more than the answer: as much as TLS allows.
            self._ended = True
            return self._transport.can_write_eof()
        self._protocol.receive_eof()
        self._write_library()
        self._handler.stopped()
        return None

    def pause_writing(self) -> None:
        self.paused = True
        self._handler.stopped()

    def resume_writing(self) -> None:
        self.paused = False
        self._unread = 0
        self._handler.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._grace is not None:
            self._grace.cancel()
        if self._protocol.state is not State.CLOSED:
            self._protocol.receive_eof()
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        first = sent if sent is not None and not self._protocol.close_rcvd_then_sent else received or sent
        # Before the loop closes the socket: its number is soon another connection's.
        self._transport = self._direct = None
        self._handler.stopped()
        if self._unread > MAX_UNREAD:
            self._handler.lost(int(CloseCode.TOO_SLOW), "it does not read the answers to its pings")
        elif first is not None:
            self._handler.lost(int(first.code), first.reason)
        else:
            self._handler.lost(1006, str(exc) if exc else "")

    # -- what the owner asks for

    def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer the handshake request with a plain HTTP response, and close."""
        self._answered = True
        response = _response(status, headers, body)
        if self._protocol.parser_exc is None and not self._ended:
            self._protocol.send_response(response)
            self._write_library()
        else:
            self._respond_by_hand(response)

    def say(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer what was not asked yet, if nothing was answered: for who is about to be dropped."""
        if self._transport is not None and not self._answered and self._protocol.parser_exc is None:
            self._answered = True
            self._raw_write(_response(status, headers, body).serialize())

    def accept(self, request: HandshakeRequest) -> str | None:
        """Upgrade. Returns what is wrong with the handshake, when it cannot be (nothing was sent then)."""
        if self._protocol.parser_exc is not None or self._ended:
            return "what follows the handshake, before its answer, is no WebSocket"
        try:
            response = self._protocol.accept(request._request)
        except UnicodeError:
            response = None  # older versions of the library repeat the header's odd bytes in their answer
        if response is None or response.status_code != 101:
            # The library's own words repeat the header, and a token may stand in it.
            fault = self._protocol.handshake_exc
            where = f": {fault.name}" if isinstance(fault, InvalidHeader) else ""
            return f"this is not the handshake of a WebSocket (RFC 6455, 4.2.1){where}"
        self._answered = True
        self._protocol.send_response(response)
        self._write_library()
        return None

    @property
    def open(self) -> bool:
        """Whether frames may be written."""
        return self._protocol.state is State.OPEN and self._transport is not None

    @property
    def sink(self) -> Callable[[bytes], int] | None:
        """What gives whole frames to the kernel, until `Handler.stopped`; None while nothing may be given.

        It returns how many bytes were taken, and raises `OSError` when it was none: the rest, be it all,
        has to be given to `write_rest` at once.
        """
        transport = self._transport
        if transport is None or self._protocol.state is not State.OPEN or self.paused:
            return None
        if self._direct is None:
            return self._through
        # What waits in the transport has to go first.
        return None if transport.get_write_buffer_size() else self._direct

    def write_rest(self, data: bytes, taken: int) -> None:
        """Write what of *data* the `sink` has not taken."""
        self._raw_write(data[taken:])

    def write(self, frames: list[bytes]) -> int:
        """Write whole frames, in one call: so many bytes. Nothing happens when the connection is not open."""
        transport = self._transport
        if transport is None or self._protocol.state is not State.OPEN:
            return 0
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        transport.write(data)
        return len(data)

    def buffered(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self, code: int, reason: str = "", *, grace: float = CLOSE_GRACE) -> None:
        """Send a close frame; abort when the other side does not follow within *grace* seconds."""
        if self.open:
            self._deaf = True
            self._fragments = None
            self._protocol.send_close(code, _close_reason(reason))
            self._write_library()
            self._arm_grace(grace)
        elif self._protocol.state is State.CONNECTING:
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once; what is buffered is lost."""
        if self._transport is not None:
            self._handler.stopped()
            self._transport.abort()

    def pause_reading(self) -> None:
        if self.reading and self._transport is not None:
            self.reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # -- inside

    def _frame_received(self, frame: Frame) -> None:
        if self._protocol.state is State.CONNECTING:
            # A frame before the handshake was answered: no client of the standard does this.
            self.abort()
        elif self._deaf:
            # We have closed: what the other side had sent before it knew is nobody's any more.
            pass
        elif frame.opcode in _CONTROL:
            if frame.opcode is not Opcode.CLOSE:
                self._handler.part()
        elif not frame.fin:
            self._part_received(frame)
        elif frame.opcode is Opcode.TEXT:
            self._handler.text(bytes(frame.data))
        elif frame.opcode is Opcode.BINARY or self._fragments is None:
            self._handler.binary()
        else:
            message, self._fragments = b"".join([*self._fragments, bytes(frame.data)]), None
            self._handler.text(message)

    def _part_received(self, frame: Frame) -> None:
        # Counted like messages: a message without an end, of empty parts, would grow for ever.
        if frame.opcode is Opcode.TEXT:
            self._fragments = []
        if self._fragments is not None:
            self._fragments.append(bytes(frame.data))
        self._handler.part()

    def _refuse_unreadable(self, fault: Exception) -> None:
        if self._grace is None and self._transport is not None:
            # As the cause in versions of the library before 15.
            too_large = isinstance(fault, SecurityError) or isinstance(fault.__cause__, SecurityError)
            told = self._handler.unreadable(too_large=too_large)
            self._respond_by_hand(_response(*told))

    def _respond_by_hand(self, response: Response) -> None:
        # The library answers some of what it cannot read in words of its own, and the rest not at all.
        self._protocol.data_to_send()
        if self._transport is not None:
            self._raw_write(response.serialize())
            if self._transport.can_write_eof():
                with contextlib.suppress(OSError, RuntimeError):
                    self._transport.write_eof()
            self._arm_grace()

    def _raw_write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            if self._direct is not None and self._transport.get_write_buffer_size():
                self._handler.stopped()

    def _through(self, data: bytes) -> int:
        """A `sink` through the loop's transport, which keeps what the kernel does not take."""
        self._raw_write(data)
        return len(data)

    def _write_library(self) -> None:
        transport = self._transport
        for data in self._protocol.data_to_send():
            if transport is None:
                continue
            if data:
                self._raw_write(data)
                if self.paused:
                    self._unread += len(data)
                    if self._unread > MAX_UNREAD:
                        self.abort()
                        return
            elif transport.can_write_eof():
                # Half-close: what was written still arrives; the other side's end finishes it.
                with contextlib.suppress(OSError, RuntimeError):
                    transport.write_eof()
                self._arm_grace()
            else:
                transport.close()
                self._arm_grace()

    def _arm_grace(self, grace: float = CLOSE_GRACE) -> None:
        if self._grace is None and self._loop is not None and self._transport is not None:
            self._grace = self._loop.call_later(grace, self.abort)


def direct(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> Callable[[bytes], int] | None:
    """What writes to the transport's socket past the transport; None where that cannot be done.

    asyncio's own `write` asks once more what is known here. The loop's contract with its transports is what
    makes it safe: nothing waits in the transport (or the order would be lost), and the socket is closed
    after `connection_lost`, never before.
    """
    sock = transport.get_extra_info("socket")
    plain = transport.get_extra_info("sslcontext") is None
    if sock is None or not plain or os.name != "posix" or not isinstance(loop, asyncio.SelectorEventLoop):
        return None
    return partial(os.write, sock.fileno())


def _response(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    fields = Headers({"Connection": "close", "Content-Length": str(len(body)), **headers})
    return Response(status, HTTPStatus(status).phrase, fields, body)


def _close_reason(reason: str) -> str:
    # A control frame holds 125 bytes, two of which are the code.
    return reason.encode()[:123].decode(errors="ignore")
