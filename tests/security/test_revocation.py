"""EXPIRED: a revocation is in force when it is acknowledged, on idle and busy connections, and stays (ASVS
5.0, 7.4; protocol, rule 13). The clock of these tests stands still: "within one second" is "within none"."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.server_front.fakes import FakeEngine
from tests.server_front.raw import ask, code
from tests.server_front.wire import Client, client
from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.messages import Done, PublishOpened
from wsmonitor_server import connection as connections
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.connection import Connection
from wsmonitor_server.embedded import EmbeddedServer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[EmbeddedServer]:
    engine = FakeEngine()
    async with EmbeddedServer(engine=lambda *_: engine, clock=clock) as server:
        yield server


def held(server: EmbeddedServer, jti: str) -> list[Connection]:
    """The connections of that token which still may send or be heard."""
    return [
        one
        for one in server.server.connections.values()
        if one.peer is not None and one.peer.credential.claims.jti == jti and one.peer.phase != "closed"
    ]


async def revoke(admin: Client, jti: str, expires: int = 0) -> None:
    await admin.send("revoke", request=9, jti=jti, expires=expires)
    assert (await admin.expect(Done)).request == 9


async def test_idle_connections_in_every_phase_are_ended_by_the_time_of_the_answer(
    server: EmbeddedServer,
) -> None:
    """ASVS 7.4.1 and 7.4.2: a watcher, a publisher, one that has not said hello, and a second with the
    token; the others stay."""
    given = server.token(jti="bad", sub="eve")
    async with (
        client(server, jti="good") as admin,
        client(server, given) as watcher,
        client(server, given) as publisher,
        client(server, given, hello=False) as silent,
        client(server, jti="bad2", sub="eve") as bystander,
    ):
        await watcher.subscribe("s1")
        await publisher.send("publish_open", request=1, session="s1", producer="p")
        await publisher.expect(PublishOpened)
        assert len(held(server, "bad")) == 3
        await revoke(admin, "bad")
        assert held(server, "bad") == []
        assert len(held(server, "bad2")) == 1
        engine: Any = server.engine
        assert engine.attached["s1"] == []
        assert [await one.closed() for one in (watcher, publisher, silent)] == [4501, 4501, 4501]
        await bystander.subscribe("s1")
        status, _, body = await ask(server, headers={"Authorization": f"Bearer {given}"})
        assert (status, code(body)) == (401, "token_revoked")


async def test_on_a_busy_connection_nothing_is_written_after_the_answer(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events wait in its queue and in its buffers, and more of them come: no frame enters the transport."""
    engine: Any = server.engine
    async with client(server) as admin, client(server, jti="bad", sub="eve") as busy:
        await busy.subscribe("s1")
        [connection] = held(server, "bad")
        busy.socket.transport.pause_reading()
        number = 0
        while not connection.transport.paused or not connection.busy:
            number += 1
            engine.emit("s1", Chain(id=f"c{number}", name="n" * 100))
            await asyncio.sleep(0)
        await revoke(admin, "bad")
        written: list[list[bytes]] = []
        monkeypatch.setattr(type(connection.transport), "write", lambda self, frames: written.append(frames))
        before = len(written)
        for more in range(100):
            engine.emit("s1", Chain(id=f"d{more}", name="n"))
        connection.flush_now()
        connection.writable()
        await asyncio.sleep(0)
        assert written[before:] == []
        assert connection.peer is not None
        assert not connection.peer.outbox
        # What the buffers hold was there before; one who does not read it is aborted within the second.
        assert connections.CLOSE_AFTER_UPGRADE <= 1.0
        async with asyncio.timeout(20):
            while connection.ident in server.server.connections:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)


async def test_what_was_sent_before_is_not_taken_after(server: EmbeddedServer) -> None:
    """Requests that wait when the revocation comes are not carried out, and none is heard after it."""
    engine: Any = server.engine
    async with client(server) as admin, client(server, jti="bad", sub="eve") as one:
        engine.hold.clear()
        for number in range(5):
            await one.send("subscribe", topic="s1", generation=number + 1)
        await one.send("heartbeat", n=1)
        await one.receive()
        looked = list(engine.lookups)
        assert looked == ["s1"]
        await revoke(admin, "bad")
        engine.hold.set()
        with contextlib.suppress(ConnectionClosed):
            await one.send("logs_get", request=1, session="s1", step="x")
        assert await one.closed() == 4501
        assert engine.lookups == looked
        assert engine.attached.get("s1", []) == []


async def test_a_refresh_into_a_revoked_token_is_refused(server: EmbeddedServer) -> None:
    """And out of a revoked one there is no way: the connection is gone."""
    async with client(server) as admin, client(server, sub="eve", jti="new") as one:
        await revoke(admin, "bad")
        await one.send("refresh", request=3, token=server.token(sub="eve", jti="bad"))
        assert await one.error() == ("token_revoked", 3)
        await one.subscribe("s1")


async def test_expiry_ends_idle_and_busy_connections_without_any_grace(
    server: EmbeddedServer, clock: ManualClock
) -> None:
    """ASVS 9.2.1: at the very second, whoever speaks first; here the server is about to send."""
    engine: Any = server.engine
    async with client(server, ttl=60) as one, client(server, ttl=120) as other:
        await one.subscribe("s1")
        await other.subscribe("s1")
        clock.advance(60)
        engine.emit("s1", Chain(id="c", name="late"))
        assert await one.closed() == 4003
        async with asyncio.timeout(20):
            assert b'"late"' in await other.socket.recv(decode=False)


async def test_a_revocation_outlasts_a_restart(tmp_path: Path) -> None:
    """ASVS 7.4.1: it is in the store before it is acknowledged, and is kept until the token has expired."""
    key, store = b"k" * 32, f"sqlite:{tmp_path / 'store.sqlite3'}"
    async with EmbeddedServer(key=key, store=store) as server, client(server) as admin:
        given = server.token(jti="bad")
        await revoke(admin, "bad", expires=2**40)
    async with EmbeddedServer(key=key, store=store) as server:
        status, _, body = await ask(server, headers={"Authorization": f"Bearer {given}"})
        assert (status, code(body)) == (401, "token_revoked")


async def test_only_an_administrator_revokes(server: EmbeddedServer) -> None:
    """ASVS 8.2.1; nobody can lock others out."""
    for role in ("observe", "command", "publish"):
        async with client(server, role=role) as one:
            await one.send("revoke", request=4, jti="good")
            assert await one.error() == ("forbidden", 4)
    engine: Any = server.engine
    assert engine.revocations == {}
