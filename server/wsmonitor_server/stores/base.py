"""What a store must do. The same contract tests run against every store.

A store keeps, per session: the entities at the committed head, the last events (history), the
producers' positions (fence and deduplication), the log records; and beside them the large
values, the revoked tokens, the run numbers of names, and tombstones. It knows nothing of
transitions, ownership or subscribers: the authority decides, the store makes it last.

`commit` is the one write path of session data: everything in one `Commit` happens or nothing does.
All methods are coroutines called on the server's loop; a store with blocking I/O moves it to a
thread of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Raw

from wsmonitor.protocol.entities import Entity, LogRecord
from wsmonitor.protocol.reducer import SessionState


class StoreError(Exception):
    """The store could not do it. ``outcome_known``: nothing was written; else nobody knows."""

    def __init__(self, message: str, *, code: str = "store_failed", outcome_known: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.outcome_known = outcome_known


@dataclass(frozen=True, slots=True)
class ProducerPosition:
    """How far one producer of one session has come."""

    producer: str
    subject: str
    epoch: int
    accepted: int  # the last accepted (or rejected) change's number


@dataclass(slots=True)
class Commit:
    """What belongs together: the events that some changes became, and the positions they moved.

    ``events`` are ``(seq, encoded event)``; ``entities`` are the entities they wrote, the last one
    per id; ``drops`` the ones they dropped. ``expected_head`` is the seq before the first event: a store
    that several writers share refuses a commit whose head has moved on.
    """

    session: str
    epoch: str
    expected_head: int
    events: list[tuple[int, bytes]] = field(default_factory=list)
    entities: dict[tuple[str, str], Entity] = field(default_factory=dict)
    drops: list[tuple[str, str]] = field(default_factory=list)
    producers: dict[str, ProducerPosition] = field(default_factory=dict)
    logs: list[tuple[str, LogRecord]] = field(default_factory=list)  # (step, record with its n)
    values: set[str] = field(default_factory=set)  # sha256 that the entities refer to from now on


@dataclass(slots=True)
class StoredSession:
    """A session as it was loaded."""

    state: SessionState
    producers: dict[str, ProducerPosition]
    history: list[tuple[int, bytes]]  # the kept events, in order
    size: int  # bytes kept, without values


class Store(Protocol):
    """A place where sessions last."""

    epoch: str
    """Names the unbroken history of this store; minted when it is created or restored."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def check(self) -> None:
        """Raise `StoreError` when the store could not take a write now (``/readyz``)."""

    # -- sessions
    async def session_ids(self) -> list[str]: ...
    async def load(self, session: str) -> StoredSession | None: ...
    async def commit(self, commits: Sequence[Commit]) -> None:
        """Make all of *commits* last, together. Raises `StoreError`."""

    async def next_run(self, name: str) -> int:
        """1, 2, 3 … per name; a number is never given twice, also after the session was removed."""

    async def remove(self, session: str, *, at: int) -> None:
        """Delete the session, its values and logs; leave a tombstone (``at``: nanoseconds UTC)."""

    async def tombstone(self, session: str) -> int | None:
        """When the session was removed, or None."""

    async def trim(self, session: str, *, first_kept: int) -> None:
        """Forget the events before ``first_kept``."""

    async def history(self, session: str, first: int, limit: int) -> tuple[list[tuple[int, Raw]], int]:
        """Kept events from ``first``, and the first kept seq."""

    async def logs(self, session: str, step: str, first: int, limit: int) -> tuple[list[LogRecord], int]:
        """Kept log records from number ``first``, and the first kept number."""

    # -- large values: pages in order, then verified
    async def value_begin(self, session: str, sha256: str, total: int) -> int:
        """How many bytes of this upload are there already (``total`` when it is complete)."""

    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        """Append a page at ``offset``; True when the value is complete and its digest was verified.

        Raises `StoreError` with code ``value_mismatch`` when it is complete and the digest differs
        (the upload is then discarded).
        """

    async def value_has(self, session: str, sha256: str) -> bool: ...
    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None:
        """A page and the total size, or None when it is not kept."""

    async def value_sweep(self, *, older_than: float) -> int:
        """Delete uploads that nothing refers to and that are older than so many seconds."""

    # -- tokens
    async def revoke(self, jti: str, expires: int) -> None: ...
    async def revoked(self) -> dict[str, int]:
        """All revocations that are not past their token's expiry: jti to expiry (seconds since 1970)."""
