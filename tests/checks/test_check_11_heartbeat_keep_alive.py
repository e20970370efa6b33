"""Check 11, Heartbeat/Keep-Alive Mechanism (HIGH).

"Server sends periodic heartbeat/ping to keep connection alive. Client responds with pong within timeout
window. Stale connections detected and closed after no pong response. Heartbeat prevents proxy/firewall
disconnects."
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from tests.checks.harness import measured, proxy, scene, until, wire
from wsmonitor.protocol.defaults import Timing
from wsmonitor_server.peer import Peer

QUICK = Timing(heartbeat_interval=0.2, heartbeat_timeout=20.0)
"""Heartbeats come often; and however busy the machine is, none is so late that a link would seem dead."""

SHORT = Timing(heartbeat_interval=0.2, heartbeat_timeout=0.8)
"""For who is silent."""


async def test_the_server_sends_periodic_heartbeats() -> None:
    """ "Server sends periodic heartbeat/ping to keep connection alive." """
    async with scene(timing=QUICK) as stage, wire(stage.server.url, stage.token("alice")) as bare:
        sent, numbers = [], []
        for _ in range(5):
            beat = await bare.expect("heartbeat")
            sent.append(int(beat["time"]))
            numbers.append(beat["n"])
            assert int(beat["time"]) > 10**18
            await bare.send({"type": "heartbeat_ack", "n": beat["n"]})
        gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(sent)]
        assert all(0.15 < gap < 0.2 + 10 for gap in gaps), (
            "by the server's clock: not when they were read here"
        )
        assert numbers == sorted(set(numbers))


async def test_the_client_responds_within_the_timeout_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "Client responds with pong within timeout window.": an idle client stays."""
    acks: list[float] = []
    receive = Peer.receive

    def recording(peer: Peer, data: Any, *more: Any) -> None:
        if b'"heartbeat_ack"' in bytes(data):
            acks.append(time.monotonic())
        receive(peer, data, *more)

    monkeypatch.setattr(Peer, "receive", recording)
    with measured() as seconds:
        async with scene(timing=QUICK) as stage:
            conn = await stage.connect("alice")
            await until(lambda: len(acks) >= 8)
            assert seconds() > 1.2
            assert max(later - earlier for earlier, later in pairwise(acks)) < QUICK.heartbeat_timeout
            assert conn.status.phase == "live"
            assert conn.status.connections == 1
            # And it measures: round-trip, and the server's clock.
            assert conn.status.rtt is not None
            assert 0 <= conn.status.rtt < 20.0
            assert conn.status.clock_offset is not None
            assert abs(conn.status.clock_offset) < 10.0


async def test_the_server_answers_the_clients_heartbeat() -> None:
    """Heartbeats go both ways: the client's is acknowledged with the same number and the server's time."""
    async with scene() as stage, wire(stage.server.url, stage.token("alice")) as bare:
        await bare.send({"type": "heartbeat", "n": 41, "time": "1"})
        answer = await bare.expect("heartbeat_ack")
        assert answer["n"] == 41
        assert abs(int(answer["time"]) / 1e9 - time.time()) < 5


async def test_stale_connections_are_detected_and_closed() -> None:
    """ "Stale connections detected and closed after no pong response." """
    with measured() as seconds:
        async with scene(timing=SHORT) as stage, wire(stage.server.url, stage.token("silent")) as bare:
            code = await bare.closed()
            assert SHORT.heartbeat_timeout <= seconds() < SHORT.heartbeat_timeout + 30.0
            assert code == 4005
            assert [text for text in bare.seen if '"heartbeat"' in text]
            await until(lambda: not stage.server.server.peers)


async def test_heartbeats_prevent_disconnects_by_proxies_and_firewalls() -> None:
    """ "Heartbeat prevents proxy/firewall disconnects.": through a relay that ends links idle for 3 s."""
    async with scene(timing=QUICK) as stage, proxy(stage.server, idle_limit=3.0) as relay:
        await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        with measured() as seconds:
            beats = observer.conn._shared.core.link
            first = beats.last_frame
            await until(lambda: (beats.last_frame or 0) > (first or 0) + 4.0)
            assert seconds() > 3.9
        assert relay.idled == 0
        assert observer.conn.status.connections == 1
        assert observer.sub.phase == "live"
    # The relay does end what is idle: without heartbeats the link is gone.
    slow = Timing(heartbeat_interval=30, heartbeat_timeout=60)
    async with scene(timing=slow) as stage, proxy(stage.server, idle_limit=3.0) as relay:
        async with wire(relay.url, stage.token("alice")) as bare:
            assert await bare.closed() == 1006
        assert relay.idled > 0


async def test_the_heartbeat_carries_the_heads_that_changed() -> None:
    """The heartbeat proves a loss: it names the position that the subscriber must have reached."""
    async with scene(timing=QUICK) as stage, wire(stage.server.url, stage.token("alice")) as bare:
        publisher = await stage.publish("etl~1")
        await bare.subscribe("etl~1")
        publisher.step("s1")
        await publisher.flush()
        head = stage.head("etl~1")
        while True:
            beat = await bare.expect("heartbeat")
            await bare.send({"type": "heartbeat_ack", "n": beat["n"]})
            if "etl~1" in beat.get("heads", {}):
                break
        assert tuple(beat["heads"]["etl~1"]) == head


def test_defaults() -> None:
    """15 s between heartbeats, 35 s of silence: two heartbeats may be lost before the end."""
    assert (Timing().heartbeat_interval, Timing().heartbeat_timeout) == (15.0, 35.0)
