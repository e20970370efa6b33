from __future__ import annotations

import pytest

from wsmonitor.export import words
from wsmonitor.protocol.states import TRANSITIONS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 ms"), (0.42, "420 ms"), (0.9999, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"),
     (37.4, "37 s"), (59.7, "1:00"),
     (134, "2:14"), (3723, "1:02:03"), (270_000, "3 d 3 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "now"), (97, "97 s"), (300, "5 min"), (7200, "2 h"), (1_036_800, "12 d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert words.age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(512, "512 B"), (4096, "4 KiB"), (19_084_000, "18.2 MiB"), (2**50, "1024 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert words.size(count) == text


def test_numbers() -> None:
    assert words.number(18_402_113) == "18,402,113"
    assert words.number(3.0) == "3"
    assert words.number(0.123456) == "0.1235"


def test_every_state_has_a_look_of_its_own_word() -> None:
    assert set(TRANSITIONS) <= set(words.STATES)
    assert len({look.word for look in words.STATES.values()}) == len(words.STATES)


def test_open_states_are_told_in_the_past_when_not_known() -> None:
    assert words.state_word("running", known=False) == "was running"
    assert words.state_word("succeeded", known=False) == "succeeded"
    assert words.state_word("a state of the future") == "a state of the future"


def test_a_moment_beyond_the_calendar_is_still_told() -> None:
    assert words.moment("1795000000123000000", millis=True) == "2026-11-18 11:06:40.123 UTC"
    assert words.moment("") == ""
    assert words.moment("9" * 30) == "9" * 30 + " ns"


def test_one_line_has_no_control_characters() -> None:
    assert words.one_line("a\x1b[31m b\r\nc\u202e") == "a [31m b c"
    assert words.one_line("x" * 300, 10) == "x" * 9 + "…"


def test_counts_come_in_the_order_of_states_without_zeros() -> None:
    counts = {"later": 2, "succeeded": 3, "failed": 1, "running": 0}
    found = words.ordered(counts)
    assert found[-1] == ("later", 2)
    assert sorted(found) == [("failed", 1), ("later", 2), ("succeeded", 3)]


def test_times_between_moments() -> None:
    assert words.between("1000000000", "3500000000") == 2.5
    assert words.between("1000000000", 1_000_000_000) == 0.0
    assert words.between("", "1") is None
    assert words.between("1", "") is None


@pytest.mark.parametrize(("count", "text"), [(0, "0 steps"), (1, "1 step"), (2_000, "2,000 steps")])
def test_plurals(count: int, text: str) -> None:
    assert words.plural(count, "step") == text


def test_a_moment_with_and_without_its_parts() -> None:
    at = 1_700_000_000_123_000_000
    assert words.moment(at) == "2023-11-14 22:13:20 UTC"
    assert words.moment(str(at), date=False) == "22:13:20"
    assert words.moment(at, date=False, millis=True) == "22:13:20.123"
