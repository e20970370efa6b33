"""A connection of the load generator in Python: it connects, goes through its script, tells of deliveries."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import TYPE_CHECKING, Final

from .script import Values, expand, holds

if TYPE_CHECKING:
    from .python_load import Load

STAMP: Final = re.compile(rb"bench:(\d{19}):(\d{10}):")
OVERLAP: Final = 37  # bytes of a stamp


def masked(payload: bytes, opcode: int) -> bytes:
    """A client's frame; the masking key is zero, so that the payload stays as it is."""
    length = len(payload)
    if length < 126:
        head = bytes([0x80 | opcode, 0x80 | length])
    elif length < 65536:
        head = bytes([0x80 | opcode, 0xFE]) + length.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0xFF]) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


class Client(asyncio.Protocol):
    """One connection that goes through its script."""

    def __init__(self, load: Load, number: int, role: str, topic: int, port: int) -> None:
        self.load = load
        self.number = number
        self.role = role
        self.topic = topic
        self.port = port
        self.part = load.script.parts[role]
        self.live = False
        self.ready = asyncio.Event()  # live, or lost
        self.transport: asyncio.Transport | None = None
        self.began = time.monotonic_ns()
        self._step = self._met = self._page = self._beats = 0
        self._next: int | None = None
        self._in = bytearray()
        self._message = b""
        self._upgraded = False

    def values(self) -> dict[str, int | bytes]:
        tokens = self.load.tokens
        token = tokens[self.number % len(tokens)] if tokens else b""
        return {
            "connection": self.number, "topic": self.topic, "page": self._page, "beat": self._beats,
            "token": token,
        }  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        texts = self.load.script.texts
        head = (
            b"GET " + texts["path"] + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + texts.get("headers", b"") + b"\r\n"
        )
        transport.write(expand(head, self.values()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.load.lost += 1
            self.load.changed()
        self.transport, self.live = None, False
        self.ready.set()

    def drop(self) -> None:
        """End it from here: it is not lost."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()
        self.live = False

    def say(self, form: bytes, values: Values) -> None:
        self.write(expand(form, values))

    def write(self, payload: bytes) -> None:
        if self.transport is not None:
            self.transport.write(masked(payload, 2 if self.load.script.numbers.get("binary") else 1))

    def beat(self) -> None:
        if self.live and self.part.beat:
            self._beats += 1
            self.say(self.part.beat, self.values())

    def data_received(self, data: bytes) -> None:
        self.load.clock = time.monotonic_ns()
        self._in += data
        if not self._upgraded:
            end = self._in.find(b"\r\n\r\n")
            if end < 0:
                return
            if self._in[9:12] != b"101":
                sys.stderr.write(f"connection {self.number} was refused: {bytes(self._in[:end])!r}\n")
                return
            self._upgraded = True
            del self._in[: end + 4]
            self._advance()
        at = 0
        while (frame := self._frame(at)) is not None:
            opcode, payload, at = frame
            self._received(opcode, payload)
        del self._in[:at]

    def _frame(self, at: int) -> tuple[int, bytes, int] | None:
        buffer = self._in
        there = len(buffer) - at
        if there < 2:
            return None
        length, head = buffer[at + 1] & 127, 2
        if length == 126:
            length, head = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
        elif length == 127:
            length, head = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
        if there < head + length:
            return None
        start = at + head
        return buffer[at], bytes(buffer[start : start + length]), start + length

    def _received(self, first: int, payload: bytes) -> None:
        opcode, observing = first & 15, self.live and self.role == "observer"
        if opcode == 9 and self.transport is not None:
            self.transport.write(masked(payload, 10))
        if opcode > 2:
            return
        if self.load.script.numbers.get("stream") and observing:
            self._message += payload
            self.load.bytes += len(payload)
            end = 0
            for stamp in STAMP.finditer(self._message):
                self._delivery(stamp, 0)
                end = stamp.end()
            self._message = self._message[max(end, len(self._message) - OVERLAP + 1) :]
            if end or len(payload) >= OVERLAP:
                return
        elif not self.load.script.numbers.get("stream"):
            self._message += payload
            if not first & 0x80:
                return
            payload, self._message = self._message, b""
            stamp_here = STAMP.search(payload) if observing else None
            if stamp_here is not None:
                self._delivery(stamp_here, len(payload))
                return
        self._answer(payload)

    def _delivery(self, stamp: re.Match[bytes], size: int) -> None:
        number = int(stamp[2])
        load = self.load
        if self._next is not None and number != self._next:
            if number < self._next:
                load.duplicates += 1
                return
            load.gaps += number - self._next
        self._next = number + 1
        load.delivered(self.topic, number, int(stamp[1]), size)

    def _answer(self, payload: bytes) -> None:
        self.load.told(self, payload)
        for rule in self.part.rules:
            if holds(payload, rule.has) and not (rule.lacks and holds(payload, rule.lacks)):
                found = re.search(rb'"n":(\d+)', payload)
                self.say(rule.answer, {**self.values(), "n": int(found[1]) if found else 0})
                self._page += 1
        if self.live or self._step >= len(self.part.steps):
            return
        op, text = self.part.steps[self._step]
        if op.startswith("wait") and holds(payload, text):
            self._met += 1
            if self._met >= (self.load.topics if op == "wait_each" else 1):
                self._met = 0
                self._step += 1
                self._advance()

    def _advance(self) -> None:
        while self._step < len(self.part.steps):
            op, text = self.part.steps[self._step]
            if op.startswith("wait"):
                return
            for topic in range(self.load.topics) if op == "each" else (self.topic,):
                self.say(text, {**self.values(), "topic": topic})
            self._step += 1
        self.live = True
        self.ready.set()
        self.load.opening.append(time.monotonic_ns() - self.began)
        self.load.changed()
