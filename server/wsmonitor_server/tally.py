"""Which steps there are, each counted once whatever its attempts, and which failures stand. Pure.

Attempts are steps with the same chain, parent and `step_key`. Of the steps of one key each further attempt
takes the place of one of the attempt before, of one that ended badly if there is one. Usually there is one
step of each attempt number; a key that is used for many steps at once (a loop's body) has as many as its
fullest attempt. So the result follows from the steps alone, in whatever order they came.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from itertools import islice
from typing import Final

from wsmonitor.protocol.entities import Step

FAILED: Final = ("failed", "crashed")
_REPAIRED_FIRST: Final = (*FAILED, "cancelled")

_Key = tuple[str, str, str]


class _Attempts:
    """The steps of one key, by attempt."""

    __slots__ = ("failed", "numbers", "states")

    def __init__(self) -> None:
        self.numbers: list[int] = []  # sorted
        self.states: dict[int, Counter[str]] = {}  # by attempt: how many in which state
        self.failed: dict[int, dict[str, None]] = {}  # by attempt: ids of those that failed

    def change(self, step: Step, sign: int) -> Counter[str]:
        """*step* comes (+1) or goes (-1). Returns how the counts of what stands change."""
        at = bisect_left(self.numbers, step.attempt)
        # Only an attempt itself and the one that it follows can stand otherwise than before.
        touched = [step.attempt, *self.numbers[max(0, at - 1) : at]]
        before = self._standing(touched)
        if sign > 0 and step.attempt not in self.states:
            insort(self.numbers, step.attempt)
            self.states[step.attempt] = Counter()
        states = self.states[step.attempt]
        states[step.state] += sign
        failed = self.failed.setdefault(step.attempt, {})
        if sign > 0 and step.state in FAILED:
            failed[step.id] = None
        else:
            failed.pop(step.id, None)
        if not states.total():
            self.numbers.remove(step.attempt)
            del self.states[step.attempt], self.failed[step.attempt]
        after = self._standing(touched)
        after.subtract(before)
        return after

    def _replaced(self, attempt: int) -> int:
        """How many of *attempt* a further attempt stands for."""
        at = bisect_left(self.numbers, attempt) + 1
        if at >= len(self.numbers):
            return 0
        return min(self.states[attempt].total(), self.states[self.numbers[at]].total())

    def _standing(self, attempts: list[int]) -> Counter[str]:
        found: Counter[str] = Counter()
        for attempt in attempts:
            states = self.states.get(attempt)
            if states is None:
                continue
            left = self._replaced(attempt)
            rest = sorted(states.keys() - set(_REPAIRED_FIRST))
            for state in (*_REPAIRED_FIRST, *rest):
                gone = min(left, states[state])
                left -= gone
                found[state] += states[state] - gone
        return found

    def repaired(self, step: Step) -> bool:
        """Whether a further attempt stands for *step*, which failed."""
        return step.id in islice(self.failed[step.attempt], self._replaced(step.attempt))


class Tally:
    """The steps of one session."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._of: dict[_Key, Step | _Attempts] = {}  # nearly all are alone with their key

    def replace(self, old: Step | None, new: Step | None) -> None:
        """*new* stands in the place of *old*; None where there was, or is, none."""
        if old is not None:
            self._change(old, -1)
        if new is not None:
            self._change(new, +1)

    def renew(self, step: Step) -> None:
        """*step* stands in the place of one that counts the same, which need not be kept any longer."""
        if step.step_key:
            key = (step.chain, step.parent, step.step_key)
            if type(self._of[key]) is Step:
                self._of[key] = step

    def _change(self, step: Step, sign: int) -> None:
        key = (step.chain, step.parent, step.step_key)
        there = self._of.get(key) if step.step_key else None
        if isinstance(there, Step) and sign > 0:
            alone, there = there, _Attempts()
            there.change(alone, +1)
            self._of[key] = there
        if isinstance(there, _Attempts):
            self.counts.update(there.change(step, sign))
            if not there.numbers:
                del self._of[key]
            return
        self.counts[step.state] += sign
        if sign < 0:
            self._of.pop(key, None)
        elif step.step_key:
            self._of[key] = step

    def repaired(self, step: Step) -> bool:
        """Whether *step*, which failed and was counted, was tried again since."""
        there = self._of.get((step.chain, step.parent, step.step_key)) if step.step_key else None
        return isinstance(there, _Attempts) and there.repaired(step)
