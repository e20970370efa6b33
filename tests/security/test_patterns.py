"""Roles and session patterns (ASVS 5.0, 8.2): what a pattern covers holds no surprise.

The table of plain cases: tests/protocol/test_access.py; who may ask for what:
tests/server_front/test_requests.py."""

from __future__ import annotations

import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server_front.wire import client
from wsmonitor.protocol.access import ROLES, Claims, matches
from wsmonitor.protocol.errors import InvalidIdError
from wsmonitor.protocol.ids import check_session_id
from wsmonitor.protocol.messages import Removed, SyncBegin, Synced
from wsmonitor_server.embedded import EmbeddedServer


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        ("a", "ab"),
        ("ab", "a"),
        ("etl~1", "etl~10"),
        ("etl~*", "etl"),
        ("etl~*", "etl-test~1"),
        ("etl*", "Etl~1"),
        ("etl~*", "ETL~1"),
        ("etl~?", "etl~1"),
        ("etl~[0-9]", "etl~1"),
        ("etl~{1,2}", "etl~1"),
        ("etl~.", "etl~1"),
        ("etl~.*", "etl~1"),
        ("etl~\\d", "etl~1"),
        ("etl~%", "etl~1"),  # SQL's LIKE
        ("etl~_", "etl~1"),
        ("^etl~1$", "etl~1"),
        ("etl~1|x", "etl~1"),
        ("etl~\\*", "etl~*"),
        ("!etl~*", "x"),  # no negation
        ("-etl~*", "x"),
        ("etl~1,x", "x"),  # no list in a string
        ("etl~1 x", "x"),
        ("etl~1\nx", "x"),
        ("..", "x"),
        ("./etl~1", "etl~1"),
        ("x/../etl~1", "etl~1"),
        ("etl~1", "etl~1\n"),
        ("etl~1\n", "etl~1"),
        ("etl~1", "etl~1 "),
        ("etl~1", "etl~1\x00"),
        ("etl~%31", "etl~1"),  # no percent-encoding
        ("etl~\uff11", "etl~1"),  # a full-width one
        ("\u0435tl~1", "etl~1"),  # a Cyrillic e
        ("caf\u00e9~*", "cafe\u0301~1"),  # composed, decomposed
        ("stra\u00dfe~*", "STRASSE~1"),
        ("\u0130~*", "i~1"),
        ("etl\u200b~*", "etl~1"),  # a space of no width
        ("\u202eetl~*", "etl~1"),
        ("etl~\uff0a", "etl~1"),  # a full-width asterisk
        ("etl~\u2217", "etl~1"),  # an asterisk operator
        ("", "x"),
        (" *", "x"),
    ],
)
def test_a_pattern_covers_what_it_says_letter_by_letter(pattern: str, other: str) -> None:
    """ASVS 8.2.2: nothing is folded, normalised, decoded, or read as another pattern language."""
    assert not matches([pattern], other)
    assert not Claims(sub="s", exp=1, jti="j", aud="a", iss="i", sessions=(pattern,)).covers(other)


@pytest.mark.parametrize(
    "session", ["a*", "*", "a*b", "a/b", "../a", "/directory", "a\n", " a", "a\u202eb", ""]
)
def test_no_session_has_a_name_that_looks_like_a_pattern_or_a_path(session: str) -> None:
    """A session called ``*`` would make every token for it a token for all."""
    with pytest.raises(InvalidIdError):
        check_session_id(session)


IDS = st.text(alphabet="aAb~\u00e9e\u0301\u0435.?[%_", min_size=1, max_size=6)


@given(IDS, IDS)
def test_without_a_star_a_pattern_is_one_session(pattern: str, session: str) -> None:
    """ASVS 8.2.2."""
    assert matches([pattern], session) == (pattern == session)
    if unicodedata.normalize("NFKC", pattern) != pattern:
        assert not matches([pattern], unicodedata.normalize("NFKC", pattern))


@given(IDS, IDS)
def test_a_star_at_the_end_is_a_beginning(prefix: str, session: str) -> None:
    """ASVS 8.2.2."""
    assert matches([prefix + "*"], session) == session.startswith(prefix)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", ["", "Observe", "root", "delete", "*", "observe "])
def test_what_is_no_action_is_permitted_to_nobody(role: str, action: str) -> None:
    """ASVS 8.2.1: denied unless it was granted."""
    claims = Claims(sub="s", exp=1, jti="j", aud="a", iss="i", role=role)  # type: ignore[arg-type]
    assert not claims.may(action)


async def test_a_wider_role_does_not_widen_the_patterns() -> None:
    """ASVS 8.2.2: an administrator of some sessions is none of others."""
    async with (
        EmbeddedServer() as server,
        client(server, role="admin", sessions=("mine~*",)) as one,
    ):
        for topic, seen in (
            ("mine~1", SyncBegin),
            ("theirs~1", Removed),
            ("mine", Removed),
            ("MINE~1", Removed),
        ):
            await one.send("subscribe", topic=topic, generation=1)
            assert (await one.expect(seen)).topic == topic  # type: ignore[attr-defined]


async def test_the_directory_of_a_name_shows_only_what_is_covered() -> None:
    """ASVS 8.2.2: who lists ``/directory/theirs`` learns neither runs nor their number."""
    async with (
        EmbeddedServer() as server,
        client(server) as all_may,
        client(server, sessions=("mine~*",)) as one,
    ):
        for name in ("theirs~1", "theirs~2", "mine~1"):
            await all_may.send("publish_open", request=1, session=name, producer="p")
            await all_may.receive()
            await all_may.send(
                "publish", session=name, producer="p", producer_epoch=1, first=1,
                changes=[{"op": "session", "name": name.split("~")[0]}],
            )  # fmt: skip
            while b'"ack"' not in (raw := await all_may.socket.recv(decode=False)):
                assert b'"error"' not in raw
        for topic in ("/directory", "/directory/theirs", "/directory/*", "/directory/mine~*"):
            await one.send("subscribe", topic=topic, generation=1)
            await one.expect(SyncBegin)
            await one.send("sync_next", topic=topic, generation=1, page=0)
            page = await one.receive()
            assert b"theirs~" not in msgspec.json.encode(page)
            assert (b"mine~1" in msgspec.json.encode(page)) == (topic == "/directory")
            await one.expect(Synced)
