"""``/readyz``: whether a client that came now would be served; and what it costs to be asked all the time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.messages import Degraded
from wsmonitor_server import readiness
from wsmonitor_server.auth import KeySet
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.stores.base import StoreError

from .fakes import FakeEngine
from .raw import get
from .test_draining import until
from .wire import client


class Store(FakeEngine):
    """Counts how often it is asked, and answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def ready(self) -> None:
        self.asked += 1
        await self.answers.wait()
        await super().ready()


async def ready(server: EmbeddedServer) -> tuple[int, dict[str, Any]]:
    status, _, body = await get(server, "/readyz")
    return status, json.loads(body)


async def figure(server: EmbeddedServer) -> bool:
    """What the metric ``ready`` says."""
    _, _, text = await get(server, "/metrics")
    return b"\nwsmonitor_ready 1\n" in text


async def test_each_thing_that_a_client_needs_is_told(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine) as server:
        status, body = await ready(server)
        assert (status, body["status"]) == (200, "ready")
        assert body["checks"] == {"running": "ok", "room": "ok", "keys": "ok", "store": "ok"}


async def test_a_full_server_is_not_ready(engine: FakeEngine) -> None:
    limits = Limits(connections=1)
    async with EmbeddedServer(engine=lambda *_: engine, limits=limits, metrics=True) as server:
        assert await figure(server)
        async with client(server):
            status, body = await ready(server)
            assert (status, body["error"]["code"]) == (503, "limit_exceeded")
            assert body["error"]["details"]["limit"] == "connections"
            assert body["checks"]["room"] == "limit_exceeded"
            assert not await figure(server)


async def test_without_keys_nobody_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key set that cannot be fetched: not ready; asked for again, and ready when it comes."""
    monkeypatch.setattr(readiness, "WITHIN", 60.0)
    there: dict[str, Any] = {}
    fetched = 0

    def load() -> dict[str, Any]:
        nonlocal fetched
        fetched += 1
        return there

    async with EmbeddedServer(metrics=True) as server:
        keys = KeySet(load, frozenset({"ES256"}), remote=True)
        server.server.rotate_keys(keys)
        for _ in range(3):
            status, body = await ready(server)
            assert (status, body["checks"]["keys"]) == (503, "unauthorized")
            assert "key set" in body["error"]["message"]
        assert fetched == 1, "whoever asks all the time does not make it busy"
        assert not await figure(server)
        there["keys"] = [ES256]
        keys._fetched = None
        assert (await ready(server))[0] == 200
        assert await figure(server)


ES256 = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "k",
    "alg": "ES256",
    # RFC 7517, appendix A.1.
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


async def test_a_store_that_does_not_answer_is_not_ready_and_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "WITHIN", 0.05)
    monkeypatch.setattr(readiness, "FRESH", 0.0)
    store = Store()
    async with EmbeddedServer(engine=lambda *_: store) as server:
        store.answers.clear()
        for _ in range(2):
            status, body = await ready(server)
            assert (status, body["checks"]["store"]) == (503, "store_failed")
            assert "has not answered within" in body["error"]["message"]
        assert store.asked == 1, "the first question is still waited for"
        assert (await get(server, "/healthz"))[0] == 200
        store.answers.set()
        async with asyncio.timeout(60):
            while (await ready(server))[0] != 200:
                pass


async def test_a_server_stops_while_its_store_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "WITHIN", 0.05)
    store = Store()
    async with EmbeddedServer(engine=lambda *_: store) as server:
        store.answers.clear()
        assert (await ready(server))[0] == 503
        async with asyncio.timeout(60):
            await server.drain()
    assert store.stopped


async def test_all_who_ask_share_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH", 1_000.0)
    monkeypatch.setattr(readiness, "WITHIN", 60.0)
    store = Store()
    async with EmbeddedServer(engine=lambda *_: store) as server:
        store.answers.clear()
        asking = [asyncio.ensure_future(ready(server)) for _ in range(20)]
        await until(lambda: store.asked > 0)
        store.answers.set()
        assert {status for status, _ in await asyncio.gather(*asking)} == {200}
        assert (await ready(server))[0] == 200
        assert store.asked == 1
        # Bad news is believed for as long.
        server.server.pages.readiness._asked_at = float("-inf")
        store.not_ready = StoreError("the disk is full", code="read_only")
        for _ in range(2):
            status, body = await ready(server)
            assert (status, body["error"]["code"]) == (503, "read_only")
        assert store.asked == 2


async def test_what_is_known_already_stands_in_the_metric(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine, metrics=True) as server:
        engine.degraded = Degraded(code="store_failed", reason="away", since="1")
        assert not await figure(server)
        engine.degraded = None
        server.server.draining = True
        assert not await figure(server)
        status, body = await ready(server)
        assert (status, body["checks"]["running"], body["checks"]["store"]) == (503, "draining", "ok")
        server.server.draining = False
