"""The transport: how the library and we share a connection."""

from __future__ import annotations

import asyncio

from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.framing import frame_text

from .wire import client


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
