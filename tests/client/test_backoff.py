"""Reconnect delays: check 5, by its numbers."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.client.backoff import CEILING, Backoff

NOMINAL = [1, 2, 4, 8, 16, 30, 30, 30]


def delays(backoff: Backoff, count: int, spread: float = 0.0) -> list[float]:
    return list(islice(iter(lambda: backoff.next_delay(spread), None), count))


def test_without_jitter_the_delays_are_the_nominal_ones_up_to_sixteen() -> None:
    assert delays(Backoff(lambda: 0.0), 5) == [1, 2, 4, 8, 16]


@given(st.floats(0, 1, exclude_max=True))
def test_the_longest_delay_is_the_last_one_and_counts(random: float) -> None:
    backoff = Backoff(lambda: random)
    assert backoff.longest() == CEILING * (0.75 + 0.25 * random)
    assert backoff.attempts == 1
    assert backoff.next_delay() == 2 * (1 + 0.25 * random)


@given(st.floats(0, 1, exclude_max=True))
def test_every_delay_is_in_its_range(random: float) -> None:
    got = delays(Backoff(lambda: random), 20)
    for delay, nominal in zip(got, NOMINAL, strict=False):
        if nominal <= 16:
            assert nominal <= delay <= nominal * 1.25
        else:
            assert 22.5 <= delay <= 30
    assert all(22.5 <= delay <= CEILING for delay in got[5:])  # it never gives up


def test_the_first_delay_alone_is_spread_as_the_server_asked() -> None:
    backoff = Backoff(lambda: 0.5)
    assert backoff.next_delay(spread=10.0) == 1.125 + 5.0
    assert backoff.next_delay(spread=10.0) == 2.25
    assert Backoff(lambda: 0.99).next_delay(spread=3600.0) == CEILING


def test_after_a_reset_it_begins_anew() -> None:
    backoff = Backoff(lambda: 0.0)
    delays(backoff, 6)
    backoff.reset()
    assert backoff.next_delay() == 1.0


def test_who_waits_longest_at_first_goes_on_with_the_usual_delays() -> None:
    backoff = Backoff(lambda: 0.5)
    assert backoff.longest() == 26.25
    assert backoff.next_delay() == 2.25


def test_the_longest_delays_are_between_their_bounds() -> None:
    for random, delay in ((0.0, 22.5), (0.5, 26.25), (1.0, 30.0)):
        backoff = Backoff(lambda random=random: random)  # type: ignore[misc]
        assert delays(backoff, 9)[5:] == [delay] * 4


def test_without_a_wish_of_the_servers_nothing_is_spread() -> None:
    assert Backoff(lambda: 0.5).next_delay() == 1.125
    assert Backoff(lambda: 0.5).next_delay(0.5) == 1.375
