"""A store that takes no writes, over real sockets: refused in words, and observers see nothing of it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from tests.client.helpers import Owner, eventually
from wsmonitor.client import Target, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange
from wsmonitor.protocol.messages import Ack, Degraded, Error, Event, Heartbeat, PublishOpened
from wsmonitor_server.assembly import make_engine
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.stores.base import Commit, StoreError
from wsmonitor_server.stores.memory import MemoryStore

from .test_real_engine import Publisher, chain
from .wire import Client, client

KEY = b"k" * 32


class FullStore(MemoryStore):
    """It takes nothing while it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.full = threading.Event()
        self.refused = threading.Event()

    async def commit(self, commits: Sequence[Commit]) -> None:
        if self.full.is_set():
            self.refused.set()
            raise StoreError("the disk is full", code="read_only")
        await super().commit(commits)


@pytest.fixture
def store() -> FullStore:
    return FullStore()


def options(store: FullStore) -> dict[str, Any]:
    def engine(config: Any, clock: Any) -> SessionEngine:
        made = make_engine(config, clock)
        return SessionEngine(store, timing=config.timing, limits=config.limits, clock=made.clock)

    return {"engine": engine, "key": KEY}


@pytest.fixture
async def server(store: FullStore) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(**options(store)) as running:
        yield running


async def test_the_connection_and_its_subscriptions_stay(server: EmbeddedServer, store: FullStore) -> None:
    async with client(server) as one:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s"})
        await one.subscribe("s~1")
        store.full.set()
        await one.send(
            "publish", session="s~1", producer="p", producer_epoch=1, first=2, changes=[chain("c")]
        )
        error = (await one.expect(Error)).error
        assert (error.code, error.retryable, error.session) == ("read_only", True, "s~1")
        assert error.details == {"producer": "p"}
        # What was on its way is refused too: the producer is to be opened again.
        await one.send(
            "publish", session="s~1", producer="p", producer_epoch=1, first=3, changes=[chain("d")]
        )
        assert await one.error() == ("unexpected_message", None)
        await one.send("publish_open", request=7, session="s~1", producer="p")
        assert await one.error() == ("read_only", 7)
        store.full.clear()
        await one.send("publish_open", request=8, session="s~1", producer="p")
        told = await several(one, 2)
        (opened,) = (one for one in told if isinstance(one, PublishOpened))
        (event,) = (one for one in told if isinstance(one, Event))
        assert (opened.accepted, opened.known, event.kind) == (1, True, "producer")
        await one.send(
            "publish",
            session="s~1",
            producer="p",
            producer_epoch=opened.producer_epoch,
            first=2,
            changes=[chain("c")],
        )
        told = await several(one, 2)
        assert {type(one) for one in told} == {Event, Ack}


async def test_everybody_is_told_at_once_that_no_changes_are_taken_and_when_they_are_again(
    server: EmbeddedServer, store: FullStore
) -> None:
    async with client(server) as one, client(server, sub="bob") as watcher:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s"})
        await watcher.subscribe("s~1")
        store.full.set()
        await one.send(
            "publish", session="s~1", producer="p", producer_epoch=1, first=2, changes=[chain("c")]
        )
        degraded = await condition(watcher, degraded=True)
        assert degraded is not None
        assert (degraded.code, degraded.reason) == ("read_only", "the disk is full")
        assert 0 <= time.time_ns() - int(degraded.since) < 60 * 10**9
        assert server.server.engine.status()["degraded"] == "read_only"
        async with client(server, sub="eve", hello=False) as later:
            assert (await later.hello()).degraded == degraded
        assert await one.error() == ("read_only", None)
        store.full.clear()
        await one.send("publish_open", request=8, session="s~1", producer="p")
        assert await condition(watcher, degraded=False) is None
        async with client(server, sub="eve", hello=False) as later:
            assert (await later.hello()).degraded is None


async def condition(one: Client, *, degraded: bool) -> Degraded | None:
    """What the next heartbeat says in which the condition is, or is not, there."""
    while True:
        message = await one.receive()
        if isinstance(message, Heartbeat) and (message.degraded is not None) == degraded:
            return message.degraded


async def several(one: Client, count: int) -> list[Any]:
    """The next *count* messages that are no heartbeats."""
    told: list[Any] = []
    while len(told) < count:
        message = await one.receive()
        if not isinstance(message, Heartbeat):
            told.append(message)
    return told


@pytest.fixture
def threaded(store: FullStore) -> Iterator[Any]:
    with EmbeddedServer.in_thread(**options(store)) as running:
        yield running


def test_our_client_pauses_its_publication_and_goes_on_watching(threaded: Any, store: FullStore) -> None:
    token = threaded.token(sub="alice", role="admin")
    with connect(Target(url=threaded.url, token=token)) as connection:
        connection.wait_live(10)
        owner = Owner()
        publication = connection.publication("s~1", "p1", owner)
        publication.submit(SessionChange(name="s", state="running"))
        assert publication.flush(10)
        watching = connection.subscribe("s~1", lambda update: None)
        watching.wait(lambda sub: sub.phase == "live", 10)
        store.full.set()
        publication.submit(ChainChange(id="c", name="c"))
        assert store.refused.wait(10)
        assert not publication.flush(0.2)
        store.full.clear()
        assert publication.flush(20)
        watching.wait(lambda sub: sub.state is not None and "c" in sub.state.chains, 10)
        eventually(lambda: watching.phase == "live")
        assert connection.status.connections == 1
        assert owner.rejections == []
