"""What a store must do. The same contract tests run against every store.

A store keeps, per session: the entities at the committed head, the last events (history), the
producers' positions (fence and deduplication), the log records, and a line for the directory; and
beside them the large values, the revoked tokens, the run numbers of names, and tombstones. It
knows nothing of transitions, ownership or subscribers: the authority decides, the store makes it last.

`commit` is the one write path of session data: everything in one call happens or nothing does.
All methods are coroutines called on the server's loop; a store with blocking I/O moves it to a
thread of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from wsmonitor.protocol.entities import Command, Listing, LogRecord
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.metrics import Value


class StoreError(Exception):
    """The store could not do it.

    Attributes:
        code: of the catalogue: ``store_failed``, ``read_only``, ``value_mismatch`` or ``out_of_sequence``.
        message: in words, as clients are told.
        outcome_known: nothing was written; else nobody knows whether it was.
        place: where on the server's machine, for its log; never told to clients.
    """

    def __init__(
        self, message: str, *, code: str = "store_failed", outcome_known: bool = True, place: str = ""
    ) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.code = code
        self.outcome_known = outcome_known
        self.place = place


class MovedError(StoreError):
    """Others were first: these sessions are not what their commits were made for.

    Nothing of *their* commits was written; those of the group's other sessions are made. Only of a store
    that several nodes share (`bus.Shared`).

    Attributes:
        sessions: their ids.
    """

    def __init__(self, sessions: Collection[str]) -> None:
        super().__init__("another node was first")
        self.sessions = frozenset(sessions)


class UnsuitableDirectoryError(ConfigurationError):
    """The store cannot live there (a network file system): another directory must be chosen."""


@dataclass(frozen=True, slots=True)
class ProducerPosition:
    """How far one producer of one session has come."""

    producer: str
    subject: str
    epoch: int
    accepted: int  # the last accepted (or rejected) change's number
    holder: str = ""  # who opened it last: random, one per process run
    node: str = ""  # the server node whose connection it is on, or was; "" where there is only one

    def at(self, accepted: int) -> ProducerPosition:
        """The same producer, with change *accepted* as its last."""
        return ProducerPosition(self.producer, self.subject, self.epoch, accepted, self.holder, self.node)


@dataclass(slots=True)
class Commit:
    """What belongs together: the events that some changes became, and the positions they moved.

    Attributes:
        expected_head: the seq before the first event; the store refuses when its head is another.
        version: in a shared store, how many commits the session has had when this was made, those without
            events counted: the store refuses when there were others since.
        events: ``(seq, encoded event)``. They may be none: a rejected change still moves a position.
        entities: the encoded entities that the events wrote, the last one per (kind, id).
        drops: the (kind, id) that the events dropped.
        logs: ``(step, record with its number)``.
        values: SHA-256 that the session refers to from now on; ``released``: no longer.
        retired: finished commands that the events dropped, encoded, by key: kept apart as long as the
            session, so that no key is ever taken for a new command.
        first_kept: forget the events before this seq; 0 to leave them.
        digest: over the session's entities after these events; "" where the caller does not know it.
        listing: the session's line in the directory; None while there is no session entity.
        attention: whether the session has something to wait for (an open producer, a pending
            command), so that it must be loaded when the server starts.
    """

    session: str
    epoch: str
    expected_head: int
    events: list[tuple[int, bytes]] = field(default_factory=list)
    entities: dict[tuple[str, str], bytes] = field(default_factory=dict)
    drops: set[tuple[str, str]] = field(default_factory=set)
    producers: dict[str, ProducerPosition] = field(default_factory=dict)
    logs: list[tuple[str, LogRecord]] = field(default_factory=list)
    values: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    retired: dict[str, bytes] = field(default_factory=dict)
    first_kept: int = 0
    digest: str = ""
    listing: Listing | None = None
    attention: bool = False
    version: int = 0


@dataclass(slots=True)
class StoredSession:
    """A session as it was loaded."""

    state: SessionState
    producers: dict[str, ProducerPosition]
    history: list[tuple[int, bytes]]  # the kept events, in order, up to the head
    values: set[str]  # SHA-256 of the large values that are kept for it
    size: int  # bytes of its entities
    retired: int = 0  # how many retired commands there are
    version: int = 0  # how many commits the session has had; counted by a shared store only


@runtime_checkable
class Measured(Protocol):
    """A store that has figures of its own."""

    def measures(self) -> dict[str, Value]:
        """By names of `figures.METRICS`."""


class Store(Protocol):
    """A place where sessions last."""

    epoch: str
    """Names the unbroken history of this store; minted when it is created or restored."""

    async def open(self) -> None:
        """Make ready. Raises `ConfigurationError` or `StoreError` with words for people."""

    async def close(self) -> None: ...

    async def check(self, *, room: int = 0) -> None:
        """Raise `StoreError` when the store could not take a write now, of *room* bytes (``/readyz``)."""

    def info(self) -> dict[str, str | int]:
        """Facts for ``status``: kind, path, size in bytes …"""

    async def size(self) -> int:
        """Bytes used, values included (for the disk quota)."""

    async def compact(self) -> None:
        """Give space that removed sessions have left back to the system, a little at a time."""

    # -- sessions
    async def listings(self) -> list[tuple[Listing, bool]]:
        """Every session's line in the directory, and whether it needs attention at start.

        A session that has no session entity yet comes with an empty name and state ``absent``.
        """

    async def load(self, session: str) -> StoredSession | None:
        """The session as it was committed; None where there is none.

        Raises `StoreError` where what is stored cannot be what was committed.
        """

    async def commit(self, commits: Sequence[Commit]) -> None:
        """Make all of *commits* last, together. Raises `StoreError`; of a shared store, also `MovedError`."""

    async def retired_command(self, session: str, key: str) -> Command | None:
        """A command whose record the session's state no longer has."""

    async def next_run(self, name: str) -> int:
        """1, 2, 3 … per name; a number is never given twice, also after the session was removed."""

    async def remove(self, session: str, *, at: int) -> None:
        """Delete the session, its values and logs; leave a tombstone (``at``: nanoseconds UTC)."""

    async def tombstone(self, session: str) -> int | None:
        """When the session was removed (nanoseconds UTC), or None."""

    async def forget_tombstones(self, *, before: int) -> None:
        """Forget removals from before (nanoseconds UTC)."""

    async def logs(self, session: str, step: str, first: int, limit: int) -> tuple[list[LogRecord], int]:
        """Kept log records from number ``first`` on, and the first kept number (0: there are none)."""

    # -- large values: pages in order, then verified
    async def value_begin(self, session: str, sha256: str, total: int) -> int:
        """How many bytes of this upload are there already (``total`` when it is complete)."""

    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        """Append a page at ``offset``; True when the value is complete and its digest was verified.

        Raises `StoreError`: ``out_of_sequence`` when ``offset`` is not where the upload stands;
        ``value_mismatch`` when it is complete and the digest differs (the upload is then discarded).
        """

    async def value_has(self, session: str, sha256: str) -> bool: ...
    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None:
        """A page and the total size, or None when it is not kept."""

    async def value_sweep(self, *, older_than: float) -> int:
        """Delete values that no session refers to and that are older than so many seconds."""

    # -- tokens
    async def revoke(self, jti: str, expires: int) -> None: ...
    async def revoked(self) -> dict[str, int]:
        """All revocations: jti to the token's expiry (seconds since 1970; 0 when it is not known)."""

    async def forget_revocations(self, *, before: int) -> None:
        """Forget revocations of tokens that expired before (seconds since 1970)."""
