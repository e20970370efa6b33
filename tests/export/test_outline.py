from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.export.outline import counts, outline, present, span, troubles
from wsmonitor.protocol.entities import Chain, Failure, Producer, Session, Step
from wsmonitor.protocol.reducer import SessionState

from .samples import etl, ns


def _state(*steps: Step, chains: tuple[str, ...] = ("c",)) -> SessionState:
    entities = [("chain", Chain(id=ident, name=ident)) for ident in chains]
    return SessionState.restore("s", "e", 1, [*entities, *(("step", step) for step in steps)])


def test_chains_and_steps_stand_in_the_order_of_their_birth() -> None:
    told = [(row.depth, row.name, row.children) for row in outline(etl())]
    assert told == [
        (0, "load", 2),
        (1, "read manifest", 0),
        (1, "fetch parts", 1),
        (2, "part-001.parquet", 0),
        (0, "features", 2),
        (1, "check drift", 0),
        (1, "window 90d", 0),
        (0, "train", 1),
        (1, "fit gradient boosting", 0),
    ]


def test_attempts_of_one_step_share_a_row_that_shows_the_latest() -> None:
    row = next(row for row in outline(etl()) if row.name == "part-001.parquet")
    assert [step.attempt for step in row.attempts] == [1, 2]
    assert row.state == "succeeded"
    assert counts(outline(etl()))["failed"] == 1


def test_one_key_used_twice_for_the_same_attempt_stays_two_rows() -> None:
    rows = outline(
        _state(
            Step(id="a", chain="c", name="a", step_key="k"), Step(id="b", chain="c", name="b", step_key="k")
        )
    )
    assert [row.name for row in rows] == ["c", "a", "b"]


def test_children_of_an_earlier_attempt_stay_below_their_step() -> None:
    rows = outline(
        _state(
            Step(id="p1", chain="c", name="p", step_key="p", attempt=1),
            Step(id="p2", chain="c", name="p", step_key="p", attempt=2),
            Step(id="k", chain="c", parent="p1", name="kid"),
        )
    )
    assert [(row.depth, row.name) for row in rows] == [(0, "c"), (1, "p"), (2, "kid")]


def test_a_child_before_its_parent_is_an_orphan_and_moves_when_the_parent_comes() -> None:
    child = Step(id="k", chain="c", parent="p", name="kid")
    assert [(row.name, row.depth, row.orphan) for row in outline(_state(child))] == [
        ("c", 0, False),
        ("kid", 1, True),
    ]
    parent = Step(id="p", chain="c", name="parent")
    assert [(row.name, row.depth, row.orphan) for row in outline(_state(child, parent))] == [
        ("c", 0, False),
        ("parent", 1, False),
        ("kid", 2, False),
    ]


def test_a_step_whose_chain_has_not_arrived_is_shown() -> None:
    rows = outline(_state(Step(id="a", chain="later", name="a"), chains=()))
    assert [(row.name, row.depth, row.orphan) for row in rows] == [("later", 0, True), ("a", 1, False)]


def test_depth_is_not_limited_by_the_stack() -> None:
    steps = [Step(id=str(n), chain="c", parent=str(n - 1) if n else "", name=str(n)) for n in range(5000)]
    assert outline(_state(*steps))[-1].depth == 5000


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), st.sampled_from(["", "k"])), max_size=10))
def test_nothing_is_ever_dropped_whatever_the_parents(shape: list[tuple[int, int, str]]) -> None:
    steps = [
        Step(
            id=str(n),
            chain="c",
            parent="" if parent == 9 else str(parent),
            name=str(n),
            attempt=attempt,
            step_key=key,
        )
        for n, (parent, attempt, key) in enumerate(shape)
    ]
    rows = outline(_state(*steps))
    assert sorted(step.id for row in rows for step in row.attempts) == sorted(step.id for step in steps)
    assert sum(row.children for row in rows) == len(rows) - 1


def test_a_failure_is_told_once_where_it_began() -> None:
    error = Failure(message="boom", type="ValueError")
    state = SessionState.restore(
        "s",
        "e",
        1,
        [
            ("session", Session(id="s", name="s", state="failed", error=error)),
            ("chain", Chain(id="c", name="c", state="failed", error=error)),
            ("step", Step(id="p", chain="c", name="outer", state="failed", error=error)),
            ("step", Step(id="k", chain="c", parent="p", name="inner", state="failed", error=error)),
            ("step", Step(id="o", chain="c", name="other", state="failed", error=Failure(message="else"))),
        ],
    )
    told = [(trouble.where, trouble.name) for trouble in troubles(state, outline(state))]
    assert sorted(told) == [("c", "other"), ("c / outer", "inner")]


