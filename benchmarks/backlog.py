"""A reader stops: how many bytes wait for it when the server knows of it, the kernel's included.

Known is what a check can see: of ours, that the connection takes nothing more, so that its events are bounded
and, when they are too many, dropped and told; of the bare library, that its write buffer is not empty. The
reader's own kernel takes some as well; that is not the server's, and is told beside it.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import socket
import termios
from collections.abc import Callable
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from wsmonitor.protocol.defaults import SUBPROTOCOL
from wsmonitor_server.embedded import EmbeddedServer

NAME: Final = "backlog"
SESSION: Final = "backlog~1"
SIZES: Final = (500, 16_384)
MOST: Final = 64 * 1024 * 1024
_PRODUCER: Final = {"session": SESSION, "producer": "p"}
_SIOCOUTQ: Final = termios.TIOCOUTQ  # Linux: bytes sent and not acknowledged, and not sent yet
_SIOCINQ: Final = termios.FIONREAD


def _queued(sock: socket.socket, request: int) -> int:
    value = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), request, value)
    return value[0]


def _row(server: str, size: int, written: socket.socket, user: int, read: socket.socket) -> dict[str, Any]:
    kernel = _queued(written, _SIOCOUTQ)
    return {
        "server": server,
        "event": size,
        "server's kernel KB": round(kernel / 1024, 1),
        "server's memory KB": round(user / 1024, 1),
        "known at KB": round((kernel + user) / 1024, 1),
        "reader's kernel KB": round(_queued(read, _SIOCINQ) / 1024, 1),
    }


def _socket(transport: asyncio.BaseTransport) -> socket.socket:
    found: socket.socket = transport.get_extra_info("socket")
    return found


async def _stopped(fill: Callable[[], Any], known: Callable[[], bool], size: int) -> None:
    """Write until it is known that nobody reads."""
    written = 0
    while not known():
        if written > MOST:
            raise RuntimeError(f"after {written:,} bytes it is still not known")
        await fill()
        written += size


async def _open(url: str, token: str) -> ClientConnection:
    return await connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        ping_interval=None,
        max_size=None,
    )


async def _ask(client: ClientConnection, wanted: str, **message: Any) -> None:
    await client.send(json.dumps(message))
    while msgspec.json.decode(await client.recv(decode=False))["type"] != wanted:
        pass


async def ours(size: int) -> dict[str, Any]:
    """What waits at a wsmonitor server."""
    async with EmbeddedServer() as server:
        publisher = await _open(server.url, server.token("publisher"))
        await _ask(publisher, "welcome", type="hello", major=1)
        await _ask(publisher, "publish_opened", type="publish_open", request=1, holder="1", **_PRODUCER)
        changes: list[dict[str, Any]] = [
            {"op": "session", "name": "backlog", "state": "running"},
            {"op": "chain", "id": "c", "name": "c", "state": "running"},
            {"op": "step", "id": "s", "chain": "c", "name": "s", "state": "running"},
        ]
        number = 1

        async def publish(changes: list[dict[str, Any]]) -> None:
            nonlocal number
            about = {"producer_epoch": 1, "first": number, **_PRODUCER}
            await _ask(publisher, "ack", type="publish", changes=changes, **about)
            number += len(changes)

        await publish(changes)
        reader = await _open(server.url, server.token("reader"))
        await _ask(reader, "welcome", type="hello", major=1)
        await _ask(reader, "sync_begin", type="subscribe", topic=SESSION, generation=1)
        await _ask(reader, "synced", type="sync_next", topic=SESSION, generation=1, page=0)
        one = next(
            connection
            for connection in server.server.connections.values()
            if connection.peer is not None and connection.peer.credential.claims.sub == "reader"
        )
        reader.transport.pause_reading()
        transport = one.transport._transport
        assert transport is not None
        # About what else an event consists of.
        pad = "x" * (size - 350)
        await _stopped(
            lambda: publish([{"op": "step", "id": "s", "reason": "", "attributes": {"n": number, "p": pad}}]),
            lambda: one.transport.paused,
            size,
        )
        row = _row("wsmonitor", size, _socket(transport), one.transport.buffered(), _socket(reader.transport))
        reader.transport.abort()
        publisher.transport.abort()
        return row


async def bare(size: int) -> dict[str, Any]:
    """What waits at a server of the bare library."""
    opened: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handle(connection: ServerConnection) -> None:
        opened.set_result(connection)
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        reader = await connect(f"ws://127.0.0.1:{port}/", compression=None, ping_interval=None)
        connection = await opened
        reader.transport.pause_reading()
        transport = connection.transport

        async def send() -> None:
            await asyncio.wait_for(connection.send("x" * size), 30)
            await asyncio.sleep(0)

        await _stopped(send, lambda: transport.get_write_buffer_size() > 0, size)
        user = transport.get_write_buffer_size()
        row = _row("websockets", size, _socket(transport), user, _socket(reader.transport))
        reader.transport.abort()
        transport.abort()
        return row


def run(*, rounds: int) -> list[dict[str, Any]]:
    """A row for each round, server and size of event."""
    return [asyncio.run(measure(size)) for _ in range(rounds) for size in SIZES for measure in (ours, bare)]
