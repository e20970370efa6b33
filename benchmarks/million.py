"""A session of a million steps: to publish it, to watch it, to come back to it; and what others notice.

The server keeps it in SQLite. The publisher and the observer of the large session are programs of their
own; this one measures a small session beside it, ten events a second from its publisher to its observer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from wsmonitor.client import (
    Connection,
    EventApplied,
    Publication,
    PublicationListener,
    Target,
    Update,
    connect,
)
from wsmonitor.client.tokens import issue_token
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Chain, Step

NAME = "million"
LARGE: Final = "large~1"
SMALL: Final = "small~1"
STEPS: Final = 1_000_000
_WAIT: Final = 900.0


def publish(url: str, token: str, steps: int) -> None:
    """The large session's program: *steps* steps, each ended; then an event whenever a line comes."""
    with connect(Target(url=url, token=token)) as connection:
        publication = connection.publication(LARGE, "p", PublicationListener())
        publication.submit(SessionChange(name="large", state="running"))
        publication.submit(ChainChange(id="c", name="c", state="running"))
        begin = time.monotonic()
        for number in range(steps):
            while publication.unacknowledged > 20_000:
                time.sleep(0.002)
            publication.submit(
                StepChange(
                    id=f"step-{number:07}",
                    chain="c",
                    name=f"item {number}",
                    state="succeeded",
                    metrics={"n": number},
                )
            )
        publication.flush(_WAIT)
        _say(time.monotonic() - begin)
        for number, _ in enumerate(sys.stdin):
            # Not another step: a million is what a session may have.
            sent = str(time.monotonic_ns())
            publication.submit(ChainChange(id="c", metrics={"n": number}, attributes={"sent": sent}))


def watch(url: str, token: str, events: int) -> None:
    """The large session's observer: says when it is live, then the milliseconds of so many events."""
    latencies: list[float] = []
    complete = threading.Event()

    def told(update: Update) -> None:
        if (ms := latency(update)) is not None:
            latencies.append(ms)
            if len(latencies) == events:
                complete.set()

    begin = time.monotonic()
    with connect(Target(url=url, token=token)) as connection:
        subscription = connection.subscribe(LARGE, told)
        subscription.wait(lambda sub: sub.phase == "live", _WAIT)
        _say(time.monotonic() - begin)
        if events:
            complete.wait(_WAIT)
            _say(latencies)
        sys.stdin.readline()


def latency(update: Update) -> float | None:
    """Milliseconds from the publisher's change to this telling; None for what carries no time."""
    now = time.monotonic_ns()
    if not isinstance(update, EventApplied) or not isinstance(update.entity, Step | Chain):
        return None
    sent = update.entity.attributes.get("sent")
    return (now - int(str(sent))) / 1e6 if sent is not None else None


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Large:
    """The server, and programs beside it."""

    def __init__(self, folder: str, stack: ExitStack) -> None:
        self.folder = Path(folder)
        self.url = ""
        self._stack = stack
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Start the server, always at the same port; seconds until it listens."""
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "wsmonitor_server", "--port", port]
        options = ["--store", f"sqlite:{self.folder}/store.sqlite3", "--data-dir", str(self.folder)]
        begin = time.monotonic()
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._stack.callback(process.kill)
        assert process.stdout is not None
        self.url = process.stdout.readline().split()[-1]
        self._server = process
        return time.monotonic() - begin

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def memory(self) -> str:
        """What the server's process has in use and shares with nobody."""
        assert self._server is not None
        fields = Path(f"/proc/{self._server.pid}/statm").read_text("ascii").split()
        return f"{(int(fields[1]) - int(fields[2])) * os.sysconf('SC_PAGE_SIZE') / 2**20:,.0f} MiB"

    def disk(self) -> str:
        size = sum(path.stat().st_size for path in self.folder.glob("store.sqlite3*"))
        return f"{size / 2**20:,.0f} MiB"

    def token(self, subject: str) -> str:
        return issue_token(self.folder / "key", sub=subject, role="admin", sessions=("*",), ttl=7200)

    def program(self, kind: str, number: int) -> subprocess.Popen[str]:
        """`publish` or `watch` in a process of its own."""
        arguments = [kind, self.url, self.token(kind), str(number)]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.million", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(process.kill)
        return process


