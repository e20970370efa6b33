"""Who may do what: claims, roles and session patterns.

A token carries one role and a list of session patterns. A pattern is a session id, in which
``*`` stands for any run of characters and nothing else is special: no ``?``, no brackets, no
escape. The decision is made from the token alone, before anything is looked up, so that an
answer never tells whether a forbidden session exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal

import msgspec

Role = Literal["observe", "command", "publish", "admin"]

ROLES: Final[dict[str, frozenset[str]]] = {
    "observe": frozenset({"observe"}),
    "command": frozenset({"observe", "command"}),
    "publish": frozenset({"observe", "publish"}),
    "admin": frozenset({"observe", "command", "publish", "admin"}),
}
"""What each role permits. A publisher may observe; it may not command other people's sessions."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says, after its signature was verified.

    ``exp`` and ``nbf`` are seconds since 1970. ``sessions`` are the patterns; none means no session.
    """

    sub: str
    exp: int
    jti: str
    aud: str | list[str]
    iss: str
    role: Role = "observe"
    sessions: tuple[str, ...] = ()
    nbf: int = 0
    iat: int = 0
    name: str = ""

    def may(self, action: str) -> bool:
        """Whether the role permits *action* (``observe``, ``command``, ``publish`` or ``admin``)."""
        return action in ROLES[self.role]

    def covers(self, session_id: str) -> bool:
        """Whether one of the patterns matches *session_id*."""
        return matches(self.sessions, session_id)


@lru_cache(maxsize=1024)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    alternatives = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return re.compile("|".join(alternatives), re.DOTALL)


def matches(patterns: Iterable[str], session_id: str) -> bool:
    """Whether one of *patterns* matches the whole of *session_id*."""
    patterns = tuple(patterns)
    return bool(patterns) and _compiled(patterns).fullmatch(session_id) is not None
