"""states: the tables are closed, and say what docs and code rely on."""

from __future__ import annotations

from itertools import pairwise, product
from typing import get_args

import pytest

from wsmonitor.protocol import states

ALL = get_args(states.State)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (states.TRANSITIONS, ALL),
        (states.COMMAND_TRANSITIONS, get_args(states.CommandState)),
        (states.LIVENESS_TRANSITIONS, get_args(states.Liveness)),
    ],
)
def test_a_table_is_closed(table: dict[str, frozenset[str]], names: tuple[str, ...]) -> None:
    assert set(table) == set(names)
    for old, followers in table.items():
        assert followers <= set(names)
        assert old not in followers


@pytest.mark.parametrize(("old", "new"), list(product(ALL, ALL)))
def test_may_follow_is_the_table_and_staying(old: str, new: str) -> None:
    assert states.may_follow(old, new) == (old == new or new in states.TRANSITIONS[old])


@pytest.mark.parametrize(("old", "new"), list(product(ALL, ALL)))
def test_the_server_writes_crashed_and_nothing_else(old: str, new: str) -> None:
    expected = old == new or (new == "crashed" and old not in states.TERMINAL)
    assert states.may_follow(old, new, by_server=True) == expected


def test_a_producer_never_writes_crashed() -> None:
    assert not any("crashed" in followers for followers in states.TRANSITIONS.values())


def test_terminal_states_are_final_except_crashed() -> None:
    assert {"succeeded", "failed", "cancelled", "skipped", "crashed"} == states.TERMINAL
    for state in states.TERMINAL - {"crashed"}:
        assert states.TRANSITIONS[state] == frozenset()
    assert states.TRANSITIONS["crashed"] == set(ALL) - {"crashed", "pending"}


def test_nothing_becomes_pending_again() -> None:
    assert not any("pending" in followers for followers in states.TRANSITIONS.values())


def test_the_state_model_word_by_word() -> None:
    assert states.may_follow("pending", "running")
    for other in ("paused", "awaiting_input"):
        assert states.may_follow("running", other)
        assert states.may_follow(other, "running")
        assert states.may_follow(other, "cancelling")
    assert states.TRANSITIONS["cancelling"] == {"cancelled", "succeeded", "failed"}
    assert not states.may_follow("cancelling", "running")
    assert not states.may_follow("succeeded", "running")


def test_an_unknown_state_follows_nothing() -> None:
    assert not states.may_follow("nonsense", "running")
    assert not states.may_follow("running", "nonsense")


def test_a_command_runs_through_its_states_once() -> None:
    path = ["requested", "delivered", "accepted", "applied"]
    for old, new in pairwise(path):
        assert states.command_may_follow(old, new)
        assert not states.command_may_follow(new, old)
    assert {"applied", "rejected", "expired", "unknown"} == states.COMMAND_TERMINAL
    assert all(not states.COMMAND_TRANSITIONS[end] for end in states.COMMAND_TERMINAL)
    # Accepted may mean that it ran: from there it can not expire.
    assert not states.command_may_follow("accepted", "expired")
    assert not states.command_may_follow("nonsense", "applied")


def test_every_state_can_be_reached() -> None:
    for table, start in (
        (states.TRANSITIONS, "pending"),
        (states.COMMAND_TRANSITIONS, "requested"),
        (states.LIVENESS_TRANSITIONS, "live"),
    ):
        reached, todo = {start}, [start]
        while todo:
            for following in table[todo.pop()] - reached:
                reached.add(following)
                todo.append(following)
        assert set(table) - {"crashed"} <= reached
