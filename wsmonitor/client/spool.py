"""What lies in a publication's spool, and what its owner is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wsmonitor.protocol.changes import ChainChange, Change, SessionChange, StepChange
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.messages import Hold


@dataclass(slots=True)
class Entry:
    """One place in the spool: a change, or a value to be uploaded before what is behind it."""

    ticket: int
    change: Change | None
    encoded: bytes
    number: int | None = None  # wire number; None until it is sent
    counted: bool = True  # against the limits
    value: bytes | None = None
    sha256: str = ""
    uploaded: bool = False
    skipped: int = 0  # for the mark of an overflow: how many were dropped here
    stands_for: int = 0  # the oldest ticket that this assertion has replaced; 0 for none


class PublicationEvents(Protocol):
    """What the machine tells its owner; most are those of `types.PublicationListener`."""

    def opened(self, epoch: str, known: bool) -> None: ...
    def acknowledged(self, number: int) -> None: ...
    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None: ...
    def overflowed(self, count: int) -> None: ...
    def drained(self, dropped: int) -> None: ...
    def command(self, command: Command) -> None: ...
    def held(self, holds: tuple[Hold, ...]) -> None: ...
    def fenced(self, *, removed: bool) -> None: ...
    def finished(self) -> None: ...
    def uploaded(self, sha256: str) -> None: ...


def entity_key(change: Change | None) -> tuple[str, str] | None:
    """Which entity *change* writes; None for what is not about one."""
    match change:
        case SessionChange():
            return ("session", "")
        case ChainChange():
            return ("chain", change.id)
        case StepChange():
            return ("step", change.id)
    return None
