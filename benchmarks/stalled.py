"""One reader that has stalled among a hundred: what it costs the server, and the others.

Two servers run side by side, with a hundred readers each, and get the same events by turns; at one of them
another reader has stopped reading, while it still sends its heartbeats. So what else goes on on
the machine meets both alike, and what differs is the stalled reader.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from wsmonitor.client import PublicationListener, Target
from wsmonitor.client import connect as client_connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange

from .server_process import RunningServer, serve

NAME = "stalled"
SESSION: Final = "stalled~1"
RATE: Final = 25.0  # events a second, at each server
READERS: Final = 100
SETTLING: Final = 20.0  # seconds of the same load before the stall, so that the allocator has what it needs
_STAMP: Final = b'"sent":"'


def publish(targets: list[tuple[str, str]]) -> None:
    """The publishing program: the same change to each server, by turns, until it is terminated."""
    with ExitStack() as stack:
        publications = []
        for url, token in targets:
            connection = stack.enter_context(client_connect(Target(url=url, token=token)))
            publications.append(connection.publication(SESSION, "p", PublicationListener()))
        for publication in publications:
            publication.submit(SessionChange(name="stalled", state="running"))
            publication.submit(ChainChange(id="c", name="c", state="running"))
            publication.flush(30)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        begin, number = time.monotonic(), 0
        while True:
            for turn, publication in enumerate(publications):
                due = begin + (number + turn / len(publications)) / RATE
                time.sleep(max(0.0, due - time.monotonic()))
                publication.submit(
                    StepChange(
                        id=f"s{number % 50}",
                        chain="c",
                        name="step",
                        state="running",
                        reason="x" * 600,
                        attributes={"sent": str(time.monotonic_ns())},
                    )
                )
            number += 1


async def _open(server: RunningServer, name: str) -> ClientConnection:
    """A connection that is live on the session."""
    socket = await connect(
        server.url,
        additional_headers={"Authorization": f"Bearer {server.token(name, 'observe')}"},
        subprotocols=[Subprotocol("wsmonitor.v1")],
        compression=None,
        ping_interval=None,
        max_size=None,
    )
    await _send(socket, type="hello", major=1, agent=NAME)
    await _send(socket, type="subscribe", topic=SESSION, generation=1)
    page = 0
    while True:
        message = msgspec.json.decode(await socket.recv())
        if message["type"] == "sync_begin" or (message["type"] == "sync_page" and not message.get("last")):
            await _send(socket, type="sync_next", topic=SESSION, generation=1, page=page)
            page += 1
        elif message["type"] == "synced":
            return socket


async def _send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


class Readers:
    """A hundred readers of one server."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.latencies: list[float] = []  # milliseconds
        self.recording = False
        self._sockets: list[ClientConnection] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        for number in range(READERS):
            self._sockets.append(await _open(self.server, f"reader {number}"))
        self._tasks = [asyncio.create_task(self._read(socket)) for socket in self._sockets]
        self._tasks += [asyncio.create_task(beat(socket)) for socket in self._sockets]

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            data = await socket.recv(decode=False)
            at = data.find(_STAMP)
            if at >= 0 and self.recording:
                at += len(_STAMP)
                sent = int(data[at : data.index(b'"', at)])
                self.latencies.append((time.monotonic_ns() - sent) / 1e6)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(socket.close() for socket in self._sockets))


async def beat(socket: ClientConnection) -> None:
    """Be alive, whether or not anything is read."""
    number = 0
    while True:
        await asyncio.sleep(10)
        number += 1
        await _send(socket, type="heartbeat", n=number, time=str(time.time_ns()))


def memory(server: RunningServer) -> float:
    """Bytes of memory that the server's process has in use and shares with nobody, in MiB."""
    fields = Path(f"/proc/{server.pid}/statm").read_text("ascii").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _measure(servers: list[RunningServer], seconds: float) -> list[dict[str, Any]]:
    groups = [Readers(server) for server in servers]
    for group in groups:
        await group.begin()
    await asyncio.sleep(SETTLING)
    stalled = await _open(servers[0], "the stalled one")
    alive = asyncio.create_task(beat(stalled))
    before = [memory(server) for server in servers]
    stalled.transport.pause_reading()
    for group in groups:
        group.recording = True
    most = list(before)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(1)
        most = [max(old, memory(server)) for old, server in zip(most, servers, strict=True)]
    rows = []
    for group, name, first, peak in zip(groups, ("with", "without"), before, most, strict=True):
        group.recording = False
        cuts = statistics.quantiles(group.latencies, n=1000, method="inclusive")
        rows.append(
            {
                "a stalled reader": name,
                "minutes": round(seconds / 60, 1),
                "deliveries": f"{len(group.latencies):,}",
                "p50_ms": round(cuts[499], 2),
                "p95_ms": round(cuts[949], 2),
                "p99_ms": round(cuts[989], 2),
                "max_ms": round(max(group.latencies), 1),
                "memory before, MiB": round(first, 2),
                "at most more, MiB": round(peak - first, 2),
            }
        )
    alive.cancel()
    await asyncio.gather(alive, return_exceptions=True)
    stalled.transport.abort()
    for group in groups:
        await group.end()
    return rows


def run(*, rounds: int, seconds: float = 600.0) -> list[dict[str, Any]]:
    """*rounds* rounds of *seconds*; two rows each."""
    rows: list[dict[str, Any]] = []
    for _ in range(rounds):
        with serve("memory") as first, serve("memory") as second:
            servers = [first, second]
            targets = [(server.url, server.token("p", "publish")) for server in servers]
            with subprocess.Popen(
                [sys.executable, "-m", "benchmarks.stalled"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as publisher:
                assert publisher.stdin is not None
                assert publisher.stdout is not None
                publisher.stdin.write(json.dumps(targets) + "\n")
                publisher.stdin.flush()
                publisher.stdout.readline()
                try:
                    rows += asyncio.run(_measure(servers, seconds))
                finally:
                    publisher.kill()
            sys.stderr.write(json.dumps(rows[-2:]) + "\n")
    return rows


if __name__ == "__main__":
    publish(json.loads(sys.stdin.readline()))
