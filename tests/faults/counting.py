"""A program that publishes numbered changes, 1, 2, 3 …, over as many steps as are told to turn round."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from wsmonitor.client import Connection, PublicationListener
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange

STEPS: Final = 40
"""How many steps are written in turn: the state stays small, the events are many."""

AHEAD: Final = 400
"""How many changes may wait for their acknowledgement before the program waits, too."""


class Counting(PublicationListener):
    """See the module's text.

    Args:
        owner: whether it makes the session.
        first: the number of its first change.

    Attributes:
        submitted, acked: the last number that was submitted, and that was acknowledged.
        trouble: what must not happen, in words.
    """

    def __init__(self, session: str, producer: str, *, owner: bool, first: int = 1) -> None:
        self.session = session
        self.producer = producer
        self.submitted = first - 1
        self.acked = 0
        self.trouble: list[str] = []
        self._owner = owner
        self._tickets: deque[tuple[int, int]] = deque()  # (ticket, change's number)
        # Held while something is submitted: its acknowledgement may be quicker than the return of `submit`.
        self._lock = threading.Condition(threading.RLock())

    def begin(self, connection: Connection) -> None:
        """Publish by way of *connection*."""
        with self._lock:
            self.publication = connection.publication(self.session, self.producer, self)
            self.own()

    def own(self) -> None:
        """Submit what is there besides the steps."""
        with self._lock:
            if self._owner:
                name = self.session.partition("~")[0]
                self.publication.submit(SessionChange(name=name, state="running"))
            self.publication.submit(ChainChange(id=self.producer, name=self.producer, state="running"))

    def count_on(self, most: int) -> None:
        """Submit the next numbers: *most*, or fewer where too many wait for their acknowledgement."""
        with self._lock:
            count = min(most, AHEAD - self.publication.unacknowledged)
            if count > 0:
                self.announced(self.submitted + count)
            for _ in range(count):
                self.submitted += 1
                self.submit(self.submitted)

    def submit(self, number: int) -> None:
        """Submit change *number*."""
        with self._lock:
            ticket = self.publication.submit(
                StepChange(
                    id=f"{self.producer}:{number % STEPS}",
                    chain=self.producer,
                    name="count",
                    state="running",
                    metrics={"n": number},
                )
            )
            if ticket is None:
                self.trouble.append(f"change {number} was not taken")
            else:
                self._tickets.append((ticket, number))

    def wait(self, number: int, timeout: float) -> None:
        """Until change *number* was told as acknowledged: that may come a little after `flush` returns."""
        with self._lock:
            self._lock.wait_for(lambda: self.acked >= number, timeout)

    # -- to be overridden

    def announced(self, last: int) -> None:
        """The changes up to *last* will be submitted now."""

    def confirmed(self, last: int) -> None:
        """The changes up to *last* are acknowledged."""

    # -- on the client's thread

    def acknowledged(self, number: int) -> None:
        with self._lock:
            last = 0
            while self._tickets and self._tickets[0][0] <= number:
                last = max(last, self._tickets.popleft()[1])
            if last > self.acked:
                self.acked = last
                self.confirmed(last)
                self._lock.notify_all()

    def rejected(self, number: int, change: object, error: object) -> None:
        self.trouble.append(f"rejected {number}: {error}")

    def overflowed(self, count: int) -> None:
        self.trouble.append(f"{count} dropped")

    def fenced(self, *, removed: bool) -> None:
        self.trouble.append("removed" if removed else "fenced")
