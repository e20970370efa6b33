"""Check 14, Connection Timeout Handling (MEDIUM).

"If server does not receive client pong after heartbeat, connection closed. If client does not receive
server heartbeat, reconnection triggered. Timeout values configurable and reasonable (> 30s)."
"""

from __future__ import annotations

import time

import pytest

from tests.checks.harness import measured, proxy, scene, until
from wsmonitor.protocol.defaults import Timing
from wsmonitor_server.embedded import EmbeddedServer

QUICK = Timing(heartbeat_interval=0.2, heartbeat_timeout=2.0)
PATIENT = Timing(heartbeat_interval=0.2, heartbeat_timeout=60.0)


async def test_the_server_closes_a_connection_that_does_not_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """ "If server does not receive client pong after heartbeat, connection closed." """
    caplog.set_level("INFO", "wsmonitor_server")
    async with scene(timing=QUICK) as stage, proxy(stage.server) as relay:
        await stage.observe("etl~1", url=relay.url)
        [peer] = stage.server.server.peers
        relay.freeze()
        with measured() as seconds:
            await until(lambda: peer.phase == "closed")
            assert QUICK.heartbeat_timeout / 2 <= seconds() < QUICK.heartbeat_timeout + 30.0
        # The closing handshake of a half-open socket is not waited for without end.
        await until(lambda: peer.ident not in stage.server.server.connections)
        closed = [vars(r)["wsmonitor_fields"] for r in caplog.records if "connection closed" in r.message]
        assert closed[0]["code"] == 4005


async def test_the_client_reconnects_when_the_servers_heartbeat_does_not_come() -> None:
    """ "If client does not receive server heartbeat, reconnection triggered." """
    async with scene(timing=QUICK) as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        relay.freeze()
        with measured() as seconds:
            await until(lambda: observer.conn.status.phase == "waiting")
            assert QUICK.heartbeat_timeout / 2 <= seconds() < QUICK.heartbeat_timeout + 30.0
        assert "heard" in observer.conn.status.reason
        publisher.step("while frozen")
        await publisher.flush()
        relay.cut()
        relay.thaw()
        await until(lambda: observer.sub.phase == "live")
        assert observer.conn.status.connections == 2
        assert "while frozen" in observer.state().steps
        await stage.agreed(observer)


async def test_the_age_of_what_is_shown_is_known_before_the_timeout() -> None:
    """Honest before certain: the moment at which a heartbeat was due is told, for "no data for N s"."""
    async with scene(timing=PATIENT) as stage, proxy(stage.server) as relay:
        observer = await stage.observe("etl~1", url=relay.url)
        due = observer.conn.status.heartbeat_due_at
        assert due is not None
        assert due - time.monotonic() <= PATIENT.heartbeat_interval + 0.1
        assert observer.conn.status.welcome is not None
        assert observer.conn.status.welcome.quiet_after == 3.0
        relay.freeze()
        await until(lambda: time.monotonic() > (observer.conn.status.heartbeat_due_at or 0) + 0.1)
        assert observer.conn.status.phase == "live"


def test_timeouts_are_reasonable() -> None:
    """ "Timeout values configurable and reasonable (> 30s).": the defaults."""
    assert Timing().heartbeat_timeout == 35.0 > 30.0
    assert Timing().producer_lost == 35.0 > 30.0


async def test_timeouts_are_configurable() -> None:
    """ "Timeout values configurable …": on the server; the client takes over what ``welcome`` says."""
    for chosen in (Timing(heartbeat_interval=20, heartbeat_timeout=50), Timing(heartbeat_timeout=90)):
        async with scene(timing=chosen) as stage:
            conn = await stage.connect("alice")
            welcome = conn.status.welcome
            assert welcome is not None
            assert welcome.heartbeat_interval == chosen.heartbeat_interval
            assert welcome.heartbeat_timeout == chosen.heartbeat_timeout
            link = conn._shared.core.link
            assert (link._interval, link._timeout) == (chosen.heartbeat_interval, chosen.heartbeat_timeout)
            [peer] = stage.server.server.peers
            assert peer.services.timing == chosen


async def test_a_server_with_default_times_waits_for_more_than_thirty_seconds() -> None:
    """ "… reasonable (> 30s)": after 30 s of silence the server still waits, by its own clock."""
    from wsmonitor_server.clock import ManualClock

    clock = ManualClock(wall_ns=time.time_ns())
    async with EmbeddedServer(clock=clock) as server:
        from tests.checks.harness import wire

        async with wire(server.url, server.token(sub="silent", role="observe")) as bare:
            [peer] = server.server.peers
            for _ in range(2):
                clock.advance(15.1)
                peer.handle_timeout()
            assert peer.phase == "open"
            clock.advance(4.9)
            peer.handle_timeout()
            assert await bare.closed() == 4005
