"""Check 3, timed: from a publisher's step change to another client's callback.

Three processes on loopback: a publisher that uses the public API as a user's program does, the
server, and one process with ten observers, each with a token, a connection and a verified replica of its
own. Each change carries the publisher's monotonic clock, which all processes of one machine
share; an observer subtracts it in its callback. So the time includes serialising, the spool, commit
before publish, fan-out, the reducer with its digest, and the hand-over to the callback.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import wsmonitor as wm
from wsmonitor.client import EventApplied, PhaseChanged, Target, Update, connect
from wsmonitor.protocol.entities import Step

from .server_process import serve

NAME = "propagation"
_STAMP = "sent_ns"


@dataclass
class Result:
    """What one round gave. Times in milliseconds."""

    store: str
    rate: float
    observers: int
    events: int
    delivered: int
    latencies: list[float] = field(repr=False, default_factory=list)

    def row(self) -> dict[str, Any]:
        cuts = statistics.quantiles(self.latencies, n=1000, method="inclusive")
        return {
            "store": self.store,
            "observers": self.observers,
            "events_per_second": round(self.rate, 1),
            "deliveries": self.delivered,
            "missing": self.events * self.observers - self.delivered,
            "p50_ms": round(cuts[499], 2),
            "p95_ms": round(cuts[949], 2),
            "p99_ms": round(cuts[989], 2),
            "max_ms": round(max(self.latencies), 2),
        }


def publish(url: str, token: str, rate: float, events: int) -> None:
    """The publisher's process: *events* step changes, *rate* a second, then the end."""
    with wm.session(NAME, url=url, token=token) as session, session.chain("work") as chain:
        sys.stdout.write(session.id + "\n")
        sys.stdout.flush()
        sys.stdin.readline()  # all observers are live
        begin = time.monotonic()
        for number in range(events):
            # A new step each time: its creation is a state change, which is never conflated.
            left = begin + number / rate - time.monotonic()
            if left > 0:
                time.sleep(left)
            step = chain.step(f"step {number}", attributes={_STAMP: str(time.monotonic_ns())})
            step.start()
        sys.stdout.write(f"{events / (time.monotonic() - begin)}\n")
        sys.stdout.flush()
        sys.stdin.readline()  # all observers have everything


class Observer:
    """One client: counts and times what its callback gets."""

    def __init__(self, url: str, token: str, session: str, expected: int) -> None:
        self.latencies: list[float] = []
        self.seen: set[str] = set()
        self.live = threading.Event()
        self.complete = threading.Event()
        self._expected = expected
        self._connection = connect(Target(url=url, token=token, name="bench"))
        self._subscription = self._connection.subscribe(session, self._update)

    def _update(self, update: Update) -> None:
        now = time.monotonic_ns()
        if isinstance(update, PhaseChanged) and update.phase == "live":
            self.live.set()
        if not isinstance(update, EventApplied) or not isinstance(update.entity, Step):
            return
        step = update.entity
        if step.id in self.seen or _STAMP not in step.attributes:
            return
        self.seen.add(step.id)
        self.latencies.append((now - int(str(step.attributes[_STAMP]))) / 1e6)
        if len(self.seen) == self._expected:
            self.complete.set()

    def close(self) -> None:
        self._subscription.close()
        self._connection.close()


def measure(store: str, rate: float, events: int, observers: int) -> Result:
    """One round. Raises `RuntimeError` if the observers do not get everything in time."""
    with serve(store) as server:
        command = [sys.executable, "-m", "benchmarks.propagation", server.url, str(rate), str(events)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdin is not None
            assert publisher.stdout is not None
            publisher.stdin.write(server.token("publisher", "publish") + "\n")
            publisher.stdin.flush()
            session = publisher.stdout.readline().strip()
            watching = [
                Observer(server.url, server.token(f"observer-{n}", "observe"), session, events)
                for n in range(observers)
            ]
            try:
                if not all(observer.live.wait(30) for observer in watching):
                    raise RuntimeError("an observer did not get live")
                publisher.stdin.write("go\n")
                publisher.stdin.flush()
                achieved = float(publisher.stdout.readline())
                for observer in watching:
                    observer.complete.wait(30)
                publisher.stdin.write("end\n")
                publisher.stdin.flush()
                publisher.wait(30)
            finally:
                for observer in watching:
                    observer.close()
    latencies = [one for observer in watching for one in observer.latencies]
    return Result(store, achieved, observers, events, len(latencies), latencies)


def run(
    *, rounds: int, rate: float = 100.0, seconds: float = 20.0, observers: int = 10
) -> list[dict[str, Any]]:
    """Interleaved rounds over both stores; one row per round."""
    rows = []
    for _ in range(rounds):
        for store in ("memory", "sqlite"):
            row = measure(store, rate, int(rate * seconds), observers).row()
            sys.stderr.write(json.dumps(row) + "\n")
            rows.append(row)
    return rows


if __name__ == "__main__":
    publish(sys.argv[1], sys.stdin.readline().strip(), float(sys.argv[2]), int(sys.argv[3]))
