"""Where keys come from: secrets in files, key sets from files and URLs, and TLS (protocol, rule 13)."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.app import Server
from wsmonitor_server.auth import Authenticator, AuthError, KeySource, SecretKey
from wsmonitor_server.clock import SystemClock
from wsmonitor_server.config import AuthConfig, ServerConfig
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.keys import key_source, read_key, read_or_make_key

from .fakes import FakeEngine
from .raw import ask

NOW = SystemClock().wall_ns() / 1e9
DAY = 86_400
"""Seconds. What is made when the tests are collected has to hold when the last of them runs."""
CLAIMS = {
    "sub": "ada",
    "role": "observe",
    "sessions": ["*"],
    "exp": int(NOW) + DAY,
    "aud": "hub",
    "iss": "https://sso",
    "jti": "1",
}

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def public(name: str) -> dict[str, Any]:
    to_jwk: dict[str, Callable[..., Any]] = {
        "RS256": RSAAlgorithm.to_jwk,
        "ES256": ECAlgorithm.to_jwk,
        "EdDSA": OKPAlgorithm.to_jwk,
    }
    found: dict[str, Any] = to_jwk[name](KEYS[name].public_key(), as_dict=True)
    return {**found, "kid": name, "alg": name, "use": "sig"}


def authenticator(keys: KeySource) -> Authenticator:
    return Authenticator(keys, lambda jti: False, audience="hub", issuer="https://sso")


def jwks(*names: str) -> bytes:
    return msgspec.json.encode({"keys": [public(name) for name in names]})


def token(name: str, **header: Any) -> str:
    return jwt.encode(CLAIMS, KEYS[name], algorithm=name, headers={"kid": name, **header})


@pytest.mark.parametrize("name", KEYS)
def test_a_key_set_file_verifies_each_algorithm(tmp_path: Path, name: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(*KEYS))
    auth = authenticator(key_source(AuthConfig(jwks_file=str(path)), None))
    assert auth.verify(token(name), NOW).claims.sub == "ada"
    for bad in ("another", None):
        with pytest.raises(AuthError, match="a key that this server does not know"):
            auth.verify(token(name, kid=bad) if bad else jwt.encode(CLAIMS, KEYS[name], algorithm=name), NOW)


def test_the_algorithm_is_the_configurations(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks("RS256", "ES256"))
    auth = authenticator(key_source(AuthConfig(jwks_file=str(path), algorithms=("ES256",)), None))
    assert auth.verify(token("ES256"), NOW).claims.sub == "ada"
    with pytest.raises(AuthError, match="RS256"):
        auth.verify(token("RS256"), NOW)
    # A secret in the place of a public key: the classical confusion of RFC 8725, 2.1.
    forged = jwt.encode(CLAIMS, "0" * 32, algorithm="HS256", headers={"kid": "ES256"})
    with pytest.raises(AuthError, match="HS256"):
        auth.verify(forged, NOW)


def test_another_keys_signature_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks("ES256"))
    auth = authenticator(key_source(AuthConfig(jwks_file=str(path)), None))
    other = jwt.encode(
        CLAIMS, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": "ES256"}
    )
    with pytest.raises(AuthError, match="not valid here"):
        auth.verify(other, NOW)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"keys": 5}', b'{"keys": []}'])
def test_a_broken_key_set_file_is_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"jwks\.json"):
        key_source(AuthConfig(jwks_file=str(path)), None)


@pytest.fixture
def key_server() -> Iterator[tuple[str, dict[str, Any]]]:
    """A URL with a key set, and what it answers with."""
    answers: dict[str, Any] = {"body": jwks("RS256"), "count": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers["count"] += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers["body"])

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks", answers
        server.shutdown()
        thread.join()


async def test_a_key_set_url_is_fetched_on_first_use_and_for_new_keys(
    key_server: tuple[str, dict[str, Any]],
) -> None:
    url, answers = key_server
    config = ServerConfig(port=0, auth=AuthConfig(jwks_url=url, audience="hub", issuer="https://sso"))
    server = Server(config, FakeEngine(), key_source(config.auth, None))
    await server.start()
    try:
        view = Reachable(server)
        for _ in range(3):
            assert (await ask(view, headers={"Authorization": f"Bearer {token('RS256')}"}))[0] == 101
        assert answers["count"] == 1
        answers["body"] = jwks("RS256", "ES256")
        # An unknown key: not fetched again so soon, so that bad tokens cannot make the server busy.
        assert (await ask(view, headers={"Authorization": f"Bearer {token('ES256')}"}))[0] == 401
        assert answers["count"] == 1
        assert server.auth.wants_fetch(token("ES256"), server.clock.monotonic() + 31)
        await server.fetch_keys()
        assert (await ask(view, headers={"Authorization": f"Bearer {token('ES256')}"}))[0] == 101
    finally:
        await server.drain()


class Reachable(EmbeddedServer):
    """A `Server` where these tests' helpers expect an embedded one."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server


