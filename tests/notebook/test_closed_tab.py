"""Nobody looks: what a Jupyter server that keeps every message would hold, on a virtual clock."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import msgspec
import pytest

from tests.notebook.samples import T0, chain, live_status, ns, step
from wsmonitor.notebook.pacing import ASLEEP, UNSEEN, UNSEEN_UNSURE, Pacing
from wsmonitor.notebook.packing import Message, Wanted
from wsmonitor.notebook.sender import Sender
from wsmonitor.notebook.view import Frame, Now, View
from wsmonitor.protocol.entities import Session, Step
from wsmonitor.protocol.messages import Event

MB = 1_000_000
HOUR = 3600.0


class Closed:
    """An observer whose tab is closed: what it sends is kept, and counted."""

    def __init__(self, steps: int) -> None:
        self.now = Now(1000.0, T0)
        self.view = View("job")
        self.pacing = Pacing(self.now.mono)
        self.messages: deque[Message] = deque()
        self.wanted = Wanted()
        self.kept: list[tuple[float, int, str]] = []  # when (monotonic seconds), bytes, what
        self.seq = 1
        self.steps = steps
        self.sender = Sender(lambda: self.now)
        self.view.connection(live_status(self.now), self.now)
        self.view.subscription("live", "", self.now)
        session = Session(id="job~1", name="job", run=1, state="running", created=ns(0), started=ns(0))
        found = [("step", self.step(n, 0)) for n in range(steps)]
        self.view.replace([("session", session), ("chain", chain("c", "chain", start=0)), *found], "e", 1)

    @staticmethod
    def step(n: int, done: int) -> Step:
        return step(
            f"s{n}", f"step number {n}", "running", chain="c", start=n / 10, done=done, total=1_000_000
        )

    def work(self, now: Now) -> None:
        pass

    def beat(self, now: Now) -> Frame:
        return self.view.beat(now)

    def send_message(self, message: Frame, buffers: list[bytes] | None = None) -> None:
        size = len(msgspec.json.encode(message)) + sum(map(len, buffers or []))
        self.kept.append((self.now.mono, size, str(message["type"])))

    def send_key(self, key: Frame) -> None:
        self.kept.append((self.now.mono, len(msgspec.json.encode(key)), "key"))

    def troubled(self, exc: Exception) -> None:
        raise exc

    def run(self, seconds: float, *, pause: float, events: int) -> None:
        """Let time pass: *events* at a time, and then a pass of the sender, every *pause* seconds."""
        for _ in range(round(seconds / pause)):
            self.now = Now(self.now.mono + pause, self.now.wall + pause)
            for _ in range(events):
                self.seq += 1
                entity = self.step(self.seq * 7919 % self.steps, self.seq)
                event = Event(
                    topic="job~1", epoch="e", seq=self.seq, ts=ns(0), kind="step", entity=msgspec.Raw(b"")
                )
                self.view.applied(event, entity)
            self.pacing.changed()
            self.sender.serve([self], self.now)

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.kept)


@pytest.mark.parametrize("steps", [20, pytest.param(2_000, marks=pytest.mark.slow), 50_000])
@pytest.mark.parametrize("live", [True, False], ids=["acknowledged-before", "acknowledgements-unsure"])
def test_eight_hours_at_a_hundred_events_a_second_are_less_than_32_mb(steps: int, live: bool) -> None:
    closed = Closed(steps)
    closed.pacing.seen(closed.now.mono, live)
    closed.now = Now(closed.now.mono + 10, closed.now.wall + 10)
    closed.pacing.seen(closed.now.mono, live)
    closed.kept.clear()
    # Until it falls asleep every event counts; from then on they are summed up, so that fewer suffice.
    closed.run(UNSEEN_UNSURE + 60, pause=0.1, events=10)
    awake = closed.size
    closed.run(8 * HOUR - UNSEEN_UNSURE - 60, pause=5.0, events=20)
    assert closed.size <= 32 * MB, f"{closed.size / MB:.1f} MB, {awake / MB:.1f} of them awake"
    later = [(size, what) for at, size, what in closed.kept if at > 1000 + UNSEEN_UNSURE + 100]
    assert len(later) <= 8 * HOUR / ASLEEP
    assert {what for _, what in later} == {"frame"}, "there is something new, and it is told"
    assert max(size for size, _ in later) <= 4_000
    if live:
        first = [at for at, _, _ in closed.kept if at > 1000 + UNSEEN + 20]
        assert all(b - a >= ASLEEP - 1 for a, b in pairwise(first))


def test_who_comes_back_is_told_everything_at_once() -> None:
    closed = Closed(2_000)
    closed.pacing.seen(closed.now.mono, True)
    closed.run(UNSEEN + 300, pause=0.1, events=1)
    assert closed.view.rows.waiting > 0
    closed.kept.clear()
    closed.pacing.seen(closed.now.mono, True)
    closed.run(0.2, pause=0.1, events=0)
    assert [what for _, _, what in closed.kept][:2] == ["frame", "key"]
    assert closed.view.rows.waiting == 0
