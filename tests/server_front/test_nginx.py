"""The deployment example of nginx, run by nginx itself on loopback (skipped where it is not installed)."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import re
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from wsmonitor.client import Target
from wsmonitor.client import connect as connect_ours
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.messages import Ack, Event
from wsmonitor_server.embedded import EmbeddedServer

from .test_real_engine import Publisher, chain
from .wire import Client

EXAMPLE = Path(__file__).resolve().parents[2] / "server" / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt install nginx-light")


def certificate(folder: Path) -> Path:
    """A certificate for loopback, signed by itself; its key lies beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "monitor.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "monitor.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "monitor.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "monitor.pem"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


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
    trust = ssl.create_default_context(cafile=str(certificate(tmp_path)))
    port = free_port()
    site = EXAMPLE.read_text()
    for before, after in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl; {more}"),
        ("/etc/ssl/", f"{tmp_path}/"),
        ("127.0.0.1:8765", f"127.0.0.1:{server.port}"),
    ):
        assert before in site
        site = site.replace(before, after)
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{site}\n}}\n"
    )
    assert NGINX is not None
    command = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    process = await asyncio.to_thread(subprocess.Popen, command, stderr=subprocess.PIPE, text=True)
    try:
        async with asyncio.timeout(20):
            while True:
                assert process.poll() is None, process.stderr.read() if process.stderr is not None else ""
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                await writer.wait_closed()
                break
        yield f"127.0.0.1:{port}", trust
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate)


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
