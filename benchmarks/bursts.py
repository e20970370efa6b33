"""More clients at once than a server can take: how many it lets in, and what refusing the others costs.

Bare connections show their token and wait for the answer to the handshake. Beyond ``limits.handshakes`` the
oldest at the door has to go for each newcomer (503): clients come back after a delay.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .peers import PEERS, Server
from .pinned import cores, cpu_exactly, on_core

NAME: Final = "bursts"
BURSTS: Final = ((1_000, 0.0), (2_000, 0.0), (3_000, 0.0), (4_000, 2.0))
"""Clients, and the seconds over which they come."""

_TIMEOUT: Final = 10.0
_TOKENS: Final = 50
_HEAD: Final = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: wsmonitor.v1\r\nAuthorization: Bearer {token}\r\n\r\n"
)


async def _come(server: Server, number: int) -> tuple[str, asyncio.StreamWriter | None]:
    """One handshake; its status, and the connection, which stays."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(_HEAD.format(token=server.tokens[number % _TOKENS]).encode())
            line = await reader.readline()
            return line[9:12].decode() or "ended", writer
    except TimeoutError:
        return "timed out", None
    except OSError as exc:
        return type(exc).__name__, None


async def _burst(server: Server, clients: int, over: float) -> dict[str, Any]:
    async def one(number: int) -> tuple[str, asyncio.StreamWriter | None]:
        await asyncio.sleep(over * number / clients)
        return await _come(server, number)

    used, begin = cpu_exactly(server.pid), time.monotonic()
    found = await asyncio.gather(*(one(number) for number in range(clients)))
    took, used = time.monotonic() - begin, cpu_exactly(server.pid) - used
    for _, writer in found:
        if writer is not None:
            writer.transport.abort()
    counted = Counter(status for status, _ in found)
    return {
        "clients": clients,
        "within s": over,
        "let in": counted["101"],
        "refused": counted["503"],
        "neither": clients - counted["101"] - counted["503"],
        "seconds": round(took, 2),
        "server's CPU s": round(used, 3),
    }


def costs(rows: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds of processor time of one handshake, and of one refusal."""
    kept = list(rows)
    calm = [row["server's CPU s"] / row["let in"] for row in kept if not row["refused"] and row["let in"]]
    handshake = statistics.median(calm)
    refusals = [
        max(0.0, row["server's CPU s"] - row["let in"] * handshake) / row["refused"]
        for row in kept
        if row["refused"]
    ]
    return handshake, statistics.median(refusals)


def run(*, rounds: int) -> list[dict[str, Any]]:
    """A row for each burst, each at a fresh server: the round in which the server took the middle time."""
    rows = []
    pair = cores()
    for clients, over in BURSTS:
        found = []
        for _ in range(rounds):
            with PEERS["wsmonitor"].start(_TOKENS) as server, on_core(pair[1] if pair else None):
                found.append(asyncio.run(_burst(server, clients, over)))
        found.sort(key=lambda row: float(row["server's CPU s"]))
        rows.append(found[len(found) // 2])
    return rows
