"""Many sessions, many observers who come and go, and every byte that any of them receives (ISOLATED).

Everything that is published into a session carries the session's mark. The observers are bare TCP
connections that speak just enough of the protocol to be told events; what is looked at is the bytes, not
messages that somebody has parsed: a mark that is not of what the connection watches is foreign.

- One half of the observers have a token for one session alone, watch it together with the directory,
  and come back on a new connection with a token for another.
- The other half may see everything, watch one session, and change to another one on the same connection: as
  soon as the server has ended the old subscription, that session's mark is foreign, too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wsmonitor.client import Publication, PublicationListener, Target, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange

from .server import ROOT, ServerProcess, environment
from .watching import PATIENCE

MARK: Final = re.compile(rb"<m(\d{4})>")
_MARK_LENGTH: Final = len(b"<m0000>")
_PER_CONNECTION: Final = 50  # publications; the limit is 64
_STEPS: Final = 20

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    # These observers answer no heartbeats: it is not what is looked at.
    "timing": {"heartbeat_interval": 2.0, "heartbeat_timeout": 3600.0, "handshake_timeout": 60.0},
    "limits": {"history_events": 100, "history_size": 1024 * 1024},
}


def mark(number: int) -> str:
    """What everything of session *number* carries."""
    return f"<m{number:04}>"


def topic(number: int) -> str:
    """The id of session *number*."""
    return f"s{mark(number)}"


@dataclass
class Tally:
    """What all observers together have received: ``size`` bytes with so many ``marks``.

    Attributes:
        deliveries: events.
        foreign: marks that were not of what the connection watched, and where they were seen.
    """

    deliveries: int = 0
    size: int = 0
    marks: int = 0
    connections: int = 0
    changes: int = 0
    foreign: list[str] = field(default_factory=list)


class Scanner:
    """Looks for marks in bytes as they arrive, also where one is torn into two reads."""

    def __init__(self, tally: Tally) -> None:
        self.allowed: set[int] = set()
        self._tally = tally
        self._rest = b""

    def feed(self, data: bytes) -> None:
        text = self._rest + data
        end = 0
        for found in MARK.finditer(text):
            end = found.end()
            self._tally.marks += 1
            if int(found[1]) not in self.allowed:
                around = text[max(0, found.start() - 80) : end + 20]
                self._tally.foreign.append(
                    f"{found[0]!r} where {sorted(self.allowed)} is watched: {around!r}"
                )
        self._rest = text[max(end, len(text) - _MARK_LENGTH + 1) :]


class Bare(asyncio.Protocol):
    """An observer's connection: handshake, `hello`, subscriptions, and then what comes."""

    def __init__(
        self, token: str, number: int, tally: Tally, *, directory: bool, told: Callable[[Bare], None]
    ) -> None:
        self.number = number
        self.events = 0
        self.limit = 0
        self.scanner = Scanner(tally)
        self.scanner.allowed = {number}
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._token = token
        self._tally = tally
        self._directory = directory
        self._told = told
        self._buffer = b""
        self._upgraded = False
        self._generation = 0
        self._leaving: Counter[int] = Counter()
        self._transport: asyncio.Transport | None = None

    # -- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._tally.connections += 1
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: wsmonitor.v1\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        )
        transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        self._tally.size += len(data)
        self._buffer += data
        if not self._upgraded:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._upgraded = True
            self._buffer = rest
            self.scanner.feed(head)
            self.send(type="hello", major=1, agent="bare")
            self.watch(topic(self.number))
            if self._directory:
                self.watch("/directory")
        for frame in self._frames():
            self._frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    # -- frames

    def _frames(self) -> list[bytes]:
        """The complete frames; a server's are not masked (RFC 6455, section 5.2)."""
        buffer, at, frames = self._buffer, 0, []
        while len(buffer) >= at + 2:
            length, head = buffer[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
            if len(buffer) < at + head + length or len(buffer) < at + head:
                break
            frames.append(buffer[at : at + head + length])
            at += head + length
        self._buffer = buffer[at:]
        return frames

    def _frame(self, frame: bytes) -> None:
        text = frame[frame.index(b"{") :] if b"{" in frame[:14] else frame
        self.scanner.feed(frame)
        if text.startswith(b'{"type":"event"'):
            self.events += 1
            self._tally.deliveries += 1
            if self.events >= self.limit:
                self._told(self)
        elif text.startswith((b'{"type":"sync_begin"', b'{"type":"sync_page"')):
            self._pull(json.loads(text))
        elif text.startswith(b'{"type":"error"'):
            self._left(json.loads(text)["error"])

    def _pull(self, message: dict[str, Any]) -> None:
        # What was left meanwhile is not pulled any more.
        if not message.get("last") and message["topic"] in (topic(self.number), "/directory"):
            page = message["page"] + 1 if message["type"] == "sync_page" else 0
            self.send(type="sync_next", topic=message["topic"], generation=message["generation"], page=page)

    # -- the test's side

    def send(self, **message: Any) -> None:
        data = json.dumps(message).encode()
        assert len(data) < 65_536
        assert self._transport is not None
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        # A mask of zeros changes nothing, and is one.
        self._transport.write(b"\x81" + size + b"\0\0\0\0" + data)

    def watch(self, name: str) -> None:
        self._generation += 1
        self.send(type="subscribe", topic=name, generation=self._generation)

    def change(self, number: int) -> None:
        """Watch session *number* from now on, on the same connection."""
        self._tally.changes += 1
        # Nothing answers an `unsubscribe`, but what is asked of the topic behind it is refused behind it.
        self.send(type="unsubscribe", topic=topic(self.number))
        self.send(type="sync_next", topic=topic(self.number), generation=1, page=0)
        self._leaving[self.number] += 1
        self.number = number
        self.scanner.allowed.add(number)
        self.watch(topic(number))

    def _left(self, error: dict[str, Any]) -> None:
        """The server says that the connection does not watch a topic any more: its mark is foreign now."""
        assert error["code"] == "unexpected_message", error
        found = MARK.search(error["details"]["topic"].encode())
        assert found is not None, error
        number = int(found[1])
        self._leaving[number] -= 1
        if number != self.number and not self._leaving[number]:
            self.scanner.allowed.discard(number)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()


class Crowd:
    """All observers, who come and go until so many events were delivered."""

    def __init__(self, server: ServerProcess, sessions: int, seed: int, deliveries: int) -> None:
        self.tally = Tally()
        self.done = asyncio.Event()
        self._server = server
        self._sessions = sessions
        self._rng = random.Random(seed)
        self._deliveries = deliveries

    def _limit(self, one: Bare) -> None:
        one.limit = one.events + self._rng.randrange(20, 200)

    async def narrow(self, number: int) -> None:
        """One observer after the other, each with a token for one session alone."""
        turn = 0
        while not self.done.is_set():
            session = (number + turn * 7) % self._sessions
            token = self._server.token(f"n{number}.{turn}", "observe", [topic(session)])
            await self._connected(token, session, lambda one: one.close(), directory=True)
            turn += 1

    async def wide(self, number: int) -> None:
        """One observer who may see all, and watches one session after the other."""

        def change(one: Bare) -> None:
            self._limit(one)
            one.change(self._rng.randrange(self._sessions))

        while not self.done.is_set():
            await self._connected(
                self._server.token(f"w{number}", "observe"), number % self._sessions, change
            )

    async def _connected(
        self, token: str, session: int, told: Callable[[Bare], None], *, directory: bool = False
    ) -> None:
        def heard(one: Bare) -> None:
            if self.tally.deliveries >= self._deliveries:
                self.done.set()
            told(one)

        one = Bare(token, session, self.tally, directory=directory, told=heard)
        self._limit(one)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: one, self._server.host, self._server.port)
        ended = asyncio.ensure_future(self.done.wait())
        await asyncio.wait((ended, one.closed), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        one.close()
        await one.closed


def _publish(url: str, tokens: list[str], sessions: int, rate: float) -> None:
    """The publishing program: changes to all sessions in turn, until a line comes on standard input."""
    import select

    with ExitStack() as stack:
        publications: list[Publication] = []
        for number in range(sessions):
            token = tokens[number // _PER_CONNECTION]
            connection = stack.enter_context(connect(Target(url=url, token=token)))
            publications.append(
                connection.publication(topic(number), f"p{mark(number)}", PublicationListener())
            )
        for number, publication in enumerate(publications):
            publication.submit(SessionChange(name=f"n{mark(number)}", state="running"))
            publication.submit(ChainChange(id=f"c{mark(number)}", name=f"n{mark(number)}", state="running"))
        assert all(publication.flush(PATIENCE) for publication in publications)
        print("ready", flush=True)
        count, begun = 0, time.monotonic()
        while not select.select(
            [sys.stdin], [], [], max(0.0, begun + count * sessions / rate - time.monotonic())
        )[0]:
            for number, publication in enumerate(publications):
                if publication.unacknowledged > 200:
                    continue
                word = mark(number)
                publication.submit(
                    StepChange(
                        id=f"i{word}{count % _STEPS}",
                        chain=f"c{word}",
                        name=f"n{word}",
                        state="running",
                        reason=f"r{word}" * 3,
                        metrics={f"k{word}": count},
                        attributes={f"a{word}": word},
                    )
                )
            count += 1


def _announce(deliveries: int) -> str:
    return f"{deliveries:,} deliveries"


async def _crowd(
    server: ServerProcess, sessions: int, each: int, deliveries: int, seed: int, log: Callable[[str], None]
) -> Tally:
    crowd = Crowd(server, sessions, seed, deliveries)
    observers = [
        crowd.narrow(number % sessions) if number % 2 else crowd.wide(number % sessions)
        for number in range(sessions * each)
    ]
    gathered = asyncio.gather(*observers)
    while not crowd.done.is_set() and not gathered.done():
        await asyncio.wait((gathered,), timeout=5.0)
        log(_announce(crowd.tally.deliveries))
    await gathered
    return crowd.tally


def isolate(
    folder: Path,
    sessions: int,
    each: int,
    deliveries: int,
    seed: int,
    *,
    rate: float = 2_000.0,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[Tally, float]:
    """*sessions* sessions, *each* observers of each, until *deliveries* events were delivered.

    Args:
        rate: changes a second, of all sessions together.

    Returns:
        what the observers received, and the seconds that it took.
    """
    with ServerProcess(folder, settings=SETTINGS) as server:
        count = -(-sessions // _PER_CONNECTION)
        task = {
            "url": server.url,
            "tokens": [server.token(f"p{number}", "publish") for number in range(count)],
            "sessions": sessions,
            "rate": rate,
        }
        with subprocess.Popen(
            [sys.executable, "-m", "tests.faults.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(json.dumps(task) + "\n")
            program.stdin.flush()
            assert program.stdout.readline() == "ready\n"
            begun = time.monotonic()
            try:
                tally = asyncio.run(_crowd(server, sessions, each, deliveries, seed, log))
            finally:
                program.communicate("end\n")
    return tally, time.monotonic() - begun


if __name__ == "__main__":
    _publish(**json.loads(sys.stdin.readline()))
