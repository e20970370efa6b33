"""WebSocket frames of what goes out, made once for all who get it. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import inf
from typing import Final

CHUNK: Final = 64 * 1024
"""Bytes of frames that are joined, and so of one write. Larger frames go alone."""


def frame_text(payload: bytes) -> bytes:
    """*payload* as one unmasked text frame (RFC 6455, 5.2)."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x81, length) + payload
    if length < 65536:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


def join(payloads: tuple[bytes, ...]) -> Iterator[tuple[bytes, int]]:
    """*payloads* as text frames, joined to chunks, each with the number of frames in it."""
    waiting: list[bytes] = []
    size = 0
    for frame in map(frame_text, payloads):
        if waiting and size + len(frame) > CHUNK:
            yield b"".join(waiting), len(waiting)
            waiting, size = [], 0
        waiting.append(frame)
        size += len(frame)
    if waiting:
        yield b"".join(waiting), len(waiting)


class Framed:
    """Events as frames, and what has to hold for a connection to which they are written straight away.

    That is a connection for which nothing waits. It is written to at most once in a turn of the loop (what
    comes later in the turn is joined), and only while its token lasts.

    Args:
        payloads: the encoded events.
        turn: the number of this turn of the loop.
        wall: seconds since 1970; None when nothing may be written straight away.

    Attributes:
        chunks: the frames, joined, each chunk with its number of frames.
        data: the one chunk; when there are more, they are queued.
        valid: only to connections whose token lasts longer than this (seconds since 1970).
        size: bytes in `data`.
        written: to how many connections `data` was written.
    """

    __slots__ = ("chunks", "data", "size", "turn", "valid", "written")

    def __init__(self, payloads: tuple[bytes, ...], turn: int, wall: float | None) -> None:
        self.chunks = list(join(payloads))
        self.data = self.chunks[0][0]
        self.size = len(self.data)
        self.turn = turn
        self.valid = inf if wall is None or len(self.chunks) > 1 else wall
        self.written = 0

    @property
    def frames_written(self) -> int:
        """How many frames were written straight away."""
        return self.written * self.chunks[0][1]


class Delivery:
    """Committed events, at least one, on their way to all subscribers of a topic.

    Attributes:
        payloads: the encoded events, in order.
        framed: what the first subscriber with a socket has made of them, for all others.
    """

    __slots__ = ("framed", "payloads")

    def __init__(self, payloads: tuple[bytes, ...]) -> None:
        self.payloads = payloads
        self.framed: Framed | None = None
