"""A stopping server, and clients that do not read (protocol, 14): who reads again in time loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from wsmonitor.client import connect
from wsmonitor.client.types import ConnectionStatus, Target
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.messages import Draining, Event
from wsmonitor_server import app
from wsmonitor_server.connection import Connection
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.transport import CLOSE_GRACE

from .fakes import FakeEngine
from .wire import client

PATIENCE = 60.0
BIG = "x" * 4_000
LIMITS = Limits(outbox_messages=20_000, outbox_size=64 * 1024 * 1024)
LONG = 300.0
"""A drain time that no machine is too slow for."""


def connection_of(server: EmbeddedServer, subject: str) -> Connection:
    return next(
        one
        for one in server.server.connections.values()
        if one.peer is not None and one.peer.credential.claims.sub == subject
    )


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is no event for what is waited for
            await asyncio.sleep(0.005)


async def fill(server: EmbeddedServer, engine: FakeEngine, subject: str, topic: str = "s1") -> int:
    """Emit until neither the socket of *subject* nor the server's buffer takes more; how many events."""
    connection = connection_of(server, subject)
    total = 0
    async with asyncio.timeout(PATIENCE):
        while not (connection.transport.paused and connection.busy):
            engine.emit(topic, Chain(id="c", name="n", reason=f"{total} {BIG}"))
            total += 1
            await asyncio.sleep(0)
    return total


async def test_who_reads_again_in_time_is_told_and_nothing_is_missing(engine: FakeEngine) -> None:
    """All that waited, then ``draining``, then 4001; and who reads does not wait for who does not."""
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=LIMITS, drain_timeout=LONG) as server,
        client(server, sub="slow") as slow,
        client(server, sub="fast") as fast,
    ):
        await slow.subscribe("s1")
        slow.socket.transport.pause_reading()
        total = await fill(server, engine, "slow")
        stopping = asyncio.ensure_future(server.drain())
        await fast.expect(Draining)
        assert await fast.closed() == 4001
        assert engine.stopped
        assert not stopping.done()
        slow.socket.transport.resume_reading()
        seqs: list[int] = []
        while not isinstance(message := await slow.receive(), Draining):
            if isinstance(message, Event):
                seqs.append(message.seq)
        assert seqs == list(range(1, total + 1))
        assert message.reconnect_ms >= 100
        assert await slow.closed() == 4001
        async with asyncio.timeout(PATIENCE):
            await stopping


async def test_who_does_not_read_is_waited_for_no_longer_than_was_said(engine: FakeEngine) -> None:
    """The drain time, and then it is over."""
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=LIMITS, drain_timeout=0.2) as server,
        client(server, sub="slow") as slow,
    ):
        await slow.subscribe("s1")
        slow.socket.transport.pause_reading()
        await fill(server, engine, "slow")
        async with asyncio.timeout(PATIENCE):
            await server.drain()
        assert not server.server.connections
        slow.socket.transport.resume_reading()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await slow.socket.recv(decode=False)
        assert slow.socket.close_code in (1006, 4001)


async def test_pages_for_who_does_not_read_hold_nobody_up(engine: FakeEngine) -> None:
    """They were asked for, and are not waited for: the others are closed at once."""
    engine.values["0" * 64] = b"v" * (256 * 1024)
    async with (
        EmbeddedServer(engine=lambda *_: engine, drain_timeout=LONG) as server,
        client(server, sub="slow") as slow,
        client(server, sub="fast") as fast,
    ):
        slow.socket.transport.pause_reading()
        for number in range(60):
            await slow.send("value_get", request=number, session="s", sha256="0" * 64, offset=0)
        connection = connection_of(server, "slow")
        await until(lambda: connection.transport.paused and connection._drained)
        stopping = asyncio.ensure_future(server.drain())
        assert await fast.closed() == 4001
        assert not server.server.tasks
        slow.socket.transport.resume_reading()
        assert await slow.closed() == 4001
        async with asyncio.timeout(PATIENCE):
            await stopping


async def test_who_reads_and_does_not_answer_has_its_grace_only(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system has taken is delivered without us: no need for the whole drain time."""
    graces: list[float] = []
    async with (
        EmbeddedServer(engine=lambda *_: engine, drain_timeout=LONG) as server,
        client(server, sub="deaf") as deaf,
    ):
        transport = connection_of(server, "deaf").transport
        true = type(transport)._arm_grace

        def arm(self: Any, grace: float = CLOSE_GRACE) -> None:
            graces.append(grace)
            true(self, 0.01)

        monkeypatch.setattr(type(transport), "_arm_grace", arm)
        deaf.socket.transport.pause_reading()
        async with asyncio.timeout(PATIENCE):
            await server.drain()
        assert graces[0] == CLOSE_GRACE
        # It had been handed over: read later, it is there.
        deaf.socket.transport.resume_reading()
        await deaf.expect(Draining)
        assert await deaf.closed() == 4001


async def test_a_revoked_token_gets_no_more(engine: FakeEngine) -> None:
    """Also of what waited when the server stopped: the close, and nothing else."""
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=LIMITS, drain_timeout=LONG) as server,
        client(server, sub="slow") as slow,
    ):
        await slow.subscribe("s1")
        slow.socket.transport.pause_reading()
        await fill(server, engine, "slow")
        connection = connection_of(server, "slow")
        stopping = asyncio.ensure_future(server.drain())
        await until(lambda: connection._ending is not None)
        assert connection.peer is not None
        engine.revocations[connection.peer.credential.claims.jti] = 0
        slow.socket.transport.resume_reading()
        seen: list[type] = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen.append(type(await slow.receive()))
        assert Draining not in seen
        async with asyncio.timeout(PATIENCE):
            await stopping


async def test_our_client_comes_back_when_it_was_told_to() -> None:
    """One that was not reading at the moment of the stop: the reason and the delay are the server's."""
    async with EmbeddedServer(limits=LIMITS, drain_timeout=LONG) as server:
        with connect(Target(url=server.url, token=server.token(sub="slow"))) as connection:
            await asyncio.to_thread(connection.wait_live, PATIENCE)
            held = connection_of(server, "slow")
            # As a socket does that takes nothing more.
            held.transport.pause_writing()
            stopping = asyncio.ensure_future(server.drain())
            await until(lambda: held._ending is not None)
            assert connection.status.live
            told: list[ConnectionStatus] = []
            connection.listen(told.append)
            held.transport.resume_writing()
            async with asyncio.timeout(PATIENCE):
                await stopping
            await until(lambda: any(one.phase == "waiting" for one in told))
            waiting = next(one for one in told if one.phase == "waiting")
            assert waiting.code == "draining"
            assert waiting.next_attempt_at is not None
            assert waiting.lost_at is not None
            # 100 ms and the spread of one connection, where the client's own first delay is a second.
            assert 0.09 <= waiting.next_attempt_at - waiting.lost_at <= 0.2


async def test_reconnects_are_spread_over_a_time_that_grows_with_their_number(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a delay of its own, within the window: they do not fall upon the other servers at once."""
    monkeypatch.setattr(app, "SPREAD_PER_CONNECTION", 0.5)
    async with EmbeddedServer(engine=lambda *_: engine) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(server, sub=f"s{n}")) for n in range(40)]
        assert server.server.spread() == 20.0
        stopping = asyncio.ensure_future(server.drain())
        delays = [(await one.expect(Draining)).reconnect_ms for one in clients]
        async with asyncio.timeout(PATIENCE):
            await stopping
    assert all(100 <= delay <= 100 + 20_000 for delay in delays)
    assert len(set(delays)) > 20
    assert min(delays) < 10_100 < max(delays), "over all of it"
