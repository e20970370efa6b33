"""reading: what the library would have read, is read: the same messages, the same answers, the same end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri
from websockets.utils import accept_key

from tests.scale import many
from wsmonitor.client.reading import LARGEST, ReadingConnection, frame_size, plain_messages

MAX_SIZE = 300_000
MASK = b"\x01\x02\x03\x04"


class Wire(asyncio.Transport):
    """A transport that goes nowhere, and keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.paused = False
        self.closing = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.closing = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Library(ClientConnection):
    """The library alone: its own parser reads everything."""

    def __init__(self, protocol: ClientProtocol) -> None:
        super().__init__(protocol)
        self.messages: list[bytes] = []
        self._parts: list[bytes] = []

    def process_event(self, event: Any) -> None:
        if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            super().process_event(event)
            return
        self._parts.append(bytes(event.data))
        if event.fin:
            self.messages.append(b"".join(self._parts))
            self._parts = []


class Ours(ReadingConnection):
    """Ours, with what it hands over."""

    def __init__(self, protocol: ClientProtocol) -> None:
        super().__init__(protocol)
        self.messages: list[bytes] = []
        self.read(self.messages.extend)


def asked(cls: Any) -> tuple[Any, Wire, bytes]:
    """A connection that has asked for the upgrade, its transport, and the answer that it waits for."""
    protocol = ClientProtocol(parse_uri("ws://here:1/"), max_size=MAX_SIZE)
    connection, wire = cls(protocol), Wire()
    connection.connection_made(wire)
    request = protocol.connect()
    protocol.send_request(request)
    connection.send_data()
    wire.written = b""
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(request.headers['Sec-WebSocket-Key'])}\r\n\r\n"
    )
    return connection, wire, answer.encode()


def framed(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


def text(size: int, letter: bytes = b"x") -> bytes:
    return framed(Opcode.TEXT, size * letter)


PIECES = {
    **{f"text of {size}": text(size) for size in (0, 1, 2, 125, 126, 127, 500, LARGEST, LARGEST + 1)},
    "text of 65,535": text(65_535),
    "longer than allowed": text(MAX_SIZE + 1),
    "other text": text(7, b"y"),
    "binary": framed(Opcode.BINARY, b"\x00\x81\x03"),
    "large, with what looks like frames": framed(Opcode.TEXT, 30_000 * b"\x81\x01a"),
    "large binary": framed(Opcode.BINARY, 70_000 * b"b"),
    "fragments": framed(Opcode.TEXT, b"one ", fin=False)
    + framed(Opcode.PING, b"between")
    + framed(Opcode.CONT, b"two ", fin=False)
    + framed(Opcode.CONT, b"three"),
    "fragments that do not end": framed(Opcode.TEXT, b"one ", fin=False),
    "continuation": framed(Opcode.CONT, b"four"),
    "ping": framed(Opcode.PING, b"p"),
    "pong": framed(Opcode.PONG, b""),
    "close": framed(Opcode.CLOSE, Close(1000, "bye").serialize()),
    "close of ours": framed(Opcode.CLOSE, Close(4001, "draining").serialize()),
    "masked": b"\x81\x83" + MASK + b"abc",
    "length in more bytes than it needs": b"\x81\x7e\x00\x03abc",
    "length in eight bytes": b"\x81\x7f" + (5).to_bytes(8, "big") + b"abcde",
    "length beyond all": b"\x81\x7f" + b"\xff" * 8,
    "reserved bit": b"\xc1\x01a",
    "unknown opcode": b"\x83\x01a",
    "fragmented ping": b"\x09\x00",
    "long ping": b"\x89\x7e\x00\x80" + 128 * b"p",
    "no UTF-8": framed(Opcode.TEXT, b"\xff\xfe"),
}
PLAIN = [name for name in PIECES if name.startswith(("text of", "other text"))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


def unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """The frames that a client has sent, all of them short: the first byte, and what it says."""
    frames = []
    while data:
        size = data[1] & 0x7F
        assert size < 126, "a control frame"
        mask, payload, first, data = data[2:6], data[6 : 6 + size], data[0], data[6 + size :]
        frames.append((first, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))))
    return frames