def test_a_failure_that_a_later_attempt_repaired_is_not_told() -> None:
    assert [trouble.name for trouble in troubles(etl(), outline(etl()))] == ["check drift"]


def test_a_failure_of_the_session_alone_is_told() -> None:
    session = Session(id="s", name="s", state="crashed", reason="not heard for 155 s")
    state = SessionState.restore("s", "e", 1, [("session", session)])
    assert [t.error.message for t in troubles(state, outline(state))] == ["not heard for 155 s"]


def test_the_span_reaches_to_the_last_known_time_while_something_is_open() -> None:
    assert span(etl(), int(ns(140))) == (int(ns(0)), int(ns(140)))
    done = _state(Step(id="a", chain="c", name="a", state="succeeded", started=ns(1), ended=ns(2)))
    assert span(done, int(ns(99))) == (int(ns(1)), int(ns(2)))
    assert span(_state(), 7) == (7, 7)


def test_each_ring_of_parents_is_cut_once_and_all_of_it_is_shown() -> None:
    """Two rings, one of which names itself by an earlier attempt; what hangs below them stays there."""
    rows = outline(
        _state(
            Step(id="a", chain="c", parent="b", name="a", created="1"),
            Step(id="b", chain="c", parent="a", name="b", created="2"),
            Step(id="below", chain="c", parent="b", name="below", created="3"),
            Step(id="x1", chain="c", parent="y", name="x", step_key="x", created="4"),
            Step(id="x2", chain="c", parent="y", name="x", step_key="x", attempt=2, created="5"),
            Step(id="y", chain="c", parent="x1", name="y", created="6"),
            Step(id="far", chain="c", parent="below", name="far", created="0"),
            Step(id="plain", chain="c", name="plain", created="7"),
        )
    )
    assert [(row.depth, row.name, row.orphan) for row in rows] == [
        (0, "c", False),
        (1, "plain", False),
        (1, "b", True),
        (2, "a", False),
        (2, "below", False),
        (3, "far", False),
        (1, "x", True),
        (2, "y", False),
    ]


def test_a_step_that_is_its_own_parent_is_an_orphan() -> None:
    rows = outline(_state(Step(id="a", chain="c", parent="a", name="a")))
    assert [(row.depth, row.name, row.orphan) for row in rows] == [(0, "c", False), (1, "a", True)]


def _producer(ident: str, since: float, **more: Any) -> Producer:
    return Producer(id=ident, since=ns(since), **more)


def test_what_goes_on_does_so_while_all_who_might_tell_otherwise_are_heard() -> None:
    now = int(ns(100))
    running = Session(id="s", name="s", state="running")
    heard = _producer("p", 0)
    assert present(running, [heard], now, live=True) == (True, now)
    assert present(running, [heard], now, live=False) == (False, now)
    assert present(None, [], now, live=True) == (True, now)
    silent = [heard, _producer("q", 60, liveness="stale"), _producer("r", 80, liveness="lost")]
    assert present(running, silent, now, live=True) == (False, int(ns(60)))
    gone = _producer("q", 60, liveness="lost", closed=True)
    assert present(running, [heard, gone], now, live=True) == (True, now), (
        "who said goodbye need not be heard"
    )


def test_of_a_session_that_has_ended_nothing_goes_on() -> None:
    now = int(ns(100))
    for ended, until in ((ns(40), int(ns(40))), (ns(140), now), ("", now)):
        over = Session(id="s", name="s", state="succeeded", ended=ended)
        assert present(over, [_producer("p", 0)], now, live=True) == (False, until)


def test_what_has_not_begun_and_what_ended_at_an_unknown_time_spans_nothing() -> None:
    state = _state(
        Step(id="a", chain="c", name="a"),
        Step(id="b", chain="c", name="b", state="crashed", started=ns(1)),
        Step(id="d", chain="c", name="d", state="succeeded", started=ns(2), ended=ns(3)),
    )
    assert span(state, int(ns(99))) == (int(ns(1)), int(ns(3)))
