"""Bare ``websockets``: ``broadcast()`` to all connections, no compression, no pings."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from pathlib import Path

from websockets.asyncio.server import ServerConnection, broadcast, serve

from .base import Peer
from .floor import SCRIPT


class Broadcast(Peer):
    name = "websockets broadcast()"

    def available(self) -> str:
        return ""

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-m", "benchmarks.peers.broadcast"]

    def script(self) -> str:
        return SCRIPT

    def storm_script(self) -> str:
        return SCRIPT.replace("subscribe", "snapshot")


BROADCAST = Broadcast()

_SUBSCRIBERS: defaultdict[str, set[ServerConnection]] = defaultdict(set)


_SNAPSHOT = "welcome" + 100_000 * "x"


async def _handle(connection: ServerConnection) -> None:
    topic = ""
    try:
        async for message in connection:
            assert isinstance(message, str)
            if message.startswith("{"):
                broadcast(_SUBSCRIBERS[message[10:15]], message)
            elif message.startswith("subscribe "):
                topic = message.removeprefix("subscribe ")
                _SUBSCRIBERS[topic].add(connection)
                await connection.send("welcome")
            elif message.startswith("snapshot "):
                await connection.send(_SNAPSHOT)
    finally:
        _SUBSCRIBERS[topic].discard(connection)


async def main() -> None:
    async with serve(
        _handle, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=None, backlog=1024
    ) as server:
        print(f"listens at {server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
