"""What one heavy reader costs the others, and what it gets itself.

A hundred observers of a small session get 20,000 deliveries a second, for some seconds alone, then as
long while at the same server an observer comes to a session of 50,000 steps again and again; while another
reads a value of 100 MB page by page; and while one of the hundred has stopped reading. The heavy reader
has what the generator leaves of its core.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from wsmonitor.protocol.defaults import SUBPROTOCOL

from .generator import Generator, generate
from .peers import PEERS
from .peers.base import Server
from .pinned import cores, memory, on_core, start_on

NAME: Final = "neighbours"
OBSERVERS: Final = 100
STEPS: Final = 50_000
VALUE: Final = 100_000_000
PAGE: Final = 262_144
LARGE: Final = "bench~large"


class Raw:
    """A connection of ours, message by message."""

    def __init__(self, server: Server, token: str) -> None:
        self._socket: ClientConnection = connect(
            f"ws://127.0.0.1:{server.port}/",
            additional_headers={"Authorization": f"Bearer {token}"},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            max_size=None,
        )
        self.ask("welcome", type="hello", major=1, name="heavy")

    def send(self, **message: Any) -> None:
        self._socket.send(json.dumps(message))

    def wait(self, wanted: str) -> str:
        """The next message of that type, as text; heartbeats are answered meanwhile."""
        while True:
            text = str(self._socket.recv(120))
            if text.startswith(f'{{"type":"{wanted}"'):
                return text
            if text.startswith('{"type":"heartbeat"'):
                answer = {"type": "heartbeat_ack", "n": json.loads(text)["n"], "time": str(time.time_ns())}
                self._socket.send(json.dumps(answer))
            if text.startswith(('{"type":"error"', '{"type":"rejected"')):
                raise RuntimeError(text[:500])

    def ask(self, wanted: str, **message: Any) -> str:
        self.send(**message)
        return self.wait(wanted)

    def close(self) -> None:
        self._socket.close()


def make_large(server: Server, token: str) -> str:
    """The session of many steps, of which one has the large value; the value's digest."""
    raw = Raw(server, token)
    who = {"session": LARGE, "producer": "large"}
    raw.ask("publish_opened", type="publish_open", request=1, holder="1", **who)
    changes: list[dict[str, Any]] = [
        {"op": "session", "name": "large", "state": "running"},
        {"op": "chain", "id": "c", "name": "c", "state": "running"},
    ]
    changes += [
        {"op": "step", "id": f"s{number}", "chain": "c", "name": f"step {number}", "state": "running"}
        for number in range(STEPS)
    ]
    for first in range(0, len(changes), 256):
        part = changes[first : first + 256]
        raw.ask("ack", type="publish", producer_epoch=1, first=first + 1, changes=part, **who)
    data = bytes(range(256)) * (VALUE // 256) + bytes(VALUE % 256)
    sha256 = hashlib.sha256(data).hexdigest()
    for offset in range(0, VALUE, PAGE):
        page = base64.b64encode(data[offset : offset + PAGE]).decode()
        put = {"session": LARGE, "sha256": sha256, "total": VALUE, "offset": offset, "data": page}
        raw.ask("value_ack", type="value_put", request=2, **put)
    value = {
        "mime": "application/octet-stream",
        "text": "",
        "size": VALUE,
        "sha256": sha256,
        "truncated": True,
    }
    change = {"op": "step", "id": "s0", "output": value}
    raw.ask("ack", type="publish", producer_epoch=1, first=len(changes) + 1, changes=[change], **who)
    raw.close()
    return sha256


def read_session(server: Server, token: str) -> tuple[float, float]:
    """Come and sync: seconds to the first page, and to the end."""
    raw = Raw(server, token)
    begin = time.perf_counter()
    about = {"topic": LARGE, "generation": 1}
    raw.ask("sync_begin", type="subscribe", **about)
    text, page, first = "", 0, 0.0
    while '"last":true' not in text[-40:]:
        text = raw.ask("sync_page", type="sync_next", page=page, **about)
        first = first or time.perf_counter() - begin
        page += 1
    raw.wait("synced")
    took = time.perf_counter() - begin
    raw.close()
    return first, took


def read_value(server: Server, token: str, sha256: str) -> float:
    """Bytes a second of the whole value, page by page; its digest is compared."""
    raw = Raw(server, token)
    digest = hashlib.sha256()
    begin = time.perf_counter()
    for offset in range(0, VALUE, PAGE):
        asked = {"request": 1, "session": LARGE, "sha256": sha256, "offset": offset, "length": PAGE}
        text = raw.ask("value_page", type="value_get", **asked)
        at = text.index('"data":"') + 8
        digest.update(base64.b64decode(text[at : text.index('"', at)]))
    took = time.perf_counter() - begin
    raw.close()
    if digest.hexdigest() != sha256:
        raise RuntimeError("the value that was read is another one")
    return VALUE / took


def echo_pages() -> None:
    """The process of the bare library: whatever comes is answered with a page of the same size."""
    page = base64.b64encode(bytes(PAGE)).decode()

    def handle(connection: ServerConnection) -> None:
        for _ in connection:
            connection.send(f'{{"type":"value_page","data":"{page}"}}')

    with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()


def read_bare() -> float:
    """Bytes a second of as many pages through the bare library."""
    pair = cores()
    command = [sys.executable, "-m", "benchmarks.neighbours"]
    with start_on(pair[0] if pair else None, command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            with (
                on_core(pair[1] if pair else None),
                connect(
                    f"ws://127.0.0.1:{port}/", compression=None, ping_interval=None, max_size=None
                ) as socket,
            ):
                digest = hashlib.sha256()
                begin = time.perf_counter()
                for _ in range(0, VALUE, PAGE):
                    socket.send("{}")
                    text = str(socket.recv())
                    at = text.index('"data":"') + 8
                    digest.update(base64.b64decode(text[at : text.index('"', at)]))
                return VALUE / (time.perf_counter() - begin)
        finally:
            process.kill()


def beside(load: Generator, seconds: float, activity: Callable[[], object] | None) -> dict[str, Any]:
    """The small session's load, while *activity* is repeated until it ends."""
    over = threading.Event()

    def repeat() -> None:
        # The generator goes first on its core: what is measured are the others' times at the server.
        pair = cores()
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        with on_core(pair[1] if pair else None):
            while activity is not None and not over.is_set():
                activity()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(repeat)
        try:
            got = load("paced", rate=20_000 / OBSERVERS, seconds=seconds, warm=1)
        finally:
            over.set()
        working.result()
    return got


def run(*, rounds: int, seconds: float = 8.0) -> list[dict[str, Any]]:
    """Four rows for each round."""
    rows: list[dict[str, Any]] = []
    for _ in range(rounds):
        bare = read_bare()
        with PEERS["wsmonitor"].start(OBSERVERS + 1) as server, generate(server) as load:
            token = server.tokens[0]
            sha256 = make_large(server, token)
            load("publisher")
            load("open", count=OBSERVERS)
            load("calibrate", size=500)
            comings: list[tuple[float, float]] = []
            speeds: list[float] = []

            def come(server: Server = server, token: str = token, into: Any = comings) -> None:
                into.append(read_session(server, token))

            def read(
                server: Server = server, token: str = token, sha256: str = sha256, into: Any = speeds
            ) -> None:
                into.append(read_value(server, token, sha256))

            def row(what: str, got: dict[str, Any], measured: str, value: float | None) -> None:
                rows.append(
                    {
                        "beside": what,
                        "others' p50 ms": round(got["p50_ms"], 2),
                        "others' p99 ms": round(got["p99_ms"], 2),
                        "missing": got["gaps"] + got["bad"] + got["lost"] + (not got["complete"]),
                        "measured": measured,
                        "value": value,
                    }
                )

            row("nothing", beside(load, seconds, None), "", None)
            got = beside(load, seconds, come)
            first, whole = max(one for one, _ in comings) * 1e3, max(one for _, one in comings)
            row(
                f"a session of {STEPS:,} steps is read",
                got,
                f"first page at most {first:.0f} ms, all at most {whole:.1f} s, {len(comings)} times",
                round(first, 1),
            )
            got = beside(load, seconds, read)
            speed = sum(speeds) / len(speeds)
            row(
                f"a value of {VALUE // 1_000_000} MB is read",
                got,
                f"{speed / 1e6:.0f} MB/s; the bare library {bare / 1e6:.0f} MB/s",
                round(speed / bare, 2),
            )
            before = memory(server.pid)
            load("stall", count=1)
            got = beside(load, seconds, None)
            more = (memory(server.pid) - before) / 2**20
            row("one of them has stopped reading", got, f"{more:.1f} MiB more memory", round(more, 2))
    return rows


if __name__ == "__main__":
    echo_pages()
