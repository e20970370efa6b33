"""Identifiers and topics.

Ids are opaque: nothing may be read out of them except that they are equal or not. The rule
for what an id may contain is one regular expression, so that every implementation, the
JSON Schemas and the codec use the very same one.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeGuard

from msgspec import Meta

from .errors import InvalidIdError

MAX_ID_LENGTH: Final = 128

# No control characters, no "/" (topics and paths use it), no line separators, no surrogates,
# no bidirectional overrides (they would make one id look like another), no space at either end.
_BAD = r"\x00-\x1f\x7f-\x9f/\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
# The end is "$(?!\\n)" because Python's "$" alone lets a trailing line feed pass.
_END = r"$(?!\n)"
ID_PATTERN: Final = rf"^[^{_BAD} ](?:[^{_BAD}]*[^{_BAD} ])?{_END}"
# "*" is the one wildcard of a token's session patterns: an id holding it could name many.
SESSION_ID_PATTERN: Final = rf"^[^{_BAD} *](?:[^{_BAD}*]*[^{_BAD} *])?{_END}"
# A name may hold "/" and "*": it is a label, and is never compared with a pattern.
NAME_PATTERN: Final = ID_PATTERN.replace("/", "")
# A session's id, or "/directory", or "/directory/" and a name.
TOPIC_PATTERN: Final = (
    rf"^(?:{SESSION_ID_PATTERN[1 : -len(_END)]}|/directory(?:/{NAME_PATTERN[1 : -len(_END)]})?){_END}"
)

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=ID_PATTERN)]
SessionId = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=SESSION_ID_PATTERN)]
Topic = Annotated[str, Meta(min_length=1, max_length=256, pattern=TOPIC_PATTERN)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Meta(pattern=rf"^[0-9a-f]{{64}}{_END}")]
Key128 = Annotated[str, Meta(pattern=rf"^[0-9a-f]{{32}}{_END}")]
# Integer nanoseconds since 1970-01-01 UTC, as a decimal string: beyond 2^53 JSON numbers lose digits.
Nanoseconds = Annotated[str, Meta(pattern=rf"^(0|[1-9][0-9]{{0,19}}){_END}")]
# "" for none. One pattern each and not `Id | Literal[""]`: msgspec checks such a union's literal by
# the string's constraints as well, and would refuse it.
OPTIONAL_ID_PATTERN: Final = rf"^(?:{ID_PATTERN[1 : -len(_END)]})?{_END}"
OPTIONAL_TIME_PATTERN: Final = rf"^(0|[1-9][0-9]{{0,19}})?{_END}"
OptionalId = Annotated[str, Meta(max_length=MAX_ID_LENGTH, pattern=OPTIONAL_ID_PATTERN)]
OptionalNanoseconds = Annotated[str, Meta(pattern=OPTIONAL_TIME_PATTERN)]
# The same rules for the records and messages that an observer reads many of. The decoder would run a
# regular expression per field, at three times the cost of all else it does; `checking` does so per value.
LaterId = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID_LENGTH, extra_json_schema={"pattern": ID_PATTERN})
]
LaterSessionId = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID_LENGTH, extra_json_schema={"pattern": SESSION_ID_PATTERN})
]
LaterName = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID_LENGTH, extra_json_schema={"pattern": NAME_PATTERN})
]
LaterTopic = Annotated[str, Meta(min_length=1, max_length=256, extra_json_schema={"pattern": TOPIC_PATTERN})]
LaterOptionalId = Annotated[
    str, Meta(max_length=MAX_ID_LENGTH, extra_json_schema={"pattern": OPTIONAL_ID_PATTERN})
]
LaterOptionalTime = Annotated[str, Meta(extra_json_schema={"pattern": OPTIONAL_TIME_PATTERN})]
Natural = Annotated[int, Meta(ge=0, le=2**53 - 1)]
# An integer beyond 64 bits has no use here, and not every implementation could read it.
Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float

_ID = re.compile(ID_PATTERN)
_SESSION_ID = re.compile(SESSION_ID_PATTERN)
_NAME = re.compile(NAME_PATTERN)

DIRECTORY: Final = "/directory"
"""The topic of the list of sessions; ``/directory/NAME`` lists the runs of one name."""

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def check_id(value: object, what: str = "id") -> str:
    """Return *value* if it is a valid id.

    Raises:
        TypeError: it is not a string.
        InvalidIdError: it is empty, too long, or has a character that ids may not have.
    """
    return _check(value, what, _ID, "'/'")


def is_id(value: object) -> TypeGuard[str]:
    """Whether *value* is a valid id."""
    return isinstance(value, str) and len(value) <= MAX_ID_LENGTH and _ID.search(value) is not None


def check_session_id(value: object, what: str = "session id") -> str:
    """Return *value* if it is a valid session id (an id without ``*``); raise as `check_id` does."""
    return _check(value, what, _SESSION_ID, "'/' or '*'")


def check_topic(value: object) -> str:
    """Return *value* if it is a topic: a session id, ``/directory``, or ``/directory/NAME``.

    Raises:
        TypeError: it is not a string.
        InvalidIdError: the id or the name has a length or a character that it may not have.
    """
    if isinstance(value, str) and value.startswith(DIRECTORY):
        if value == DIRECTORY:
            return value
        if value[len(DIRECTORY)] == "/":
            _check(value[len(DIRECTORY) + 1 :], "name", _NAME, "'/'")
            return value
    return check_session_id(value, "topic")


def _check(value: object, what: str, pattern: re.Pattern[str], also: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, not {type(value).__name__}")
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise InvalidIdError(f"{what} must have 1 to {MAX_ID_LENGTH} characters, this one has {len(value)}")
    if pattern.fullmatch(value) is None:
        raise InvalidIdError(
            f"{what} {value!r} may not hold {also}, control, line-separator or bidirectional "
            "characters, nor begin or end with a space"
        )
    return value


def ulid(milliseconds: int, random_80_bits: int) -> str:
    """A ULID: 48 bits of time, 80 of randomness, in Crockford's base 32 (26 characters).

    Time and randomness are arguments because this package owns neither a clock nor a source
    of randomness.
    """
    number = (milliseconds & (1 << 48) - 1) << 80 | random_80_bits & (1 << 80) - 1
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def session_id(name: str, unique: str) -> str:
    """The id of a new run of *name*: ``name~unique``, with what ids may not hold replaced by ``-``."""
    label = re.sub(rf"[{_BAD}*]", "-", name).strip(" ")[: MAX_ID_LENGTH - 1 - len(unique)].rstrip(" ")
    return f"{label or 'session'}~{unique}"


def directory_topic(name: str | None = None) -> str:
    """The directory's topic, or that of the runs of one *name*."""
    return DIRECTORY if name is None else f"{DIRECTORY}/{name}"


def is_directory(topic: str) -> bool:
    """Whether *topic* is a directory topic (session ids never begin with ``/``)."""
    return topic == DIRECTORY or topic.startswith(DIRECTORY + "/")