async def both(names: Sequence[str], places: Sequence[int]) -> None:
    results = []
    for cls in (Library, Ours):
        connection, wire, answer = asked(cls)
        for data in cut(answer + b"".join(PIECES[name] for name in names), places):
            connection.data_received(data)
        connection.eof_received()
        connection.connection_lost(None)
        closed = connection.protocol
        results.append(
            (
                connection.messages,
                unmasked(wire.written),
                closed.close_code,
                closed.close_reason,
                closed.state.name,
            )
        )
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert results[1] == results[0]


@settings(max_examples=many(60), deadline=None)
@given(
    st.lists(st.sampled_from(PLAIN) | st.sampled_from(list(PIECES)), max_size=8),
    st.lists(st.integers(0, 1_000_000) | st.integers(0, 1000), max_size=12),
)
def test_it_reads_what_the_library_reads(names: list[str], places: list[int]) -> None:
    asyncio.run(both(names, places))


@pytest.mark.parametrize("name", PIECES)
async def test_each_piece_between_others(name: str) -> None:
    names = ["other text", name, "other text", "ping", "other text"]
    await both(names, [])
    await both(names, [200, 300, 400, 40_000, 50_001, 60_002, 70_500])


async def test_byte_by_byte() -> None:
    names = ["text of 126", "ping", "text of 2", "fragments", "text of 500", "close", "other text"]
    await both(names, range(3000))


async def test_a_piece_of_many_is_handed_over_at_once() -> None:
    connection, _, answer = asked(ReadingConnection)
    told: list[list[bytes]] = []
    connection.read(lambda messages: told.append(list(messages)))
    connection.data_received(answer + text(3) + text(200) + text(4)[:-1])
    connection.data_received(b"x" + text(5))
    assert told == [[b"xxx", 200 * b"x"], [b"xxxx", b"xxxxx"]]


async def test_the_answer_to_the_handshake_may_be_cut_anywhere() -> None:
    _, _, answer = asked(ReadingConnection)
    for place in range(len(answer)):
        connection, _, answer = asked(ReadingConnection)
        told: list[list[bytes]] = []
        connection.read(lambda messages, told=told: told.append(list(messages)))
        connection.data_received(answer[:place])
        connection.data_received(answer[place:] + text(1) + text(2))
        assert told == [[b"x", b"xx"]], place


async def test_what_comes_before_somebody_reads_waits_and_nothing_more_is_read() -> None:
    connection, wire, answer = asked(ReadingConnection)
    connection.data_received(answer)
    assert not wire.paused
    connection.data_received(text(1) + PIECES["fragments"])
    assert wire.paused
    told: list[bytes] = []
    connection.read(told.extend)
    assert told == [b"x", b"one two three"]
    assert not wire.paused
    connection.data_received(text(2))
    assert told == [b"x", b"one two three", b"xx"]
    assert not wire.paused


async def test_a_refusal_is_the_librarys() -> None:
    refusal = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\n{"a":"b"}'
    for place in range(len(refusal)):
        connection, _, _ = asked(ReadingConnection)
        for data in cut(refusal, [place]):
            connection.data_received(data)
        assert connection.response.status_code == 401
        assert connection.response.body == b'{"a":"b"}'


def test_sizes_and_messages() -> None:
    for name in PLAIN:
        data = PIECES[name]
        assert frame_size(data, 0) == len(data)
        assert frame_size(b"--" + data, 2) == len(data)
    assert frame_size(PIECES["masked"], 0) == len(PIECES["masked"])
    assert [frame_size(text(200)[:end], 0) for end in (0, 1, 2, 3, 4)] == [None, None, None, None, 204]
    assert frame_size(text(70_000)[:9], 0) is None
    assert plain_messages(text(1) + text(130) + text(2)[:-1], 0) == ([b"x", 130 * b"x"], 3 + 134)
    assert plain_messages(text(130)[:3], 0) == ([], 0)
    assert plain_messages(b"\x81", 0) == ([], 0)
