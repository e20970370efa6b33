"""From a change to the next complete entity: the rules that need nothing but the two of them.

Everything here raises `Rejection` and changes nothing.
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import fields, replace

from wsmonitor.protocol.changes import (
    CREATE_REQUIRES,
    ChainChange,
    Change,
    CommandChange,
    LogChange,
    SessionChange,
    StepChange,
    Unreadable,
)
from wsmonitor.protocol.entities import Chain, Progress, Session, Step, Value
from wsmonitor.protocol.states import TERMINAL, may_follow

Work = Session | Chain | Step
WorkChange = SessionChange | ChainChange | StepChange

_SAFE: Final = 1 << 53
_ACTIVE: Final = frozenset({"running", "paused", "awaiting_input", "cancelling"})

_ENTITY: Final[dict[type, type[Work]]] = {SessionChange: Session, ChainChange: Chain, StepChange: Step}
_FIELDS: Final[dict[type, tuple[str, ...]]] = {
    cls: tuple(one.name for one in fields(cls) if one.name != "id") for cls in _ENTITY
}
_NO_VALUES: Final = (UNSET, UNSET)
ENTITY_KIND: Final[dict[type, str]] = {SessionChange: "session", ChainChange: "chain", StepChange: "step"}


class Rejection(Exception):
    """A change is refused. It has used its number; this is final."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def updates_of(change: WorkChange) -> dict[str, Any]:
    """The fields that *change* sets."""
    return {name: value for name in _FIELDS[type(change)] if (value := getattr(change, name)) is not UNSET}


def uploads_of(change: WorkChange) -> list[str]:
    """The SHA-256 of the large values that *change* refers to."""
    values = (change.input, change.output)
    if values == _NO_VALUES:
        return []
    return [one for value in values if isinstance(value, Value) for one in large_of(value)]


def large_of(value: Value) -> dict[str, int]:
    """The large values that *value* stands for: size in bytes by SHA-256."""
    return {**value.parts, value.sha256: value.size} if value.truncated else value.parts


def context_of(change: Change | Unreadable) -> dict[str, str]:
    """What *change* is about, by the names that the fields of an error have."""
    match change:
        case Unreadable():
            return change.context
        case ChainChange():
            return {"chain": change.id}
        case StepChange():
            return {"step": change.id}
        case LogChange():
            return {"step": change.step}
        case CommandChange():
            return {"command": change.id}
        case _:
            return {}


def merge(
    old: Work | None,
    ident: str,
    change: WorkChange,
    producer: str,
    *,
    seq: int,
    now: str,
    run: int,
    session_over: bool,
    inline: int,
) -> tuple[Work, str] | None:
    """The next complete entity, with ``seq``, and a note for the audit; None if nothing changes.

    Args:
        old: the entity as it is, or None when the change creates it.
        now: the server's time, for the times that the producer does not name.
        run: the run number, for a session that is created.
        session_over: the session has ended for good: nothing may begin in it any more.
        inline: the largest text of a value, in bytes.
    """
    updates = updates_of(change)
    _check(updates, inline)
    new_state = updates.get("state")
    if new_state == "crashed":
        raise Rejection("illegal_transition", "only the server writes `crashed`")
    cls = _ENTITY[type(change)]
    if old is None:
        _create(cls, ident, updates, session_over)
        if cls is Session:
            updates["run"] = run
        updates.setdefault("created", now)
        _times(updates, new_state or "pending", "", "", now)
        return cls(id=ident, producer=producer, seq=seq, **updates), ""
    if old.producer != producer:
        raise Rejection("not_owner", f"{_words(old)} was created by another producer")
    if old.state == "crashed" and new_state == "pending":
        # A producer that is back asserts what it owns. Nothing becomes pending again: it stays
        # crashed until its producer begins or ends it.
        del updates["state"]
        new_state = None
    note = _change(old, updates, new_state)
    for name in ("metrics", "attributes"):
        if name in updates:
            updates[name] = {**getattr(old, name), **updates[name]}
    if new_state is not None and new_state != old.state:
        # What the server wrote as the end of a crashed one was not its end.
        ended = "" if old.state == "crashed" else old.ended
        _times(updates, new_state, old.started, ended, now)
    if all(getattr(old, name) == value for name, value in updates.items()):
        return None
    return replace(old, seq=seq, **updates), note


def _create(cls: type[Work], ident: str, updates: dict[str, Any], session_over: bool) -> None:
    change = next(key for key, value in _ENTITY.items() if value is cls)
    missing = [name for name in CREATE_REQUIRES[change] if name not in updates]
    if missing:
        raise Rejection(
            "bad_message",
            f"{cls.__name__.lower()} {ident!r} does not exist: to create it, {missing} is needed",
        )
    if session_over and updates.get("state", "pending") not in TERMINAL:
        raise Rejection(
            "session_ended", f"the session has ended: {cls.__name__.lower()} {ident!r} cannot begin"
        )


def _change(old: Work, updates: dict[str, Any], new_state: str | None) -> str:
    """Check what may follow *old*; returns the note for the audit."""
    if isinstance(old, Session) and updates.get("name", old.name) != old.name:
        raise Rejection("bad_message", f"the session's name is {old.name!r}; it cannot be changed")
    if new_state is None or new_state == old.state:
        return ""
    if not may_follow(old.state, new_state):
        raise Rejection("illegal_transition", f"{_words(old)} is {old.state}; {new_state} cannot follow")
    return f"crashed was superseded by {new_state}" if old.state == "crashed" else ""


def _words(entity: Work) -> str:
    return f"{type(entity).__name__.lower()} {entity.id!r}"


def _times(updates: dict[str, Any], state: str, started: str, ended: str, now: str) -> None:
    """Fill in when it started and ended, where the producer does not say."""
    if state in _ACTIVE:
        if not started:
            updates.setdefault("started", now)
        updates.setdefault("ended", "")
    elif state in TERMINAL:
        updates.setdefault("ended", ended or now)


def _check(updates: dict[str, Any], inline: int) -> None:
    for name in ("input", "output"):
        value = updates.get(name)
        if value is not None:
            check_value(name, value, inline)
    progress = updates.get("progress")
    if isinstance(progress, Progress):
        _number("progress", progress.done)
        if progress.total is not None:
            _number("progress", progress.total)
    for key, number in updates.get("metrics", {}).items():
        _number(f"metric {key!r}", number)
    for key, attribute in updates.get("attributes", {}).items():
        for item in attribute if isinstance(attribute, list) else (attribute,):
            if isinstance(item, int | float):
                _number(f"attribute {key!r}", item)


def _number(what: str, value: int | float) -> None:
    if isinstance(value, int):
        if not -_SAFE <= value <= _SAFE:
            raise Rejection("bad_message", f"{what}: integers beyond 2^53 must be sent as strings")
    elif not math.isfinite(value):
        raise Rejection("bad_message", f"{what}: not a finite number")


def check_value(name: str, value: Value, inline: int) -> None:
    """Check that *value* is what it says: text, size and digest agree (protocol, rule 10)."""
    data = value.text.encode()
    if len(data) > inline:
        raise Rejection(
            "value_too_large", f"{name}: {len(data):,} bytes inline; {inline:,} are allowed: upload it first"
        )
    if value.size < 0:
        raise Rejection("bad_message", f"{name}: a negative size")
    if not value.truncated and (len(data) != value.size or sha256(data).hexdigest() != value.sha256):
        raise Rejection("value_mismatch", f"{name}: size or digest do not fit the text")