async def test_a_key_server_that_is_away_refuses_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    config = ServerConfig(port=0, auth=AuthConfig(jwks_url="http://127.0.0.1:9/jwks"))
    server = Server(config, FakeEngine(), key_source(config.auth, None))
    await server.start()
    try:
        status, _, _ = await ask(Reachable(server), headers={"Authorization": f"Bearer {token('RS256')}"})
        assert status == 401
        assert "the key set cannot be fetched" in caplog.text
    finally:
        await server.drain()


# -- secrets


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 32"):
        SecretKey(b"x" * 31)
    with pytest.raises(ConfigurationError, match="31 bytes"):
        EmbeddedServer(key="x" * 31)


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = read_or_make_key(path)
    assert len(first) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_make_key(path) == first
    assert os.listdir(tmp_path) == ["key"]  # noqa: PTH208 - hidden files count


def test_of_two_makers_the_first_ones_key_stays(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)
    found: list[bytes] = []

    def make() -> None:
        barrier.wait()
        found.append(read_or_make_key(tmp_path / "key"))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-key"):
        read_key(tmp_path / "no-such-key")


# -- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(EC.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(EC, hashes.SHA256())
    )
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        EC.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert, key


async def test_tls(certificate: tuple[Path, Path], engine: FakeEngine) -> None:
    cert, key = certificate
    async with EmbeddedServer(engine=lambda *_: engine, tls_cert=str(cert), tls_key=str(key)) as server:
        assert server.url.startswith("wss://")
        async with connect(
            server.url,
            ssl=ssl.create_default_context(cafile=str(cert)),
            additional_headers={"Authorization": f"Bearer {server.token()}"},
            subprotocols=[Subprotocol("wsmonitor.v1")],
            ping_interval=None,
        ) as socket:
            await socket.send('{"type":"hello","major":1}')
            assert b'"welcome"' in await socket.recv(decode=False)


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    server = EmbeddedServer(
        engine=lambda *_: FakeEngine(), tls_cert=str(tmp_path / "x.pem"), tls_key=str(tmp_path / "x.pem")
    )
    with pytest.raises(ConfigurationError, match="certificate"):
        await server.start()


def test_servers_that_take_the_same_tokens_have_the_same_mark() -> None:
    def mark(keys: KeySource, audience: str = "hub", issuer: str = "us") -> str:
        return Authenticator(keys, lambda jti: False, audience=audience, issuer=issuer).mark

    one, other = SecretKey(b"1" * 32), SecretKey(b"2" * 32)
    assert mark(one) == mark(SecretKey(b"1" * 32))
    assert len({mark(one), mark(other), mark(one, "web"), mark(one, issuer="them")}) == 4
    assert "1" * 8 not in one.mark
    auth = Authenticator(one, lambda jti: False, audience="hub", issuer="us")
    auth.rotate(other)
    assert auth.mark == mark(other)
