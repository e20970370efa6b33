"""Who may do what: claims, roles and session patterns.

A token carries one role and a list of session patterns. A pattern is a session id, in which
``*`` stands for any run of characters and nothing else is special: no ``?``, no brackets, no
escape. The decision is made from the token alone, before anything is looked up, so that an
answer never tells whether a forbidden session exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

Role = Literal["observe", "command", "publish", "admin"]

ROLES: Final[dict[str, frozenset[str]]] = {
    "observe": frozenset({"observe"}),
    "command": frozenset({"observe", "command"}),
    "publish": frozenset({"observe", "publish"}),
    "admin": frozenset({"observe", "command", "publish", "admin"}),
}
"""What each role permits. A publisher may observe; it may not command other people's sessions."""


Moment = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Whole seconds since 1970: RFC 7519 allows fractions too, which no issuer needs and clocks cannot hold."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says, after its signature was verified.

    ``sessions`` are the patterns; none means no session. The lengths are those that a message about
    the token can hold: a ``jti`` that is too long to be named could not be revoked. ``tenant`` is who
    shares a server with others, and has limits of his own there; a server may read it from another claim.
    """

    sub: Annotated[str, Meta(min_length=1, max_length=256)]
    exp: Moment
    jti: Annotated[str, Meta(min_length=1, max_length=128)]
    aud: str | list[str]
    iss: str
    role: Role = "observe"
    sessions: tuple[str, ...] = ()
    nbf: Moment = 0
    iat: Moment = 0
    name: Annotated[str, Meta(max_length=128)] = ""
    tenant: Annotated[str, Meta(max_length=128)] = ""

    def may(self, action: str) -> bool:
        """Whether the role permits *action* (``observe``, ``command``, ``publish`` or ``admin``)."""
        return action in ROLES[self.role]

    def covers(self, session_id: str) -> bool:
        """Whether one of the patterns matches *session_id*."""
        return matches(self.sessions, session_id)


@lru_cache(maxsize=1024)
def _parts(pattern: str) -> tuple[str, tuple[str, ...], str | None]:
    """What stands before, between and behind the stars of *pattern*; None behind, where there is no star."""
    first, *rest = pattern.split("*")
    return (first, tuple(rest[:-1]), rest[-1]) if rest else (first, (), None)


def _matches(pattern: str, session_id: str) -> bool:
    # By hand, because a regular expression of several ".*" takes polynomial time on some ids.
    first, rest, last = _parts(pattern)
    if last is None:
        return session_id == first
    if len(session_id) < len(first) + len(last):
        return False
    if not (session_id.startswith(first) and session_id.endswith(last)):
        return False
    at, end = len(first), len(session_id) - len(last)
    for part in rest:
        found = session_id.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def matches(patterns: Iterable[str], session_id: str) -> bool:
    """Whether one of *patterns* matches the whole of *session_id*."""
    for pattern in patterns:  # noqa: SIM110 - asked for each message, and a generator costs more than the rest
        if _matches(pattern, session_id):
            return True
    return False
