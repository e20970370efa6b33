"""The deployment example of nginx, run by nginx itself on loopback (skipped where it is not installed)."""

from __future__ import annotations

import asyncio
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests import nginx
from wsmonitor.client import Target
from wsmonitor.client import connect as connect_ours
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.messages import Ack, Event
from wsmonitor_server.embedded import EmbeddedServer

from .test_real_engine import Publisher, chain
from .wire import Client

EXAMPLE = nginx.DEPLOY / "nginx.conf"

pytestmark = nginx.needed


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    timing = Timing(presence_interval=0.05)
    async with EmbeddedServer(timing=timing, behind_proxy=True, metrics=True) as running:
        yield running


@pytest.fixture
async def proxy(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """Where nginx serves the example, changed in nothing but its addresses; and what trusts it."""
    async with proxying(server, tmp_path) as found:
        yield found


@asynccontextmanager
async def proxying(
    server: EmbeddedServer, tmp_path: Path, more: str = ""
) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """The example with *more* directives."""
    changes = {"127.0.0.1:8765": f"127.0.0.1:{server.port}"}
    running = nginx.serving(tmp_path, EXAMPLE, changes, more)
    found = await asyncio.to_thread(running.__enter__)
    try:
        yield found
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


def through(proxy: tuple[str, ssl.SSLContext], token: str) -> connect:
    return connect(
        f"wss://{proxy[0]}/",
        ssl=proxy[1],
        additional_headers={"Authorization": f"Bearer {token}", "X-Forwarded-For": "203.0.113.7"},
        subprotocols=[Subprotocol("wsmonitor.v1")],
        compression=None,
        ping_interval=None,
    )


async def test_a_session_is_published_and_watched_through_it(
    server: EmbeddedServer, proxy: tuple[str, ssl.SSLContext]
) -> None:
    async with through(proxy, server.token(sub="bob", role="publish")) as first:
        publishing = Client(first)
        await publishing.hello()
        publisher = Publisher(publishing, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s", "state": "running"})
        async with through(proxy, server.token(sub="alice", role="observe")) as second:
            observing = Client(second)
            await observing.hello()
            await observing.subscribe("s~1")
            await publisher.publish(chain("c"))
            assert (await observing.expect(Event)).kind == "chain"
            remotes = [connection.remote for connection in server.server.connections.values()]
            # What a client claims of itself is not believed.
            assert remotes == ["127.0.0.1", "127.0.0.1"]
            # A message of a megabyte passes in one piece.
            many = [chain(f"c{n}") | {"reason": "x" * 4000} for n in range(200)]
            await publishing.send(
                "publish", session="s~1", producer="p", producer_epoch=1, first=3, changes=many
            )
            while (await publishing.expect(Ack)).accepted < 202:
                pass


async def test_refusals_and_the_inner_pages_pass_it(
    server: EmbeddedServer, proxy: tuple[str, ssl.SSLContext]
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with through(proxy, "no-token"):
            pass
    assert refused.value.response.status_code == 401
    assert b'"code":"unauthorized"' in (refused.value.response.body or b"")

    def get(path: str) -> int:
        try:
            with urllib.request.urlopen(f"https://{proxy[0]}{path}", context=proxy[1], timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            exc.close()
            return exc.code

    assert await asyncio.to_thread(get, "/healthz") == 200
    assert await asyncio.to_thread(get, "/metrics") == 403, "only for the machines inside"


async def test_a_proxy_that_wants_client_certificates(server: EmbeddedServer, tmp_path: Path) -> None:
    """With one it goes; without, what nginx says in HTTP is told as what it is."""
    more = f"ssl_client_certificate {tmp_path}/monitor.pem; ssl_verify_client on;"
    async with proxying(server, tmp_path, more) as (place, trust):
        target = Target(url=f"wss://{place}/", token=server.token(), ssl=trust)
        with connect_ours(target) as connection:
            status = await asyncio.to_thread(connection.wait_for, lambda one: bool(one.reason), 60)
            assert status.phase == "waiting"
            assert "client certificate" in status.reason
        trust.load_cert_chain(tmp_path / "monitor.pem", tmp_path / "monitor.key")
        with connect_ours(target) as connection:
            await asyncio.to_thread(connection.wait_live, 60)


def test_the_proxy_waits_longer_than_a_heartbeat() -> None:
    for direction in ("read", "send"):
        (seconds,) = re.findall(rf"proxy_{direction}_timeout (\d+)s;", EXAMPLE.read_text())
        assert int(seconds) > Timing().heartbeat_timeout
