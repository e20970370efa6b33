"""python-socketio on uvicorn: rooms. Runs with the peers' own Python; the argument is the port."""

from __future__ import annotations

import sys
from typing import Any

import socketio
import uvicorn

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=[])
SNAPSHOT = 100_000 * "x"


@server.event  # type: ignore[untyped-decorator]  # it has no types
async def subscribe(sid: str, topic: str) -> None:
    await server.enter_room(sid, topic)
    await server.emit("welcome", to=sid)


@server.event  # type: ignore[untyped-decorator]  # likewise
async def snapshot(sid: str, topic: str) -> None:
    await server.enter_room(sid, topic)
    await server.emit("welcome", SNAPSHOT, to=sid)


@server.event  # type: ignore[untyped-decorator]  # likewise
async def publish(sid: str, event: dict[str, Any]) -> None:
    await server.emit("event", event, room=event["topic"])


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(server), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False
    )
