"""Who gets in, and what the others are told (protocol, rules 13 and 17; checks 1 and 2)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor_server import readiness
from wsmonitor_server.auth import issue
from wsmonitor_server.clock import ManualClock, SystemClock
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.http import valid_nonce
from wsmonitor_server.stores.base import StoreError

from .fakes import FakeEngine
from .raw import ask, code, get, send
from .wire import client

NOW = SystemClock().wall_ns() // 10**9
DAY = 86_400
"""Seconds. What is made when the tests are collected has to hold when the last of them runs."""


def bearer(token: str) -> dict[str, str | None]:
    return {"Authorization": f"Bearer {token}"}


def forge(header: dict[str, Any], claims: dict[str, Any], key: bytes) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=").decode()

    text = f"{part(header)}.{part(claims)}"
    signature = base64.urlsafe_b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest())
    return f"{text}.{signature.rstrip(b'=').decode() if header['alg'] != 'none' else ''}"


CLAIMS: dict[str, Any] = {
    "sub": "eve",
    "role": "admin",
    "sessions": ["*"],
    "exp": NOW + DAY,
    "aud": "wsmonitor",
    "iss": "wsmonitor",
    "jti": "1",
}


async def test_a_valid_token_is_let_in(server: EmbeddedServer) -> None:
    status, headers, _ = await ask(server, headers=bearer(server.token()))
    assert status == 101
    assert headers["sec-websocket-protocol"] == "wsmonitor.v1"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


@pytest.mark.parametrize(
    ("claims", "header", "expected"),
    [
        (CLAIMS | {"exp": NOW - 1}, {}, "token_expired"),
        (CLAIMS | {"aud": "another"}, {}, "unauthorized"),
        (CLAIMS | {"iss": "another"}, {}, "unauthorized"),
        (CLAIMS | {"nbf": NOW + DAY}, {}, "unauthorized"),
        (CLAIMS | {"iat": NOW + DAY}, {}, "unauthorized"),
        (CLAIMS | {"role": "root"}, {}, "unauthorized"),
        (CLAIMS | {"sessions": "*"}, {}, "unauthorized"),
        (CLAIMS | {"sub": ""}, {}, "unauthorized"),
        (CLAIMS | {"exp": "soon"}, {}, "unauthorized"),
        *[(without(name), {}, "unauthorized") for name in ("exp", "aud", "iss", "jti", "sub")],
        (CLAIMS, {"alg": "none"}, "unauthorized"),
        (CLAIMS, {"alg": "HS512"}, "unauthorized"),
        (CLAIMS, {"alg": "RS256"}, "unauthorized"),
        (CLAIMS, {"alg": ["HS256"]}, "unauthorized"),
        (CLAIMS, {"alg": {}}, "unauthorized"),
        (CLAIMS, {"alg": 5}, "unauthorized"),
        (CLAIMS | {"aud": 5}, {}, "unauthorized"),
        (CLAIMS | {"jti": 5}, {}, "unauthorized"),
        (CLAIMS | {"exp": True}, {}, "unauthorized"),
    ],
)
async def test_a_token_that_is_not_valid_here_is_refused_before_the_upgrade(
    server: EmbeddedServer, claims: dict[str, Any], header: dict[str, Any], expected: str
) -> None:
    token = forge({"alg": "HS256", "typ": "JWT", **header}, claims, server.key)
    status, headers, body = await ask(server, headers=bearer(token))
    assert (status, code(body)) == (401, expected)
    assert headers["www-authenticate"].startswith("Bearer")


async def test_a_subject_that_cannot_be_written_is_refused(server: EmbeddedServer) -> None:
    # A lone surrogate passes through JSON's escapes.
    text = base64.urlsafe_b64encode(json.dumps(CLAIMS | {"sub": "\ud800"}).encode()).rstrip(b"=").decode()
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    signature = hmac.new(server.key, f"{head}.{text}".encode(), hashlib.sha256).digest()
    token = f"{head}.{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    status, _, body = await ask(server, headers=bearer(token))
    assert (status, code(body)) == (401, "unauthorized")


async def test_a_forged_signature_is_refused(server: EmbeddedServer) -> None:
    status, _, body = await ask(server, headers=bearer(forge({"alg": "HS256"}, CLAIMS, b"x" * 32)))
    assert (status, code(body)) == (401, "unauthorized")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a, b", "Bearer not-a-jwt", "Bearer " + "a" * 4000],
)
async def test_no_usable_token_is_a_401(server: EmbeddedServer, authorization: str | None) -> None:
    status, _, body = await ask(server, headers={"Authorization": authorization})
    assert (status, code(body)) == (401, "unauthorized")


async def test_clocks_may_differ_by_thirty_seconds_but_expiry_has_no_grace() -> None:
    clock = ManualClock()
    async with EmbeddedServer(engine=lambda *_: FakeEngine(), clock=clock) as server:
        now = clock.wall_ns() // 10**9
        for issued, ttl, status in [(now + 29, 60, 101), (now + 31, 60, 401), (now - 60, 60, 401)]:
            token = issue(
                server.key, sub="a", role="observe", sessions=["*"], issued=issued, ttl=ttl, jti="1"
            )
            assert (await ask(server, headers=bearer(token)))[0] == status


@pytest.mark.parametrize("offered", [None, "chat", "wsmonitor.v2", "wsmonitor.v1x"])
async def test_the_subprotocol_is_required(server: EmbeddedServer, offered: str | None) -> None:
    headers = {**bearer(server.token()), "Sec-WebSocket-Protocol": offered}
    status, _, body = await ask(server, headers=headers)
    assert (status, code(body)) == (400, "bad_subprotocol")


async def test_a_token_in_the_url_is_refused_and_said_so(server: EmbeddedServer) -> None:
    status, _, body = await ask(server, f"/?token={server.token()}", headers=bearer(server.token()))
    assert (status, code(body)) == (400, "bad_message")
    assert b"does not belong into the URL" in body


@pytest.mark.parametrize("path", ["/ws", "/healthz/", "/metrics", "/.well-known/wsmonitor-challenge"])
async def test_there_is_nothing_at_other_paths(server: EmbeddedServer, path: str) -> None:
    for answer in (await get(server, path), await ask(server, path, bearer(server.token()))):
        assert (answer[0], code(answer[2])) == (404, "not_available")


async def test_a_plain_request_is_told_what_is_served_here(server: EmbeddedServer) -> None:
    status, _, body = await get(server, "/")
    assert (status, code(body)) == (426, "bad_subprotocol")


async def test_an_incomplete_handshake_is_refused(server: EmbeddedServer) -> None:
    headers = {**bearer(server.token()), "Sec-WebSocket-Key": None}
    status, _, body = await ask(server, headers=headers)
    assert (status, code(body)) == (400, "bad_message")


async def test_a_browser_origin_has_to_be_on_the_list(engine: FakeEngine) -> None:
    origins = ("https://hub.example.org",)
    async with EmbeddedServer(engine=lambda *_: engine, origins=origins) as server:
        token = bearer(server.token())
        for origin, status in [
            ("https://hub.example.org", 101),
            ("https://hub.example.org.evil.org", 403),
            ("null", 403),
            (f"http://127.0.0.1:{server.port}", 403),
            (None, 101),
        ]:
            found, _, body = await ask(server, headers={**token, "Origin": origin})
            assert found == status, origin
            if status == 403:
                assert code(body) == "origin_forbidden"


async def test_a_browser_is_let_in_by_subprotocol_and_refused_after_the_upgrade(
    server: EmbeddedServer,
) -> None:
    async with connect(
        server.url, subprotocols=[Subprotocol("wsmonitor.v1"), browser(server.token())], ping_interval=None
    ) as socket:
        assert socket.subprotocol == "wsmonitor.v1"
        await socket.send('{"type":"hello","major":1}')
        assert b'"welcome"' in await socket.recv(decode=False)
    for bad in (server.token(ttl=-1), "nonsense"):
        async with connect(
            server.url, subprotocols=[Subprotocol("wsmonitor.v1"), browser(bad)], ping_interval=None
        ) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4501


def browser(token: str) -> Subprotocol:
    return Subprotocol(f"wsmonitor.bearer.{token}")


async def test_two_tokens_are_one_too_many(server: EmbeddedServer) -> None:
    token = server.token()
    offered = f"wsmonitor.v1, wsmonitor.bearer.{token}"
    for headers in (
        {**bearer(token), "Sec-WebSocket-Protocol": offered},
        {"Sec-WebSocket-Protocol": f"{offered}, wsmonitor.bearer.{token}"},
    ):
        status, _, body = await ask(server, headers=headers)
        assert (status, code(body)) == (401, "unauthorized")


async def test_connections_are_limited_in_all_and_per_subject(engine: FakeEngine) -> None:
    limits = Limits(connections=3, connections_per_subject=1)
    async with EmbeddedServer(engine=lambda *_: engine, limits=limits) as server:
        async with client(server, sub="a"), client(server, sub="b"):
            status, _, body = await ask(server, headers=bearer(server.token(sub="a")))
            assert (status, code(body)) == (429, "limit_exceeded")
            async with client(server, sub="c"):
                status, _, body = await ask(server, headers=bearer(server.token(sub="d")))
                assert (status, code(body)) == (503, "limit_exceeded")
        async with client(server, sub="a"):
            assert len(server.server.peers) == 1


async def test_a_slow_handshake_is_ended(engine: FakeEngine) -> None:
    timing = Timing(handshake_timeout=0.1)
    async with EmbeddedServer(engine=lambda *_: engine, timing=timing) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        try:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        finally:
            writer.close()
            await writer.wait_closed()
        async with client(server, hello=False) as silent:
            assert await silent.error() == ("handshake_timeout", None)
            assert await silent.closed() == 4005


@pytest.mark.parametrize(
    ("request_text", "status", "expected"),
    [
        ("nonsense\r\n\r\n", 400, "bad_message"),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "bad_message"),
        ("GET / HTTP/1.1\r\n" + "X: " + "a" * 9000 + "\r\n\r\n", 431, "message_too_large"),
        ("GET /" + "a" * 9000 + " HTTP/1.1\r\n\r\n", 431, "message_too_large"),
        ("GET / HTTP/1.1\r\n" + "X: a\r\n" * 500 + "\r\n", 431, "message_too_large"),
        ("GET /\x00 HTTP/9.9\r\n\r\n", 400, "bad_message"),
        ("GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_message"),
        ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400, "bad_message"),
    ],
)
async def test_what_is_not_http_is_refused_in_words(
    server: EmbeddedServer, request_text: str, status: int, expected: str
) -> None:
    answered, _, body = await send(server, request_text)
    assert (answered, code(body)) == (status, expected)
    async with client(server) as one:
        await one.subscribe("s1")


async def test_health_and_readiness(
    server: EmbeddedServer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "FRESH", 0.0)
    assert (await get(server, "/healthz"))[0] == 200
    assert (await get(server, "/readyz"))[0] == 200
    engine.not_ready = StoreError("the disk is full")
    status, _, body = await get(server, "/readyz")
    assert (status, code(body)) == (503, "store_failed")
    assert b"the disk is full" in body
    # What a fault says may be anything, a path or a secret: it is for the log.
    engine.not_ready = OSError("cannot write /home/ada/secret")
    status, _, body = await get(server, "/readyz")
    assert (status, code(body)) == (503, "store_failed")
    assert b"ada" not in body
    assert (await get(server, "/healthz"))[0] == 200


async def test_metrics_where_they_are_allowed(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine, metrics=True) as server, client(server) as one:
        await one.subscribe("s1")
        status, headers, body = await get(server, "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        assert b"wsmonitor_subscriptions 1\n" in body
        assert b"# TYPE wsmonitor_opened_total counter\nwsmonitor_opened_total 1\n" in body


async def test_connections_are_logged_without_their_token(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = server.token(sub="ada", jti="j1")
    async with client(server, token, hello=False) as one:
        await one.hello(agent="tests 1.0\nforged line")
    await asyncio.wait_for(server.drain(), 10)
    words = [record.getMessage() for record in caplog.records]
    assert "connection opened" in words
    assert "connection closed" in words
    opened = next(record for record in caplog.records if record.getMessage() == "connection opened")
    values = opened.__dict__["wsmonitor_fields"]
    assert values["subject"] == "ada"
    assert values["remote"].startswith("127.0.0.1:")
    server_side = [r for r in caplog.records if not r.name.startswith("websockets.client")]
    assert all(token not in f"{record.getMessage()} {record.__dict__}" for record in server_side)


@pytest.mark.parametrize(
    ("nonce", "good"),
    [("0" * 16, True), ("F" * 128, True), ("0" * 15, False), ("0" * 129, False), ("g" * 16, False)],
)
def test_the_form_of_a_challenge(nonce: str, good: bool) -> None:
    assert valid_nonce(nonce) is good
