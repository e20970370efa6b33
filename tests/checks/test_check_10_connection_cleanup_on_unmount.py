"""Check 10, Connection Cleanup on Unmount (HIGH).

"When client component unmounts, WebSocket connection is closed cleanly. Server removes client from
subscriber list. No memory leaks or orphaned connections on client. Server-side subscribers cleaned up
after disconnect."
"""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from tests.checks.harness import Observer, Scene, blocking, scene, until, wire
from wsmonitor.client import Target, connect, connections
from wsmonitor.notebook import watch
from wsmonitor.notebook.observer import observers
from wsmonitor_server.engine import SessionEngine


def _subscribers(stage: Scene, topic: str) -> int:
    engine = stage.server.engine
    assert isinstance(engine, SessionEngine)
    session = engine._sessions.get(topic)
    return 0 if session is None else len(session.feed.subscribers)


def _client_threads() -> int:
    return len([one for one in threading.enumerate() if one.name == "wsmonitor-client"])


async def test_the_connection_is_closed_cleanly(caplog: pytest.LogCaptureFixture) -> None:
    """ "When client component unmounts, WebSocket connection is closed cleanly." """
    caplog.set_level("INFO", "wsmonitor_server")
    async with scene() as stage:
        await stage.publish("etl~1")
        mounted = await blocking(
            lambda: watch("etl~1", url=stage.server.url, token=stage.token("viewer"), new=True)
        )
        await until(lambda: mounted.state == "running")
        await until(lambda: len(stage.server.server.peers) == 2)
        await blocking(mounted.close)
        await until(lambda: len(stage.server.server.peers) == 1)
        closed = [vars(r)["wsmonitor_fields"] for r in caplog.records if "connection closed" in r.message]
        assert [facts["subject"] for facts in closed] == ["viewer"]
        assert closed[0]["code"] == 1000
        assert mounted.closed
        assert mounted.comm is None


async def test_the_server_removes_the_client_from_the_subscriber_list() -> None:
    """ "Server removes client from subscriber list.": when one view closes, and when the connection does."""
    async with scene() as stage:
        await stage.publish("etl~1")
        observer = await stage.observe("etl~1")
        other = await stage.observe("etl~1", "other")
        second = Observer(observer.conn, "etl~1")
        await second.live()
        # Two views of one process share one subscription; it ends with the last of them.
        assert _subscribers(stage, "etl~1") == 2
        second.sub.close()
        observer.sub.close()
        await until(lambda: _subscribers(stage, "etl~1") == 1)
        assert len(stage.server.server.peers) == 3
        await blocking(other.conn.close)
        await until(lambda: _subscribers(stage, "etl~1") == 0)
        await until(lambda: len(stage.server.server.peers) == 2)


async def test_no_leaks_or_orphaned_connections_on_the_client() -> None:
    """ "No memory leaks or orphaned connections on client.": after fifty mounts nothing remains."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        token = stage.token("viewer")
        remains: list[weakref.ref[object]] = []
        before = connections()
        for number in range(50):
            conn = connect(Target(url=stage.server.url, token=token))
            observer = Observer(conn, "etl~1")
            await observer.live()
            remains += [weakref.ref(conn), weakref.ref(observer), weakref.ref(observer.sub)]
            publisher.step(f"s{number}")
            await publisher.flush()
            await blocking(conn.close)
            assert connections() == before
            del conn, observer
        await until(lambda: len(stage.server.server.peers) == 1)
        assert len(stage.server.server.connections) == 1
        # Whatever the last round still holds is let go with its thread's last turn.
        await until(lambda: gc.collect() >= 0 and not [ref for ref in remains if ref() is not None])
        assert _client_threads() == 1
    assert connections() == 0
    await until(lambda: _client_threads() == 0)


async def test_remounting_a_view_leaves_one_observer() -> None:
    """ "No … orphaned connections on client.": a cell that is run again gives the same observer."""
    async with scene() as stage:
        await stage.publish("etl~1")
        token = stage.token("viewer")
        made = {
            id(await blocking(lambda: watch("etl~1", url=stage.server.url, token=token))) for _ in range(5)
        }
        assert len(made) == 1
        assert len(observers()) == 1
        await until(lambda: _subscribers(stage, "etl~1") == 1)
        await blocking(observers()[0].close)
        assert observers() == []
        await until(lambda: _subscribers(stage, "etl~1") == 0)


async def test_server_side_subscribers_are_cleaned_up_after_a_disconnect() -> None:
    """ "Server-side subscribers cleaned up after disconnect.": also after one without a goodbye."""
    async with scene() as stage:
        await stage.publish("etl~1")
        for number in range(20):
            async with wire(stage.server.url, stage.token(f"user {number}")) as bare:
                await bare.subscribe("etl~1")
                await bare.subscribe("/directory")
                assert _subscribers(stage, "etl~1") == 1
                if number % 2:
                    bare.socket.transport.abort()
            await until(lambda: _subscribers(stage, "etl~1") == 0)
        await until(lambda: len(stage.server.server.connections) == 1)
        assert stage.server.server.information(full=True)["subscriptions"] == 0
        # In the middle of a sync, too.
        async with wire(stage.server.url, stage.token("in the middle")) as bare:
            await bare.send({"type": "subscribe", "topic": "etl~1", "generation": 1})
            await bare.expect("sync_begin")
            bare.socket.transport.abort()
        await until(lambda: len(stage.server.server.connections) == 1)
        engine = stage.server.engine
        assert isinstance(engine, SessionEngine)
        assert not engine._sessions["etl~1"].feed.syncs
