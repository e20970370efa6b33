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


def test_what_is_moved_to_a_later_time_is_put_there_when_it_comes_up() -> None:
    deadlines = Deadlines()
    deadlines.set("a", 5.0)
    deadlines.set("b", 7.0)
    deadlines.set("a", 9.0)
    assert deadlines.soonest == 5.0, "nothing is due before, which is all that it says"
    assert deadlines.due(6.0) == []
    assert (deadlines.soonest, deadlines.next()) == (7.0, 7.0)
    deadlines.set("b", None)
    assert deadlines.next() == 9.0
    deadlines.set("a", 3.0)
    assert deadlines.due(4.0) == ["a"]
    assert (deadlines.next(), deadlines.soonest, len(deadlines)) == (None, None, 0)


def test_moving_one_among_many_writes_no_entry() -> None:
    deadlines = Deadlines()
    for number in range(1_000):
        deadlines.set(str(number), float(number))
    for later in range(10_000):
        deadlines.set("500", 1_000.0 + later)
    assert len(deadlines._heap) == 1_000


def test_one_that_is_moved_to_the_front_for_ever_costs_no_memory_either() -> None:
    deadlines = Deadlines()
    deadlines.set("other", 0.5)
    for number in range(10_000, 0, -1):
        deadlines.set("moved", float(number))
        assert len(deadlines._heap) <= 70
    assert (deadlines.due(1.0), deadlines.next()) == (["other", "moved"], None)
