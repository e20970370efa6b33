"""Who stands at the door, and who has to go: against the plainest description of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor_server.doorway import Doorway, origin

Moves = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=60)


class Plain:
    """Everybody in one list, in the order of their coming; an address reaches a count when it gets there."""

    def __init__(self, total: int, per_address: int) -> None:
        self.total, self.per_address = total, per_address or total
        self.here: list[tuple[int, str]] = []

    def count(self, address: str) -> int:
        return sum(1 for _, other in self.here if other == address)

    def enter(self, visitor: int, address: str, limited: bool) -> set[int]:
        """Those of whom one has to go; none if nobody has to."""
        self.here.append((visitor, address))
        if limited and self.count(address) > self.per_address:
            return {next(who for who, where in self.here if where == address)}
        if len(self.here) > self.total:
            most = max(self.count(where) for _, where in self.here)
            greedy = {where for _, where in self.here if self.count(where) == most}
            return {next(who for who, where in self.here if where == one) for one in greedy}
        return set()

    def leave(self, visitor: int) -> None:
        self.here = [one for one in self.here if one[0] != visitor]


@given(Moves, st.integers(1, 8), st.integers(0, 5))
def test_it_is_the_oldest_of_the_address_with_the_most(
    moves: list[tuple[str, bool, bool]], total: int, per_address: int
) -> None:
    door, plain = Doorway[int](total, per_address), Plain(total, per_address)
    for number, (address, comes, limited) in enumerate(moves):
        if comes or not plain.here:
            gone = door.enter(number, address, limited=limited)
            expected = plain.enter(number, address, limited)
            assert gone in (expected or {None})
            if gone is not None:
                assert gone not in door
                plain.leave(gone)
        else:
            left = plain.here[number % len(plain.here)][0]
            door.leave(left)
            plain.leave(left)
        assert len(door) == len(plain.here) <= total
        assert all(who in door for who, _ in plain.here)


def test_strangers_of_one_address_do_not_touch_another_s() -> None:
    door = Doorway[str](4, 0)
    assert door.enter("user", "u") is None
    gone = [door.enter(f"s{number}", "s") for number in range(10)]
    assert gone == [None] * 3 + [f"s{number}" for number in range(7)]
    assert "user" in door


def test_the_newcomer_stays_also_where_all_are_of_one_address() -> None:
    door = Doorway[int](3, 2)
    assert [door.enter(number, "s") for number in range(5)] == [None, None, 0, 1, 2]
    assert [door.enter(number, "p", limited=False) for number in range(5, 7)] == [None, 3]


def test_who_is_not_there_leaves_nothing() -> None:
    door = Doorway[str](3, 2)
    door.leave("nobody")
    door.enter("one", "a")
    door.leave("one")
    door.leave("one")
    assert len(door) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("/run/socket", "/run/socket", True),
        ("a", "b", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (origin(one) == origin(other)) is same
