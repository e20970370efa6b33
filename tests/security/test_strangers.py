"""BOUNDED: who has shown no token takes no user's place, however many they are and whatever they do not say.

Real sockets: each stranger is a connection of its own, and stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.scale import many
from tests.server_front.raw import ask, code, get
from tests.server_front.wire import client
from wsmonitor.client import connect
from wsmonitor.client.types import Target
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor_server import app
from wsmonitor_server.embedded import EmbeddedServer

from .certificates import Authority
from .test_hostile_peers import undisturbed, until

PATIENCE = 60.0
PATIENT = Timing(handshake_timeout=600.0)
"""Nobody is dropped for being slow."""
ROOM = many(32)
LIMITS = Limits(connections=4, handshakes=ROOM, handshakes_per_address=ROOM // 4)
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def strangers(
    server: EmbeddedServer, count: int, words: bytes = b"", address: str = "127.0.0.1"
) -> AsyncIterator[list[Link]]:
    """*count* connections from *address* that say *words* and no more, and stay."""
    links: list[Link] = []
    try:
        for _ in range(count):
            link = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0))
            links.append(link)
            if words:
                link[1].write(words)
        yield links
    finally:
        for _, writer in links:
            writer.transport.abort()


SAYINGS = {
    "silent": b"",
    "half a handshake": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websoc",
    "half a page's request": b"GET /readyz HTTP/1.1\r\nHost: x\r\n",
}


@pytest.mark.parametrize("words", SAYINGS.values(), ids=SAYINGS.keys())
async def test_twice_as_many_as_there_is_room_for(
    words: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users get in at once, up to their own limit; pages are served; no place is lost."""
    monkeypatch.setattr(app, "TELL_EVERY", 1e9)
    async with (
        EmbeddedServer(timing=PATIENT, limits=LIMITS) as server,
        client(server) as bystander,
        strangers(server, 2 * ROOM, words) as links,
    ):
        async with client(server), client(server), client(server):
            status, _, body = await ask(server, headers={"Authorization": f"Bearer {server.token()}"})
            assert (status, code(body)) == (503, "limit_exceeded")
            assert msgspec.json.decode(body)["error"]["details"]["limit"] == "connections"
            assert (await get(server, "/healthz"))[0] == 200
            assert len(server.server.peers) == 4
            assert len(server.server.door) <= ROOM
        await undisturbed(bystander)
        if not words:
            # Who is dropped is told. (With something of his unread, the system may take it back.)
            heard = await asyncio.wait_for(links[0][0].read(), PATIENCE)
            assert heard.startswith(b"HTTP/1.1 503 ")
            error = msgspec.json.decode(heard.partition(b"\r\n\r\n")[2])["error"]
            assert (error["code"], error["details"]["limit"]) == ("limit_exceeded", "handshakes")
        dropped = server.server.counters["handshakes_dropped_total"]
        assert dropped >= ROOM
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(told) == 1  # of so many drops
    assert "no token" in told[0].getMessage()


async def test_strangers_who_never_begin_with_tls(tmp_path: Path) -> None:
    """A socket counts from the moment it is there, not only when TLS has been agreed on."""
    authority = Authority(tmp_path)
    cert, key = authority.certificate("127.0.0.1")
    async with EmbeddedServer(timing=PATIENT, limits=LIMITS, tls_cert=cert, tls_key=key) as server:
        # The first bytes of a ClientHello: more is to come, and does not.
        async with (
            strangers(server, ROOM) as silent,
            strangers(server, ROOM, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ):
            target = Target(url=server.url, token=server.token(), ssl=authority.file)
            with connect(target) as connection:
                await asyncio.to_thread(connection.wait_live, PATIENCE)
                assert len(server.server.door) <= ROOM
                assert await asyncio.wait_for(silent[0][0].read(), PATIENCE) == b""
        await until(lambda: not server.server.connections and not server.server.door)
        await until(lambda: not server.server._shaking)


async def test_tls_is_spoken_as_before(tmp_path: Path) -> None:
    """A page over TLS, what comes together with the end of the handshake, and what is no TLS at all."""
    authority = Authority(tmp_path)
    cert, key = authority.certificate("127.0.0.1")
    async with EmbeddedServer(timing=PATIENT, tls_cert=cert, tls_key=key) as server:
        context = ssl.create_default_context(cafile=str(authority.file))
        for _ in range(many(5)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"HTTP/1.1 200 ")
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
        async with strangers(server, 3, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as links:
            for reader, _ in links:
                with contextlib.suppress(ConnectionError):
                    assert b"HTTP" not in await asyncio.wait_for(reader.read(), PATIENCE)
        await until(lambda: not server.server.connections)


async def test_a_stop_does_not_wait_for_strangers(tmp_path: Path) -> None:
    """Neither for those at the door nor for those who have not begun with TLS."""
    cert, key = Authority(tmp_path).certificate("127.0.0.1")
    for settings in ({}, {"tls_cert": cert, "tls_key": key}):
        server = EmbeddedServer(timing=PATIENT, **settings)
        await server.start()
        async with strangers(server, 5):
            await until(lambda running=server.server: len(running.door) == 5)
            async with asyncio.timeout(PATIENCE):
                await server.server.drain()
            assert not server.server._shaking


async def test_a_user_whose_handshake_is_slow_is_not_the_one_who_goes() -> None:
    """Strangers from one address drop each other."""
    async with EmbeddedServer(timing=PATIENT, limits=LIMITS) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.3", 0))
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        await until(lambda: len(server.server.door) == 1)
        async with strangers(server, 3 * ROOM, address="127.0.0.2"):
            writer.write(b"Host: x\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_one_address_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is another machine's, and no proxy's."""
    monkeypatch.setattr(app, "is_loopback", lambda host: False)
    for behind_proxy, left in ((False, ROOM // 4), (True, ROOM // 2)):
        async with (
            EmbeddedServer(timing=PATIENT, limits=LIMITS, behind_proxy=behind_proxy) as server,
            strangers(server, ROOM // 2, address="127.0.0.2"),
        ):
            running = server.server
            await until(lambda: running.counters["connections_total"] == ROOM // 2)  # noqa: B023
            await until(lambda: len(running.connections) == left)  # noqa: B023
            assert len(running.door) == left


async def test_who_has_a_token_is_no_stranger_any_more() -> None:
    """Users do not stand at the door: many of them drop nobody, and strangers drop none of them."""
    limits = Limits(handshakes=2, handshakes_per_address=2)
    async with EmbeddedServer(timing=PATIENT, limits=limits) as server, contextlib.AsyncExitStack() as users:
        made = [await users.enter_async_context(client(server)) for _ in range(8)]
        async with strangers(server, 8):
            for user in made:
                await undisturbed(user)
        assert len(server.server.peers) == 8
        assert "handshakes" in server.server.information(full=True)


async def test_the_numbers_can_be_watched() -> None:
    async with (
        EmbeddedServer(timing=PATIENT, limits=LIMITS, metrics=True) as server,
        strangers(server, ROOM + 3),
    ):
        await until(lambda: server.server.counters["handshakes_dropped_total"] == 3)
        _, _, text = await get(server, "/metrics")
        assert b"# TYPE wsmonitor_handshakes_dropped_total counter" in text
        assert f"\nwsmonitor_handshakes {ROOM}\n".encode() in text


async def test_there_is_room_for_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what the system allows, at the most: users need sockets as well."""
    monkeypatch.setattr(app, "open_files", lambda: 40)
    async with EmbeddedServer(timing=PATIENT) as server, strangers(server, 30):
        await until(lambda: server.server.counters["connections_total"] == 30)
        assert len(server.server.door) == 10
