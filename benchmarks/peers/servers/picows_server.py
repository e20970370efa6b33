"""picows on uvloop: one frame per connection and event. Runs with the peers' own Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

TOPICS: defaultdict[str, set[Any]] = defaultdict(set)
SNAPSHOT = b"welcome" + 100_000 * b"x"


class Listener(WSListener):  # type: ignore[misc]  # it is compiled, and without types
    topic = ""

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
            return
        message = frame.get_payload_as_bytes()
        if message.startswith(b"{"):
            for one in TOPICS[message[10:15].decode()]:
                one.send(WSMsgType.TEXT, message)
        elif message.startswith(b"subscribe "):
            self.topic = message.decode().removeprefix("subscribe ")
            TOPICS[self.topic].add(transport)
            transport.send(WSMsgType.TEXT, b"welcome")
        elif message.startswith(b"snapshot "):
            transport.send(WSMsgType.TEXT, SNAPSHOT)

    def on_ws_disconnected(self, transport: Any) -> None:
        TOPICS[self.topic].discard(transport)


async def main() -> None:
    server = await ws_create_server(
        lambda _: Listener(), "127.0.0.1", 0, max_frame_size=1 << 24, backlog=1024
    )
    print(f"listens at {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
