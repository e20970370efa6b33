"""A bare client for these tests: the library's own, without any of our client code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from wsmonitor.protocol.codec import decode_server
from wsmonitor.protocol.messages import (
    Error,
    Heartbeat,
    Presence,
    ServerMessage,
    SyncBegin,
    Synced,
    SyncPage,
    Welcome,
)
from wsmonitor_server.embedded import EmbeddedServer

PATIENCE = 10.0
M = TypeVar("M")


class Client:
    """One WebSocket connection, message by message."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send(msgspec.json.encode({"type": type_, **fields}).decode())

    async def raw(self, data: str | bytes) -> None:
        await self.socket.send(data)

    async def receive(self) -> ServerMessage:
        async with asyncio.timeout(PATIENCE):
            message = decode_server(await self.socket.recv(decode=False))
        assert message is not None
        return message

    async def expect(self, kind: type[M]) -> M:
        """The next message that is not a heartbeat or presence; it has to be a *kind*."""
        while True:
            message = await self.receive()
            if isinstance(message, kind):
                return message
            assert isinstance(message, Heartbeat | Presence), message

    async def error(self) -> tuple[str, int | None]:
        """The next message has to be an error: its code and request."""
        message = await self.expect(Error)
        assert message.error.message
        return message.error.code, message.request

    async def hello(self, **fields: Any) -> Welcome:
        await self.send("hello", **{"major": 1, "agent": "test", **fields})
        return await self.expect(Welcome)

    async def subscribe(self, topic: str, generation: int = 1, **fields: Any) -> Synced:
        """Subscribe, and pull all pages."""
        await self.send("subscribe", topic=topic, generation=generation, **fields)
        await self.expect(SyncBegin)
        number = 0
        while True:
            await self.send("sync_next", topic=topic, generation=generation, page=number)
            page = await self.expect(SyncPage)
            number += 1
            if page.last:
                return await self.expect(Synced)

    async def closed(self) -> int:
        """Read to the end; the close code."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.socket.recv(decode=False)
            except ConnectionClosed as exc:
                return exc.rcvd.code if exc.rcvd is not None else 1006


@asynccontextmanager
async def client(
    server: EmbeddedServer, token: str | None = None, *, hello: bool = True, **claims: Any
) -> AsyncIterator[Client]:
    """A connection to *server*, with a token of its own unless one is given."""
    token = server.token(**claims) if token is None else token
    async with connect(
        server.url,
        additional_headers={"Authorization": f"Bearer {token}"},
        subprotocols=[Subprotocol("wsmonitor.v1")],
        compression=None,
        ping_interval=None,
        max_size=None,
        close_timeout=1,
    ) as socket:
        one = Client(socket)
        if hello:
            await one.hello()
        yield one
