"""The way through the house: handshake, hello, subscribe, publish, acknowledge, heartbeat."""

from __future__ import annotations

from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.messages import Ack, Event, Heartbeat, HeartbeatAck, PublishOpened
from wsmonitor_server.embedded import EmbeddedServer

from .fakes import FakeEngine
from .wire import client


async def test_a_change_reaches_a_subscriber_and_is_acknowledged(server: EmbeddedServer) -> None:
    async with client(server, sub="watcher", role="observe") as watcher, client(server) as publisher:
        synced = await watcher.subscribe("s1")
        assert synced.seq == 0
        await publisher.send("publish_open", request=1, session="s1", producer="p")
        opened = await publisher.expect(PublishOpened)
        await publisher.send(
            "publish",
            session="s1",
            producer="p",
            producer_epoch=opened.producer_epoch,
            first=1,
            changes=[{"op": "chain", "id": "c1", "name": "load"}],
        )
        assert (await publisher.expect(Ack)).accepted == 1
        event = await watcher.expect(Event)
        assert (event.topic, event.seq, event.kind) == ("s1", 1, "chain")


async def test_welcome_says_who_and_what(server: EmbeddedServer) -> None:
    async with client(server, hello=False, sub="ada", role="command", sessions=("a*",)) as one:
        welcome = await one.hello()
        assert (welcome.subject, welcome.role, welcome.sessions) == ("ada", "command", ("a*",))
        assert (welcome.heartbeat_interval, welcome.heartbeat_timeout) == (15.0, 35.0)
        assert welcome.epoch == "e1"


async def test_heartbeats_are_answered_at_once(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.send("heartbeat", n=7)
        ack = await one.expect(HeartbeatAck)
        assert ack.n == 7
        assert int(ack.time) > 0


async def test_the_servers_heartbeat_carries_changed_heads_after_the_events(engine: FakeEngine) -> None:
    timing = Timing(heartbeat_interval=0.05, heartbeat_timeout=20)
    async with (
        EmbeddedServer(engine=lambda config, clock: engine, timing=timing) as server,
        client(server) as one,
    ):
        await one.subscribe("s1")
        engine.emit("s1", Chain(id="c", name="n"))
        seen: list[object] = []
        while not (isinstance(message := await one.receive(), Heartbeat) and message.heads):
            seen.append(message)
        assert any(isinstance(earlier, Event) for earlier in seen)
        assert message.heads == {"s1": ("e1", 1, engine.state("s1").digest)}
        follow = await one.expect(Heartbeat)
        assert follow.heads == {}
