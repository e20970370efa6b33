"""From a change to the next entity: the rules by themselves, and the words of what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace

from wsmonitor.protocol.changes import (
    ChainChange,
    CommandChange,
    LogChange,
    ProblemChange,
    SessionChange,
    StepChange,
)
from wsmonitor.protocol.entities import Chain, LogRecord, Progress, Session, Step, Value
from wsmonitor_server.merge import Rejection, Work, check_value, context_of, merge

from .support import text_value

HERE: dict[str, Any] = {"seq": 7, "now": "50", "run": 3, "session_over": False, "inline": 100}


def made(change: Any, old: Work | None = None, ident: str = "a", **more: Any) -> tuple[Work, str] | None:
    return merge(old, ident, change, "p", **{**HERE, **more})


def refused(
    change: Any, code: str, words: str, old: Work | None = None, ident: str = "a", **more: Any
) -> None:
    with pytest.raises(Rejection) as caught:
        made(change, old, ident, **more)
    assert (caught.value.code, caught.value.message) == (code, words)
    assert str(caught.value) == words


OLD = Step(id="a", chain="c", name="n", producer="p", created="1", seq=2)


def test_what_is_created() -> None:
    assert made(SessionChange(name="s", kind="k"), ident="s~1") == (
        Session(id="s~1", name="s", kind="k", run=3, producer="p", created="50", seq=7),
        "",
    )
    assert made(ChainChange(id="c", name="n", state="running", created="9"), ident="c") == (
        Chain(id="c", name="n", state="running", producer="p", created="9", started="50", seq=7),
        "",
    )
    assert made(StepChange(id="a", chain="c", name="n", state="failed")) == (
        Step(id="a", chain="c", name="n", state="failed", producer="p", created="50", ended="50", seq=7),
        "",
    )


def test_what_is_missing_or_too_late_is_named() -> None:
    refused(
        StepChange(id="a"),
        "bad_message",
        "step 'a' does not exist: to create it, ['name', 'chain'] is needed",
    )
    refused(
        ChainChange(id="c"),
        "bad_message",
        "chain 'c' does not exist: to create it, ['name'] is needed",
        ident="c",
    )
    late = StepChange(id="a", chain="c", name="n")
    words = "the session has ended: step 'a' cannot begin"
    refused(late, "session_ended", words, session_over=True)
    refused(replace(late, state="running"), "session_ended", words, session_over=True)
    assert made(replace(late, state="succeeded"), session_over=True) is not None


def test_what_may_not_be_is_named() -> None:
    refused(
        StepChange(id="a", state="crashed"), "illegal_transition", "only the server writes `crashed`", OLD
    )
    theirs = replace(OLD, producer="q")
    refused(StepChange(id="a", name="m"), "not_owner", "step 'a' was created by another producer", theirs)
    done = replace(OLD, state="succeeded")
    words = "step 'a' is succeeded; running cannot follow"
    refused(StepChange(id="a", state="running"), "illegal_transition", words, done)
    session = Session(id="s", name="s", producer="p", created="1", seq=1)
    words = "the session's name is 's'; it cannot be changed"
    refused(SessionChange(name="other"), "bad_message", words, session, "s")
    assert made(SessionChange(name="s", kind="k"), session, "s") == (replace(session, kind="k", seq=7), "")


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ({}, {"state": "running"}, {"state": "running", "started": "50"}),
        ({"state": "running", "started": "8"}, {"state": "paused"}, {"state": "paused", "started": "8"}),
        ({"state": "running", "started": "8"}, {"state": "failed"}, {"state": "failed", "ended": "50"}),
        ({"state": "running", "ended": "30"}, {"state": "failed"}, {"state": "failed", "ended": "30"}),
        ({"state": "running"}, {"state": "failed", "ended": "31"}, {"state": "failed", "ended": "31"}),
        (
            {"state": "crashed", "started": "8", "ended": "40"},
            {"state": "running"},
            {"state": "running", "ended": ""},
        ),
        ({"state": "crashed", "ended": "40"}, {"state": "failed"}, {"state": "failed", "ended": "50"}),
        ({"state": "running", "started": "8"}, {"state": "running", "name": "m"}, {"name": "m"}),
        ({"state": "running"}, {"name": "m"}, {"name": "m"}),
    ],
)
def test_times_that_the_producer_does_not_name(old: Any, change: Any, new: Any) -> None:
    before = replace(OLD, **old)
    merged = made(StepChange(id="a", **change), before)
    assert merged is not None
    entity, note = merged
    assert entity == replace(before, **new, seq=7)
    superseded = f"crashed was superseded by {change.get('state')}" if before.state == "crashed" else ""
    assert note == superseded


def test_what_changes_nothing_is_nothing() -> None:
    assert made(StepChange(id="a", name="n"), OLD) is None
    assert made(StepChange(id="a", state="pending"), OLD) is None
    assert made(StepChange(id="a", state="pending"), replace(OLD, state="crashed")) is None


BIG = (1 << 53) + 1

NUMBERS = [
    ({"metrics": {"m": BIG}}, "metric 'm': integers beyond 2^53 must be sent as strings"),
    ({"metrics": {"m": -BIG}}, "metric 'm': integers beyond 2^53 must be sent as strings"),
    ({"metrics": {"m": math.inf}}, "metric 'm': not a finite number"),
    ({"progress": Progress(done=BIG)}, "progress: integers beyond 2^53 must be sent as strings"),
    ({"progress": Progress(done=1, total=math.nan)}, "progress: not a finite number"),
    ({"attributes": {"k": BIG}}, "attribute 'k': integers beyond 2^53 must be sent as strings"),
    ({"attributes": {"k": ["a", 1, math.inf]}}, "attribute 'k': not a finite number"),
]


@pytest.mark.parametrize(("fields", "words"), NUMBERS)
def test_numbers_that_not_everybody_can_read_are_named(fields: Any, words: str) -> None:
    refused(StepChange(id="a", **fields), "bad_message", words, OLD)


def test_the_largest_integers_are_fine() -> None:
    safe = 1 << 53
    change = StepChange(id="a", metrics={"m": safe, "n": -safe}, attributes={"k": [safe]})
    assert made(change, OLD) is not None


def test_values_are_what_they_say() -> None:
    exact = text_value("x" * 100)
    check_value("input", exact, 100)
    check_value("input", text_value(""), 0)
    check_value("input", Value(text="preview", size=0, sha256="0" * 64, truncated=True), 100)
    small = text_value("x")
    for value, code, words in (
        (text_value("x" * 101), "value_too_large", "101 bytes inline; 100 are allowed: upload it first"),
        (text_value("ä" * 51), "value_too_large", "102 bytes inline; 100 are allowed: upload it first"),
        (replace(small, size=-1, truncated=True), "bad_message", "a negative size"),
        (replace(small, size=2), "value_mismatch", "size or digest do not fit the text"),
        (replace(small, sha256="0" * 64), "value_mismatch", "size or digest do not fit the text"),
    ):
        for name in ("input", "output"):
            refused(StepChange(id="a", **{name: value}), code, f"{name}: {words}", OLD)  # type: ignore[arg-type]


def test_what_each_change_is_about() -> None:
    record = LogRecord(n=1, at="1", text="x")
    assert context_of(LogChange(step="a", records=(record,))) == {"step": "a"}
    assert context_of(CommandChange(id="0" * 32, state="applied")) == {"command": "0" * 32}
    assert context_of(ProblemChange(id="e", code="c", message="m")) == {}
