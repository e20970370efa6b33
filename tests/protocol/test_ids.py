"""ids: what an id may hold, ULIDs, topics."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.protocol import ids
from wsmonitor.protocol.errors import InvalidIdError, UsageError

CONTROL = ["a\x00", "a\n", "\na", "a\x7f", "a\x85"]
BAD = ["", "a/b", " a", "a ", "a\u2028b", "a\u202eb", "a\u2066b", "\ud800", *CONTROL]


@pytest.mark.parametrize("value", [*BAD, "x" * 129])
def test_a_bad_id_is_refused_by_the_function_and_by_the_pattern(value: str) -> None:
    with pytest.raises(InvalidIdError) as info:
        ids.check_id(value)
    assert isinstance(info.value, (UsageError, ValueError))
    assert info.value.code == "bad_id"
    assert len(value) == 129 or re.search(ids.ID_PATTERN, value) is None


@pytest.mark.parametrize("value", ["a", "a b", "x" * 128, "ä:Ω", "语", "\U0001f600" * 128, "*", "a.b~c", "7"])
def test_a_good_id_is_returned(value: str) -> None:
    assert ids.check_id(value) == value
    assert re.search(ids.ID_PATTERN, value)


def test_what_is_not_a_string_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="step id must be a string, not int"):
        ids.check_id(7, "step id")


def test_a_session_id_holds_no_star() -> None:
    assert ids.check_session_id("etl~01") == "etl~01"
    with pytest.raises(InvalidIdError, match=r"'\*'"):
        ids.check_session_id("etl*")


def test_an_error_names_what_is_wrong() -> None:
    with pytest.raises(InvalidIdError, match="chain id must have 1 to 128 characters, this one has 129"):
        ids.check_id("x" * 129, "chain id")
    with pytest.raises(InvalidIdError, match="may not hold '/', control"):
        ids.check_id("a/b")


@given(st.text(max_size=20))
def test_function_and_pattern_agree(value: str) -> None:
    for check, pattern in (
        (ids.check_id, ids.ID_PATTERN),
        (ids.check_session_id, ids.SESSION_ID_PATTERN),
    ):
        try:
            check(value)
            accepted = True
        except InvalidIdError:
            accepted = False
        assert accepted == (re.search(pattern, value) is not None)


@pytest.mark.parametrize(
    ("topic", "good"),
    [
        ("etl~01", True),
        ("/directory", True),
        ("/directory/nightly etl", True),
        ("/directory/a/b", True),
        ("/directory/a*", True),
        ("/directory/", False),
        ("/directory/a\n", False),
        ("/directoryx", False),
        ("/other", False),
        ("a*", False),
        ("a\n", False),
        ("", False),
    ],
)
def test_topics(topic: str, good: bool) -> None:
    assert (re.search(ids.TOPIC_PATTERN, topic) is not None) == good


def test_a_name_may_hold_a_slash() -> None:
    assert re.search(ids.NAME_PATTERN, "team/etl")
    assert not re.search(ids.NAME_PATTERN, "team\netl")


def test_the_directory_topics() -> None:
    assert ids.directory_topic() == "/directory"
    assert ids.directory_topic("etl") == "/directory/etl"
    assert ids.is_directory("/directory")
    assert ids.is_directory("/directory/etl")
    assert not ids.is_directory("directory")
    assert not ids.is_directory("/directoryetl")


def test_a_ulid_is_26_characters_of_time_then_randomness() -> None:
    # The time part of the ULID specification's own example, 1469918176385 ms.
    assert ids.ulid(1469918176385, 0) == "01ARYZ6S41" + "0" * 16
    assert ids.ulid(0, (1 << 80) - 1) == "0" * 10 + "Z" * 16
    assert ids.ulid((1 << 48) - 1, (1 << 80) - 1) == "7" + "Z" * 25


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_ulids_sort_by_time(one: int, other: int, noise: int) -> None:
    assert (ids.ulid(one, noise) < ids.ulid(other, noise)) == (one < other)


@given(st.text(max_size=200))
def test_a_session_id_made_from_any_name_is_valid(name: str) -> None:
    made = ids.session_id(name, ids.ulid(1, 2))
    assert ids.check_session_id(made) == made
    assert made.endswith("~" + ids.ulid(1, 2))


def test_a_session_id_keeps_the_name_where_it_can() -> None:
    assert ids.session_id("nightly-etl", "01") == "nightly-etl~01"
    assert ids.session_id("team/etl*", "01") == "team-etl-~01"
    assert ids.session_id("  ", "01") == "session~01"


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("a", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("a/b", False),
        (5, False),
        (None, False),
    ],
)
def test_is_id_asks_without_raising(value: object, good: bool) -> None:
    assert ids.is_id(value) is good


@pytest.mark.parametrize(
    "topic", ["/directory", "/directory/etl", "/directory/a*", "etl~1", "directory", "/directory/a/b"]
)
def test_topics_are_taken(topic: str) -> None:
    assert ids.check_topic(topic) == topic


@pytest.mark.parametrize("topic", ["/directory/", "/directoryx", "/other", "a*", "", "x" * 129])
def test_what_is_no_topic(topic: str) -> None:
    with pytest.raises(InvalidIdError):
        ids.check_topic(topic)


def test_a_topic_is_a_string() -> None:
    with pytest.raises(TypeError):
        ids.check_topic(5)


def test_a_refused_id_is_told_what_it_is_and_may_not_hold() -> None:
    with pytest.raises(InvalidIdError, match=r"^id 'a/b' may not hold '/', control"):
        ids.check_id("a/b")
    with pytest.raises(InvalidIdError, match=r"^session id 'a\*' may not hold '/' or '\*', control"):
        ids.check_session_id("a*")
    with pytest.raises(InvalidIdError, match=r"^step must have 1 to 128 characters"):
        ids.check_session_id("", "step")


def test_a_ulid_takes_no_more_than_its_bits() -> None:
    assert ids.ulid(1 << 48, 1 << 80) == "0" * 26
    assert len(ids.ulid((1 << 60) - 1, (1 << 90) - 1)) == 26


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("etl", "etl"),
        ("  etl  ", "etl"),
        ("a/b*c", "a-b-c"),
        ("Xetl X", "Xetl X"),
        ("", "session"),
        ("   ", "session"),
        ("x" * 200, "x" * 101),
        ("x" * 100 + " " + "y" * 50, "x" * 100),
        ("\ttab", "-tab"),
    ],
)
def test_the_id_of_a_run(name: str, label: str) -> None:
    ident = ids.session_id(name, "0" * 26)
    assert ident == f"{label}~{'0' * 26}"
    assert ids.check_session_id(ident) == ident
