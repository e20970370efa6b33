"""The things that a session's state is made of.

Every entity is a frozen record. A change never edits one: the authority makes the next record,
an event carries it whole, and a replica puts it in the place of the old one. A snapshot is
therefore a shallow copy, and an event can be applied without knowing what happened before.

Times are integer nanoseconds since 1970 UTC as decimal strings (`Nanoseconds`); an empty
string means that it has not happened. Fields at their default are left out on the wire.

``seq`` is the sequence number of the event that last wrote the entity.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from .ids import (
    Id,
    Key128,
    LaterId,
    LaterName,
    LaterOptionalId,
    LaterOptionalTime,
    LaterSessionId,
    Name,
    Nanoseconds,
    Natural,
    Number,
    OptionalId,
    OptionalNanoseconds,
    SessionId,
    Sha256,
)
from .states import CommandState, Liveness, State

Severity = Literal["info", "warning", "error", "fatal"]
Scalar = str | bool | Number
Attributes = dict[str, Scalar | list[Scalar]]
"""OpenTelemetry's attribute values: a scalar, or a list of scalars. Send integers from 2^53 on as strings."""

PAUSES: Final = "wsmonitor.pauses"
"""The attribute in which a producer tells when work was paused: integer milliseconds since 1970 UTC,
alternately the beginning and the end of a pause, the oldest first; an odd one out lasts still."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of all records: immutable; defaults are not sent.

    Nothing in a record can refer back to it, so the garbage collector need not look at the many there are.
    """


class Value(Record, frozen=True, kw_only=True):
    """An input, an output or another value: its text, or a preview and a handle.

    ``text`` is the value's exact UTF-8 text when ``truncated`` is false; else the longest prefix,
    cut at a character's boundary, that fits the inline limit (empty for binary types).
    The handle of a truncated value is ``sha256``: the digest of its bytes, which are read
    page by page with ``value_get``.

    ``parts`` are further large values that this one's text refers to (a recorded cell's pictures), size in
    bytes by SHA-256: uploaded before, read likewise, and kept as long as this value is referred to.
    """

    mime: str = "application/json"
    text: str = ""
    size: Natural  # bytes of the whole value
    sha256: Sha256
    truncated: bool = False
    parts: Annotated[dict[Sha256, Natural], msgspec.Meta(max_length=128)] = {}


class Progress(Record, frozen=True, kw_only=True):
    """How far something is. ``total`` is None while it is not known."""

    done: Number = 0
    total: Number | None = None
    unit: str = ""


class Failure(Record, frozen=True, kw_only=True):
    """Why a session, chain or step failed, as its producer tells it."""

    code: str = "step_failed"
    message: str = ""
    type: str = ""  # the exception's class, with its module
    traceback: str = ""


class Link(Record, frozen=True, kw_only=True):
    """A reference to something elsewhere: a URL, or another session's step."""

    rel: str
    href: str
    title: str = ""


class Argument(Record, frozen=True, kw_only=True):
    """One argument of a command."""

    name: Id
    type: Literal["string", "integer", "number", "boolean"] = "string"
    required: bool = False
    choices: tuple[str, ...] = ()
    description: str = ""


class CommandSpec(Record, frozen=True, kw_only=True):
    """A command that a producer takes: observers offer these and no others."""

    name: Id
    targets: tuple[Literal["session", "chain", "step"], ...] = ("session",)
    args: tuple[Argument, ...] = ()
    destructive: bool = False  # to be confirmed by the person who sends it
    description: str = ""


class Session(Record, frozen=True, kw_only=True):
    """One run of a named piece of work."""

    id: LaterSessionId
    name: LaterName
    run: Natural = 0  # 1, 2, 3 … per name, counted by the server
    kind: str = ""
    state: State = "pending"
    reason: str = ""  # why it is in this state, e.g. "superseded"
    progress: Progress | None = None
    input: Value | None = None
    output: Value | None = None
    error: Failure | None = None
    metrics: dict[str, Number] = {}
    tags: tuple[str, ...] = ()
    attributes: Attributes = {}
    links: tuple[Link, ...] = ()
    commands: tuple[CommandSpec, ...] = ()
    created: LaterOptionalTime = ""
    started: LaterOptionalTime = ""
    ended: LaterOptionalTime = ""
    producer: LaterOptionalId = ""
    seq: Natural = 0


class Chain(Record, frozen=True, kw_only=True):
    """One trace within a session: a run of steps that belong together."""

    id: LaterId
    name: LaterName
    kind: str = ""
    state: State = "pending"
    reason: str = ""
    progress: Progress | None = None
    input: Value | None = None
    output: Value | None = None
    error: Failure | None = None
    metrics: dict[str, Number] = {}
    tags: tuple[str, ...] = ()
    attributes: Attributes = {}
    links: tuple[Link, ...] = ()
    created: LaterOptionalTime = ""
    started: LaterOptionalTime = ""
    ended: LaterOptionalTime = ""
    producer: LaterOptionalId = ""
    seq: Natural = 0


