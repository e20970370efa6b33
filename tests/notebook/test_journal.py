"""What an event log says of what has come, and how much of it is told."""

from __future__ import annotations

from typing import Any

import pytest

from wsmonitor.notebook.journal import LOG_BYTES, LOG_LIMIT, Journal, Sentence, sentence
from wsmonitor.protocol.entities import Chain, Command, Entity, Listing, Problem, Producer, Session, Step

STEP = Step(id="x", chain="c", name="load", state="running")
COMMAND = Command(id="0" * 32, name="pause", actor="bob", deadline="1", requested="1", state="requested")
PRODUCER = Producer(id="p", agent="python 3", liveness="live", since="1")
PROBLEM = Problem(id="e", code="illegal_transition", message="one\nline", at="1")


def changed(entity: Any, **fields: Any) -> Any:
    return type(entity)(**{name: getattr(entity, name) for name in entity.__struct_fields__} | fields)


@pytest.mark.parametrize(
    ("kind", "entity", "state", "old"),
    [
        ("step", STEP, "running", None),
        ("chain", Chain(id="c", name="c", state="running"), "running", None),
        ("session", Session(id="s", name="s", state="running"), "running", None),
        ("command", COMMAND, None, COMMAND),
        ("producer", PRODUCER, None, None),
        ("producer", PRODUCER, None, PRODUCER),
        ("error", PROBLEM, None, PROBLEM),
        ("listing", Listing(id="s", name="s"), None, None),
    ],
)
def test_what_is_nothing_new_is_not_said(
    kind: str, entity: Entity, state: str | None, old: Entity | None
) -> None:
    assert sentence(kind, entity, state, old) is None


FAILED = changed(STEP, state="failed")
APPLIED = changed(COMMAND, actor="", state="applied")
REJECTED = changed(COMMAND, via="a page", state="rejected", reason="not\nnow")
LOST = changed(PRODUCER, liveness="lost")
MILD = changed(PROBLEM, severity="info")


@pytest.mark.parametrize(
    ("kind", "entity", "state", "old", "said"),
    [
        ("step", FAILED, "running", None, ("bad", "step", "load", "failed")),
        ("command", COMMAND, None, None, ("plain", "command", "pause", "from bob requested")),
        ("command", APPLIED, None, COMMAND, ("good", "command", "pause", "applied")),
        ("command", REJECTED, None, COMMAND, ("warn", "command", "pause", "from a page rejected: not now")),
        ("producer", LOST, None, PRODUCER, ("warn", "producer", "python 3", "is lost")),
        ("producer", PRODUCER, None, LOST, ("good", "producer", "python 3", "is heard again")),
        ("error", PROBLEM, None, None, ("bad", "", "illegal_transition", "one line")),
        ("error", MILD, None, None, ("warn", "", "illegal_transition", "one line")),
    ],
)
def test_what_is_said(
    kind: str, entity: Entity, state: str | None, old: Entity | None, said: tuple[str, str, str, str]
) -> None:
    found = sentence(kind, entity, state, old)
    assert found is not None
    assert found[:3] == said[:3]
    assert found.text.startswith(said[3])


def test_entries_are_numbered_bounded_and_told_from_a_number_on() -> None:
    journal = Journal()
    for number in range(LOG_LIMIT + 5):
        journal.add(number, Sentence("plain", "step", f"n{number}", "runs"), row="r" if number % 2 else "")
    journal.add(9, Sentence("bad", "", "x", "y"), replayed=True)
    newest = journal.newest(LOG_LIMIT)
    assert [entry["n"] for entry in newest] == list(range(LOG_LIMIT + 1, LOG_LIMIT + 7))
    assert newest[-1]["replayed"] is True
    assert "row" not in newest[-1]
    assert [entry.get("row") for entry in newest[:2]] == [None, "r"]
    assert len(journal.newest(0)) == LOG_LIMIT


def test_of_long_entries_as_many_are_told_as_fit() -> None:
    journal = Journal()
    for _ in range(10):
        journal.add(1, Sentence("plain", "step", "n", "x" * (LOG_BYTES // 4)))
    assert [entry["n"] for entry in journal.newest(0)] == [8, 9, 10]
