"""What is counted about a session: its line in the directory, its open work, values and failures."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from msgspec.structs import replace

from wsmonitor.protocol.entities import (
    Chain,
    Entity,
    ErrorInfo,
    Listing,
    Problem,
    Producer,
    Session,
    Step,
    Value,
)
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.facts import Facts

SESSION = Session(
    id="s~1",
    name="s",
    run=4,
    kind="k",
    state="failed",
    reason="r" * 300,
    producer="p",
    created="1",
    started="2",
    ended="3",
    seq=1,
)


class Count:
    """Facts that are kept entity by entity."""

    def __init__(self) -> None:
        self.facts = Facts(SessionState("s~1", "e"), 10)
        self.there: dict[tuple[str, str], Entity] = {}

    def put(self, kind: str, new: Entity) -> None:
        self.facts.replace(kind, new.id, self.there.get((kind, new.id)), new)
        self.there[kind, new.id] = new

    def drop(self, kind: str, ident: str) -> None:
        self.facts.replace(kind, ident, self.there.pop((kind, ident), None), None)


def a_step(ident: str, state: str = "running", **more: Any) -> Step:
    return Step(**{"id": ident, "chain": "c", "name": ident, "state": state, "producer": "p", **more})


def a_problem(ident: str, severity: str = "error", seq: int = 0) -> Problem:
    return Problem(id=ident, code="c", message=f"message of {ident}", severity=severity, at="1", seq=seq)  # type: ignore[arg-type]


def test_the_line_in_the_directory_in_full() -> None:
    count = Count()
    assert count.facts.listing(5) is None
    count.put("session", SESSION)
    count.put("step", a_step("a"))
    count.put("step", a_step("b", "succeeded"))
    count.put("step", a_step("d", "succeeded"))
    count.put("producer", Producer(id="p", liveness="stale", since="1"))
    assert count.facts.listing(77) == Listing(
        id="s~1",
        name="s",
        run=4,
        kind="k",
        state="failed",
        reason="r" * 200,
        liveness="stale",
        counts={"running": 1, "succeeded": 2},
        problem="r" * 200,
        created="1",
        started="2",
        ended="3",
        size=77,
    )
    count.drop("session", "s~1")
    assert count.facts.listing(5) is None


def test_the_worst_liveness_of_those_who_have_not_said_goodbye() -> None:
    count = Count()
    assert (count.facts.liveness, count.facts.attention) == ("", False)
    for ident, liveness, closed, worst in (
        ("a", "live", False, "live"), ("b", "stale", False, "stale"), ("c", "lost", True, "stale"),
        ("d", "lost", False, "lost"), ("d", "lost", True, "stale"), ("b", "live", False, "live"),
    ):  # fmt: skip
        count.put("producer", Producer(id=ident, liveness=liveness, since="1", closed=closed))  # type: ignore[arg-type]
        assert count.facts.liveness == worst
    assert count.facts.attention
    for ident in "ab":
        count.drop("producer", ident)
    assert (count.facts.liveness, count.facts.attention) == ("", False)


@pytest.mark.parametrize(
    ("severity", "fails"), [("info", False), ("warning", False), ("error", True), ("fatal", True)]
)
def test_which_problems_are_failures(severity: str, fails: bool) -> None:
    count = Count()
    count.put("error", a_problem("e", severity))
    assert count.facts.problem == ("message of e" if fails else "")
    count.put("error", a_problem("e", "warning"))
    assert count.facts.problem == ""
    count.put("error", a_problem("e", severity))
    count.drop("error", "e")
    assert (count.facts.problem, count.facts.problems) == ("", {})
    count.drop("error", "never there")


def test_the_first_failure_that_stands_and_its_words() -> None:
    count = Count()
    error = ErrorInfo(code="x", message="")
    count.put("step", a_step("a", "failed", error=replace(error, message="m" * 300), reason="reason", seq=1))
    count.put("chain", Chain(id="c", name="c", state="failed", reason="of the chain", producer="p", seq=2))
    count.put("step", a_step("b", "failed", reason="by reason", seq=3))
    assert count.facts.problem == "m" * 200
    count.put("step", a_step("a", "running"))
    assert count.facts.problem == "of the chain"
    count.put("chain", Chain(id="c", name="c", producer="p"))
    assert count.facts.problem == "by reason"
    count.drop("step", "b")
    assert count.facts.problem == ""


def test_a_further_attempt_repairs_and_its_going_does_not() -> None:
    count = Count()
    first = a_step("a1", "failed", step_key="k", attempt=1, reason="first", seq=1)
    second = a_step("a2", "succeeded", step_key="k", attempt=2, seq=3)
    count.put("step", first)
    count.put("step", a_step("x", "failed", reason="other", seq=2))
    assert count.facts.problem == "first"
    count.put("step", second)
    assert count.facts.problem == "other"
    count.put("step", a_step("x", "running", seq=4))
    assert count.facts.problem == ""
    count.drop("step", "a2")
    assert count.facts.problem == "first"
    count.put("step", second)
    assert count.facts.problem == ""
    count.drop("step", "a1")
    count.drop("step", "a2")
    count.put("step", a_step("y", "failed", reason="last", seq=9))
    assert count.facts.problem == "last"


def test_what_is_open_and_what_has_crashed_by_producer() -> None:
    count = Count()
    for ident in "abc":
        count.put("step", a_step(ident))
    count.put("step", a_step("t", producer="q"))
    assert count.facts.open_of == {
        "p": {("step", "a"): None, ("step", "b"): None, ("step", "c"): None}, "q": {("step", "t"): None}
    }  # fmt: skip
    count.put("step", a_step("a", "crashed"))
    count.put("step", a_step("b", "crashed"))
    count.put("step", a_step("t", "failed", producer="q"))
    assert count.facts.crashed_of["p"] == 2
    assert count.facts.open_of == {"p": {("step", "c"): None}}
    count.put("step", a_step("a", "running"))
    assert count.facts.crashed_of["p"] == 1
    assert count.facts.step_count == 4
    count.drop("step", "c")
    assert count.facts.step_count == 3


def large(sha: str, size: int, **parts: int) -> Value:
    return Value(text="", size=size, sha256=sha, truncated=True, parts=parts)


def test_values_are_counted_once_however_often_they_are_named() -> None:
    count = Count()
    one, two = large("1", 100), large("2", 30, part=7)
    count.put("step", a_step("a", input=one, output=two))
    assert sorted(count.facts.take_reference_changes()) == [("1", True), ("2", True), ("part", True)]
    assert count.facts.value_bytes == 137
    count.put("step", a_step("b", input=one))
    assert (count.facts.value_bytes, count.facts.references["1"]) == (137, 2)
    assert count.facts.take_reference_changes() == []
    count.put("step", a_step("a", input=one))
    assert sorted(count.facts.take_reference_changes()) == [("2", False), ("part", False)]
    assert count.facts.value_bytes == 100
    count.put("step", a_step("a", "failed", input=one))
    assert count.facts.take_reference_changes() == []
    count.drop("step", "a")
    count.put("step", a_step("b", "succeeded", input=one))
    assert count.facts.take_reference_changes() == [], "it alone refers to it, before and after"
    count.put("step", a_step("b"))
    assert count.facts.take_reference_changes() == [("1", False)]
    assert (count.facts.value_bytes, dict(count.facts.references)) == (0, {})


def test_a_size_that_is_said_differently_does_not_make_the_sum_drift() -> None:
    count = Count()
    count.put("step", a_step("a", input=large("1", 100)))
    count.put("step", a_step("b", input=large("1", 5)))
    assert count.facts.value_bytes == 100
    count.drop("step", "a")
    count.drop("step", "b")
    assert count.facts.value_bytes == 0


def test_what_is_built_from_a_state_has_no_news_and_counts_in_its_order() -> None:
    state = SessionState("s~1", "e")
    state.put("error", a_problem("late", seq=5))
    state.put("error", a_problem("early", seq=2))
    state.put("step", a_step("a", input=large("1", 9), seq=3))
    facts = Facts(state, 123)
    assert (list(facts.problems), facts.problem, facts.entity_bytes) == (
        ["early", "late"],
        "message of early",
        123,
    )
    assert facts.take_reference_changes() == []
    assert facts.value_bytes == 9


def test_what_is_taken_back_stands_at_its_place_again() -> None:
    """Three problems; the first is dropped and a fourth comes, and both are taken back."""
    state = SessionState("s~1", "e")
    for seq, ident in enumerate("zxy", 1):
        state.put("error", a_problem(ident, seq=seq))
    facts = Facts(state, 50)
    new = a_problem("new", seq=9)
    facts.replace("error", "z", state.problems["z"], None)
    facts.replace("error", "new", None, new)
    assert list(facts.problems) == ["x", "y", "new"]
    facts.entity_bytes = 99
    facts.revert([("error", "z", None), ("error", "new", new)], state, 50)
    assert (list(facts.problems), facts.problem, facts.entity_bytes) == (["z", "x", "y"], "message of z", 50)


STEP = a_step("x", step_key="k", attributes={"n": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": {"n": 2}, "seq": 2},
        {"state": "succeeded"},
        {"state": "failed"},
        {"producer": "q"},
        {"chain": "d"},
        {"parent": "y"},
        {"step_key": "other"},
        {"attempt": 2},
        {"input": Value(text="", size=9, sha256="a" * 64, truncated=True)},
        {"output": Value(text="", size=9, sha256="b" * 64, truncated=True)},
    ],
)
@pytest.mark.parametrize("before", ["running", "failed"])
def test_a_step_that_is_changed_counts_as_if_it_had_always_been_so(
    changes: dict[str, Any], before: str
) -> None:
    count = Count()
    count.put("session", SESSION)
    count.put("step", replace(STEP, state=before))
    count.facts.listing(1)
    new = replace(STEP, state=before, **changes) if "state" not in changes else replace(STEP, **changes)
    count.put("step", new)
    anew = Count()
    anew.put("session", SESSION)
    anew.put("step", new)
    for facts in (count.facts, anew.facts):
        # Further attempts of the same key are counted with it.
        facts.replace("step", "z", None, replace(new, id="z", attempt=new.attempt + 1, state="running"))
    assert count.facts.listing(7) == anew.facts.listing(7)
    assert (+count.facts.steps, count.facts.open_of) == (+anew.facts.steps, anew.facts.open_of)
    assert (count.facts.references, count.facts.value_bytes) == (
        anew.facts.references,
        anew.facts.value_bytes,
    )
    assert (count.facts.attention, count.facts.problem) == (anew.facts.attention, anew.facts.problem)


def test_the_message_of_a_failure_that_changes_is_the_sessions() -> None:
    count = Count()
    count.put("session", replace(SESSION, state="running"))
    count.put("step", a_step("x", "failed", reason="one"))
    assert count.facts.listing(1).problem == count.facts.problem  # type: ignore[union-attr]
    first = count.facts.problem
    count.put("step", a_step("x", "failed", reason="two"))
    listing = count.facts.listing(1)
    assert listing is not None
    assert listing.problem == count.facts.problem != first


def test_the_line_in_the_directory_has_the_size_of_now() -> None:
    count = Count()
    count.put("session", SESSION)
    first, second = count.facts.listing(5), count.facts.listing(6)
    assert first is not None
    assert second == replace(first, size=6)


def test_what_no_longer_stands_is_not_kept_for_its_key() -> None:
    """A step that changes a thousand times is kept once."""
    count = Count()
    old = a_step("x", step_key="k", attributes={"n": 1})
    known = sys.getrefcount(old)
    count.put("step", old)
    count.put("step", replace(old, attributes={"n": 2}))
    assert sys.getrefcount(old) == known