class Step(Record, frozen=True, kw_only=True):
    """One piece of work, of any depth: ``parent`` is another step of the same session, or "".

    A parent may arrive after its children. A retry is a new step with the same ``step_key``
    and ``attempt + 1``.
    """

    id: LaterId
    chain: LaterId
    parent: LaterOptionalId = ""
    name: LaterName
    kind: str = ""
    state: State = "pending"
    reason: str = ""
    step_key: str = ""
    attempt: Natural = 1
    progress: Progress | None = None
    input: Value | None = None
    output: Value | None = None
    error: Failure | None = None
    metrics: dict[str, Number] = {}
    log_count: Natural = 0
    log_last: str = ""
    tags: tuple[str, ...] = ()
    attributes: Attributes = {}
    links: tuple[Link, ...] = ()
    commands: tuple[str, ...] = ()  # names of `Session.commands` that this step takes now
    created: LaterOptionalTime = ""
    started: LaterOptionalTime = ""
    ended: LaterOptionalTime = ""
    producer: LaterOptionalId = ""
    seq: Natural = 0


class Command(Record, frozen=True, kw_only=True):
    """The record of one command, from request to its end. Written by the server; see ``states``."""

    id: Id  # equal to the idempotency key
    name: Id
    chain: OptionalId = ""
    step: OptionalId = ""
    args: dict[str, Scalar] = {}
    state: CommandState = "requested"
    actor: str = ""  # the subject of the token that asked
    via: str = ""  # what the asking client calls itself
    reason: str = ""
    deadline: Nanoseconds
    requested: Nanoseconds
    delivered: OptionalNanoseconds = ""
    accepted: OptionalNanoseconds = ""
    ended: OptionalNanoseconds = ""
    seq: Natural = 0


class Producer(Record, frozen=True, kw_only=True):
    """One publishing process of a session, and whether it is heard."""

    id: Id
    subject: str = ""
    agent: str = ""  # e.g. "train.py, pid 4711"
    epoch: Natural = 1
    liveness: Liveness = "live"
    since: Nanoseconds  # since when it has this liveness
    closed: bool = False  # it said goodbye: silence is expected
    seq: Natural = 0


class Problem(Record, frozen=True, kw_only=True):
    """A session's error that is not (only) a step's failure: what went wrong around it."""

    id: Id
    code: str
    message: str
    severity: Severity = "error"
    retryable: bool = False
    chain: OptionalId = ""
    step: OptionalId = ""
    command: OptionalId = ""
    producer: OptionalId = ""
    correlation: str = ""
    at: Nanoseconds
    seq: Natural = 0


class Listing(Record, frozen=True, kw_only=True):
    """A session as the directory shows it. ``id`` is the session's."""

    id: SessionId
    name: Name
    run: Natural = 0
    kind: str = ""
    state: State | Literal["absent"] = "pending"
    reason: str = ""
    liveness: Liveness | Literal[""] = ""  # the worst of its open producers'
    counts: dict[str, Natural] = {}  # steps by state, each as its newest attempt
    problem: str = ""  # the first failure that no further attempt has repaired
    created: OptionalNanoseconds = ""
    started: OptionalNanoseconds = ""
    ended: OptionalNanoseconds = ""
    size: Natural = 0  # bytes kept for it
    seq: Natural = 0


Entity = Session | Chain | Step | Command | Producer | Problem | Listing

KINDS: Final[dict[str, type[Entity]]] = {
    "session": Session,
    "chain": Chain,
    "step": Step,
    "command": Command,
    "producer": Producer,
    "error": Problem,
    "listing": Listing,
}
"""Entity kinds by the name they have on the wire. ``listing`` occurs in directory topics only."""

KIND_OF: Final[dict[type, str]] = {cls: kind for kind, cls in KINDS.items()}


class ErrorInfo(Record, frozen=True, kw_only=True):
    """An error as it is told to people and programs.

    ``code`` is one of ``errors.CATALOGUE``. The context is what is known: never another
    session's data.
    """

    code: str
    message: str
    severity: Severity = "error"
    retryable: bool = False
    session: str = ""
    chain: str = ""
    step: str = ""
    command: str = ""
    correlation: str = ""
    details: dict[str, Any] = {}


class LogRecord(Record, frozen=True, kw_only=True):
    """One log line of a step. ``n`` counts the step's lines from 1."""

    n: Natural = 0
    at: Nanoseconds
    level: Literal["debug", "info", "warning", "error"] = "info"
    text: str
    truncated: bool = False


__all__ = [
    "KINDS",
    "PAUSES",
    "KIND_OF",
    "Argument",
    "Attributes",
    "Chain",
    "Command",
    "CommandSpec",
    "Entity",
    "ErrorInfo",
    "Failure",
    "Key128",
    "Link",
    "Listing",
    "LogRecord",
    "Problem",
    "Producer",
    "Progress",
    "Record",
    "Scalar",
    "Session",
    "Severity",
    "Step",
    "Value",
]