def heard(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


class Small:
    """The small session: ten events a second, and how long each took."""

    def __init__(self, connection: Connection, watching: Connection) -> None:
        self._latencies: list[float] = []
        self._publication: Publication = connection.publication(SMALL, "q", PublicationListener())
        self._publication.submit(SessionChange(name="small", state="running"))
        self._publication.submit(ChainChange(id="c", name="c", state="running"))
        self._publication.flush(30)
        subscription = watching.subscribe(SMALL, self._told)
        subscription.wait(lambda sub: sub.phase == "live", 30)

    def _told(self, update: Update) -> None:
        if (ms := latency(update)) is not None:
            self._latencies.append(ms)

    @contextmanager
    def during(self) -> Iterator[Callable[[], str]]:
        """Ten events a second within the block; gives what tells of them."""
        over = threading.Event()
        self._latencies.clear()

        def publish_on() -> None:
            number = 0
            while not over.wait(0.1):
                number += 1
                change = StepChange(
                    id=f"s{number % 20}",
                    chain="c",
                    name="s",
                    metrics={"n": number},
                    attributes={"sent": str(time.monotonic_ns())},
                )
                self._publication.submit(change)

        thread = threading.Thread(target=publish_on)
        thread.start()
        try:
            yield lambda: f"the small session's events: {spread(self._latencies)}"
        finally:
            over.set()
            thread.join()
            self._publication.flush(60)


def spread(latencies: list[float]) -> str:
    """p50, p99 and the maximum, in words."""
    if len(latencies) < 2:
        return "too few to say"
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return f"p50 {cuts[49]:.0f}, p99 {cuts[98]:.0f}, max {max(latencies):.0f} ms"


def run(*, rounds: int, steps: int = STEPS) -> list[dict[str, Any]]:
    """One round, whatever is asked: it is long, and its figures are far from their bounds."""
    rows: list[dict[str, Any]] = []

    def row(what: str, measured: str, besides: str = "") -> None:
        rows.append({"what": what, "measured": measured, "besides": besides})
        sys.stderr.write(json.dumps(rows[-1]) + "\n")

    with tempfile.TemporaryDirectory(prefix="wsmonitor-bench-") as folder, ExitStack() as stack:
        large = Large(folder, stack)
        large.start()
        connections = [
            stack.enter_context(connect(Target(url=large.url, token=large.token(name)))) for name in "qo"
        ]
        small = Small(*connections)
        with small.during() as told:
            time.sleep(10)
            row("before", told())
        with small.during() as told:
            publisher = large.program("publish", steps)
            seconds = heard(publisher)
            row(f"{steps:,} steps published", f"{steps / seconds:,.0f} steps/s", told())
        row("the server with it", large.memory(), f"{large.disk()} on disk")
        events = 200
        with small.during() as told:
            watcher = large.program("watch", events)
            row("a new observer of it: until it is live and verified", f"{heard(watcher):.1f} s", told())
        assert publisher.stdin is not None
        for _ in range(events):
            publisher.stdin.write("\n")
            publisher.stdin.flush()
            time.sleep(0.05)
        row("a further event, to that observer", spread(heard(watcher)))
        row("the server then", large.memory())
        watcher.kill()
        large.kill()
        seconds = large.start()
        row("kill -9 and a new start: until it listens", f"{seconds:.1f} s")
        with small.during() as told:
            again = large.program("watch", 0)
            row("the first observer after that", f"{heard(again):.1f} s", told())
        row("the server then", large.memory())
    return rows


if __name__ == "__main__":
    {"publish": publish, "watch": watch}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
