"""What lies in a spool, in memory and on disk, and what is ordered of the disk. Records only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import msgspec

from wsmonitor.protocol.changes import ChainChange, Change, SessionChange, SkippedChange, StepChange

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Change)


@dataclass(slots=True)
class Entry:
    """One place in the spool: a change, or (with a ``sha256``) a value that goes before what is behind it."""

    ticket: int
    data: bytes | None  # the encoded change, or the value; None while it is on disk only
    size: int  # bytes
    key: tuple[str, str] | None = None  # which entity it writes
    counted: bool = True  # against the limits
    number: int | None = None  # wire number; None until it is sent
    sha256: str = ""
    uploaded: bool = False
    skipped: int = 0  # for the mark of an overflow: how many were dropped here
    stands_for: int = 0  # the oldest ticket that this assertion has replaced; 0 for none
    pos: int = 0  # its place on disk; 0 while it is not there

    @property
    def is_value(self) -> bool:
        return bool(self.sha256)

    @property
    def change(self) -> Change | None:
        """The change, if it is one and in memory."""
        return None if self.is_value or self.data is None else _decoder.decode(self.data)


class Row(NamedTuple):
    """An entry as it lies on disk."""

    pos: int
    number: int  # the wire number; of a value, that of the change behind it
    sha256: str
    skipped: int
    counted: bool
    size: int
    data: bytes | None  # in `Reorder`: None when it is there already


@dataclass(slots=True)
class Append:
    """These entries follow what is on disk."""

    entries: list[Entry]
    rows: list[Row]


@dataclass(slots=True)
class Drop:
    """Everything up to ``pos`` is committed; the server has accepted ``accepted``."""

    pos: int
    accepted: int


@dataclass(slots=True)
class Recount:
    """The mark of an overflow stands for so many changes now."""

    pos: int
    skipped: int


@dataclass(slots=True)
class Reorder:
    """All that is on disk, anew: where each row was (0: nowhere), and what it is now."""

    rows: list[tuple[int, Row]]
    accepted: int


@dataclass(slots=True)
class Opened:
    """The server has opened the producer."""

    producer_epoch: int
    session_epoch: str


Order: TypeAlias = Append | Drop | Recount | Reorder | Opened


def mark(ticket: int, skipped: int, number: int | None = None, pos: int = 0) -> Entry:
    """The place of *skipped* dropped changes: it has one wire number, and is told as one."""
    data = _encoder.encode(SkippedChange(first=1, last=1, count=1))
    return Entry(ticket, data, len(data), counted=False, skipped=skipped, number=number, pos=pos)


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
