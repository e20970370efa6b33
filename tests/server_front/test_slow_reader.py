"""A reader that does not read costs the others nothing (BOUNDED; protocol, rule 9)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.messages import Batch, Event, Heartbeat, Resync, SyncBegin, ValuePage
from wsmonitor_server.embedded import EmbeddedServer

from .fakes import FakeEngine
from .wire import Client, client

BIG = "x" * 4_000


@pytest.fixture
async def server(engine: FakeEngine) -> AsyncIterator[EmbeddedServer]:
    limits = Limits(outbox_messages=64, outbox_size=64 * 1024)
    async with EmbeddedServer(engine=lambda *_: engine, limits=limits) as server:
        yield server


def stall(one: Client) -> None:
    """Stop reading from the socket."""
    one.socket.transport.pause_reading()


async def settle(engine: FakeEngine, topic: str, count: int) -> None:
    """Emit *count* large events, a few per loop turn."""
    for number in range(count):
        engine.emit(topic, Chain(id=f"c{number % 7}", name="n", reason=f"{number} {BIG}"))
        if number % 4 == 0:
            await asyncio.sleep(0)


async def test_a_stalled_reader_is_told_to_sync_and_keeps_its_socket(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server, sub="slow") as slow, client(server, sub="fast") as fast:
        await slow.subscribe("s1")
        await slow.subscribe("s2")
        await fast.subscribe("s1")
        stall(slow)
        engine.emit("s2", Chain(id="small", name="n"))
        total = 2_500

        async def emit() -> None:
            await settle(engine, "s1", total)

        emitting = asyncio.ensure_future(emit())
        seqs = [(await fast.expect(Event)).seq for _ in range(total)]
        await emitting
        assert seqs == list(range(1, total + 1))
        peer = next(p for p in server.server.peers if p.credential.claims.sub == "slow")
        assert peer.outbox.state_size <= 64 * 1024
        assert peer.outbox.state_count <= 64
        assert peer.subscriptions["s1"].phase == "muted"

        slow.socket.transport.resume_reading()
        seen: list[tuple[str, int]] = []
        while not isinstance(message := await slow.receive(), Resync):
            if isinstance(message, Event):
                seen.append((message.topic, message.seq))
        assert (message.topic, message.reason) == ("s1", "too_slow")
        assert ("s2", 1) in seen, "the modest subscription keeps its events"
        mine = [seq for topic, seq in seen if topic == "s1"]
        assert mine == list(range(1, len(mine) + 1))
        synced = await slow.subscribe("s1", generation=2)
        assert (synced.seq, synced.digest) == (total, engine.state("s1").digest)


async def test_a_burst_of_one_turn_is_not_slowness(server: EmbeddedServer, engine: FakeEngine) -> None:
    async with client(server) as one:
        await one.subscribe("s1")
        for number in range(200):
            engine.emit("s1", Chain(id="c", name=str(number)))
        assert [(await one.expect(Event)).seq for _ in range(200)] == list(range(1, 201))


async def test_replies_that_nobody_reads_end_the_connection(engine: FakeEngine) -> None:
    limits = Limits(outbox_messages=64, outbox_size=64 * 1024, message_rate=1e9, message_burst=10**9)
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=limits) as server,
        client(server, sub="slow") as slow,
        client(server) as other,
    ):
        stall(slow)
        (peer,) = (p for p in server.server.peers if p.credential.claims.sub == "slow")
        text = msgspec.json.encode({"type": "no_such_" + "x" * 40, "request": 1}).decode()
        with contextlib.suppress(ConnectionClosed):
            while peer.phase != "closed":
                assert peer.outbox.control_count <= 4 * 64
                await slow.socket.send(text)
        slow.socket.transport.resume_reading()
        # The close frame would wait behind what is not read: there need not be one.
        assert await slow.closed() in (1006, 4004)
        await other.subscribe("s1")


async def test_pages_of_large_values_do_not_hold_up_events(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    engine.values["0" * 64] = b"v" * (256 * 1024)
    async with client(server) as one:
        await one.subscribe("s1")
        pages = 40
        for number in range(pages):
            await one.send("value_get", request=number, session="s", sha256="0" * 64, offset=0)
        seen: list[str] = []
        while seen.count("ValuePage") < pages:
            if seen.count("ValuePage") == 3 and "Event" not in seen:
                engine.emit("s1", Chain(id="c", name="now"))
                while not isinstance(message := await one.receive(), Event):
                    seen.append(type(message).__name__)
                seen.append("Event")
                continue
            message = await one.receive()
            assert isinstance(message, ValuePage | Heartbeat)
            seen.append(type(message).__name__)
        assert seen[: seen.index("Event")].count("ValuePage") < 20


async def test_one_page_waits_at_a_time(server: EmbeddedServer, engine: FakeEngine) -> None:
    engine.values["0" * 64] = b"v" * (256 * 1024)
    async with client(server) as one:
        stall(one)
        for number in range(60):
            await one.send("value_get", request=number, session="s", sha256="0" * 64, offset=0)
        (peer,) = server.server.peers
        (connection,) = server.server.connections.values()
        async with asyncio.timeout(10):
            while not (connection.transport.paused and peer.outbox.bulk_waiting):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
        assert peer.outbox.bulk_waiting <= 360_000
        assert len(engine.lookups) < 60
        one.socket.transport.resume_reading()
        for number in range(60):
            assert (await one.expect(ValuePage)).request == number


async def test_pages_of_a_subscription_that_is_over_are_not_sent(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    """Found by the simulation (seed 8558): a page that waited went out when nobody watched any more."""
    engine.values["0" * 64] = b"v" * 1_000
    async with client(server) as one:
        await one.send("subscribe", topic="s1", generation=1)
        await one.expect(SyncBegin)
        (peer,) = server.server.peers
        (connection,) = server.server.connections.values()
        connection.transport.pause_writing()  # as a socket does that takes nothing more
        async with asyncio.timeout(20):
            await one.send("sync_next", topic="s1", generation=1, page=0)
            while not peer.outbox.bulk_waiting:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
            await one.send("unsubscribe", topic="s1")
            while peer.outbox.bulk_waiting:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
            # Whoever waited to add the next page may do so, though nothing was written.
            await one.send("value_get", request=7, session="s", sha256="0" * 64, offset=0)
            while not peer.outbox.bulk_waiting:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
        connection.transport.resume_writing()
        assert (await one.expect(ValuePage)).request == 7


async def test_batches_fold_to_the_last_state_of_each(engine: FakeEngine) -> None:
    timing = Timing(heartbeat_interval=0.2, heartbeat_timeout=30)
    async with (
        EmbeddedServer(engine=lambda *_: engine, timing=timing) as server,
        client(server) as one,
    ):
        await one.subscribe("s1", delivery="latest", interval_ms=50)
        for number in range(100):
            engine.emit("s1", Chain(id=f"c{number % 3}", name=f"n{number}"))
        batch = await one.expect(Batch)
        assert (batch.from_, batch.to, batch.digest) == (0, 100, engine.state("s1").digest)
        names = [msgspec.json.decode(entity)["name"] for _, entity in batch.entities]
        assert sorted(names) == ["n97", "n98", "n99"]
        engine.emit("s1", Chain(id="c0", name="again"))
        following = await one.expect(Batch)
        assert (following.from_, following.to, len(following.entities)) == (100, 101, 1)
