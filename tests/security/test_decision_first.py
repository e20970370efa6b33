"""ISOLATED: no look-up precedes the decision (protocol, rule 14; ASVS 5.0, 8.2.2 and 8.3.1).

Shown without a stopwatch: for what a token does not cover, the store hears nothing, so there is nothing
whose time could be measured; and the answer is the same, byte for byte, whether the session exists or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.server_front.wire import Client, client
from wsmonitor.protocol.messages import Ack, PublishOpened
from wsmonitor_server.clock import Clock
from wsmonitor_server.config import ServerConfig
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.stores.memory import MemoryStore

ALWAYS = frozenset({"revoked", "on_revocation", "on_degraded", "degraded", "holding", "heads", "epoch"})
"""What the connection side asks whoever speaks: nothing of it is about the session that was named."""


class Overheard:
    """Passes everything on to *inner*, and notes in *asked* what that was."""

    def __init__(self, inner: Any, asked: list[str]) -> None:
        self._inner, self._asked = inner, asked

    def __getattr__(self, name: str) -> Any:
        if name not in ALWAYS:
            self._asked.append(name)
        return getattr(self._inner, name)


@pytest.fixture
def asked() -> list[str]:
    """What the session side and its store were asked for."""
    return []


@pytest.fixture
async def server(asked: list[str]) -> AsyncIterator[EmbeddedServer]:
    """A server on which there is the session ``exists~1``."""

    def overheard(config: ServerConfig, clock: Clock) -> Any:
        store: Any = Overheard(MemoryStore(), asked)
        return Overheard(
            SessionEngine(
                store, timing=config.timing, limits=config.limits, retention=config.retention, clock=clock
            ),
            asked,
        )

    async with EmbeddedServer(engine=overheard) as server:
        async with client(server) as publisher:
            await publisher.send("publish_open", request=1, session="exists~1", producer="p")
            await publisher.expect(PublishOpened)
            await publisher.send(
                "publish", session="exists~1", producer="p", producer_epoch=1, first=1,
                changes=[{"op": "session", "name": "exists"}, {"op": "chain", "id": "c", "name": "c"}],
            )  # fmt: skip
            await publisher.expect(Ack)
        await server.server.all_gone()
        yield server


KEY = "0" * 32
REQUESTS: dict[str, dict[str, Any]] = {
    "publish_open": {"producer": "p"},
    "publish": {"producer": "p", "producer_epoch": 1, "first": 1, "changes": [{"op": "chain", "id": "c"}]},
    "publish_close": {"producer": "p", "producer_epoch": 1},
    "value_put": {"sha256": "0" * 64, "total": 4, "offset": 0, "data": ""},
    "value_get": {"sha256": "0" * 64, "offset": 0},
    "logs_get": {"step": "x"},
    "history_get": {},
    "command": {"key": KEY, "name": "pause"},
    "remove": {},
    "subscribe": {"generation": 1},
    "sync_next": {"generation": 1, "page": 0},
}


async def answer(one: Client, kind: str, session: str) -> bytes:
    """What *kind* about *session* is answered with, the session's name put out of it."""
    where = "topic" if kind in ("subscribe", "sync_next") else "session"
    await one.send(kind, request=7, **{where: session, **REQUESTS[kind]})
    found: bytes = await one.socket.recv(decode=False)
    return found.replace(session.encode(), b"SESSION")


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("role", ["observe", "command", "publish", "admin"])
async def test_outside_the_patterns_the_store_hears_nothing(
    server: EmbeddedServer, asked: list[str], kind: str, role: str
) -> None:
    """ASVS 8.2.2: an existing session and an absent one cannot be told apart, not even by time."""
    async with client(server, role=role, sessions=("mine~*",)) as one:
        asked.clear()
        existing = await answer(one, kind, "exists~1")
        absent = await answer(one, kind, "absent~1")
        assert asked == []
        assert existing == absent
        assert b"not_available" in existing or kind == "sync_next"


@pytest.mark.parametrize(
    "kind", [kind for kind in REQUESTS if kind not in ("publish", "publish_close", "sync_next")]
)
async def test_inside_the_patterns_the_store_is_asked(
    server: EmbeddedServer, asked: list[str], kind: str
) -> None:
    """The test above can fail: the same requests by somebody who may make them reach the store."""
    async with client(server) as one:
        asked.clear()
        await answer(one, kind, "absent~1")
        assert asked != []


@pytest.mark.parametrize("kind", ["publish_open", "command", "remove", "value_put"])
async def test_what_the_role_does_not_permit_is_refused_before_the_store_too(
    server: EmbeddedServer, asked: list[str], kind: str
) -> None:
    """ASVS 8.2.1."""
    async with client(server, role="observe") as one:
        asked.clear()
        assert b'"forbidden"' in await answer(one, kind, "exists~1")
        assert b'"forbidden"' in await answer(one, kind, "absent~1")
        assert asked == []
