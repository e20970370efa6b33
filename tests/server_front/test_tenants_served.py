"""Tenants at a real server: who is beyond a limit is told so, and nobody else notices."""

from __future__ import annotations

import base64
import hashlib
import warnings
from typing import Any

import jwt
import pytest
from websockets.exceptions import InvalidStatus

import wsmonitor as wm
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor.protocol.messages import Ack, Error, PublishOpened, ValueAck
from wsmonitor_server.auth import AuthError
from wsmonitor_server.config import AuthConfig, load
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.tenants import TenantLimits

from .raw import get
from .test_draining import until
from .test_real_engine import Publisher, chain
from .wire import Client, client

ROOM = TenantLimits()


def serving(limits: TenantLimits, **named: TenantLimits) -> EmbeddedServer:
    return EmbeddedServer(metrics=True, tenant_limits=limits, tenants=named)


def of(server: EmbeddedServer, tenant: str, sub: str = "ada") -> Any:
    return client(server, server.token(sub=sub, tenant=tenant), hello=True)


async def beyond(one: Client, limit: str, tenant: str = "acme") -> Error:
    """The error with which *one* is told that it is beyond *limit*."""
    error = await one.expect(Error)
    assert (error.error.code, error.error.details["limit"]) == ("limit_exceeded", f"tenant.{limit}")
    assert error.error.details["tenant"] == tenant
    assert error.error.details["retry_after"] > 0
    assert error.error.retryable
    return error


async def published(one: Client, session: str) -> Publisher:
    publisher = Publisher(one, session)
    await publisher.open()
    await publisher.publish({"op": "session", "name": "s", "state": "running"})
    return publisher


async def undisturbed(one: Client) -> None:
    """*one*, of another tenant, publishes and watches what it publishes."""
    publisher = await published(one, "bystander~1")
    await publisher.publish(chain("c"))
    await one.subscribe("bystander~1")


