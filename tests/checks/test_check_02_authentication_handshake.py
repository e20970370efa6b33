"""Check 2, Authentication Handshake (HIGH).

"WebSocket connection includes authentication token (JWT or session token) in handshake. Server
validates token before accepting connection. Unauthenticated connections rejected with error code.
Token is verified on each message."
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.checks.harness import Scene, blocking, measured, scene, until, wire
from wsmonitor.client import Target, connect


def _claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "sub": "mallory",
        "exp": now + 600,
        "iat": now,
        "jti": "j1",
        "aud": "wsmonitor",
        "iss": "wsmonitor",
        "role": "admin",
        "sessions": ["*"],
        **changes,
    }
    return {key: value for key, value in claims.items() if value is not None}


def _unsigned() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(_claims())}."


async def _refused(stage: Scene, token: str | None) -> tuple[int, str]:
    """HTTP status and error code of the refused handshake."""
    with pytest.raises(InvalidStatus) as info:
        async with wire(stage.server.url, token):
            pass
    response = info.value.response
    error = json.loads(response.body or b"{}")["error"]
    assert error["message"]
    return response.status_code, error["code"]


async def test_connection_includes_the_token_in_the_handshake() -> None:
    """ "WebSocket connection includes authentication token (JWT or session token) in handshake." """
    async with scene() as stage:
        token = stage.token("alice")
        assert jwt.get_unverified_header(token)["alg"] == "HS256"
        async with wire(stage.server.url, token) as bare:
            assert bare.socket.request is not None
            assert bare.socket.request.headers["Authorization"] == f"Bearer {token}"
            # Not in the URL, where logs and proxies would keep it.
            assert token not in bare.socket.request.path
        browser = ("wsmonitor.v1", f"wsmonitor.bearer.{token}")
        async with wire(stage.server.url, None, subprotocols=browser) as bare:
            assert bare.socket.subprotocol == "wsmonitor.v1"


async def test_server_validates_the_token_before_accepting_the_connection() -> None:
    """ "Server validates token before accepting connection." """
    async with scene() as stage:
        key = stage.server.key
        bad = {
            "expired": jwt.encode(_claims(exp=int(time.time()) - 1), key, "HS256"),
            "forged": jwt.encode(_claims(), b"another secret of thirty-two bytes!!", "HS256"),
            "not signed": _unsigned(),
            "other audience": jwt.encode(_claims(aud="elsewhere"), key, "HS256"),
            "other issuer": jwt.encode(_claims(iss="elsewhere"), key, "HS256"),
            "no expiry": jwt.encode(_claims(exp=None), key, "HS256"),
            "no id": jwt.encode(_claims(jti=None), key, "HS256"),
            "other algorithm": jwt.encode(_claims(), key * 2, "HS512"),
            "unknown role": jwt.encode(_claims(role="root"), key, "HS256"),
            "garbage": "abc.def.ghi",
        }
        refusals = {name: await _refused(stage, token) for name, token in bad.items()}
        # The answer is an HTTP refusal: the WebSocket was never accepted.
        assert {status for status, _ in refusals.values()} == {401}
        assert refusals.pop("expired")[1] == "token_expired"
        assert {code for _, code in refusals.values()} == {"unauthorized"}
        assert not stage.server.server.peers


async def test_unauthenticated_connections_are_rejected_with_an_error_code() -> None:
    """ "Unauthenticated connections rejected with error code." """
    async with scene() as stage:
        assert await _refused(stage, None) == (401, "unauthorized")
        # A browser cannot read an HTTP refusal: it gets the close code, and no data.
        bad = ("wsmonitor.v1", "wsmonitor.bearer.abc.def.ghi")
        async with wire(stage.server.url, None, hello=False, subprotocols=bad) as bare:
            assert await bare.closed() == 4501
            assert bare.seen == []
        # The product's client says why, and does not try again for ever.
        conn = connect(Target(url=stage.server.url, token="abc.def.ghi"))
        stage.connections.append(conn)
        await until(lambda: conn.status.phase == "failed")
        assert conn.status.code == "unauthorized"
        assert conn.status.reason


async def test_the_token_is_verified_on_each_message() -> None:
    """ "Token is verified on each message.": its role and patterns."""
    async with scene() as stage:
        token = stage.token("alice", "observe", ("etl~*",))
        async with wire(stage.server.url, token) as bare:
            asked = {
                "publish_open": {"session": "etl~1", "producer": "p"},
                "command": {"session": "etl~1", "key": "0" * 32, "name": "pause"},
                "remove": {"session": "etl~1"},
                "revoke": {"jti": "x"},
                "stop": {},
            }
            for number, (type_, fields) in enumerate(asked.items()):
                await bare.send({"type": type_, "request": number, **fields})
                answer = await bare.expect("error")
                assert (answer["request"], answer["error"]["code"]) == (number, "forbidden"), type_
            await bare.send({"type": "history_get", "request": 9, "session": "other~1"})
            assert (await bare.expect("error"))["error"]["code"] == "not_available"


async def test_no_message_is_served_after_the_token_expired() -> None:
    """ "Token is verified on each message.": its expiry, by the clock and not by the next message."""
    async with scene() as stage:
        async with wire(stage.server.url, stage.token("alice", ttl=4)) as bare:
            expires = (jwt.decode(stage.token("x", ttl=4), options={"verify_signature": False}))["exp"]
            assert await bare.closed() == 4003
            assert time.time() >= expires - 1.1
        assert await _refused(stage, stage.token("alice", ttl=-1)) == (401, "token_expired")


async def test_no_message_is_served_after_the_token_was_revoked() -> None:
    """ "Token is verified on each message.": its revocation, in force within one second."""
    async with scene() as stage:
        admin = await stage.connect("root", "admin")
        victim = stage.token("alice", jti="stolen")
        async with wire(stage.server.url, victim) as bare:
            from wsmonitor.protocol.messages import Revoke

            with measured() as seconds:
                await blocking(admin.request(lambda n: Revoke(request=n, jti="stolen")).result, 10)
                assert await bare.closed() == 4501
                assert seconds() < 5.0
        assert await _refused(stage, victim) == (401, "token_revoked")


async def test_a_refreshed_token_takes_the_place_of_the_old_one() -> None:
    """ "Token is verified on each message.": the newest one."""
    async with scene() as stage, wire(stage.server.url, stage.token("alice", ttl=10)) as bare:
        await bare.send({"type": "refresh", "request": 1, "token": stage.token("alice", "admin", ttl=600)})
        refreshed = await bare.expect("refreshed")
        assert refreshed["expires"] > time.time() + 500
        await bare.send({"type": "revoke", "request": 2, "jti": "x"})
        assert (await bare.expect("done", "error"))["type"] == "done"
        # Another subject's token is no refresh.
        await bare.send({"type": "refresh", "request": 3, "token": stage.token("bob")})
        assert (await bare.expect("error"))["request"] == 3
