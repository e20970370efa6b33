"""Connect, subscribe, close, over and over: whether anything is left, on either side (CLEAN)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from wsmonitor.client import Connection, PublicationListener, Target, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor_server.auth import issue

from .census import grown
from .server import ROOT, environment
from .watching import PATIENCE

SESSION: Final = "leaks~1"
BLOCKS: Final = 3

DEBUG: Final = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "always"}


class CountedServer:
    """The server's process, and its census."""

    def __init__(self, process: subprocess.Popen[str], url: str, key: bytes) -> None:
        self.url = url
        self._process = process
        self._key = key

    def token(self, sub: str, role: str = "admin") -> str:
        return issue(
            self._key, sub=sub, role=role, sessions=["*"], issued=int(time.time()), ttl=3600, jti=sub
        )

    def take(self) -> dict[str, Any]:
        """What the server's process holds now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def settled(self, sockets: int) -> dict[str, Any]:
        """The census when so many connections are left (or when patience ends: then it tells)."""
        deadline = time.monotonic() + PATIENCE
        while (told := self.take())["sockets"] != sockets and time.monotonic() < deadline:
            pass
        return told


@contextmanager
def counted_server() -> Iterator[CountedServer]:
    """A server in memory, counted."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.counted_server", "memory"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(**DEBUG),
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            said = json.loads(process.stdout.readline())
            yield CountedServer(process, said["url"], bytes.fromhex(said["key"]))
        finally:
            process.stdin.close()
            process.wait(60)


def publish(connection: Connection, steps: int = 50) -> None:
    """What is watched: a session that goes on."""
    publication = connection.publication(SESSION, "p", PublicationListener())
    publication.submit(SessionChange(name="leaks", state="running"))
    publication.submit(ChainChange(id="c", name="c", state="running"))
    for number in range(steps):
        publication.submit(StepChange(id=f"s{number}", chain="c", name=f"step {number}", state="running"))
    assert publication.flush(PATIENCE)


EXACT: Final = ("threads", "files", "tasks", "connections", "sockets", "subscriptions", "publications")
"""What may not be more by one in the end. The rest has its caches: it is a leak if every block adds to it."""


def _growth(taken: list[dict[str, Any]]) -> dict[str, Any]:
    """By how much the figures have grown: memory and `EXACT` in all, the others in the block of the least."""
    total = grown(taken[0], taken[-1])
    blocks = [grown(before, after) for before, after in pairwise(taken)]
    least = {name: min(block.get(name, 0) for block in blocks) for name in total}
    kept = {name: more for name, more in total.items() if name == "memory" or name in EXACT}
    return {**least, **kept, "wrong": taken[-1]["wrong"]}


def run(kind: str, cycles: int, warm: int) -> dict[str, dict[str, Any]]:
    """Three blocks of *cycles* cycles: by how much client and server have grown, and what was wrong."""
    staying = 2 if kind == "again" else 1
    with counted_server() as server, connect(Target(url=server.url, token=server.token("p"))) as connection:
        publish(connection)
        task = {
            "kind": kind,
            "url": server.url,
            "token": server.token("cycles"),
            "session": SESSION,
            "warm": warm,
            "blocks": BLOCKS,
            "cycles": cycles,
        }
        clients, servers = [], []
        with subprocess.Popen(
            [sys.executable, "-m", "tests.faults.cycles", json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(**DEBUG),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(BLOCKS + 1):
                clients.append(json.loads(process.stdout.readline()))
                servers.append(server.settled(staying))
                process.stdin.write("go on\n")
                process.stdin.flush()
            process.wait(60)
    return {"client": _growth(clients), "server": _growth(servers)}
