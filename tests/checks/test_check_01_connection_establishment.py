"""Check 1, WebSocket Connection Establishment (HIGH).

"Client establishes WebSocket connection to server on component mount. Connection URL and port are
correct. Handshake completes successfully. Connection is logged/tracked on server."
"""

from __future__ import annotations

import logging

import pytest

from tests.checks.harness import blocking, scene, until, wire
from wsmonitor.client import Target, connect
from wsmonitor.notebook import watch


async def test_client_establishes_websocket_connection_on_component_mount() -> None:
    """ "Client establishes WebSocket connection to server on component mount." """
    async with scene() as stage:
        server = stage.server.server
        assert len(server.peers) == 0
        observer = await stage.observe("etl~1")
        assert len(server.peers) == 1
        assert observer.conn.status.phase == "live"
        # A second observer on the same server and credentials shares the connection.
        token = stage.token("same")
        for _ in range(2):
            conn = connect(Target(url=stage.server.url, token=token))
            stage.connections.append(conn)
            await blocking(conn.wait_live, 10)
        assert len(server.peers) == 2


async def test_mounting_the_notebooks_component_opens_the_connection() -> None:
    """ "… on component mount.": the observer that a notebook displays connects when it is made."""
    async with scene() as stage:
        await stage.publish("etl~1")
        token = stage.token("viewer")
        view = await blocking(lambda: watch("etl~1", url=stage.server.url, token=token))
        try:
            await until(lambda: len(stage.server.server.peers) == 2)
            await until(lambda: view.connection.phase == "live" and view.state == "running")
            assert view.connection.url == stage.server.url
        finally:
            await blocking(view.close)


async def test_connection_url_and_port_are_correct() -> None:
    """ "Connection URL and port are correct." """
    async with scene() as stage:
        observer = await stage.observe("etl~1")
        assert stage.server.url == f"ws://127.0.0.1:{stage.server.port}"
        assert observer.conn.status.url == stage.server.url
        [peer] = stage.server.server.peers
        connection = stage.server.server.connections[peer.ident]
        assert connection.transport.open


async def test_handshake_completes_successfully() -> None:
    """ "Handshake completes successfully." """
    async with scene() as stage, wire(stage.server.url, stage.token("alice"), hello=False) as bare:
        assert bare.socket.response is not None
        assert bare.socket.response.status_code == 101
        assert bare.socket.subprotocol == "wsmonitor.v1"
        welcome = await bare.hello()
        assert (welcome["major"], welcome["subject"], welcome["role"]) == (1, "alice", "observe")
        assert welcome["sessions"] == ["*"]
        assert welcome["heartbeat_interval"] == 15.0
        assert welcome["heartbeat_timeout"] == 35.0


async def test_connection_is_logged_and_tracked_on_server(caplog: pytest.LogCaptureFixture) -> None:
    """ "Connection is logged/tracked on server." """
    caplog.set_level(logging.INFO, "wsmonitor_server")
    async with scene() as stage:
        conn = await stage.connect("alice", "admin")
        info = await blocking(conn.server_status().result, 10)
        assert info["connections"] == 1
        conn.close(0)
        await until(lambda: not stage.server.server.peers)
        await until(lambda: any("closed" in record.message for record in caplog.records))
    opened, closed = (
        [record for record in caplog.records if f"connection {word}" in record.message]
        for word in ("opened", "closed")
    )
    assert len(opened) == len(closed) == 1
    facts = vars(opened[0])["wsmonitor_fields"]
    assert facts["subject"] == "alice"
    assert facts["remote"].startswith("127.0.0.1")
    assert facts["agent"].startswith("wsmonitor-python/")
    assert vars(closed[0])["wsmonitor_fields"]["connection"] == facts["connection"]
