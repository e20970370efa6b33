"""What the client layer tells its users: plain frozen records, no behaviour.

`ConnectionStatus` says how the link is; the updates say what happened to one subscription. Both
are handed over on the runner's thread: a listener must return quickly and must not block.
Times ending in ``_at`` are seconds of the monotonic clock, as `time.monotonic` gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from wsmonitor.protocol.changes import Change
from wsmonitor.protocol.entities import Command, Entity, ErrorInfo
from wsmonitor.protocol.messages import Degraded, Event, Hold, Welcome

if TYPE_CHECKING:
    import os
    from ssl import SSLContext

Phase = Literal[
    "idle",  # nobody has asked for a connection yet
    "locating",  # looking for a server: see `ConnectionStatus.looked`
    "connecting",  # TCP, TLS and WebSocket handshake
    "authenticating",  # `hello` sent, `welcome` not yet received
    "live",  # frames flow both ways
    "waiting",  # between two attempts: see `next_attempt_at`
    "failed",  # will not be tried again by itself: see `code` and `reason`
    "closed",  # closed by us
]

TokenProvider: TypeAlias = Callable[[], str]
"""Gives a fresh token each time it is called; may block (it is called off the loop)."""

Ssl: TypeAlias = "SSLContext | str | os.PathLike[str]"
"""What a server's certificate is checked against: a context, or a PEM file with certificates."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, and with what credentials.

    Attributes:
        url: ``ws://`` or ``wss://``; None to find a local server (see `client.locate`).
        token: a token, a provider of fresh tokens, or None to mint one from a local server's key.
        name: what others see in the presence list.
        start: whether a local server may be started when none is found (publishers, not observers).
        ssl: what a ``wss://`` server is checked against; None for what `client.trust` says.
        insecure: whether a token may go unencrypted to another machine; None for ``WSMONITOR_INSECURE``.
    """

    url: str | None = None
    token: str | TokenProvider | None = field(default=None, repr=False)
    name: str = ""
    start: bool = False
    ssl: Ssl | None = field(default=None, repr=False)
    insecure: bool | None = None


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """How the link is, at one moment. Immutable: a new one is made when something changes."""

    phase: Phase = "idle"
    url: str | None = None
    looked: tuple[str, ...] = ()  # where a server was looked for, in words
    attempt: int = 0  # attempts since the link was last healthy
    next_attempt_at: float | None = None
    code: str = ""  # catalogue code of the last failure
    reason: str = ""  # the last failure, in words for people
    lost_at: float | None = None  # since when there is no link; None while live
    connected_at: float | None = None
    last_frame_at: float | None = None
    heartbeat_due_at: float | None = None  # when the server's next heartbeat is due
    rtt: float | None = None  # seconds
    clock_offset: float | None = None  # seconds to add to our wall clock to get the server's
    connections: int = 0  # how many times the link was up
    welcome: Welcome | None = None
    degraded: Degraded | None = None  # why the server takes no changes at present

    @property
    def live(self) -> bool:
        return self.phase == "live"

    @property
    def current(self) -> bool:
        """Whether what the server says is of now: the link is live, and the server takes changes."""
        return self.phase == "live" and self.degraded is None


SubscriptionPhase = Literal[
    "waiting",  # no link
    "syncing",  # link, but the replica is not verified yet; what is shown is the old one
    "live",  # verified and current
    "absent",  # live, but there is no such session yet
    "not_available",  # the server will not show it to this token, or it was removed
    "closed",
]


class EventApplied(msgspec.Struct, frozen=True, gc=False):
    """One event was applied live: seq is one more than before.

    Made once per event, and so not a data class, which takes five times as long to make.
    """

    event: Event
    entity: Entity | None


@dataclass(frozen=True, slots=True)
class EventsReplayed:
    """What was missed while away, in order: for logs and handlers, marked; never reduced into state."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class GapFound:
    """The events ``first`` … ``last`` can no longer be had; the state is complete all the same."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SyncStarted:
    """A sync began. ``entities`` is how many will come."""

    entities: int


@dataclass(frozen=True, slots=True)
class SyncCompleted:
    """The replica was replaced by a verified one.

    ``reset`` is not empty when history was not continued ("epoch", "ahead", "diverged"): visible to users.
    """

    epoch: str
    seq: int
    previous: tuple[str, int] | None
    reset: str


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The subscription's phase is another now."""

    phase: SubscriptionPhase
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """Who watches."""

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BatchApplied:
    """With delivery "latest": these entities changed, up to ``seq``."""

    seq: int
    entities: tuple[tuple[str, Entity], ...]
    dropped: tuple[tuple[str, str], ...]


Update: TypeAlias = (
    EventApplied
    | EventsReplayed
    | GapFound
    | SyncStarted
    | SyncCompleted
    | PhaseChanged
    | PresenceChanged
    | BatchApplied
)


class PublicationListener:
    """What a publication tells its owner, on the runner's thread. Override what is of interest."""

    def opened(self, epoch: str, known: bool) -> None:
        """The producer is open (again). Not ``known``, or another epoch: re-assert what you own.

        What is submitted within this call goes in front of what still waits in the spool, and
        replaces waiting changes to the same entities.
        """

    def acknowledged(self, number: int) -> None:
        """All changes up to *number* are committed."""

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        """One change was refused, finally. Number 0 and no change: the publication or a value was; or, where
        *error* is retryable, everything waits for a while because a limit is reached, and is tried again."""

    def overflowed(self, count: int) -> None:
        """The spool was full: so many changes in all were dropped."""

    def drained(self, dropped: int) -> None:
        """A spool that had overflowed has room again: a good moment to re-assert what you own."""

    def unkept(self, words: str) -> None:
        """What cannot be delivered cannot be kept on disk either; *words* are for people."""

    def command(self, command: Command) -> None:
        """A command arrived (once per command, whatever is retried)."""

    def held(self, holds: tuple[Hold, ...]) -> None:
        """What is wanted of our work beneath what other producers own: each time all that is in force."""

    def fenced(self, *, removed: bool) -> None:
        """Another holder took this producer over, or the session was *removed*: nothing more will be sent."""

    def status(self, status: ConnectionStatus) -> None:
        """The link's status changed."""
