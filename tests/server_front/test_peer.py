"""The machine of one connection by itself: its table, and what happens when too much waits."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from wsmonitor.protocol.codec import DamagedPublish
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.messages import (
    ClientMessage,
    Heartbeat,
    HeartbeatAck,
    Hello,
    PublishOpened,
    Status,
    SyncBegin,
)
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.lanes import MAX_WAITING
from wsmonitor_server.peer import _IMMEDIATE, TRANSITIONS
from wsmonitor_server.requests import ROUTES

from .fakes import FakeEngine
from .wire import client


def test_every_message_of_a_client_has_one_handler() -> None:
    assert set(ROUTES) | set(_IMMEDIATE) == {*get_args(ClientMessage), DamagedPublish}
    assert set(ROUTES) & set(_IMMEDIATE) == set()
    assert set(_IMMEDIATE) == {Hello, Heartbeat, HeartbeatAck}


async def test_an_illegal_change_of_phase_raises_and_changes_nothing(server: EmbeddedServer) -> None:
    async with client(server):
        (peer,) = server.server.peers
        assert peer.phase == "open"
        for phase in set(TRANSITIONS) - TRANSITIONS["open"] - {"open"}:
            with pytest.raises(AssertionError, match=f"from open to {phase}"):
                peer._enter(phase)
            assert peer.phase == "open"


async def test_when_too_much_waits_reading_stops_and_silence_is_not_held_against_the_client() -> None:
    engine, clock = FakeEngine(), ManualClock()
    async with (
        EmbeddedServer(engine=lambda *_: engine, clock=clock, timing=Timing()) as server,
        client(server) as one,
    ):
        (connection,) = server.server.connections.values()
        assert connection.peer is not None
        engine.hold.clear()
        generation = 0
        async with asyncio.timeout(10):
            while connection.transport.reading:
                generation += 1
                await one.send("subscribe", topic="s1", generation=generation)
                await asyncio.sleep(0)
        assert generation >= MAX_WAITING
        assert connection.peer.wire.held
        clock.advance(14)
        connection.peer.handle_timeout()
        clock.advance(34)
        connection.peer.handle_timeout()
        assert connection.peer.phase == "open"
        engine.hold.set()
        seen = 0
        while seen < generation:
            message = await one.receive()
            assert isinstance(message, SyncBegin | Heartbeat)
            seen = message.generation if isinstance(message, SyncBegin) else seen
        assert connection.transport.reading
        await one.send("status_get", request=1)
        await one.expect(Status)


async def test_a_connection_that_ends_while_its_requests_wait_leaves_nothing(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    engine.hold.clear()
    async with client(server) as one:
        for number in range(5):
            await one.send("subscribe", topic=f"s{number}", generation=1)
            await one.send("publish_open", request=1, session=f"s{number}", producer="p")
        async with asyncio.timeout(10):
            while len(engine.handles) < 5:
                await one.receive()
        one.socket.transport.abort()
        await server.server.all_gone()
    engine.hold.set()
    closed = [await asyncio.wait_for(engine.closed_handles.get(), 5) for _ in range(5)]
    assert {goodbye for _, _, goodbye in closed} == {False}
    async with asyncio.timeout(10):
        while server.server.tasks:
            await asyncio.wait(server.server.tasks)
    assert all(subscribers == [] for subscribers in engine.attached.values())


async def test_a_peer_that_hangs_at_its_end_is_detached_at_once(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server, jti="bad") as one:
        await one.subscribe("s1")
        await one.send("publish_open", request=1, session="s1", producer="p")
        await one.expect(PublishOpened)
        one.socket.transport.pause_reading()
        await engine.revoke("bad", 0)
        assert engine.attached["s1"] == []
        assert await asyncio.wait_for(engine.closed_handles.get(), 5) == ("s1", "p", False)
        # It never answers the close frame: the connection is aborted.
        await asyncio.wait_for(server.server.all_gone(), 10)
