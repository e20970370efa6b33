"""The reckoning of faults finds what it looks for: what is missing, told twice, or of an ended epoch."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from .watching import Told
from .witness import CURRENT, DEGRADED, RECONNECTING, Witness


def witness(told: Sequence[Told] = (), gaps: Sequence[tuple[int, int]] = ()) -> Witness:
    """One that was told this, without a server."""
    made = object.__new__(Witness)
    made.name, made.told, made.gaps = "o", list(told), list(gaps)
    made._changed = threading.Condition()
    return made


def seqs(epoch: str, *found: int) -> list[Told]:
    return [Told(seq, "p", seq, epoch) for seq in found]


def test_all_in_order_is_right_also_over_epochs() -> None:
    one = witness([*seqs("a", 1, 2, 3), *seqs("b", 7, 8)])
    assert (one.losses(), one.repeats()) == ([], [])


def test_a_hole_is_a_loss_unless_it_was_announced() -> None:
    assert witness(seqs("a", 1, 2, 5)).losses() == ["o was told of a:5 after 2"]
    assert witness(seqs("a", 1, 2, 5), gaps=[(3, 3)]).losses() == ["o was told of a:5 after 2"]
    assert witness(seqs("a", 1, 2, 5), gaps=[(3, 4)]).losses() == []


def test_what_comes_again_is_a_repeat() -> None:
    found = witness(seqs("a", 1, 2, 2)).repeats()
    assert found == ["o was told of a:2 after 2", "o was told 2 times of ('a', 'p', 2)"]
    assert witness([Told(1, "p", 4, "a"), Told(2, "p", 4, "a")]).repeats() == [
        "o was told 2 times of ('a', 'p', 4)"
    ]
    assert witness([Told(1, "p", 4, "a"), Told(1, "p", 4, "b")]).repeats() == [], "asserted after a reset"
    assert witness([Told(1, "", 0, "a"), Told(2, "", 0, "a")]).repeats() == [], "nobody's numbers"


def test_an_epoch_that_has_ended_does_not_come_back() -> None:
    found = witness([*seqs("a", 1), *seqs("b", 1), *seqs("a", 2)]).repeats()
    assert found == ["o was told of an epoch that had ended: ['a', 'b', 'a']"]


def test_times_are_from_the_fault_until_all_is_right() -> None:
    one = witness()
    one._begun, one._right = 100.0, 110.0
    one._news = [101.0, 108.0, 111.0]
    one._shown = [(100.0, CURRENT), (102.0, RECONNECTING), (104.0, DEGRADED), (107.0, CURRENT)]
    assert one.silence() == pytest.approx(7.0)
    assert one.recovery() == pytest.approx(10.0)
    assert one.notice() == pytest.approx(2.0)
    assert [one.shown(what) for what in (RECONNECTING, DEGRADED)] == [pytest.approx(2.0), pytest.approx(3.0)]
    one._shown = [(100.0, CURRENT)]
    assert one.notice() is None
    assert one.shown(DEGRADED) == 0.0
