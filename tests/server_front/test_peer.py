"""The machine of one connection by itself: its table, and what happens when too much waits."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.codec import DamagedPublish, decode_server, encode, encode_record
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Chain, ErrorInfo
from wsmonitor.protocol.messages import (
    Batch,
    ClientMessage,
    Draining,
    Error,
    Event,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Presence,
    PublishOpened,
    Resync,
    Status,
    StatusGet,
    SyncBegin,
    Welcome,
)
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.framing import Delivery
from wsmonitor_server.lanes import MAX_WAITING
from wsmonitor_server.outbox import Lane
from wsmonitor_server.peer import _IMMEDIATE, TRANSITIONS
from wsmonitor_server.requests import ROUTES

from .fakes import FakeEngine
from .machine import Machine, watching
from .wire import client


def test_every_message_of_a_client_has_one_handler() -> None:
    assert set(ROUTES) | set(_IMMEDIATE) == {*get_args(ClientMessage), DamagedPublish}
    assert set(ROUTES) & set(_IMMEDIATE) == set()
    assert set(_IMMEDIATE) == {Hello, Heartbeat, HeartbeatAck}


async def test_an_illegal_change_of_phase_raises_and_changes_nothing(server: EmbeddedServer) -> None:
    async with client(server):
        (peer,) = server.server.peers
        assert peer.phase == "open"
        for phase in set(TRANSITIONS) - TRANSITIONS["open"] - {"open"}:
            with pytest.raises(AssertionError, match=f"from open to {phase}"):
                peer._enter(phase)
            assert peer.phase == "open"


async def test_when_too_much_waits_reading_stops_and_silence_is_not_held_against_the_client() -> None:
    engine, clock = FakeEngine(), ManualClock()
    async with (
        EmbeddedServer(engine=lambda *_: engine, clock=clock, timing=Timing()) as server,
        client(server) as one,
    ):
        (connection,) = server.server.connections.values()
        assert connection.peer is not None
        engine.hold.clear()
        generation = 0
        async with asyncio.timeout(10):
            while connection.transport.reading:
                generation += 1
                await one.send("subscribe", topic="s1", generation=generation)
                await asyncio.sleep(0)
        assert generation >= MAX_WAITING
        assert connection.peer.wire.held
        clock.advance(14)
        connection.peer.handle_timeout()
        clock.advance(34)
        connection.peer.handle_timeout()
        assert connection.peer.phase == "open"
        engine.hold.set()
        seen = 0
        while seen < generation:
            message = await one.receive()
            assert isinstance(message, SyncBegin | Heartbeat)
            seen = message.generation if isinstance(message, SyncBegin) else seen
        assert connection.transport.reading
        await one.send("status_get", request=1)
        await one.expect(Status)


async def test_a_connection_that_ends_while_its_requests_wait_leaves_nothing(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    engine.hold.clear()
    async with client(server) as one:
        for number in range(5):
            await one.send("subscribe", topic=f"s{number}", generation=1)
            await one.send("publish_open", request=1, session=f"s{number}", producer="p")
        async with asyncio.timeout(10):
            while len(engine.handles) < 5:
                await one.receive()
        one.socket.transport.abort()
        await server.server.all_gone()
    engine.hold.set()
    closed = [await asyncio.wait_for(engine.closed_handles.get(), 5) for _ in range(5)]
    assert {goodbye for _, _, goodbye in closed} == {False}
    async with asyncio.timeout(10):
        while server.server.tasks:
            await asyncio.wait(server.server.tasks)
    assert all(subscribers == [] for subscribers in engine.attached.values())


async def test_a_peer_that_hangs_at_its_end_is_detached_at_once(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server, jti="bad") as one:
        await one.subscribe("s1")
        await one.send("publish_open", request=1, session="s1", producer="p")
        await one.expect(PublishOpened)
        one.socket.transport.pause_reading()
        await engine.revoke("bad", 0)
        assert engine.attached["s1"] == []
        assert await asyncio.wait_for(engine.closed_handles.get(), 5) == ("s1", "p", False)
        # It never answers the close frame: the connection is aborted.
        await asyncio.wait_for(server.server.all_gone(), 10)


# ---------------------------------------------------------------------- by itself, without a socket


def chain_event(seq: int, ident: str = "c", *, size: int = 0, topic: str = "s") -> bytes:
    return encode(
        Event(
            topic=topic,
            epoch="e1",
            seq=seq,
            ts="1",
            kind="chain",
            entity=encode_record(Chain(id=ident, name="n", reason="x" * size)),
        )
    )


def codes(machine: Machine) -> list[str]:
    return [one.error.code for one in machine.sent() if isinstance(one, Error)]


def test_the_first_message_has_to_be_hello_and_there_is_one() -> None:
    machine = Machine(open=False)
    machine.give(StatusGet(request=5), Heartbeat(n=1))
    told = machine.sent()
    assert [(one.error.code, one.request) for one in told if isinstance(one, Error)] == [
        ("unexpected_message", 5),
        ("unexpected_message", None),
    ]
    machine.give(Hello(major=1, name="Ada", instance="x"), Hello(major=1, name="Eve"))
    assert [type(one) for one in machine.sent()] == [Welcome, Error]
    assert machine.peer.hello == Hello(major=1, name="Ada", instance="x")
    assert machine.services.welcomed == [machine.peer]


def test_another_version_of_the_protocol_is_refused_in_words() -> None:
    machine = Machine(open=False)
    machine.give(Hello(major=9, minor=3))
    [told] = machine.sent()
    assert isinstance(told, Error)
    assert told.error.code == "unsupported_version"
    assert "the client 9.3" in told.error.message
    assert machine.wire.closed is not None
    assert machine.wire.closed[0] == CloseCode.UNSUPPORTED_VERSION
    assert machine.services.welcomed == []


def test_who_does_not_say_hello_in_time_is_told_and_closed() -> None:
    machine = Machine(open=False, timing={"handshake_timeout": 10.0})
    assert machine.peer.next_deadline() == machine.clock.monotonic() + 10
    machine.clock.advance(9)
    machine.peer.handle_timeout()
    assert machine.wire.closed is None
    machine.clock.advance(1)
    machine.peer.handle_timeout()
    assert codes(machine) == ["handshake_timeout"]
    assert machine.wire.closed == (CloseCode.HEARTBEAT_TIMEOUT, "no hello in time", True)
    machine.peer.handle_timeout()  # it is closed: nothing more is done
    assert machine.sent() == []


def test_a_hello_is_waited_for_no_longer_than_the_token_holds() -> None:
    machine = Machine(open=False, exp=1_700_000_003)
    assert machine.peer.next_deadline() == machine.clock.monotonic() + 3


@pytest.mark.parametrize(
    ("data", "code", "closed"),
    [
        (b"{", "bad_json", CloseCode.BAD_REQUEST),
        (b"\xff", "bad_json", CloseCode.BAD_REQUEST),
        (b"x" * 65, "message_too_large", 1009),
        (b"[]", "bad_message", None),
        (b'{"type":"hologram"}', "unknown_type", None),
    ],
)
def test_what_cannot_be_read_is_told_and_what_is_not_the_protocol_ends_the_connection(
    data: bytes, code: str, closed: int | None
) -> None:
    machine = Machine(open=False, limits={"message_size": 64})
    machine.raw(data)
    assert codes(machine) == [code]
    assert (machine.wire.closed and machine.wire.closed[0]) == closed


def test_a_message_that_never_fitted_is_told_what_would() -> None:
    told = decode_server(Machine(limits={"message_size": 1024}).peer.oversize())
    assert isinstance(told, Error)
    assert (told.error.code, told.error.message) == ("message_too_large", "this server accepts 1,024 bytes")


@pytest.mark.parametrize("what", ["text", "part", "binary"])
def test_every_frame_counts_against_the_rate_and_none_after_the_end(what: str) -> None:
    machine = Machine(limits={"message_rate": 1.0, "message_burst": 3})

    def arrive() -> None:
        machine.peer.heard()
        match what:
            case "text":
                machine.peer.receive(encode(Heartbeat(n=1)))
            case "part":
                machine.peer.receive_part()
            case _:
                machine.peer.receive_binary()

    arrive()
    arrive()
    assert machine.wire.closed is None
    told = {"text": ["heartbeat_ack"] * 2, "part": [], "binary": ["binary_message"] * 2}[what]
    found = [one.error.code if isinstance(one, Error) else "heartbeat_ack" for one in machine.sent()]
    assert found == told
    arrive()
    assert codes(machine) == ["rate_limited"]
    assert machine.wire.closed is not None
    assert machine.wire.closed[0] == CloseCode.RATE_LIMITED
    arrive()
    assert machine.sent() == [], "nobody is there any more"
    renewed = Machine(limits={"message_rate": 1.0, "message_burst": 1})
    renewed.clock.advance(1)
    renewed.give(Heartbeat(n=1))
    assert renewed.wire.closed is None


def test_a_token_that_is_withdrawn_ends_the_connection_and_what_waited_is_not_sent() -> None:
    machine = Machine()
    machine.peer.send(Heartbeat(n=1))
    machine.auth.trouble = ErrorInfo(code="token_revoked", message="the token has been revoked")
    machine.give(Heartbeat(n=1))
    assert machine.sent() == []
    assert machine.wire.closed == (CloseCode.UNAUTHORIZED, "the token has been revoked", False)
    for act in (machine.peer.receive_part, machine.peer.receive_binary, machine.peer.handle_timeout):
        act()
    machine.peer.close(1000, "again")
    machine.peer.send(Heartbeat(n=2))
    machine.peer.send_bulk([b"{}"], Lane(bulk=True))
    assert machine.sent() == []
    assert machine.wire.closed == (CloseCode.UNAUTHORIZED, "the token has been revoked", False)


# ---------------------------------------------------------------------- life


def test_silence_ends_a_connection_and_any_frame_is_life() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0, "heartbeat_timeout": 35.0})
    for _ in range(4):
        machine.clock.advance(14)
        machine.peer.heard()
        machine.peer.handle_timeout()
    assert machine.wire.closed is None
    for _ in range(3):
        machine.clock.advance(11)
        machine.peer.handle_timeout()
    assert machine.wire.closed is None
    machine.clock.advance(2)
    machine.peer.handle_timeout()
    assert machine.wire.closed == (CloseCode.HEARTBEAT_TIMEOUT, "nothing heard for 35 s", True)


def test_after_we_stood_still_there_is_time_for_an_answer() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0, "heartbeat_timeout": 35.0})
    machine.clock.advance(100)
    machine.peer.handle_timeout()
    assert machine.wire.closed is None
    assert [type(one) for one in machine.sent()] == [Heartbeat], "a probe"
    machine.clock.advance(15)
    machine.peer.handle_timeout()
    assert machine.wire.closed is not None, "which was not answered"


def test_whom_we_do_not_read_is_not_taken_for_silent() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0, "heartbeat_timeout": 35.0})
    machine.wire.held = True
    for _ in range(10):
        machine.clock.advance(14)
        machine.peer.handle_timeout()
    assert machine.wire.closed is None


def test_the_round_trip_is_that_of_the_last_heartbeat() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0})
    for _ in range(2):
        machine.clock.advance(15)
        machine.peer.heard()
        machine.peer.handle_timeout()
    first, second = [one.n for one in machine.sent() if isinstance(one, Heartbeat)]
    machine.clock.advance(0.25)
    machine.give(HeartbeatAck(n=first))
    assert machine.peer.round_trip is None, "an answer to an earlier one tells nothing"
    machine.give(HeartbeatAck(n=second))
    assert machine.peer.round_trip == 0.25


async def test_a_heartbeat_carries_the_heads_that_have_changed_and_no_others() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0})
    await machine.watch("s")
    await machine.watch("t")
    await machine.ask_json("subscribe", topic="u", generation=1)  # its sync has not ended

    def beat() -> dict[str, tuple[str, int, str]]:
        machine.clock.advance(15)
        machine.peer.heard()
        machine.peer.handle_timeout()
        [told] = [one for one in machine.sent() if isinstance(one, Heartbeat)]
        return told.heads

    assert beat() == {}, "what the sync has told is told"
    machine.engine.emit("t", Chain(id="c", name="n"))
    machine.engine.emit("u", Chain(id="c", name="n"))
    digest = machine.engine.state("t").digest
    assert beat() == {"t": ("e1", 1, digest)}
    assert beat() == {}


async def test_a_batch_that_is_due_goes_out_and_the_next_deadline_is_its_own() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0})
    await machine.watch(delivery="latest", interval_ms=500)
    await machine.watch("other")
    now = machine.clock.monotonic()
    assert machine.peer.next_deadline() == now + 15
    machine.engine.emit("s", Chain(id="c", name="n"))
    assert machine.peer.next_deadline() == now + 0.5
    machine.clock.advance(0.4)
    machine.peer.handle_timeout()
    assert machine.sent() == [], "it is not due"
    machine.clock.advance(0.1)
    machine.peer.handle_timeout()
    [batch] = machine.sent()
    assert isinstance(batch, Batch)
    assert (batch.from_, batch.to, batch.digest) == (0, 1, machine.engine.state("s").digest)
    assert machine.peer.next_deadline() == now + 15


async def test_a_batch_that_is_behind_the_server_waits_another_interval() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0})
    subscription = await machine.watch(delivery="latest", interval_ms=10_000)
    machine.engine.emit("s", Chain(id="c", name="n"))
    attached, machine.engine.attached = machine.engine.attached, {}
    encoded = machine.engine.emit("s", Chain(id="d", name="n"))  # the hub will tell it within this turn
    machine.clock.advance(10)
    machine.peer.heard()
    machine.peer.handle_timeout()
    assert machine.sent() == []
    assert subscription.batch_due == machine.clock.monotonic() + 10
    machine.clock.advance(5)
    machine.peer.handle_timeout()
    [beat] = machine.sent()
    assert isinstance(beat, Heartbeat)
    assert beat.heads == {}, "of what waits in a batch nothing is claimed"
    assert subscription.batch_due == machine.clock.monotonic() + 5, "a heartbeat puts nothing off"
    machine.engine.attached = attached
    subscription.tell("s", 2, Delivery((encoded,)))
    machine.clock.advance(15)
    machine.peer.heard()
    machine.peer.handle_timeout()
    batch, beat = machine.sent()
    assert isinstance(batch, Batch)
    assert (batch.from_, batch.to) == (0, 2)
    assert isinstance(beat, Heartbeat)


async def test_a_heartbeat_takes_waiting_batches_along_so_that_heads_hold() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0})
    await machine.watch(delivery="latest", interval_ms=60_000)
    machine.engine.emit("s", Chain(id="c", name="n"))
    machine.clock.advance(15)
    machine.peer.handle_timeout()
    batch, beat = machine.sent()
    assert isinstance(batch, Batch)
    assert isinstance(beat, Heartbeat)
    assert beat.heads == {"s": ("e1", 1, batch.digest)}


# ---------------------------------------------------------------------- slow readers


async def test_of_several_subscriptions_the_one_with_most_waiting_gives_way() -> None:
    machine = Machine(limits={"outbox_size": 20_000})
    small, large = await machine.watch("small"), await machine.watch("large")
    machine.wire.taking = False
    machine.peer.queue_events(small, [(chain_event(1, topic="small", size=2_000), 1)])
    for seq in range(1, 30):
        large.tell("large", seq, Delivery((chain_event(seq, topic="large", size=1_000),)))
    assert (small.phase, large.phase) == ("live", "muted")
    told = machine.sent()
    assert [one.topic for one in told if isinstance(one, Event)] == ["small"]
    assert [one for one in told if isinstance(one, Resync)] == [Resync(topic="large", reason="too_slow")]


async def test_a_burst_that_the_socket_takes_at_once_is_no_slowness() -> None:
    machine = Machine(limits={"outbox_messages": 10})
    subscription = await machine.watch()
    for seq in range(1, 101):
        subscription.tell("s", seq, Delivery((chain_event(seq),)))
    assert subscription.phase == "live"
    assert [one.seq for one in machine.sent() if isinstance(one, Event)] == list(range(1, 101))


@pytest.mark.parametrize("taking", [True, False])
def test_answers_that_nobody_reads_end_the_connection_and_those_that_are_read_do_not(taking: bool) -> None:
    machine = Machine(limits={"outbox_messages": 10})
    machine.wire.taking = taking
    machine.give(*(Heartbeat(n=n) for n in range(50)))
    if taking:
        assert machine.wire.closed is None
        assert len(machine.sent()) == 50
    else:
        assert machine.wire.closed == (CloseCode.TOO_SLOW, "the control lane overflowed", False)
        assert machine.sent() == []


async def test_detaching_twice_is_detaching_once() -> None:
    machine = Machine()
    subscription = await machine.watch()
    machine.peer.end_subscription(subscription)
    machine.peer.end_subscription(subscription)
    assert machine.engine.detached.get_nowait() == "s"
    assert machine.engine.detached.empty()


async def test_who_watches_is_told_among_the_events_and_goes_with_them() -> None:
    machine = Machine()
    subscription = await machine.watch()
    subscription.presence("s", watching(1, "ada"))
    subscription.tell("s", 1, Delivery((chain_event(1),)))
    subscription.mute("too_slow")
    assert machine.sent() == [Resync(topic="s", reason="too_slow")]


async def test_pages_that_wait_are_void_with_their_sync_and_make_room_for_others() -> None:
    machine = Machine()
    await machine.watch()
    subscription = machine.peer.subscriptions["s"]
    before = machine.wire.flushes
    machine.peer.forget(subscription)
    assert machine.wire.flushes == before, "nothing waited"
    machine.peer.send_bulk([encode(Heartbeat(n=1))], subscription.pages)
    assert machine.peer.outbox.bulk_waiting > 0
    before = machine.wire.flushes
    machine.peer.forget(subscription)
    assert machine.wire.flushes == before + 1, "who waits to add a page is let go on"
    assert machine.sent() == []


def test_a_heartbeat_goes_out_at_once_where_what_it_says_is_another() -> None:
    machine = Machine(open=False)
    machine.peer.beat()
    assert machine.sent() == [], "nobody has said hello"
    machine.give(Hello(major=1))
    machine.sent()
    machine.peer.beat()
    assert [one.n for one in machine.sent() if isinstance(one, Heartbeat)] == [1]
    assert (
        machine.peer.next_deadline() == machine.clock.monotonic() + machine.services.timing.heartbeat_interval
    )
    machine.auth.trouble = ErrorInfo(code="token_revoked", message="revoked")
    machine.peer.beat()
    assert machine.sent() == []


async def test_who_does_not_read_at_the_servers_end_gets_what_waits_and_nothing_more() -> None:
    machine = Machine()
    await machine.watch()
    machine.peer.drain(1500)
    machine.peer.finish(1012, "the server stops", 7.0)
    machine.peer.finish(1012, "again", 9.0)
    machine.peer.send(Heartbeat(n=1))
    assert machine.wire.finished == (1012, "the server stops", 7.0)
    assert machine.wire.closed is None
    assert machine.peer.phase == "closed"
    assert machine.engine.attached == {"s": []}, "and watches no more"
    assert [type(one) for one in machine.sent()] == [Draining]


async def test_what_is_told_at_once_beyond_what_may_wait_mutes_who_does_not_read() -> None:
    machine = Machine(limits={"outbox_messages": 10})
    subscription = await machine.watch()
    machine.wire.taking = False
    subscription.tell("s", 30, Delivery(tuple(chain_event(seq) for seq in range(1, 31))))
    assert subscription.phase == "muted"
    assert [type(one) for one in machine.sent()] == [Resync]


async def test_a_loose_message_may_be_the_one_that_is_too_much() -> None:
    machine = Machine(limits={"outbox_messages": 2})
    subscription = await machine.watch()
    machine.wire.taking = False
    for count in range(1, 4):
        machine.peer.queue_loose(subscription, Presence(topic="s", count=count, names=["ada"]))
    assert subscription.phase == "muted"
    assert [type(one) for one in machine.sent()] == [Resync]
