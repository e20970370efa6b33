"""What is verified about a session at this moment, and who waits for it. Thread-safe.

The client's thread writes; anybody waits. A condition is judged on verified data only: on a replica
whose digest agreed, at the time when an event was applied to it. A link that is lost later does
not undo an end that was verified, except for ``crashed``, which alone may be superseded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace

from wsmonitor.protocol.errors import SessionFailed, UsageError, WsMonitorError
from wsmonitor.protocol.states import TERMINAL

_GOOD_ENDS = frozenset({"succeeded", "skipped"})


@dataclass(frozen=True, slots=True)
class Facts:
    """The verified position and state; ``current`` while link and subscription are live."""

    session_id: str = ""
    seq: int = 0
    state: str = ""
    detail: str = ""
    current: bool = False

    @property
    def final(self) -> bool:
        """Whether the state is an end that nothing can supersede."""
        return self.state in TERMINAL and self.state != "crashed"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for: a seq, or a state, or, with neither, a terminal state."""

    seq: int | None = None
    states: frozenset[str] = frozenset()

    @classmethod
    def of(cls, seq: int | None, state: str | Collection[str] | None, known: Collection[str]) -> Goal:
        """From the arguments of ``wait()``.

        Raises:
            UsageError: a state that there is not, or a seq below 0.
        """
        states = frozenset([state] if isinstance(state, str) else state or ())
        unknown = sorted(states - set(known))
        if unknown:
            raise UsageError(f"no such state: {', '.join(unknown)}; states are {', '.join(sorted(known))}")
        if seq is not None and seq < 0:
            raise UsageError(f"seq must not be below 0: {seq}")
        return cls(seq, states)

    @property
    def ends(self) -> bool:
        """Whether only the session's end can settle it."""
        return self.seq is None and self.states <= TERMINAL

    def judge(self, facts: Facts) -> bool:
        """Whether it is reached.

        Raises:
            SessionFailed: it cannot be reached any more, or the session ended badly.
        """
        if not facts.session_id or not (facts.current or facts.final):
            return False
        if self.seq is not None and facts.seq >= self.seq and not self.states:
            return True
        if self.states and facts.state in self.states and facts.seq >= (self.seq or 0):
            return True
        if facts.state not in TERMINAL:
            return False
        if not self.states and self.seq is None and facts.state in _GOOD_ENDS:
            return True
        detail = facts.detail
        if facts.state in _GOOD_ENDS or self.states or self.seq is not None:
            wanted = " or ".join(sorted(self.states)) or f"seq {self.seq}"
            detail = f"it never reached {wanted}" + (f" ({detail})" if detail else "")
        raise SessionFailed(facts.session_id, facts.state, detail)


class Watch:
    """The facts, and the waiters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts = Facts()
        self._waiters: dict[Future[Facts], Goal] = {}
        self._over: WsMonitorError | None = None

    @property
    def facts(self) -> Facts:
        return self._facts

    def tell(self, change: Callable[[Facts], Facts]) -> None:
        """Replace the facts, and wake whom they concern."""
        with self._lock:
            self._facts = facts = change(self._facts)
            waiters = list(self._waiters.items())
        for future, goal in waiters:
            self._judge(future, goal, facts)

    def current(self, current: bool) -> None:
        """The replica is verified and up to date from here on, or no longer."""
        if current != self._facts.current:
            self.tell(lambda facts: replace(facts, current=current))

    def wait(self, goal: Goal) -> Future[Facts]:
        """A future of the facts with which *goal* is reached. Cancel it to stop waiting."""
        future: Future[Facts] = Future()
        self.enter(future, goal)
        return future

    def enter(self, future: Future[Facts], goal: Goal) -> None:
        """Settle *future* as soon as *goal* is reached. It may have been cancelled already."""
        with self._lock:
            over, facts = self._over, self._facts
            self._waiters[future] = goal
        future.add_done_callback(self._forget)
        if over is not None:
            self._settle(future, over)
        else:
            self._judge(future, goal, facts)

    def _judge(self, future: Future[Facts], goal: Goal, facts: Facts) -> None:
        try:
            reached = goal.judge(facts)
        except SessionFailed as exc:
            self._settle(future, exc)
        else:
            if reached:
                self._settle(future, facts)

    def _forget(self, future: Future[Facts]) -> None:
        with self._lock:
            self._waiters.pop(future, None)

    def _settle(self, future: Future[Facts], outcome: Facts | BaseException) -> None:
        with self._lock:
            if self._waiters.pop(future, None) is None:
                return  # cancelled, or another thread was first
        # False when it was cancelled this very moment.
        if future.set_running_or_notify_cancel():
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def end(self, reason: WsMonitorError) -> None:
        """Nobody can wait any more: the observer was closed, or the link has failed for good."""
        with self._lock:
            self._over = reason
            waiters = list(self._waiters)
        for future in waiters:
            self._settle(future, reason)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)
