"""access: roles, and what a session pattern matches."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.protocol.access import ROLES, Claims, matches

ALPHABET = st.text(alphabet="ab.?[", max_size=8)


@pytest.mark.parametrize(
    ("pattern", "session", "expected"),
    [
        ("*", "anything", True),
        ("etl~01", "etl~01", True),
        ("etl~01", "etl~011", False),
        ("etl~*", "etl~01", True),
        ("etl~*", "etl~", True),
        ("etl~*", "retl~01", False),
        ("*~01", "etl~01", True),
        ("a*b*c", "aXXbYYc", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("*x*", "abc", False),
        ("*a*b*", "ba", False),
        ("a*a*", "a", False),
        ("*a*a*", "a", False),
        ("a*bc*c", "abc", False),
        ("a*bc*c", "abcc", True),
        ("*ab*b*", "ab", False),
        ("a*bb*b", "abb", False),
        ("?", "a", False),
        ("[ab]", "a", False),
        ("a.c", "abc", False),
        (".*", "abc", False),
        ("Etl", "etl", False),
        ("a\\*", "a*", False),
        ("**", "x", True),
        ("a**b", "ab", True),
    ],
)
def test_a_star_is_the_only_wildcard(pattern: str, session: str, expected: bool) -> None:
    assert matches([pattern], session) is expected


def test_no_pattern_is_no_session() -> None:
    assert not matches([], "a")
    assert not matches([""], "a")


def test_one_of_several_suffices() -> None:
    assert matches(("x", "a*"), "abc")
    assert not matches(("x", "y*"), "abc")


@given(st.text(alphabet="ab*", max_size=8), ALPHABET)
def test_it_agrees_with_a_regular_expression(pattern: str, session: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches([pattern], session) == (re.fullmatch(expression, session, re.DOTALL) is not None)


def test_a_hostile_pattern_costs_no_more_than_others() -> None:
    begun = time.process_time()
    assert not matches(["*a" * 60 + "*b"], "a" * 128)
    assert time.process_time() - begun < 1.0


def _claims(role: str, *sessions: str) -> Claims:
    return Claims(
        sub="s",
        exp=1,
        jti="j",
        aud="wsmonitor",
        iss="wsmonitor",
        role=role,
        sessions=sessions,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("observe", {"observe"}),
        ("command", {"observe", "command"}),
        ("publish", {"observe", "publish"}),
        ("admin", {"observe", "command", "publish", "admin"}),
    ],
)
def test_roles(role: str, may: set[str]) -> None:
    claims = _claims(role)
    assert {action for action in ("observe", "command", "publish", "admin") if claims.may(action)} == may
    assert ROLES[role] == may


def test_claims_without_patterns_cover_nothing() -> None:
    assert not _claims("admin").covers("a")
    assert _claims("observe", "etl~*").covers("etl~01")
