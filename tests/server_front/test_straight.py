"""Events that are written straight away, past the outbox: only where nothing could be wrong about it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.messages import Draining, Event, Heartbeat, Presence
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.framing import Delivery
from wsmonitor_server.peer import Peer
from wsmonitor_server.subscription import Subscription
from wsmonitor_server.transport import direct

from .fakes import FakeEngine
from .machine import YEAR, Machine
from .wire import Client, client


class Straight:
    """A live subscription of a connection that takes everything."""

    def __init__(self, machine: Machine, subscription: Subscription) -> None:
        self.machine = machine
        self.subscription = subscription
        self.written: list[bytes] = []
        machine.peer.straight = self.write
        self.turn()

    def write(self, data: bytes) -> int:
        self.written.append(data)
        return len(data)

    def turn(self) -> None:
        """The next turn of the loop."""
        self.machine.services.turn += 1

    def tell(self, *payloads: bytes) -> Delivery:
        delivery = Delivery(payloads)
        self.subscription.tell("s", self.subscription.seq + len(payloads), delivery)
        return delivery

    @property
    def queued(self) -> int:
        return self.machine.peer.outbox.state_count


@pytest.fixture
async def straight() -> Straight:
    machine = Machine()
    subscription = await machine.watch()
    machine.wire.taking = False
    return Straight(machine, subscription)


async def test_what_nothing_waits_before_is_written_at_once(straight: Straight) -> None:
    delivery = straight.tell(b"{}")
    assert delivery.framed is not None
    assert straight.written == [delivery.framed.data]
    assert (delivery.framed.written, straight.queued, straight.subscription.seq) == (1, 0, 1)


async def test_all_subscribers_of_a_delivery_share_its_frames(straight: Straight) -> None:
    delivery = straight.tell(b"{}")
    framed = delivery.framed
    straight.turn()
    straight.subscription.tell("s", 1, delivery)
    assert delivery.framed is framed


async def test_more_in_the_same_turn_is_queued_to_be_joined(straight: Straight) -> None:
    straight.tell(b"{}")
    straight.tell(b"{}")
    straight.tell(b"{}")
    assert (len(straight.written), straight.queued) == (1, 2)


async def test_behind_what_waits_it_is_queued(straight: Straight) -> None:
    straight.machine.peer.straight = None
    straight.tell(b"{}")
    assert (straight.written, straight.queued) == ([], 1)


async def test_what_the_kernel_does_not_take_is_kept(straight: Straight) -> None:
    straight.machine.peer.straight = lambda data: 3
    delivery = straight.tell(b"{}")
    assert delivery.framed is not None
    assert straight.machine.wire.rest == [delivery.framed.data[3:]]
    assert (delivery.framed.written, straight.queued) == (1, 0)


@pytest.mark.parametrize("failure", [BlockingIOError, BrokenPipeError, ConnectionResetError])
async def test_what_the_kernel_refuses_is_kept_whole(straight: Straight, failure: type[OSError]) -> None:
    def refuse(data: bytes) -> int:
        raise failure

    straight.machine.peer.straight = refuse
    delivery = straight.tell(b"{}")
    assert delivery.framed is not None
    # The loop's transport knows what the failure means for the connection.
    assert straight.machine.wire.rest == [delivery.framed.data]


async def test_with_a_token_that_ends_now_nothing_is_written(straight: Straight) -> None:
    straight.machine.services.clock.advance(YEAR)
    straight.tell(b"{}")
    assert straight.written == []


async def test_a_new_token_counts_at_once(straight: Straight) -> None:
    machine = straight.machine
    claims = machine.peer.credential.claims
    machine.peer.adopt(machine.credential(exp=claims.exp + 100))
    machine.services.clock.advance(YEAR)
    straight.tell(b"{}")
    assert len(straight.written) == 1


async def test_who_is_closed_is_not_written_to(straight: Straight) -> None:
    straight.machine.peer.close(1000, "done")
    assert straight.machine.peer.straight is None


# ---------------------------------------------------------------------- with a real socket


def peer_of(server: EmbeddedServer) -> Peer:
    (peer,) = server.server.peers
    return peer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - there is no event for what is waited for
            await asyncio.sleep(0)


async def watching(server: EmbeddedServer, one: Client) -> Peer:
    await one.subscribe("s")
    peer = peer_of(server)
    await until(lambda: peer.straight is not None)
    return peer


async def test_frames_are_counted_however_they_go(server: EmbeddedServer, engine: FakeEngine) -> None:
    async with client(server) as one:
        await watching(server, one)
        before = server.server.frames_out
        for number in range(3):
            engine.emit("s", Chain(id=f"c{number}", name="n"))
        for _ in range(3):
            await one.expect(Event)
        await until(lambda: server.server.frames_out >= before + 3)


async def test_what_waits_goes_first(server: EmbeddedServer, engine: FakeEngine) -> None:
    async with client(server) as one:
        peer = await watching(server, one)
        peer.send(Draining(reconnect_ms=1))
        assert peer.straight is None
        engine.emit("s", Chain(id="c", name="n"))
        kinds: list[type] = []
        while Event not in kinds:
            kinds.append(type(await one.receive()))
        assert [kind for kind in kinds if kind not in (Heartbeat, Presence)] == [Draining, Event]
        await until(lambda: peer.straight is not None)


async def test_who_does_not_read_is_queued_for(server: EmbeddedServer, engine: FakeEngine) -> None:
    async with client(server) as one:
        peer = await watching(server, one)
        one.socket.transport.pause_reading()
        for number in range(2_000):
            engine.emit("s", Chain(id="c", name="n", reason=f"{number} {'x' * 4_000}"))
            await asyncio.sleep(0)
            if peer.straight is None and peer.outbox:
                break
        else:
            pytest.fail("all was taken")
        one.socket.transport.resume_reading()
        seqs = [(await one.expect(Event)).seq for _ in range(number + 1)]
        assert seqs == list(range(1, number + 2))
        await until(lambda: peer.straight is not None)


async def test_who_has_closed_is_not_written_to_any_more(server: EmbeddedServer, engine: FakeEngine) -> None:
    async with client(server) as one:
        peer = await watching(server, one)
        # Its close frame, and it stays on the socket.
        one.socket.protocol.send_close(1000, "")
        one.socket.transport.write(b"".join(one.socket.protocol.data_to_send()))
        await until(lambda: peer.straight is None)
        engine.emit("s", Chain(id="c", name="n"))
        assert await one.closed() == 1000


async def test_a_socket_that_is_closed_is_never_written_to(
    server: EmbeddedServer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is soon another connection's, who would get what was not meant for it."""
    numbers: list[int] = []
    async with client(server) as one:
        peer = await watching(server, one)
        (connection,) = server.server.connections.values()
        sock = connection.transport._transport.get_extra_info("socket")  # type: ignore[union-attr]
        lost = peer.lost

        def told() -> None:
            numbers.append(sock.fileno())
            assert peer.straight is None
            lost()

        monkeypatch.setattr(type(peer), "lost", lambda self: told())
        one.socket.transport.abort()
        await until(lambda: bool(numbers))
    # It was told while the socket still was open.
    assert numbers[0] >= 0
    assert connection.transport.sink is None


@pytest.mark.parametrize("loop_is", ["its own", "another's"])
async def test_past_the_transport_only_where_it_is_asyncios(loop_is: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = SocketTransport(ours)
        loop = asyncio.get_running_loop() if loop_is == "its own" else asyncio.AbstractEventLoop()
        write = direct(transport, loop)
        if loop_is == "another's":
            assert write is None
        else:
            assert write is not None
            assert write(b"abc") == 3
            assert theirs.recv(9) == b"abc"
            transport.tls = True
            # Between it and the socket somebody encrypts.
            assert direct(transport, loop) is None
            assert direct(asyncio.Transport(), loop) is None


class SocketTransport(asyncio.Transport):
    """The transport of *sock*."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        self.tls = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"socket": self.sock, "sslcontext": True if self.tls else None}.get(name, default)