async def test_connections() -> None:
    async with (
        serving(TenantLimits(connections=1)) as server,
        of(server, "acme") as first,
        of(server, "globex") as other,
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with of(server, "acme", "another"):
                pass
        response = refused.value.response
        assert response.status_code == 429
        assert response.headers["Retry-After"] == "10"
        assert b'"tenant.connections"' in (response.body or b"")
        await undisturbed(other)
        await first.socket.close()
        await until(lambda: not server.server.tenants.of("acme", 0.0).connections)
        async with of(server, "acme", "another") as another:
            await another.subscribe("s~1")


async def test_subscriptions() -> None:
    async with (
        serving(TenantLimits(subscriptions=1)) as server,
        of(server, "acme") as first,
        of(server, "acme", "bob") as second,
        of(server, "globex") as other,
    ):
        await first.subscribe("s~1")
        await second.send("subscribe", topic="s~2", generation=1)
        error = await beyond(second, "subscriptions")
        assert error.error.details["topic"] == "s~2"
        await undisturbed(other)
        await first.send("unsubscribe", topic="s~1")
        await until(lambda: not server.server.tenants.of("acme", 0.0).subscriptions)
        await second.subscribe("s~2")


async def test_sessions() -> None:
    async with (
        serving(TenantLimits(sessions=1)) as server,
        of(server, "acme") as one,
        of(server, "globex") as other,
    ):
        publisher = await published(one, "s~1")
        await one.send("publish_open", request=9, session="s~2", producer="p", agent="a")
        assert (await beyond(one, "sessions")).request == 9
        await publisher.publish(chain("still open"))
        await undisturbed(other)
        await one.send("publish_close", request=10, session="s~1", producer="p", producer_epoch=1)
        await one.receive()
        await one.send("publish_open", request=11, session="s~2", producer="p", agent="a")
        await one.expect(PublishOpened)


async def test_an_opening_that_fails_takes_no_place() -> None:
    async with serving(TenantLimits(sessions=1)) as server, of(server, "acme") as one:
        for number in range(3):
            await one.send("publish_open", request=number, session="../x", producer="p", agent="a")
            assert (await one.expect(Error)).error.code == "bad_id"
        await published(one, "s~2")


async def test_changes_and_bytes_a_second() -> None:
    """Ten seconds' worth at once; what was refused can be sent again, and then has its place."""
    for limits, name in (
        (TenantLimits(event_rate=0.5), "event_rate"),
        (TenantLimits(byte_rate=50), "byte_rate"),
    ):
        async with (
            serving(ROOM, acme=limits) as server,
            of(server, "acme") as one,
            of(server, "globex") as other,
        ):
            publisher = Publisher(one, "s~1")
            await publisher.open()
            changes = [{"op": "session", "name": "s", "state": "running"}]
            changes += [{"op": "chain", "id": f"c{n}", "name": "n" * 50} for n in range(5)]
            send = {"session": "s~1", "producer": "p", "producer_epoch": 1, "changes": changes}
            await one.send("publish", first=1, **send)
            assert (await one.expect(Ack)).accepted == 6
            await one.send("publish", first=7, **send | {"changes": [chain("more")]})
            error = await beyond(one, name)
            assert error.error.details["producer"] == "p"
            assert error.error.session == "s~1"
            await undisturbed(other)
            server.server.tenants.of("acme", 0.0)._events._left = 1.0
            server.server.tenants.of("acme", 0.0)._bytes._left = 1.0
            await one.send("publish", first=7, **send | {"changes": [chain("more")]})
            assert (await one.expect(Ack)).accepted == 7


async def test_who_may_not_publish_uses_up_nothing() -> None:
    async with serving(TenantLimits(event_rate=0.1)) as server:
        token = server.token(sub="eve", role="observe", tenant="acme")
        async with client(server, token) as eve, of(server, "acme") as one:
            await eve.send(
                "publish", session="s~1", producer="p", producer_epoch=1, first=1, changes=[chain("c")] * 50
            )
            assert (await eve.expect(Error)).error.code == "forbidden"
            await published(one, "s~1")


async def test_bytes_of_values() -> None:
    async with serving(TenantLimits(value_bytes=1_000)) as server, of(server, "acme") as one:
        publisher = await published(one, "s~1")

        async def upload(data: bytes, request: int) -> None:
            await one.send(
                "value_put",
                request=request,
                session="s~1",
                sha256=hashlib.sha256(data).hexdigest(),
                total=len(data),
                offset=0,
                data=base64.b64encode(data).decode(),
            )

        first = b"a" * 900
        await upload(first, 1)
        assert (await one.expect(ValueAck)).complete
        await upload(b"b" * 101, 2)
        await beyond(one, "value_bytes")
        await upload(first, 3)
        assert (await one.expect(ValueAck)).complete, "what is there already may be asked for again"
        value = {"mime": "text/plain", "text": "a" * 100, "size": 900, "truncated": True}
        value["sha256"] = hashlib.sha256(first).hexdigest()
        await publisher.publish(
            chain("c"), {"op": "step", "id": "x", "chain": "c", "name": "x", "output": value}
        )
        await upload(b"c" * 101, 4)
        await beyond(one, "value_bytes")
        await upload(b"c" * 100, 5)
        assert (await one.expect(ValueAck)).complete, "what is referred to counts once"
        await upload(b"d" * 1_001, 6)
        error = (await one.expect(Error)).error
        assert (error.code, error.retryable) == ("limit_exceeded", False)


def forged(server: EmbeddedServer, **claims: Any) -> str:
    """A token with odd claims, signed by the server's own key."""
    said = jwt.decode(server.token(), server.key, algorithms=["HS256"], audience="wsmonitor")
    return jwt.encode({**said, **claims}, server.key, algorithm="HS256")


@pytest.mark.parametrize("tenant", [7, True, None, ["acme"], {"name": "acme"}, "x" * 129, "\ud800"])
async def test_a_claim_that_is_no_name_makes_the_token_invalid(tenant: Any) -> None:
    async with serving(ROOM) as server:
        with pytest.raises(AuthError, match="claims are not valid"):
            server.server.auth.verify(forged(server, tenant=tenant), server.server.clock.wall_ns() / 1e9)


async def test_the_claim_can_be_another() -> None:
    """Then `tenant` says nothing; and none at all puts everybody together."""
    for claim, expected in (("org_id", "acme"), ("missing", ""), ("", "")):
        async with EmbeddedServer(auth=AuthConfig(tenant_claim=claim)) as server:
            for jti in "123":  # the first of a header is read otherwise than those that follow
                token = forged(server, org_id="acme", tenant="somebody else", jti=jti, **{"": "odd"})
                found = server.server.auth.verify(token, server.server.clock.wall_ns() / 1e9)
                assert found.claims.tenant == expected


async def test_names_that_nobody_configured_share_no_limit_and_get_no_metric() -> None:
    async with serving(TenantLimits(connections=1), acme=TenantLimits(connections=5)) as server:
        odd = ['"}\n# HELP forged 1', "acme ", "ACME", "..", ""]
        made = [of(server, name, sub=f"s{n}") for n, name in enumerate(odd)]
        for one in made:
            await one.__aenter__()
        _, _, text = await get(server, "/metrics")
        assert b"forged" not in text
        lines = [
            line for line in text.decode().splitlines() if line.startswith("wsmonitor_tenant_connections{")
        ]
        assert sorted(lines) == [
            'wsmonitor_tenant_connections{tenant="(none)"} 1',
            'wsmonitor_tenant_connections{tenant="(other)"} 4',
            'wsmonitor_tenant_connections{tenant="acme"} 0',
        ]
        for one in made:
            await one.__aexit__(None, None, None)


async def test_a_refresh_does_not_change_the_tenant() -> None:
    async with serving(ROOM) as server, of(server, "acme") as one:
        await one.send("refresh", request=1, token=server.token(sub="ada", tenant="globex"))
        error = (await one.expect(Error)).error
        assert (error.code, error.message) == ("unauthorized", "the new token is another tenant's")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tenant_limits]\nconnection = 1", "unknown key `tenant_limits.connection`"),
        ("[tenants.acme]\nconnection = 1", "connection"),
        ("[tenants]\nacme = 1", "tenants"),
        ("tenants = 1", "tenants"),
        ("tenant_limits = 1", "tenant_limits"),
        ("[tenants.acme]\nevent_rate = -1", "tenants.acme.event_rate has to be 0"),
        ("[tenant_limits]\nbyte_rate = inf", "tenant_limits.byte_rate has to be 0"),
        ("[tenant_limits]\nbyte_rate = nan", "tenant_limits.byte_rate has to be 0"),
        ("[auth]\ntenant_claim = ''\n[tenants.acme]\nconnections = 1", "auth.tenant_claim is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Any, text: str, words: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words.replace(".", r"\.")):
        load(path, {})


@pytest.mark.slow  # it waits, as long as it is told to
def test_a_program_beyond_its_tenants_rate_is_told_waits_and_loses_nothing() -> None:
    """Through the whole of the product: published faster than it may, and all of it arrives."""
    with (
        EmbeddedServer.in_thread(tenants={"acme": TenantLimits(event_rate=10)}) as server,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        token = server.token(sub="p", role="publish", tenant="acme")
        with wm.session("busy", url=server.url, token=token) as session:
            for number in range(150):
                with session.step(f"n{number}"):
                    pass
            assert session.flush(100)
        [warning] = [one for one in warned if one.category is wm.WsMonitorWarning]
        assert "takes nothing for now, and is asked again" in str(warning.message)
        assert "(server log: " in str(warning.message)
        assert {error.code for error in session.errors} == {"limit_exceeded"}
        observer = wm.watch(session.id, url=server.url, token=server.token(sub="o"))
        seen = observer.wait(60)
        observer.close()
    assert len(seen.steps) == 150
    assert {step.state for step in seen.steps.values()} == {"succeeded"}
