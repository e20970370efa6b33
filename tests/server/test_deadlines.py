"""Deadlines by key: moved often, and seldom due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsmonitor_server.deadlines import Deadlines


def test_the_earliest_comes_first_and_moved_ones_count_once() -> None:
    deadlines = Deadlines()
    assert deadlines.next() is None
    assert deadlines.due(99.0) == []
    deadlines.set("a", 5.0)
    deadlines.set("b", 3.0)
    deadlines.set("a", 1.0)
    deadlines.set("a", 1.0)
    assert deadlines.next() == 1.0
    deadlines.set("b", None)
    deadlines.set("never", None)
    assert (len(deadlines), deadlines.due(0.5), deadlines.due(9.0), len(deadlines)) == (1, [], ["a"], 0)


def test_one_that_is_moved_for_ever_costs_no_memory() -> None:
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.set("moved", float(number))
        assert len(deadlines._heap) <= 70
    assert deadlines.due(10_000.0) == ["moved"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9)), max_size=30), st.integers(0, 9)
)
def test_it_is_a_dictionary_that_knows_its_least_value(moves: list[tuple[str, int | None]], now: int) -> None:
    deadlines, model = Deadlines(), dict[str, int]()
    for key, when in moves:
        deadlines.set(key, when)
        model.pop(key, None)
        if when is not None:
            model[key] = when
        assert deadlines.next() == min(model.values(), default=None)
    due = [key for key, when in model.items() if when <= now]
    assert sorted(deadlines.due(now)) == sorted(due)
    assert len(deadlines) == len(model) - len(due)
