"""Fixtures: a running engine over a memory store, on a clock that the test moves; Redis, and nodes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.stores.redis.bus import Pace
from wsmonitor_server.stores.redis.store import RedisStore

from .cluster import Cluster
from .support import engine_on
from .test_shared import Node

Start = Callable[..., RedisServer]
Join = Callable[..., Awaitable[Node]]


@pytest.fixture
async def running() -> AsyncIterator[tuple[SessionEngine, ManualClock]]:
    engine, clock = engine_on()
    await engine.start()
    yield engine, clock
    await engine.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A Redis of the test's own, which it may kill."""
    made: list[RedisServer] = []

    def started(*settings: str, port: int = 0) -> RedisServer:
        server = RedisServer(tmp_path / f"redis-{len(made)}", *settings, port=port)
        made.append(server)
        return server.start()

    yield started
    for server in made:
        server.close()


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    """A node of the store at a URL."""
    nodes: list[Node] = []

    async def joined(
        url: str, *, pace: Pace | None = None, patience: float = 60.0, timeout: float = 60.0
    ) -> Node:
        store = RedisStore(url, pace=pace or Pace(every=0.1, gone=60), patience=patience, timeout=timeout)
        node = Node(store)
        nodes.append(node)
        await store.open()
        return node

    yield joined
    for node in nodes:
        await node.store.close()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    await made.start("a")
    await made.start("b")
    yield made
    for store in made.stores.values():
        store.cut = False
        store.readable.set()
    for name in list(made.engines):
        await made.stop(name)
