"""A session as a JSON document.

The records are those of the protocol and of the Python API (`wsmonitor.protocol.entities`), with
one difference to the wire: every field is written, also where it has its default, so that a
reader needs no table of defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from wsmonitor.protocol.entities import LogRecord, Record
from wsmonitor.protocol.errors import StateError, UsageError
from wsmonitor.protocol.ids import Nanoseconds
from wsmonitor.protocol.reducer import SessionState, convert_entity

FORMAT: Final = "wsmonitor.session/1"
"""The document's format. The number changes only when a field changes its meaning or goes away."""

_GROUPS: Final = {
    "chain": "chains",
    "step": "steps",
    "command": "commands",
    "producer": "producers",
    "error": "errors",
}

Logs = Mapping[str, Sequence[LogRecord]]
"""Log records by step id; the steps' kept records, oldest first."""


class Origin(Record, frozen=True, kw_only=True):
    """Where a copy of a session comes from, and how old it is.

    Attributes:
        exported: when the file was made.
        as_of: the server's time up to which the copy is verified.
        live: whether the link to the server was up and the copy current when the file was made.
        server: the server's URL, without credentials.
        version: the server's version.
    """

    exported: Nanoseconds
    as_of: Nanoseconds
    live: bool = True
    server: str = ""
    version: str = ""


def full(record: Any) -> Any:
    """*record* as plain JSON values, with every field written out."""
    if isinstance(record, msgspec.Struct):
        fields = msgspec.structs.fields(record)
        return {field.encode_name: full(getattr(record, field.name)) for field in fields}
    if isinstance(record, tuple | list):
        return [full(item) for item in record]
    if isinstance(record, dict):
        return {key: full(value) for key, value in record.items()}
    return record


def document(state: SessionState, origin: Origin, logs: Logs | None = None) -> dict[str, Any]:
    """The document of *state* as plain values.

    ``position`` is the verified place of the copy; ``digest`` is that of the protocol, so that two
    documents of the same position can be compared by it.
    """
    by_seq = {
        kind: [full(entity) for entity in sorted(group.values(), key=lambda entity: (entity.seq, entity.id))]
        for kind, group in state.entities.items()
    }
    return {
        "format": FORMAT,
        "origin": full(origin),
        "position": {"epoch": state.epoch, "seq": state.seq, "digest": state.digest},
        "session": full(state.session) if state.session is not None else None,
        **{name: by_seq[kind] for kind, name in _GROUPS.items()},
        "logs": {step: [full(line) for line in lines] for step, lines in (logs or {}).items()},
    }


def from_json(data: bytes | str) -> tuple[SessionState, Origin, dict[str, list[LogRecord]]]:
    """What `to_json` wrote: the state, where it came from, and the log records by step id.

    Raises:
        UsageError: it is no such document, or it is damaged: the digest is not that of its records.
    """
    try:
        told = msgspec.json.decode(data)
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            found = told.get("format") if isinstance(told, dict) else None
            raise UsageError(f"not a session's document: its format is {found!r}, not {FORMAT!r}")
        position, session = told["position"], told["session"]
        groups = {
            "session": [] if session is None else [session],
            **{kind: told[name] for kind, name in _GROUPS.items()},
        }
        entities = [(kind, convert_entity(kind, one)) for kind, group in groups.items() for one in group]
        topic = session["id"] if session is not None else "-"
        state = SessionState.restore(topic, position["epoch"], position["seq"], entities)
        origin = msgspec.convert(told["origin"], Origin)
        logs = msgspec.convert(told["logs"], dict[str, list[LogRecord]])
        digest = position["digest"]
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, StateError) as exc:
        raise UsageError(f"not a session's document: {exc.__class__.__name__}: {exc}") from exc
    if state.digest != digest:
        raise UsageError("the document is damaged: the digest is not that of its records")
    return state, origin, logs


def to_json(state: SessionState, origin: Origin, logs: Logs | None = None) -> bytes:
    """The document of *state* as indented UTF-8 JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document(state, origin, logs)), indent=2) + b"\n"
