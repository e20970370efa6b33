"""A handshake by hand: what no library would send."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from wsmonitor_server.embedded import EmbeddedServer

UPGRADE = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "wsmonitor.v1",
}


async def ask(
    server: EmbeddedServer, path: str = "/", headers: dict[str, str | None] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request with *headers* (None: leave out), and read to the end: status, headers, body."""
    fields = {**UPGRADE, **(headers or {})}
    return await send(
        server,
        f"GET {path} HTTP/1.1\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        + "\r\n",
    )


async def get(server: EmbeddedServer, path: str) -> tuple[int, dict[str, str], bytes]:
    """A plain GET."""
    return await send(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def send(server: EmbeddedServer, request: str) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request.encode("latin-1"))
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            found = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines[1:] if line)
            }
            body = b""
            if status != 101:
                body = await reader.readexactly(int(found.get("content-length", "0")))
            return status, found, body
    finally:
        writer.close()
        await writer.wait_closed()


def code(body: bytes) -> Any:
    """The error code in a refusal's body."""
    return msgspec.json.decode(body)["error"]["code"]
