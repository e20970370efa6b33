"""Reading a WebSocket's messages many at a time.

The library parses one frame after the other in a generator, queues it, and wakes the reader for each, which
costs several times what is then done with an event. Here all the frames of a piece that arrived are cut out
at once, and handed over together. Only the plain case is taken from the library: whole, unfragmented,
unmasked text messages of no great size, on an open connection without extensions. Everything else (the
handshake, pings, closing, fragments, large messages, whatever breaks the rules) goes to the library byte
for byte as before, which parses, answers and judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State

LARGEST: Final = 64 * 1024
"""Bytes of the largest message that is cut out here. Larger ones would be copied again with each piece."""

_TEXT: Final = 0x81  # a text message in one frame (RFC 6455, 5.2: FIN, and opcode 1)
_ANSWERED: Final = b"\r\n\r\n"
_DATA: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


def plain_messages(data: bytes, start: int) -> tuple[list[bytes], int]:
    """The plain messages that are whole in *data* from *start* on, and where the first other thing begins."""
    messages: list[bytes] = []
    end = len(data)
    while start + 1 < end and data[start] == _TEXT:
        length = data[start + 1]
        if length < 126:
            begin = start + 2
        elif length == 126 and start + 3 < end:
            length = data[start + 2] << 8 | data[start + 3]
            begin = start + 4
        else:
            break  # masked, large, or the length is still to come
        after = begin + length
        if after > end:
            break
        messages.append(data[begin:after])
        start = after
    return messages, start


def frame_size(data: bytes, start: int) -> int | None:
    """The bytes of the frame that begins at *start*, with its head; None where the head is not there yet."""
    if len(data) < start + 2:
        return None
    size = 2 + (4 if data[start + 1] & 0x80 else 0)
    length = data[start + 1] & 0x7F
    more = {126: 2, 127: 8}.get(length, 0)
    if len(data) < start + 2 + more:
        return None
    if more:
        length = int.from_bytes(data[start + 2 : start + 2 + more], "big")
    return size + more + length


class ReadingConnection(ClientConnection):
    """A connection whose messages are handed over as they arrive: see `read`. ``recv`` gives the end only.

    It must not have extensions, nor a ``max_size`` below `LARGEST`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deliver: Callable[[Sequence[bytes]], None] | None = None
        self._early: list[bytes] = []  # before somebody reads
        self._answered = False  # the server's answer to the handshake is over
        self._held = b""  # the beginning of a frame, or of the line that ends the answer
        self._passing = 0  # bytes still to come of a frame that the library parses
        self._fragments: list[bytes] = []
        self._fragmented = False

    def read(self, deliver: Callable[[Sequence[bytes]], None]) -> None:
        """From now on *deliver* is called with what arrives, on the loop's thread; now with what has come."""
        self._deliver = deliver
        early, self._early = self._early, []
        if early:
            deliver(early)
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self._answered:
            data = self._answer(data)
            if not self._answered:
                return
        if self._held:
            data, self._held = self._held + data, b""
        start = 0
        while start < len(data):
            if self._passing or self.protocol.state is not State.OPEN:
                start = self._pass(data, start)
                continue
            if not self._fragmented:
                messages, start = plain_messages(data, start)
                if messages:
                    self._hand_over(messages)
                    continue
            size = frame_size(data, start)
            if size is None or (len(data) - start < size <= LARGEST and data[start] == _TEXT):
                self._held = data[start:]
                return
            self._passing = size

    def process_event(self, event: Any) -> None:
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        self._fragments.append(bytes(event.data))
        self._fragmented = not event.fin
        if event.fin:
            message = b"".join(self._fragments)
            self._fragments.clear()
            self._hand_over([message])

    def _answer(self, data: bytes) -> bytes:
        """Give the library its answer to the handshake, and no byte more; what is left of *data*."""
        seen = self._held + data
        at = seen.find(_ANSWERED)
        if at < 0:
            self._held = seen[1 - len(_ANSWERED) :]
            super().data_received(data)
            return b""
        self._answered = True
        cut = at + len(_ANSWERED) - len(self._held)
        self._held = b""
        super().data_received(data[:cut])
        return data[cut:]

    def _pass(self, data: bytes, start: int) -> int:
        """Give the library the rest of its frame, or all of *data* where it alone knows what is to come."""
        end = len(data)
        if self._passing:
            end = min(end, start + self._passing)
            self._passing -= end - start
        super().data_received(data[start:end])
        return end

    def _hand_over(self, messages: list[bytes]) -> None:
        if self._deliver is not None:
            self._deliver(messages)
        else:
            self._early += messages
            self.transport.pause_reading()
