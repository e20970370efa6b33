"""What users see of a fault, and for how long: observers that note each moment, and programs that publish."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import groupby, pairwise
from typing import Final

from wsmonitor.client import (
    ConnectionStatus,
    EventApplied,
    EventsReplayed,
    SyncCompleted,
    Target,
    Update,
    connect,
)

from .counting import STEPS, Counting
from .watching import CLIENT_TIMING, PATIENCE, Place, Watch, numbers_of

CURRENT: Final = "current"
RECONNECTING: Final = "reconnecting"
DEGRADED: Final = "degraded"

_PAUSE: Final = 0.02  # seconds between two changes of one program


class Witness(Watch):
    """An observer that keeps account of when it was told something, and of what it showed meanwhile."""

    def __init__(self, place: Place, session: str, name: str) -> None:
        self._showing = CURRENT
        self._shown: list[tuple[float, str]] = []  # since when it shows what
        self._news: list[float] = []
        self._reach: dict[str, int] = {}  # producer to the last number that it knows of
        self._looked = 0  # of `told`
        self._goal: dict[str, int] = {}
        self._begun = 0.0
        self._right: float | None = None
        super().__init__(place, session, name)
        self.connection.listen(self._status)

    # -- on the client's thread

    def _status(self, status: ConnectionStatus) -> None:
        showing = CURRENT if status.current else DEGRADED if status.live else RECONNECTING
        with self._changed:
            if showing != self._showing:
                self._showing = showing
                self._shown.append((time.monotonic(), showing))
                self._judge()
            self._changed.notify_all()

    def _tell(self, update: Update) -> None:
        super()._tell(update)
        if not isinstance(update, EventApplied | EventsReplayed | SyncCompleted):
            return
        with self._changed:
            self._news.append(time.monotonic())
            if isinstance(update, SyncCompleted) and self._subscription is not None:
                state = self._subscription.state
                for ident, number in ({} if state is None else numbers_of(state)).items():
                    self._reached(ident.partition(":")[0], number)
            for one in self.told[self._looked :]:
                self._reached(one.producer, one.number)
            self._looked = len(self.told)
            self._judge()
            self._changed.notify_all()

    def _reached(self, producer: str, number: int) -> None:
        self._reach[producer] = max(number, self._reach.get(producer, 0))

    def _judge(self) -> None:
        known = all(self._reach.get(producer, 0) > number for producer, number in self._goal.items())
        if self._right is None and self._showing == CURRENT and self._goal and known:
            self._right = time.monotonic()

    # -- on the test's thread

    def begin(self, at: float) -> None:
        """A fault begins, *at* (monotonic seconds)."""
        with self._changed:
            self._begun, self._right, self._goal = at, None, {}
            self._news = []
            self._shown = [(at, self._showing)]

    def expect(self, goal: dict[str, int]) -> None:
        """It is right again when it is current, and knows of changes beyond these of each producer."""
        with self._changed:
            self._goal = dict(goal)
            self._judge()

    def wait_right(self) -> None:
        """Until it is."""
        self.wait(lambda watch: isinstance(watch, Witness) and watch._right is not None, "being right again")

    def wait_shown(self, what: str) -> None:
        """Until it shows *what*."""
        self.wait(lambda watch: isinstance(watch, Witness) and watch._showing == what, f"showing {what}")

    def silence(self) -> float:
        """Seconds: the longest time without news, from the beginning of the fault until it was right."""
        with self._changed:
            assert self._right is not None
            moments = [self._begun, *(one for one in self._news if one < self._right), self._right]
        return max(after - before for before, after in pairwise(moments))

    def recovery(self) -> float:
        """Seconds from the beginning of the fault until it was right again."""
        assert self._right is not None
        return self._right - self._begun

    def notice(self) -> float | None:
        """Seconds from the beginning of the fault until it showed something else; None if it never did."""
        with self._changed:
            found = [at for at, what in self._shown if what != CURRENT]
        return max(0.0, found[0] - self._begun) if found else None

    def shown(self, what: str) -> float:
        """For how many seconds of this fault it showed *what*."""
        with self._changed:
            assert self._right is not None
            ends = [*(at for at, _ in self._shown[1:]), self._right]
            spans = zip(self._shown, ends, strict=True)
            return sum(max(0.0, min(end, self._right) - at) for (at, one), end in spans if one == what)

    def losses(self) -> list[str]:
        """Events that it was not told of, in words: within an epoch each one comes, or is announced as a gap.

        That an epoch ends is announced, too: what comes no more of it is no loss without a word.
        """
        announced = {seq for first, last in self.gaps for seq in range(first, last + 1)}
        return [
            f"{self.name} was told of {epoch}:{after} after {before}"
            for epoch, seqs in self._epochs().items()
            for before, after in pairwise(seqs)
            if set(range(before + 1, after)) - announced
        ]

    def repeats(self) -> list[str]:
        """What it was told of twice, in words: events, changes within an epoch, epochs that had ended."""
        found = [
            f"{self.name} was told of {epoch}:{after} after {before}"
            for epoch, seqs in self._epochs().items()
            for before, after in pairwise(seqs)
            if after <= before
        ]
        heard = Counter((one.epoch, one.producer, one.number) for one in self.told if one.producer)
        found += [f"{self.name} was told {count} times of {key}" for key, count in heard.items() if count > 1]
        runs = [epoch for epoch, _ in groupby(one.epoch for one in self.told)]
        if len(runs) > len(set(runs)):
            found.append(f"{self.name} was told of an epoch that had ended: {runs}")
        return found

    def _epochs(self) -> dict[str, list[int]]:
        epochs: dict[str, list[int]] = {}
        for one in self.told:
            epochs.setdefault(one.epoch, []).append(one.seq)
        return epochs


class Writer(Counting):
    """A thread that counts at so many changes a second, and asserts what it owns when it has to."""

    def __init__(
        self, place: Place, session: str, producer: str, rate: float, *, owner: bool = False
    ) -> None:
        super().__init__(session, producer, owner=owner)
        self._rate = rate
        self._epoch = ""
        self._end = threading.Event()
        target = Target(url=place.url, token=place.token(producer, "publish"), name=producer, insecure=True)
        self.connection = connect(target, timing=CLIENT_TIMING)
        self.begin(self.connection)
        self._thread = threading.Thread(target=self._work, name=producer, daemon=True)
        self._thread.start()

    def opened(self, epoch: str, known: bool) -> None:
        again = self._epoch and (not known or epoch != self._epoch)
        self._epoch = epoch
        if again:
            with self._lock:
                self.own()
                for number in range(max(1, self.submitted - STEPS + 1), self.submitted + 1):
                    self.submit(number)

    def _work(self) -> None:
        while not self._end.wait(_PAUSE):
            self.count_on(round(self._rate * _PAUSE))

    def stop(self) -> None:
        """Publish nothing more; everything is acknowledged. Raises `AssertionError` when it is not."""
        self._end.set()
        self._thread.join(PATIENCE)
        assert self.publication.flush(PATIENCE), f"{self.producer} could not publish what it had"
        assert not self.trouble, self.trouble

    def close(self) -> None:
        self._end.set()
        self._thread.join(PATIENCE)
        self.connection.close()
