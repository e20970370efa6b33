"""What a producer publishes: an array of changes, each numbered by the producer.

A change names an entity and the fields to set; what it does not name stays. The first change
to an id creates the entity, and must then name what has no default (see `CREATE_REQUIRES`).
Sending all fields of an entity again is therefore a re-assertion, and safe: this is how a
producer restores what it owns after a new epoch.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .entities import Attributes, CommandSpec, Failure, Link, LogRecord, Progress, Severity, Value
from .ids import Id, Key128, Name, Nanoseconds, Natural, Number, OptionalId
from .states import State

Text = Annotated[str, Meta(max_length=4096)]
Short = Annotated[str, Meta(max_length=256)]
Metrics = Annotated[dict[Short, Number], Meta(max_length=64)]
Tags = Annotated[tuple[Short, ...], Meta(max_length=64)]
BoundedAttributes = Annotated[Attributes, Meta(max_length=128)]
Links = Annotated[tuple[Link, ...], Meta(max_length=32)]


class _Change(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", forbid_unknown_fields=False):
    pass


class _Common(_Change, frozen=True, kw_only=True):
    """The fields that session, chain and step share. An unset field is not touched."""

    name: Name | UnsetType = UNSET
    kind: Short | UnsetType = UNSET
    state: State | UnsetType = UNSET
    reason: Text | UnsetType = UNSET
    progress: Progress | UnsetType | None = UNSET
    input: Value | UnsetType | None = UNSET
    output: Value | UnsetType | None = UNSET
    error: Failure | UnsetType | None = UNSET
    metrics: Metrics | UnsetType = UNSET  # merged by key, so that two metrics need not be sent together
    tags: Tags | UnsetType = UNSET
    attributes: BoundedAttributes | UnsetType = UNSET  # merged by key
    links: Links | UnsetType = UNSET
    created: Nanoseconds | UnsetType = UNSET
    started: Nanoseconds | UnsetType = UNSET
    ended: Nanoseconds | UnsetType = UNSET


class SessionChange(_Common, frozen=True, kw_only=True, tag="session"):
    """Create or change the session itself. The id is that of the publication."""

    commands: Annotated[tuple[CommandSpec, ...], Meta(max_length=64)] | UnsetType = UNSET


class ChainChange(_Common, frozen=True, kw_only=True, tag="chain"):
    """Create or change a chain."""

    id: Id


class StepChange(_Common, frozen=True, kw_only=True, tag="step"):
    """Create or change a step."""

    id: Id
    chain: Id | UnsetType = UNSET
    parent: OptionalId | UnsetType = UNSET
    step_key: Short | UnsetType = UNSET
    attempt: Annotated[int, Meta(ge=1, le=1_000_000)] | UnsetType = UNSET
    commands: Annotated[tuple[Id, ...], Meta(max_length=64)] | UnsetType = UNSET


class LogChange(_Change, frozen=True, kw_only=True, tag="log"):
    """Append log lines to a step. ``n`` of each record is set by the server."""

    step: Id
    records: Annotated[tuple[LogRecord, ...], Meta(min_length=1, max_length=256)]


class CommandChange(_Change, frozen=True, kw_only=True, tag="command"):
    """What became of a command: the producer's word on it."""

    id: Key128
    state: Literal["delivered", "accepted", "applied", "rejected", "unknown"]
    reason: Text = ""


class ProblemChange(_Change, frozen=True, kw_only=True, tag="error"):
    """An error of the session that is not a step's failure."""

    id: Id
    code: Short
    message: Text
    severity: Severity = "error"
    chain: OptionalId = ""
    step: OptionalId = ""


class SkippedChange(_Change, frozen=True, kw_only=True, tag="skipped"):
    """The spool overflowed: this stands in the place of ``count`` changes that were dropped.

    It takes one sequence number itself, and moves the next expected one to ``last + 1``.
    """

    first: Natural
    last: Natural
    count: Natural


Change = SessionChange | ChainChange | StepChange | LogChange | CommandChange | ProblemChange | SkippedChange


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """Stands in the place of a change that cannot be read. It never travels.

    It has used its number as any refused change has, and the others of its message stand.

    Attributes:
        code: of the catalogue: what the `rejected` says, with ``message``.
        context: what it was about, as far as that could be read: ``step`` or ``chain`` to an id.
    """

    code: str
    message: str
    context: dict[str, str] = {}


CREATE_REQUIRES: Final[dict[type, tuple[str, ...]]] = {
    SessionChange: ("name",),
    ChainChange: ("name",),
    StepChange: ("name", "chain"),
}
"""The fields that the change which creates an entity must set."""
