"""The framing: what we write ourselves has to be what the library would have written."""

from __future__ import annotations

from math import inf

import pytest
from websockets.frames import Frame, Opcode

from wsmonitor_server.framing import CHUNK, Delivery, Framed, frame_text, join


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_the_librarys_frame(length: int) -> None:
    payload = b"x" * length
    assert frame_text(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


def test_events_are_joined_to_chunks_and_what_is_larger_goes_alone() -> None:
    third = b"x" * (CHUNK // 3)  # with its head, too much for three of them
    large = b"y" * 2 * CHUNK
    payloads = (third, third, third, large, third, b"z")
    chunks = list(join(payloads))
    assert [count for _, count in chunks] == [2, 1, 1, 2]
    assert all(len(data) <= CHUNK for data, count in chunks if count > 1)
    assert b"".join(data for data, _ in chunks) == b"".join(map(frame_text, payloads))


def test_nothing_is_no_chunk() -> None:
    assert list(join(())) == []


def test_what_is_one_chunk_may_go_out_straight_away() -> None:
    framed = Framed((b"one", b"two"), 7, 1.5)
    assert framed.chunks == [(frame_text(b"one") + frame_text(b"two"), 2)]
    assert (framed.data, framed.turn, framed.valid) == (framed.chunks[0][0], 7, 1.5)
    assert framed.frames_written == 0
    framed.written = 3
    assert framed.frames_written == 6


def test_several_chunks_are_queued() -> None:
    assert Framed((b"x" * CHUNK, b"y"), 7, 1.5).valid == inf


def test_nothing_goes_out_while_it_has_to_wait() -> None:
    assert Framed((b"x",), 7, None).valid == inf


def test_a_delivery_is_framed_by_who_needs_it() -> None:
    delivery = Delivery((b"x",))
    assert delivery.payloads == (b"x",)
    assert delivery.framed is None
