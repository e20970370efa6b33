"""kill -9 of a real server while programs publish and others watch: lost 0, twice 0."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.scale import many
from wsmonitor.client import EventApplied, EventsReplayed, PublicationListener, Target, Update, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor_server.auth import issue

KEY = b"k" * 64
SESSIONS = 2
OBSERVERS = 4


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def start(folder: Path, port: int, store: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "wsmonitor_server", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder), "--store", store],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("wsmonitor listens at")
    return process


def token(sub: str) -> str:
    return issue(KEY, sub=sub, role="admin", sessions=["*"], issued=int(time.time()), ttl=600, jti=sub)


class Seen:
    """The seqs that an observer was told of, live or replayed, in the order of telling."""

    def __init__(self) -> None:
        self.seqs: list[int] = []

    def __call__(self, update: Update) -> None:
        if isinstance(update, EventApplied):
            self.seqs.append(update.event.seq)
        elif isinstance(update, EventsReplayed):
            self.seqs.extend(one.seq for one in update.events)


class Owner(PublicationListener):
    """What a publication was told that it must not be told here."""

    def __init__(self) -> None:
        self.wrong: list[object] = []

    def rejected(self, number: int, change: object, error: object) -> None:
        self.wrong.append((number, error))

    def overflowed(self, count: int) -> None:
        self.wrong.append(count)

    def fenced(self, *, removed: bool) -> None:
        self.wrong.append("fenced")


def reached(condition: Callable[[], bool], patience: float = 30.0) -> None:
    """Wait until *condition* holds."""
    deadline, pause = time.monotonic() + patience, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)


@pytest.mark.parametrize(("store", "kills"), [("sqlite", 3), ("redis", many(1))])
def test_nothing_is_lost_and_nothing_told_twice(
    store: str, kills: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = (
        request.getfixturevalue("redis_url") if store == "redis" else f"sqlite:{tmp_path / 'store.sqlite3'}"
    )
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    process = start(tmp_path, port, where)
    try:
        with ExitStack() as stack:
            names = [
                f"{kind}{n}" for kind, count in (("p", SESSIONS), ("o", OBSERVERS)) for n in range(count)
            ]
            links = [stack.enter_context(connect(Target(url=url, token=token(name)))) for name in names]
            for link in links:
                link.wait_live(20)
            owners = [Owner() for _ in range(SESSIONS)]
            publications = [links[n].publication(f"s~{n}", f"p{n}", owners[n]) for n in range(SESSIONS)]
            for publication in publications:
                publication.submit(SessionChange(name="s", state="running"))
                publication.submit(ChainChange(id="c", name="c", state="running"))
                assert publication.flush(20)
            seen = [Seen() for _ in range(OBSERVERS)]
            watching = [links[SESSIONS + n].subscribe(f"s~{n % SESSIONS}", seen[n]) for n in range(OBSERVERS)]
            for one in watching:
                one.wait(lambda sub: sub.phase == "live", 20)
            first = [one.position[1] if one.position is not None else 0 for one in watching]
            written = 0

            def write(count: int) -> None:
                nonlocal written
                for _ in range(count):
                    for publication in publications:
                        publication.submit(
                            StepChange(id=f"n{written}", chain="c", name="n", metrics={"n": written})
                        )
                    written += 1

            for _ in range(kills):
                # Everybody is back, so that nobody misses more than the history keeps.
                for one in watching:
                    one.wait(lambda sub: sub.phase == "live", 60)
                heads = [len(one.seqs) for one in seen]
                write(300)
                # In the middle of it: everybody has been told of some of it.
                for one, head in zip(seen, heads, strict=True):
                    reached(lambda one=one, head=head: len(one.seqs) > head)  # type: ignore[misc]
                write(300)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                write(50)
                process = start(tmp_path, port, where)
                for link in links:
                    link.reconnect_now()
            for publication in publications:
                assert publication.flush(60)
                assert publication.unacknowledged == 0
            for one in watching:
                one.wait(lambda sub: sub.phase == "live" and len(sub.state.steps) == written, 60)
                steps = one.snapshot().steps
                assert {step.metrics["n"] for step in steps.values()} == set(range(written))
                assert (one.counters.mismatches, one.counters.gaps) == (0, 0)
            for told, one, begun in zip(seen, watching, first, strict=True):
                assert one.position is not None
                assert told.seqs == list(range(begun + 1, one.position[1] + 1)), "each once, in order"
            assert [owner.wrong for owner in owners] == [[], []]
    finally:
        process.terminate()
        process.communicate()
