"""What the sender does with more than it may send, on a virtual clock."""

from __future__ import annotations

from itertools import pairwise

from tests.notebook.test_closed_tab import Closed
from wsmonitor.notebook.pacing import MESSAGES_PER_SECOND
from wsmonitor.notebook.sender import LATE


def test_a_flood_of_questions_keeps_back_neither_frames_nor_the_budget() -> None:
    at = Closed(20)
    at.pacing.seen(at.now.mono, True)
    begin = at.now.mono
    at.messages.extend(({"type": "answer", "to": str(n)}, []) for n in range(1_000))
    at.run(10.0, pause=0.1, events=1)
    times = [when for when, _, what in at.kept if what in ("frame", "key")]
    assert max(b - a for a, b in pairwise([begin, *times])) <= LATE + 0.5
    answers = sum(what == "answer" for _, _, what in at.kept)
    assert answers >= 80, "and answers come in between"
    for when, _, _ in at.kept:
        assert sum(when <= other < when + 1 for other, _, _ in at.kept) <= MESSAGES_PER_SECOND


def test_an_answer_does_not_wait_for_frames() -> None:
    at = Closed(20)
    at.pacing.seen(at.now.mono, True)
    at.run(3.0, pause=0.1, events=10)
    at.kept.clear()
    at.messages.append(({"type": "answer", "to": "1"}, []))
    at.run(0.2, pause=0.1, events=10)
    assert at.kept[0][2] == "answer"
