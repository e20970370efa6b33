"""A server with asyncio's debug mode, run as ``python -m tests.faults.counted_server``.

It says where it listens and its key, as JSON; then it answers each line of standard input with a census.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from wsmonitor.protocol.defaults import Limits
from wsmonitor_server.embedded import EmbeddedServer

from .census import Census


def told(server: EmbeddedServer, census: Census) -> dict[str, Any]:
    """The process's census, and what the server counts itself."""
    facts = server.server.information(full=True)
    return {
        **census.take(),
        "connections": facts["connections"],
        "sockets": len(server.server.connections),
        "subscriptions": facts["subscriptions"],
        "publications": facts["publications"],
        "sessions": facts["engine"]["sessions_loaded"],
        "by subject": len(server.server._by_subject),
    }


async def serve(store: str) -> None:
    loop = asyncio.get_running_loop()
    census = Census(lambda: loop)
    # So that what is kept of the session has come to its bound before it is counted.
    limits = Limits(history_events=50)
    async with EmbeddedServer(store=store, limits=limits) as server:
        print(json.dumps({"url": server.url, "key": server.key.hex()}), flush=True)
        told(server, census)  # what counting itself needs is there from the first time on
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(told(server, census)), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]), debug=True)
