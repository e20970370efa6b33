"""The digest of a session's state: how two replicas know that they agree.

The digest is the sum, modulo 2^128, of one number per entity: the first 16 bytes, big-endian,
of SHA-256 over the entity's *canonical encoding*. A sum, because then one event costs the hash
of one entity and not of the whole state. It is written as 32 lower-case hexadecimal digits;
the empty state's is all zeros.

The canonical encoding is a JSON array, in UTF-8, without white space: the entity kind, then the
fields that `FIELDS` names, in that order. Inside it:

- a string is written with the escapes ``\\"`` ``\\\\`` ``\\b`` ``\\f`` ``\\n`` ``\\r`` ``\\t``, other control
  characters below U+0020 as ``\\u00xx`` (lower case), everything else as itself;
- a number that is integral and less than 2^53 in magnitude is written as an integer; any other number as a
  string, ``"f:"`` and the 16 hexadecimal digits of the nearest IEEE 754 double, big-endian. So ``1``
  and ``1.0``, or ``2^53`` and ``2^53 + 1``, which JavaScript cannot tell apart, are the same, and no
  rule of float formatting is needed. Minus zero is ``0``; NaN and the infinities do not occur;
- true and false are written as such;
- a map's keys are sorted by their UTF-8 bytes; tags and other lists keep their order;
- a `Value` is its ``sha256``; another record is an array of its fields, in the order of `NESTED`;
- a field that was left out on the wire has its default, as the record's definition states it; None
  is ``null``.

Logs (count and last line), presence and ages are not included. A field that a later minor
version adds is not either: a client that ignores what it does not know still agrees.
Vectors: ``docs/vectors/digest.json``.
"""

from __future__ import annotations

import struct
import sys
from hashlib import sha256
from typing import Any, Final

import msgspec

from .entities import (
    KIND_OF,
    Argument,
    Chain,
    CommandSpec,
    Entity,
    Progress,
    Session,
    Step,
)

MODULUS: Final = 1 << 128
EMPTY: Final = "0" * 32
_SAFE: Final = 1 << 53
_LARGEST: Final = sys.float_info.max
_eight_bytes: Final = struct.Struct(">d").pack

_ENTITY_TAIL: Final = (
    "name",
    "kind",
    "state",
    "reason",
    "progress",
    "input",
    "output",
    "error",
    "metrics",
    "tags",
    "attributes",
    "links",
    "created",
    "started",
    "ended",
    "producer",
    "seq",
)

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "session": ("id", "run", "commands", *_ENTITY_TAIL),
    "chain": ("id", *_ENTITY_TAIL),
    "step": ("id", "chain", "parent", "step_key", "attempt", "commands", *_ENTITY_TAIL),
    "command": (
        "id", "name", "chain", "step", "args", "state", "actor", "via", "reason",
        "deadline", "requested", "delivered", "accepted", "ended", "seq",
    ),
    "producer": ("id", "subject", "agent", "epoch", "liveness", "since", "closed", "seq"),
    "error": (
        "id", "code", "message", "severity", "retryable", "chain", "step", "command", "producer",
        "correlation", "at", "seq",
    ),
    "listing": (
        "id", "name", "run", "kind", "state", "reason", "liveness", "counts", "problem",
        "created", "started", "ended", "size", "seq",
    ),
}  # fmt: skip
"""The fields of each entity kind that its digest covers, in the order of the canonical array."""

NESTED: Final[dict[str, tuple[str, ...]]] = {
    "Progress": ("done", "total", "unit"),
    "Failure": ("code", "message", "type", "traceback"),
    "Link": ("rel", "href", "title"),
    "CommandSpec": ("name", "targets", "args", "destructive", "description"),
    "Argument": ("name", "type", "required", "choices", "description"),
}
"""The fields of the records inside an entity, likewise."""

# Sorting is by UTF-8 bytes; "sorted" of msgspec compares that way too.
_encode = msgspec.json.Encoder(order="sorted").encode


def _number(value: int | float) -> int | str:
    if isinstance(value, int):
        return value if -_SAFE < value < _SAFE else _double(value)
    if value.is_integer() and -_SAFE < value < _SAFE:
        return int(value)
    if not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{value} has no canonical form")
    return _double(value)


def _double(value: int | float) -> str:
    return "f:" + _eight_bytes(value).hex()


def _plain(value: Any) -> Any:
    """A scalar, list or map with its numbers in canonical form."""
    if type(value) is float or type(value) is int:
        return _number(value)
    if isinstance(value, dict):
        return _map(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _map(value: dict[str, Any]) -> dict[str, Any]:
    """A map with its numbers in canonical form: itself, where they are that already."""
    changed: dict[str, Any] | None = None
    for key, item in value.items():
        kind = type(item)
        if kind is str or (kind is int and -_SAFE < item < _SAFE):
            continue
        if changed is None:
            changed = value.copy()
        if kind is float and not item.is_integer() and -_LARGEST <= item <= _LARGEST:
            changed[key] = "f:" + _eight_bytes(item).hex()
        else:
            changed[key] = _plain(item)
    return value if changed is None else changed


def _progress(value: Progress) -> Any:
    return (_number(value.done), None if value.total is None else _number(value.total), value.unit)


def _argument(item: Argument) -> Any:
    return (item.name, item.type, item.required, item.choices, item.description)


def _specs(specs: tuple[CommandSpec, ...]) -> Any:
    return [
        (spec.name, spec.targets, [_argument(item) for item in spec.args], spec.destructive, spec.description)
        for spec in specs
    ]


def canonical(entity: Entity) -> bytes:
    """The canonical encoding of *entity*, as the module's docstring specifies it."""
    # Written out by kind rather than driven by FIELDS: this runs once per event on every side. A test holds
    # the two against each other.
    head: tuple[Any, ...]
    if isinstance(entity, Step):
        head = (
            "step",
            entity.id,
            entity.chain,
            entity.parent,
            entity.step_key,
            entity.attempt,
            entity.commands,
        )
    elif isinstance(entity, Chain):
        head = ("chain", entity.id)
    elif isinstance(entity, Session):
        head = ("session", entity.id, entity.run, _specs(entity.commands))
    else:
        kind = KIND_OF[type(entity)]
        return _encode((kind, *(_plain(getattr(entity, field)) for field in FIELDS[kind])))
    progress, error, links = entity.progress, entity.error, entity.links
    given, result = entity.input, entity.output
    tail = (
        entity.name,
        entity.kind,
        entity.state,
        entity.reason,
        None if progress is None else _progress(progress),
        None if given is None else given.sha256,
        None if result is None else result.sha256,
        None if error is None else (error.code, error.message, error.type, error.traceback),
        _map(entity.metrics),
        entity.tags,
        _map(entity.attributes),
        [(link.rel, link.href, link.title) for link in links] if links else (),
        entity.created,
        entity.started,
        entity.ended,
        entity.producer,
        entity.seq,
    )
    return _encode(head + tail)


def entity_hash(entity: Entity) -> int:
    """The number that *entity* adds to its session's digest, in 0 … 2^128 - 1."""
    return int.from_bytes(sha256(canonical(entity)).digest()[:16], "big")


def to_hex(total: int) -> str:
    """A digest as it is written on the wire."""
    return f"{total % MODULUS:032x}"
