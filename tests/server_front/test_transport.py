"""The framing: what we write ourselves has to be what the library would have written."""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import Frame, Opcode

from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.transport import FrameCache, frame_text

from .wire import client


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_the_librarys_frame(length: int) -> None:
    payload = b"x" * length
    assert frame_text(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


def test_the_very_same_events_are_framed_once() -> None:
    cache = FrameCache()
    first, second = (tuple(map(str.encode, ("event one", "event two"))) for _ in range(2))
    framed = cache.chunks(first)
    assert cache.chunks(second) is not framed
    assert cache.chunks(first) is framed
    assert framed == [(frame_text(b"event one") + frame_text(b"event two"), 2)]


def test_events_are_joined_to_chunks_and_what_is_larger_goes_alone() -> None:
    cache = FrameCache()
    third = b"x" * (FrameCache.CHUNK // 3)  # with its head, too much for three of them
    large = b"y" * 2 * FrameCache.CHUNK
    chunks = cache.chunks((third, third, third, large, third, b"z"))
    assert [count for _, count in chunks] == [2, 1, 1, 2]
    assert all(len(data) <= FrameCache.CHUNK for data, count in chunks if count > 1)
    together = b"".join(map(frame_text, (third, third, third, large, third, b"z")))
    assert b"".join(data for data, _ in chunks) == together


def test_the_cache_is_bounded_and_forgets_correctly() -> None:
    cache = FrameCache()
    for number in range(3_000):
        payload = f"{number:05}".encode() * 400
        assert cache.chunks((payload,)) == [(frame_text(payload), 1)]
        assert cache._size <= FrameCache.MAX_SIZE


async def test_pings_are_answered(server: EmbeddedServer) -> None:
    async with client(server) as one:
        pong = await one.socket.ping(b"are you there")
        await asyncio.wait_for(pong, 5)


async def test_an_unmasked_frame_ends_the_connection(server: EmbeddedServer) -> None:
    async with client(server) as one:
        one.socket.transport.write(frame_text(b"{}"))
        assert await one.closed() == 1002


async def test_a_client_that_goes_away_without_a_word_is_noticed(server: EmbeddedServer) -> None:
    async with client(server) as one:
        one.socket.transport.abort()
        await asyncio.wait_for(server.server.all_gone(), 5)


async def test_a_close_is_answered_with_the_same_code(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.socket.close(1000, "done")
        assert one.socket.protocol.close_code == 1000
        await asyncio.wait_for(server.server.all_gone(), 5)
