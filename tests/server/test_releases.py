"""Since when nothing refers to a large value, and what becomes of that when a commit fails."""

from __future__ import annotations

from wsmonitor_server.releases import Releases


def test_a_value_is_due_behind_the_last_kept_event_that_named_it() -> None:
    releases = Releases((), 0)
    releases.add("a", 5, committed=4)
    assert releases.due(5, ()) == set(), "event 5 is kept, and the ones before it may be asked for with it"
    assert releases.due(6, ()) == {"a"}
    assert releases.due(6, {"a"}) == set(), "it is referred to again"


def test_what_was_there_at_first_is_due_as_soon_as_no_event_of_then_is_kept() -> None:
    releases = Releases(["a"], 7)
    assert (releases.due(7, ()), releases.due(8, ())) == (set(), {"a"})


def test_a_value_that_came_and_went_behind_its_release_is_due_again() -> None:
    releases = Releases((), 0)
    for seq in (3, 9):
        releases.add("a", seq, committed=0)
    releases.add("b", 3, committed=0)
    releases.done({"a", "b", "unknown"}, 8)
    assert releases.due(100, ()) == {"a"}
    releases.done({"a"}, 9)
    assert releases.due(100, ()) == set()


def test_what_is_taken_back_counts_as_before() -> None:
    releases = Releases((), 0)
    releases.add("a", 3, committed=2)
    releases.add("a", 6, committed=4)
    releases.add("b", 6, committed=4)
    releases.undo(5)
    assert releases.due(4, ()) == {"a"}, "since event 3, as if it had not come back"
    assert releases.due(100, ()) == {"a"}


def test_of_what_is_not_taken_back_the_last_is_remembered() -> None:
    releases = Releases((), 0)
    for seq in range(1, 100):
        releases.add("a", seq, committed=seq - 1)
    assert [len(seqs) for seqs in releases._seqs.values()] == [2]
    releases.undo(98)
    assert releases.due(99, ()) == {"a"}


def test_what_somebody_else_released_is_forgotten() -> None:
    releases = Releases(["a", "b"], 1)
    releases.forget(["a", "unknown"])
    assert releases.due(100, ()) == {"b"}
