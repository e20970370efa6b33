"""A publishing program, run as ``python -m tests.faults.producer``, that accounts for what it publishes.

Its changes carry numbers (`counting`). Before the program submits the change *n* it is on its account that
it will (``s n``), and when the server has acknowledged it, that it has (``a n``). The account is a file that
every line is written to at once, so that it outlives kill -9 as the store should.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from wsmonitor.client import Target, connect
from wsmonitor.protocol.defaults import Timing

from .counting import Counting

_PAUSE: Final = 0.02  # seconds between two looks at how many changes are due


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


class Account(Counting):
    """Writes down what was submitted and what was acknowledged."""

    def __init__(self, path: Path, session: str, producer: str, *, owner: bool, first: int) -> None:
        super().__init__(session, producer, owner=owner, first=first)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def announced(self, last: int) -> None:
        os.write(self._file, f"s {last}\n".encode())

    def confirmed(self, last: int) -> None:
        os.write(self._file, f"a {last}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def work(task: Task) -> None:
    """Publish until a line (or the end) comes on standard input; then tell what became of it."""
    account = Account(Path(task.account), task.session, task.producer, owner=task.owner, first=task.first)
    timing = Timing(healthy_after=task.healthy_after, handshake_timeout=task.handshake_timeout)
    target = Target(url=task.url, token=task.token, name=task.producer, insecure=True)
    with connect(target, timing=timing) as connection:
        account.begin(connection)
        print("ready", flush=True)
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            due = max(due + _PAUSE, time.monotonic() - 0.5)
            account.count_on(max(1, round(task.rate * _PAUSE)))
        flushed = account.publication.flush(120)
        account.wait(account.submitted, 10 if flushed else 0)
        told = {
            "flushed": flushed,
            "submitted": account.submitted,
            "acked": account.acked,
            "trouble": account.trouble,
        }
        print(json.dumps(told), flush=True)
        account.publication.close(10)
    account.close()


def arguments(task: Task) -> list[str]:
    """The command that runs *task*, without the interpreter; the token goes over standard input."""
    return ["-m", "tests.faults.producer", json.dumps({**asdict(task), "token": ""})]


if __name__ == "__main__":
    work(Task(**{**json.loads(sys.argv[1]), "token": sys.stdin.readline().strip()}))
