"""A connection's life: expiry, revocation, refresh, heartbeats, draining (rules 8, 13, 19; checks 11, 14)."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.messages import (
    Done,
    Draining,
    Event,
    Heartbeat,
    HeartbeatAck,
    PublishOpened,
    Refreshed,
    Removed,
    Resync,
    Status,
)
from wsmonitor_server.auth import SecretKey
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.embedded import EmbeddedServer

from .fakes import FakeEngine
from .wire import client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@contextlib.asynccontextmanager
async def serving(engine: FakeEngine, clock: ManualClock, **timing: float):  # type: ignore[no-untyped-def]
    async with EmbeddedServer(
        engine=lambda *_: engine, clock=clock, timing=Timing(**timing) if timing else None
    ) as server:
        yield server


def tick(server: EmbeddedServer) -> None:
    for peer in list(server.server.peers):
        peer.handle_timeout()


# -- the token


async def test_no_event_leaves_after_expiry(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server, ttl=60) as one:
        await one.subscribe("s1")
        clock.advance(59.9)
        engine.emit("s1", Chain(id="a", name="in time"))
        assert (await one.expect(Event)).seq == 1
        engine.emit("s1", Chain(id="b", name="in time, too"))
        engine.emit("s1", Chain(id="c", name="queued before, flushed after"))
        clock.advance(0.1)
        assert (await one.expect(Event)).seq == 2
        assert await one.closed() == 4003


async def test_an_event_after_expiry_ends_the_connection(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server, ttl=60) as one:
        await one.subscribe("s1")
        clock.advance(60)
        engine.emit("s1", Chain(id="a", name="too late"))
        assert await one.closed() == 4003


async def test_no_message_is_taken_after_expiry(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server, ttl=60) as one:
        clock.advance(60)
        await one.send("command", request=1, session="s", key="0" * 32, name="pause")
        assert await one.closed() == 4003
        assert engine.lookups == []


async def test_an_idle_connection_ends_when_its_token_does(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine) as server, client(server, ttl=4) as one:
        assert await one.closed() == 4003
        await asyncio.wait_for(server.server.all_gone(), 5)


async def test_a_request_that_waited_is_not_carried_out_after_expiry(
    engine: FakeEngine, clock: ManualClock
) -> None:
    async with serving(engine, clock) as server, client(server, ttl=60) as one:
        engine.hold.clear()
        await one.send("subscribe", topic="s1", generation=1)
        await one.send("subscribe", topic="s1", generation=2)
        await one.send("heartbeat", n=1)
        await one.expect(HeartbeatAck)
        clock.advance(60)
        engine.hold.set()
        assert await one.closed() == 4003
        assert engine.lookups == ["s1"]


async def test_a_revocation_is_in_force_when_it_is_acknowledged(
    engine: FakeEngine, clock: ManualClock
) -> None:
    async with (
        serving(engine, clock) as server,
        client(server, sub="eve", jti="bad") as eve,
        client(server, sub="eve", jti="good") as other,
        client(server, sub="root") as admin,
    ):
        await eve.subscribe("s1")
        await admin.send("revoke", request=3, jti="bad", expires=0)
        assert (await admin.expect(Done)).request == 3
        engine.emit("s1", Chain(id="a", name="later"))
        assert await eve.closed() == 4501
        await other.send("heartbeat", n=1)
        await other.expect(HeartbeatAck)
    assert engine.revocations == {"bad": 0}


async def test_only_administrators_revoke(server: EmbeddedServer, engine: FakeEngine) -> None:
    async with client(server, role="publish") as one:
        await one.send("revoke", request=3, jti="bad")
        assert await one.error() == ("forbidden", 3)
        await one.send("stop", request=4)
        assert await one.error() == ("forbidden", 4)
    assert engine.revocations == {}


async def test_other_keys_end_the_connections_of_before(server: EmbeddedServer) -> None:
    async with client(server) as one:
        server.server.rotate_keys(SecretKey(b"n" * 32))
        assert await one.closed() == 4501


async def test_a_refresh_goes_on_past_the_old_expiry(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server, sub="ada", ttl=60) as one:
        await one.subscribe("s1")
        fresh = server.token(sub="ada", ttl=600)
        await one.send("refresh", request=8, token=fresh)
        refreshed = await one.expect(Refreshed)
        assert (refreshed.request, refreshed.expires) == (8, clock.wall_ns() // 10**9 + 600)
        clock.advance(300)
        engine.emit("s1", Chain(id="a", name="n"))
        assert (await one.expect(Event)).seq == 1


async def test_a_refresh_needs_a_valid_token_of_the_same_subject(
    engine: FakeEngine, clock: ManualClock
) -> None:
    async with serving(engine, clock) as server, client(server, sub="ada", ttl=60) as one:
        for token, code in [
            (server.token(sub="eve"), "unauthorized"),
            (server.token(sub="ada", ttl=0), "token_expired"),
            ("x", "unauthorized"),
        ]:
            await one.send("refresh", request=1, token=token)
            assert await one.error() == (code, 1)
        clock.advance(60)
        await one.send("refresh", request=2, token=server.token(sub="ada"))
        assert await one.closed() == 4003


async def test_what_a_new_token_does_not_cover_ends(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server, sub="ada") as one:
        for topic in ("a1", "b1", "/directory"):
            await one.subscribe(topic)
        for session in ("a1", "b1"):
            await one.send("publish_open", request=1, session=session, producer="p")
            await one.expect(PublishOpened)
        narrow = server.token(sub="ada", role="publish", sessions=("a*",))
        await one.send("refresh", request=1, token=narrow)
        assert (await one.expect(Removed)).topic == "b1"
        resync = await one.expect(Resync)
        assert (resync.topic, resync.reason) == ("/directory", "reset")
        assert (await one.error())[0] == "not_available"
        await one.expect(Refreshed)
        assert await asyncio.wait_for(engine.closed_handles.get(), 5) == ("b1", "p", False)
        engine.emit("b1", Chain(id="a", name="n"))
        engine.emit("a1", Chain(id="a", name="n"))
        assert (await one.expect(Event)).topic == "a1"


# -- heartbeats


async def test_a_silent_client_is_closed(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server) as one:
        for _ in range(2):
            clock.advance(15)
            tick(server)
            assert (await one.expect(Heartbeat)).n in (1, 2)
        clock.advance(4.9)
        tick(server)
        await one.send("heartbeat", n=1)
        await one.expect(HeartbeatAck)
        clock.advance(34.9)
        tick(server)
        await one.expect(Heartbeat)
        clock.advance(0.1)
        tick(server)
        assert await one.closed() == 4005


async def test_a_silent_client_is_closed_by_the_real_clock(engine: FakeEngine) -> None:
    timing = Timing(heartbeat_interval=0.1, heartbeat_timeout=0.25)
    async with EmbeddedServer(engine=lambda *_: engine, timing=timing) as server, client(server) as one:
        assert await one.closed() == 4005
        await asyncio.wait_for(server.server.all_gone(), 5)


async def test_any_frame_counts_as_life(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server) as one:
        for number in range(10):
            clock.advance(14)
            await one.send("status_get", request=number)
            await one.expect(Status)
            tick(server)


async def test_after_standing_still_the_server_asks_before_it_closes(
    engine: FakeEngine, clock: ManualClock
) -> None:
    async with serving(engine, clock) as server, client(server) as one:
        clock.advance(3_000)
        tick(server)
        beat = await one.expect(Heartbeat)
        await one.send("heartbeat_ack", n=beat.n)
        await one.send("status_get", request=1)
        await one.expect(Status)
        clock.advance(15)
        tick(server)
        await one.expect(Heartbeat)


async def test_who_does_not_answer_the_probe_is_closed(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server) as one:
        clock.advance(3_000)
        tick(server)
        await one.expect(Heartbeat)
        clock.advance(15)
        tick(server)
        assert await one.closed() == 4005


async def test_the_round_trip_is_measured(engine: FakeEngine, clock: ManualClock) -> None:
    async with serving(engine, clock) as server, client(server) as one:
        clock.advance(15)
        tick(server)
        beat = await one.expect(Heartbeat)
        assert int(beat.time) == clock.wall_ns()
        clock.advance(0.25)
        await one.send("heartbeat_ack", n=beat.n)
        await one.send("status_get", request=1)
        await one.expect(Status)
        (peer,) = server.server.peers
        assert peer.round_trip == pytest.approx(0.25)


# -- draining


async def test_a_stopping_server_tells_each_client_when_to_come_back(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine) as server:
        async with client(server) as a, client(server) as b:
            stopping = asyncio.ensure_future(server.drain())
            told = [(await one.expect(Draining)).reconnect_ms for one in (a, b)]
            assert all(100 <= delay <= 30_000 for delay in told)
            assert [await one.closed() for one in (a, b)] == [4001, 4001]
            await stopping
        assert engine.stopped


async def test_what_was_begun_is_finished_before_the_end(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine) as server, client(server) as one:
        engine.hold.clear()
        await one.send("subscribe", topic="s1", generation=1)
        await one.send("heartbeat", n=1)
        await one.expect(HeartbeatAck)
        stopping = asyncio.ensure_future(server.drain())
        await one.expect(Draining)
        assert not engine.stopped
        await one.send("publish_open", request=1, session="s", producer="p")
        assert await one.error() == ("draining", 1)
        engine.hold.set()
        assert type(await one.receive()).__name__ == "SyncBegin"
        assert await one.closed() == 4001
        await stopping


async def test_a_draining_server_takes_nobody_new(engine: FakeEngine) -> None:
    from .raw import code, get

    async with EmbeddedServer(engine=lambda *_: engine) as server:
        server.server.draining = True
        status, _, body = await get(server, "/readyz")
        assert (status, code(body)) == (503, "draining")
        server.server.draining = False


async def test_an_administrator_stops_the_server(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine) as server, client(server) as one:
        await one.send("stop", request=1)
        await one.expect(Done)
        await asyncio.wait_for(server.server.stop_requested.wait(), 5)


async def test_draining_twice_is_draining_once(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine) as server:
        await asyncio.gather(server.drain(), server.drain())
        await server.drain()
    assert engine.stopped


def test_the_sync_face_has_a_thread_of_its_own() -> None:
    engine: list[FakeEngine] = []

    def make(*_: object) -> FakeEngine:
        engine.append(FakeEngine())
        return engine[0]

    with EmbeddedServer.in_thread(engine=make) as server:
        assert server.url == f"ws://127.0.0.1:{server.port}"
        assert server.call(lambda inner: inner.engine.epoch) == "e1"
        assert server.token(sub="x").count(".") == 2
    assert engine[0].stopped
    server.stop()


def test_the_sync_face_raises_what_starting_raised() -> None:
    from wsmonitor.protocol.errors import ConfigurationError

    with (
        EmbeddedServer.in_thread(engine=lambda *_: FakeEngine()) as server,
        pytest.raises(ConfigurationError, match=f"port {server.port}"),
        EmbeddedServer.in_thread(engine=lambda *_: FakeEngine(), port=server.port),
    ):
        raise AssertionError("two servers on one port")
