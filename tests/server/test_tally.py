"""Steps counted once whatever their attempts; failures that a further attempt repaired."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from wsmonitor.protocol.entities import Failure, Problem, Session, Step
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.facts import Facts
from wsmonitor_server.tally import Tally


def step(ident: str, state: Any = "running", key: str = "k", attempt: int = 1, **more: Any) -> Step:
    return Step(id=ident, chain="c", name=ident, step_key=key, attempt=attempt, state=state, **more)


def counted(*steps: Step) -> dict[str, int]:
    tally = Tally()
    for one in steps:
        tally.replace(None, one)
    return dict(+tally.counts)


def test_attempts_are_one_step_in_the_newest_state() -> None:
    assert counted(step("a", "failed"), step("b", "running", attempt=2)) == {"running": 1}
    assert counted(step("b", "succeeded", attempt=3), step("a", "failed", attempt=2)) == {"succeeded": 1}
    assert counted(step("a", "failed", key="x"), step("b", key="y", attempt=2)) == {"failed": 1, "running": 1}
    assert counted(step("a", "failed", key=""), step("b", key="", attempt=2)) == {"failed": 1, "running": 1}


def test_one_key_for_a_loops_body_is_many_steps() -> None:
    body = [step("a", "succeeded"), step("b", "failed"), step("c", "succeeded")]
    assert counted(*body) == {"succeeded": 2, "failed": 1}
    # The retry is that of the one that failed.
    assert counted(*body, step("d", "running", attempt=2)) == {"succeeded": 2, "running": 1}


def test_a_thousand_attempts_are_one_step() -> None:
    tally = Tally()
    for number in range(1, 1001):
        tally.replace(None, step(f"s{number}", "running", attempt=number))
        tally.replace(
            step(f"s{number}", "running", attempt=number), step(f"s{number}", "failed", attempt=number)
        )
    assert +tally.counts == {"failed": 1}
    assert tally.repaired(step("s999", "failed", attempt=999))
    assert not tally.repaired(step("s1000", "failed", attempt=1000))


@given(
    st.lists(
        st.tuples(
            st.sampled_from("kl"), st.integers(1, 4), st.sampled_from(["running", "failed", "succeeded"])
        ),
        max_size=12,
    ),
    st.data(),
)
def test_counts_follow_from_the_steps_in_whatever_order(told: list[tuple[str, int, str]], data: Any) -> None:
    steps = [step(f"s{n}", state, key, attempt) for n, (key, attempt, state) in enumerate(told)]
    shuffled = data.draw(st.permutations(steps))
    tally = Tally()
    for one in shuffled:
        before = replace(one, state="pending")
        tally.replace(None, before)
        tally.replace(before, one)
    assert dict(+tally.counts) == counted(*steps)
    for one in data.draw(st.permutations(shuffled)):
        tally.replace(one, None)
    assert not +tally.counts
    assert not -tally.counts


def broken(ident: str, message: str, attempt: int = 1, **more: Any) -> Step:
    return step(ident, "failed", attempt=attempt, error=Failure(message=message), **more)


def facts() -> Facts:
    made = Facts(SessionState("s", "e"), 0)
    made.replace("session", "s", None, Session(id="s", name="n", state="running", created="1"))
    return made


def told(made: Facts) -> tuple[dict[str, int], str]:
    listing = made.listing(0)
    assert listing is not None
    return listing.counts, listing.problem


def test_a_repaired_failure_is_not_named() -> None:
    made = facts()
    made.replace("step", "a", None, broken("a", "lock is held", seq=2))
    assert told(made) == ({"failed": 1}, "lock is held")
    made.replace("step", "x", None, broken("x", "no such column", key="other", seq=3))
    assert told(made) == ({"failed": 2}, "lock is held")
    again = step("b", attempt=2, seq=4)
    made.replace("step", "b", None, again)
    assert told(made) == ({"failed": 1, "running": 1}, "no such column")
    assert made.step_count == 3
    # Should the attempt be gone, what it repaired stands again.
    made.replace("step", "b", again, None)
    assert told(made) == ({"failed": 2}, "lock is held")


def test_a_failure_that_came_to_be_known_after_its_retry_is_not_named() -> None:
    made = facts()
    made.replace("step", "b", None, step("b", attempt=2))
    made.replace("step", "a", None, broken("a", "lock is held"))
    assert told(made) == ({"running": 1}, "")


def test_problems_of_a_session_are_named_while_they_are_kept() -> None:
    made = facts()
    problem = Problem(id="p", code="c", message="spool is full", severity="error", at="1")
    made.replace("error", "p", None, problem)
    assert told(made)[1] == "spool is full"
    made.replace("error", "p", problem, None)
    assert told(made)[1] == ""
