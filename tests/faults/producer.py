"""A publishing program, run as ``python -m tests.faults.producer``, that accounts for what it publishes.

Its changes carry numbers, 1, 2, 3 …, over as many steps as are told to turn round. Before the program
submits the change *n* it is on its account that it will (``s n``), and when the server has
acknowledged it, that it has (``a n``). The account is a file that every line is written to at once,
so that it outlives kill -9 as the store should.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from wsmonitor.client import PublicationListener, Target, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Timing

STEPS: Final = 40
"""How many steps a producer writes in turn: its state stays small, its events are many."""

AHEAD: Final = 400
"""How many changes may wait for their acknowledgement before the program waits, too."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a producer is to do.

    Attributes:
        session, producer: as whom it publishes.
        owner: whether it makes the session.
        first: the number of its first change.
        rate: changes a second.
        account: the file.
    """

    url: str
    token: str
    session: str
    producer: str
    owner: bool
    first: int
    rate: float
    account: str
    healthy_after: float
    handshake_timeout: float


class Account(PublicationListener):
    """Writes down what was submitted and what was acknowledged."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._tickets: deque[tuple[int, int]] = deque()  # (ticket, change's number)
        self._lock = threading.Condition()
        self._told = 0  # the last ticket that was acknowledged
        self.acked = 0
        self.trouble: list[str] = []

    def submitting(self, last: int) -> None:
        """The changes up to *last* will be submitted now."""
        self._write(f"s {last}\n")

    def submitted(self, ticket: int | None, number: int) -> None:
        """Change *number* has this ticket."""
        with self._lock:
            if ticket is None:
                self.trouble.append(f"change {number} was not taken")
            else:
                self._tickets.append((ticket, number))
        # The acknowledgement may have been quicker than the return of `submit`.
        self.acknowledged(self._told)

    def acknowledged(self, number: int) -> None:
        with self._lock:
            self._told = max(self._told, number)
            last = 0
            while self._tickets and self._tickets[0][0] <= self._told:
                last = self._tickets.popleft()[1]
            if last:
                self._write(f"a {last}\n")
                self.acked = last
                self._lock.notify_all()

    def wait(self, number: int, timeout: float) -> None:
        """Until change *number* was told as acknowledged: that may come a little after `flush` returns."""
        with self._lock:
            self._lock.wait_for(lambda: self.acked >= number, timeout)

    def rejected(self, number: int, change: object, error: object) -> None:
        self.trouble.append(f"rejected {number}: {error}")

    def overflowed(self, count: int) -> None:
        self.trouble.append(f"{count} dropped")

    def fenced(self, *, removed: bool) -> None:
        self.trouble.append("removed" if removed else "fenced")

    def _write(self, line: str) -> None:
        os.write(self._file, line.encode())

    def close(self) -> None:
        os.close(self._file)


def work(task: Task) -> None:
    """Publish until a line (or the end) comes on standard input; then tell what became of it."""
    account = Account(Path(task.account))
    timing = Timing(healthy_after=task.healthy_after, handshake_timeout=task.handshake_timeout)
    with connect(
        Target(url=task.url, token=task.token, name=task.producer, insecure=True), timing=timing
    ) as connection:
        publication = connection.publication(task.session, task.producer, account)
        if task.owner:
            publication.submit(SessionChange(name=task.session.partition("~")[0], state="running"))
        publication.submit(ChainChange(id=task.producer, name=task.producer, state="running"))
        number = task.first
        print("ready", flush=True)
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            due = max(due + 0.02, time.monotonic() - 0.5)
            count = min(max(1, round(task.rate * 0.02)), AHEAD - publication.unacknowledged)
            if count <= 0:
                continue
            account.submitting(number + count - 1)
            for one in range(number, number + count):
                ticket = publication.submit(
                    StepChange(
                        id=f"{task.producer}:{one % STEPS}",
                        chain=task.producer,
                        name="count",
                        state="running",
                        metrics={"n": one},
                    )
                )
                account.submitted(ticket, one)
            number += count
        flushed = publication.flush(120)
        account.wait(number - 1, 10 if flushed else 0)
        told = {
            "flushed": flushed,
            "submitted": number - 1,
            "acked": account.acked,
            "trouble": account.trouble,
        }
        print(json.dumps(told), flush=True)
        publication.close(10)
    account.close()


def arguments(task: Task) -> list[str]:
    """The command that runs *task*, without the interpreter; the token goes over standard input."""
    return ["-m", "tests.faults.producer", json.dumps({**asdict(task), "token": ""})]


if __name__ == "__main__":
    work(Task(**{**json.loads(sys.argv[1]), "token": sys.stdin.readline().strip()}))
