"""BOUNDED: peers that do not play by the rules cost a bounded amount, are told by a code, and leave nothing.

Slow readers: tests/server_front/test_slow_reader.py; the everyday limits: test_requests.py and
test_handshake.py beside it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
from websockets.frames import Frame, Opcode

from tests.scale import many
from tests.server_front.raw import UPGRADE
from tests.server_front.wire import Client, client
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.messages import PublishOpened
from wsmonitor_server.connection import Connection
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.transport import HIGH_WATER, MAX_UNREAD

PATIENCE = 60.0
QUICK = Timing(handshake_timeout=0.3)


def masked(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def connection_of(server: EmbeddedServer) -> Connection:
    """The one that was made last."""
    return list(server.server.connections.values())[-1]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the server has no event for what is waited for
            await asyncio.sleep(0.005)


async def undisturbed(bystander: Client) -> None:
    await bystander.send("heartbeat", n=7)
    async with asyncio.timeout(PATIENCE):
        while b'"heartbeat_ack"' not in await bystander.socket.recv(decode=False):
            pass


async def pour(one: Client, frames: bytes, server: EmbeddedServer) -> None:
    """Send *frames* again and again until the server has had enough."""
    connection = connection_of(server)
    while connection.peer is not None and connection.peer.phase != "closed":
        if not one.socket.transport.is_closing() and one.socket.transport.get_write_buffer_size() < 2**20:
            one.socket.transport.write(frames)
        await asyncio.sleep(0)
    one.socket.transport.resume_reading()


# -- floods


@pytest.mark.parametrize(
    "frames",
    [
        masked(Opcode.PING),
        masked(Opcode.PONG, b"x" * 125),
        masked(Opcode.BINARY, b"x"),
        masked(Opcode.TEXT, b'{"type":"heartbeat","n":1}'),
        masked(Opcode.TEXT, b'{"type":"heartbeat_ack","n":1}'),
        masked(Opcode.TEXT, b'{"type":"status_get","request":1}'),
        masked(Opcode.TEXT, b'{"type":"no_such_type"}'),
        masked(Opcode.TEXT, b'{"type":"unsubscribe","topic":"s1"}'),
    ],
    ids=["ping", "pong", "binary", "heartbeat", "heartbeat_ack", "status_get", "unknown", "unsubscribe"],
)
async def test_a_flood_of_any_kind_of_frame_ends_with_rate_limited(frames: bytes) -> None:
    """RFC 6455, 10.4; protocol, rule 17: control frames count like messages."""
    limits = Limits(message_rate=1.0, message_burst=200)
    async with (
        EmbeddedServer(limits=limits) as server,
        client(server, sub="bystander") as bystander,
        client(server, sub="flood") as one,
    ):
        connection = connection_of(server)
        one.socket.transport.write(frames * 300)
        async with asyncio.timeout(PATIENCE):
            await until(lambda: connection.peer is not None and connection.peer.phase == "closed")
            assert await one.closed() == 4006
        await undisturbed(bystander)


async def test_pings_whose_answers_nobody_reads_do_not_pile_up() -> None:
    """RFC 6455, 5.5.3: the answers are bounded, in bytes, however slowly the pings come."""
    limits = Limits(message_rate=1e9, message_burst=2**31)
    async with EmbeddedServer(limits=limits) as server, client(server) as one:
        connection = connection_of(server)
        one.socket.transport.pause_reading()
        most = 0

        def seen() -> bool:
            nonlocal most
            most = max(most, connection.transport.buffered())
            return connection.peer is None or connection.peer.phase == "closed"

        pings = masked(Opcode.PING, b"x" * 125) * 100
        async with asyncio.timeout(PATIENCE):
            while not seen():
                if one.socket.transport.get_write_buffer_size() < 2**20:
                    one.socket.transport.write(pings)
                await asyncio.sleep(0)
        # One read of the socket may hold so many pings beyond the bound.
        assert most <= HIGH_WATER + MAX_UNREAD + 256 * 1024
        await until(lambda: connection.ident not in server.server.connections)


@pytest.mark.parametrize("piece", [b"", b"x"])
async def test_a_message_without_an_end_does_not_grow(piece: bytes) -> None:
    """RFC 6455, 10.4: parts are counted, so that empty ones cannot be sent for ever."""
    limits = Limits(message_rate=1.0, message_burst=500)
    async with EmbeddedServer(limits=limits) as server, client(server) as one:
        connection = connection_of(server)
        one.socket.transport.write(masked(Opcode.TEXT, b"{", fin=False))
        one.socket.transport.write(masked(Opcode.CONT, piece, fin=False) * 1_000)
        await until(lambda: connection.peer is not None and connection.peer.phase == "closed")
        assert connection.transport._fragments is None
        assert await one.closed() == 4006


async def test_fragments_are_bounded_in_bytes_too() -> None:
    """RFC 6455, 10.4: the size of a message is that of all its parts."""
    async with EmbeddedServer(limits=Limits(message_size=10_000)) as server, client(server) as one:
        for number in range(4):
            one.socket.transport.write(
                masked(Opcode.CONT if number else Opcode.TEXT, b" " * 4_000, fin=False)
            )
        assert (await one.error())[0] == "message_too_large"
        assert await one.closed() == 1009


async def test_control_frames_may_stand_between_the_parts_of_a_message() -> None:
    """RFC 6455, 5.4: strict, not rude."""
    async with EmbeddedServer() as server, client(server) as one:
        for frame in (
            masked(Opcode.TEXT, b'{"type":"heart', fin=False),
            masked(Opcode.PING, b"between"),
            masked(Opcode.CONT, b'beat","n":', fin=False),
            masked(Opcode.PONG),
            masked(Opcode.CONT, b"7}"),
        ):
            one.socket.transport.write(frame)
        async with asyncio.timeout(PATIENCE):
            assert b'"n":7' in await one.socket.recv(decode=False)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x09\x80\x00\x00\x00\x00", 1002),  # a control frame in parts
        (b"\x89\xfe\x00\x7e" + b"\x00" * 4 + b"x" * 126, 1002),  # a control frame above 125 bytes
        (masked(Opcode.CONT, b"x"), 1002),  # a part of nothing
        (masked(Opcode.TEXT, b"x", fin=False) + masked(Opcode.TEXT, b"y"), 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # a reserved opcode
        (b"\xc1\x81\x00\x00\x00\x00x", 1002),  # compressed, and nothing was agreed on: no bomb
        (b"\xa1\x81\x00\x00\x00\x00x", 1002),
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x88\x81\x00\x00\x00\x00x", 1002),  # a close frame of one byte
        (b"\x88\x82\x00\x00\x00\x00\x03\xed", 1002),  # a code that is never sent
        (b"\x81\xff" + struct.pack("!Q", 2**40) + b"\x00" * 4, 1009),  # a terabyte is announced
        (b"\x81\xff" + struct.pack("!Q", 2**63) + b"\x00" * 4, 1009),
    ],
    ids=[  # of their own: a mask is random, and every worker has to name a test alike
        "ping in parts", "long ping", "part of nothing", "text in text", "reserved opcode", "compressed",
        "reserved bit", "not masked", "short close", "forbidden code", "terabyte", "negative length",
    ],
)  # fmt: skip
async def test_broken_frames_end_the_connection_and_nothing_else(frame: bytes, code: int) -> None:
    """RFC 6455, 5.2 to 5.5 and 7.4."""
    async with (
        EmbeddedServer() as server,
        client(server, sub="bystander") as bystander,
        client(server) as one,
    ):
        one.socket.transport.write(frame)
        assert await one.closed() == code
        await undisturbed(bystander)
        await until(lambda: len(server.server.connections) == 1)


# -- handshakes


async def test_handshakes_that_never_come_are_ended() -> None:
    """Slowloris: not a byte, a byte now and then, a head without an end, a refused one that stays."""
    async with EmbeddedServer() as server, client(server) as bystander:
        server.server.timing = QUICK  # the bystander has had its time
        sockets = []
        for number in range(min(many(40), 200)):  # both ends are in this process, which has 1,024 handles
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            sockets.append((reader, writer))
            if number % 4 == 1:
                writer.write(b"G")
            elif number % 4 == 2:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            elif number % 4 == 3:
                writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        slow = sockets[0][1]
        await until(lambda: len(server.server.connections) > 1)

        async def drip() -> None:
            while True:
                slow.write(b"G")
                await slow.drain()
                await asyncio.sleep(0.01)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(drip(), PATIENCE)
        await until(lambda: len(server.server.connections) == 1)
        assert len(server.server.peers) == 1
        await undisturbed(bystander)
        for _, writer in sockets:
            writer.transport.abort()


async def test_sockets_that_are_closed_on_one_side_only() -> None:
    """Half-closed before the handshake, in it, after it: each ends, and the server keeps none."""
    async with EmbeddedServer(timing=QUICK) as server:
        head = "GET / HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        for sent in ("", "GET", head, head + f"Authorization: Bearer {server.token()}\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent.encode())
            writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                await reader.read()
            writer.transport.abort()
        await until(lambda: not server.server.connections and not server.server.tasks)
        assert not server.server.peers


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /readyz HTTP/1.1\r\n\r\n", 200),
        ("GET /readyz HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\nmore", 400),
        ("UPGRADE\r\n\xff\xff\xff", 400),
    ],
)
async def test_a_request_with_more_behind_it_is_answered(
    request_text: str, status: int, half_closed: bool
) -> None:
    """Pipelined requests, bytes before the answer, and clients that close their side when they have asked."""
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    async with EmbeddedServer() as server:
        fields = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        head = f"GET / HTTP/1.1\r\n{fields}Authorization: Bearer {server.token()}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_text.replace("UPGRADE\r\n", head + "\r\n").encode("latin-1"))
        if half_closed:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
        writer.close()
        await until(lambda: not server.server.connections)
    assert problems == []


async def test_a_storm_of_connections_leaves_nothing() -> None:
    """Connect, and go away in every way there is: a reset, an end, a half handshake, after the hello."""
    async with EmbeddedServer() as server:
        for number in range(many(200)):
            plain = socket.create_connection(("127.0.0.1", server.port))
            if number % 3 == 0:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 2:
                plain.send(b"GET / HTTP/1.1\r\n")
            plain.close()
            if number % 10 == 0:
                async with client(server) as one:
                    if number % 20:
                        one.socket.transport.abort()
        await until(lambda: not server.server.connections and not server.server.tasks)
        assert not server.server.peers
        assert not server.server._by_subject
        assert server.server.counters["faults_total"] == 0


# -- requests


async def test_producers_that_are_opened_all_at_once_are_limited_too() -> None:
    """Protocol, rule 17: those that are on their way count as well."""
    async with EmbeddedServer(limits=Limits(publications=10)) as server, client(server) as one:
        for number in range(50):
            await one.send("publish_open", request=number, session=f"s{number}", producer="p")
        opened, refused = 0, 0
        while opened + refused < 50:
            message = await one.receive()
            if isinstance(message, PublishOpened):
                opened += 1
            else:
                assert message.error.code == "limit_exceeded"  # type: ignore[union-attr]
                refused += 1
        assert (opened, refused) == (10, 40)
        assert [peer.publications for peer in server.server.peers] == [10]


async def test_ten_thousand_subscriptions_on_and_off_leave_nothing() -> None:
    """CLEAN on an open connection: no subscription, lane, task, subscriber or session in memory remains."""
    limits = Limits(message_rate=1e9, message_burst=2**31)
    cycles = many(2_500)
    async with EmbeddedServer(limits=limits) as server, client(server) as one:
        [peer] = server.server.peers
        # All the while, or the replies that nobody reads would end the connection, and rightly.
        read = asyncio.create_task(until_acknowledged(one))
        for number in range(cycles):
            topic = f"s{number % 50}" if number % 3 else "/directory"
            await one.send("subscribe", topic=topic, generation=number + 1)
            if number % 2:
                await one.send("sync_next", topic=topic, generation=number + 1, page=0)
            await one.send("unsubscribe", topic=topic)
        await one.send("heartbeat", n=1)
        await asyncio.wait_for(read, PATIENCE)
        connection = connection_of(server)
        await until(lambda: not connection._lanes and not server.server.tasks)
        assert not peer.subscriptions
        assert not peer.outbox
        assert (peer.outbox.state_size, peer.outbox.control_waiting, peer.outbox.bulk_waiting) == (0, 0, 0)
        assert not peer.outbox._lanes
        assert not connection._drained
        assert server.server.counters["faults_total"] == 0


async def until_acknowledged(one: Client) -> None:
    while b'"heartbeat_ack"' not in await one.socket.recv(decode=False):
        pass
