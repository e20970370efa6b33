"""What waits to be published, in order, and what of it lies on disk too.

Every entry but a value will have one wire number: the first one ``accepted + 1``, the next ones in their
order. So the number that an entry *will* have is known before it is sent, and can be kept with it.

While the server is away, what waits is kept on disk as well (see `keeper`). There is no I/O here: `keep`
gives orders for what is not on disk yet. The kept entries are always the oldest ones, so that nothing on disk
can overtake what is not. Of entries that are safely on disk the bytes may be let go of here, and are fetched
when their turn comes.

Wherever the order or the numbers change, the disk is told first and nothing is sent until it has been
(`holding`): who finds the file after a crash must find the numbers that the server was given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

import msgspec

from wsmonitor.protocol.changes import Change, CommandChange, SkippedChange
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.messages import Hold

from .entries import Append, Drop, Entry, Opened, Order, Recount, Reorder, Row, entity_key, mark

LARGEST_CHANGE: Final = Limits().batch_size // 2
"""Bytes of one encoded change: far above what a server takes into one event, far below one message."""

LOADED_CHANGES: Final = 10_000
LOADED_BYTES: Final = 4 * 1024 * 1024
"""How much of what is on disk too stays in memory."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Change)


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
    def wants(self) -> None:
        """The bytes of `Spool.wanted` are needed to go on."""


@dataclass(slots=True)
class SpoolLimits:
    """How much may wait.

    Attributes:
        changes: in memory.
        size: bytes of encoded changes in memory.
        values: bytes of values, in memory or on disk.
        kept_changes: in all, when the rest is on disk.
        kept_size: bytes of encoded changes in all, when the rest is on disk.
    """

    changes: int = 50_000
    size: int = 32 * 1024 * 1024
    values: int = 512 * 1024 * 1024
    kept_changes: int = 200_000
    kept_size: int = 256 * 1024 * 1024


@dataclass
class Spool:
    """See the module's docstring.

    Attributes:
        entries: what waits, the oldest first.
        sent: how many of them, from the front, were sent on this connection.
        sent_size: their bytes.
        ticket: the last one that was given.
        acknowledged: the ticket up to which everything is committed.
        accepted: the last wire number that the server has accepted.
        pending: changes that are not committed.
        dropped: changes that were dropped, in all.
        kept: how many entries are on disk, or ordered to be.
        orders: what is to be done on disk, in order.
        wanted: the entry whose bytes are needed next; None for none.
        holding: nothing may be sent until the disk has been told.
        keeping: whether the disk takes what it is given, so that more may wait.
    """

    limits: SpoolLimits
    entries: deque[Entry] = field(default_factory=deque)
    sent: int = 0
    sent_size: int = 0
    ticket: int = 0
    acknowledged: int = 0
    accepted: int = 0
    pending: int = 0
    dropped: int = 0
    kept: int = 0
    orders: list[Order] = field(default_factory=list)
    wanted: Entry | None = None
    holding: bool = False
    keeping: bool = False
    _changes: int = 0
    _size: int = 0
    _loaded: int = 0
    _loaded_size: int = 0
    _values_size: int = 0
    _ordered: bool = True  # tickets rise along the spool
    _overflowing: bool = False
    _front: list[Entry] | None = None  # while the owner asserts again
    _pos: int = 0
    _kept_number: int = 0  # of the last kept entry
    _mark_grew: bool = False  # the kept mark at the end stands for more than the disk knows

    # -- what comes in

    @property
    def empty(self) -> bool:
        """Whether everything is committed. An uploaded value stays until a change behind it is."""
        return all(entry.is_value and entry.uploaded for entry in self.entries)

    def add(self, change: Change, *, asserting: bool = False) -> int | None:
        """Take *change*; its ticket, or None when there is no room.

        Raises:
            TypeError: it holds something that is not JSON.
            UsageError: a field is out of its range, or it is too large for any message.
        """
        data = _encoder.encode(change)
        try:
            # What the server would refuse as a message must not enter: it would take its batch along.
            _decoder.decode(data)
        except msgspec.ValidationError as exc:
            raise UsageError(f"this change cannot be published: {exc}") from exc
        if len(data) > LARGEST_CHANGE:
            raise UsageError(f"this change has {len(data):,} bytes; {LARGEST_CHANGE:,} is the most")
        # Commands' answers are few, and they are waited for: they are never dropped.
        counted = not isinstance(change, CommandChange)
        if counted and not self._has_room(len(data)):
            self._overflow()
            return None
        self.ticket += 1
        entry = Entry(self.ticket, data, len(data), entity_key(change), counted)
        if counted:
            self._changes += 1
            self._size += entry.size
            self._loaded += 1
            self._loaded_size += entry.size
        self.pending += 1
        self._append(entry, asserting)
        return self.ticket

    def add_value(self, data: bytes, sha256: str, *, asserting: bool = False) -> bool:
        """Take a value; False when too much of the kind waits already."""
        if self._values_size + len(data) > self.limits.values:
            return False
        self._values_size += len(data)
        self._append(Entry(self.ticket, data, len(data), counted=False, sha256=sha256), asserting)
        return True

    def _has_room(self, size: int) -> bool:
        limits = self.limits
        if not self.keeping:
            return self._loaded < limits.changes and self._loaded_size + size <= limits.size
        # What comes faster than it can be written has twice the room: it will soon be on disk.
        return (
            self._changes < limits.kept_changes
            and self._size + size <= limits.kept_size
            and self._loaded_size + size <= 2 * limits.size
        )

    def _append(self, entry: Entry, asserting: bool) -> None:
        if asserting and self._front is not None:
            self._front.append(entry)
        else:
            self.entries.append(entry)

    def _overflow(self) -> None:
        self.dropped += 1
        self._overflowing = True
        last = self.entries[-1] if self.entries else None
        if last is not None and last.skipped and last.number is None:
            last.skipped += 1
            self._mark_grew = last.pos > 0
        else:
            self.ticket += 1
            self.entries.append(mark(self.ticket, 1))

    def relieved(self) -> bool:
        """Whether a spool that had overflowed has room again; True once."""
        limits = self.limits
        if (
            self._overflowing
            and self._loaded <= limits.changes // 2
            and self._loaded_size <= limits.size // 2
            and self._changes <= limits.kept_changes // 2
            and self._size <= limits.kept_size // 2
        ):
            self._overflowing = False
            return True
        return False

    # -- what goes out

    def batch(self, most: int, room: int) -> list[Entry]:
        """The next changes to send: at most *most*, of at most *room* bytes. An entry too large for *room* is
        given alone. Empty when the next bytes are still to be fetched, or a value comes first."""
        found: list[Entry] = []
        size = 0
        for entry in islice(self.entries, self.sent, self.sent + most):
            if entry.is_value:
                break
            if entry.data is None:
                if not found:
                    self.wanted = entry
                break
            if found and size + len(entry.data) + 1 > room:
                break
            found.append(entry)
            size += len(entry.data) + 1
        return found

    def acknowledge(self, accepted: int) -> int:
        """Everything up to wire number *accepted* is committed; the newest ticket if that is news, else 0."""
        self.accepted = max(self.accepted, accepted)
        progressed, dropped = False, 0
        while self.entries:
            entry = self.entries[0]
            if entry.is_value:
                # Kept until what is behind it is committed: a lost upload is made again.
                behind = next((e for e in self.entries if not e.is_value), None)
                if behind is None or behind.number is None or behind.number > accepted:
                    break
            elif entry.number is None or entry.number > accepted:
                break
            self.entries.popleft()
            if self.sent:
                self.sent -= 1
                self.sent_size = max(0, self.sent_size - entry.size - 1)
            dropped = entry.pos or dropped
            self._forget(entry)
            progressed = True
        if dropped:
            if self.orders and isinstance(self.orders[-1], Drop):
                self.orders.pop()
            self.orders.append(Drop(dropped, self.accepted))
        if not progressed:
            return 0
        tickets = (entry.stands_for or entry.ticket for entry in self.entries if not entry.is_value)
        if self._ordered:
            ticket = next(tickets, self.ticket + 1) - 1
        else:
            ticket = min(tickets, default=self.ticket + 1) - 1
            self._ordered = not self.entries
        if ticket <= self.acknowledged:
            return 0
        self.acknowledged = ticket
        return ticket

    def _forget(self, entry: Entry) -> None:
        if entry.data is not None:
            self._unload(entry)
        if entry.counted:
            self._changes -= 1
            self._size -= entry.size
        if entry.is_value:
            self._values_size -= entry.size
        elif not entry.skipped:
            self.pending -= 1
        if entry.pos:
            self.kept -= 1
            entry.pos = 0
        if self.wanted is entry:
            self.wanted = None

    def _unload(self, entry: Entry) -> None:
        if entry.counted:
            self._loaded -= 1
            self._loaded_size -= entry.size

    def leave_out(self, entry: Entry) -> None:
        """*entry* cannot be sent: the mark of one dropped change takes its place, and its number."""
        if entry.data is not None:
            self._unload(entry)
        if entry.counted:
            self._changes -= 1
            self._size -= entry.size
        self.pending -= 1
        entry.counted = False
        entry.key = None
        entry.skipped = 1
        entry.data = _encoder.encode(SkippedChange(first=1, last=1, count=1))
        entry.size = len(entry.data)

    def unsent(self) -> None:
        """The connection is gone: what was sent and not acknowledged will be sent again."""
        self.sent = self.sent_size = 0

    # -- when the server has forgotten

    def renumber(self, accepted: int) -> None:
        """It is another store, which has accepted *accepted*: numbers begin anew behind that."""
        for entry in self.entries:
            entry.number = None
        self.accepted = accepted

    def begin_assertion(self) -> None:
        """From now on what is asserted is gathered, to go in front."""
        self._front = []

    @property
    def asserting(self) -> bool:
        return self._front is not None

    def end_assertion(self) -> bool:
        """Put what was asserted in front; it replaces waiting changes to the same entities. Was there any?"""
        front, self._front = self._front or [], None
        if front:
            again = {entry.key: entry for entry in front if entry.key is not None}
            kept: deque[Entry] = deque()
            for entry in self.entries:
                if entry.key in again and entry.number is None:
                    # What it said counts as committed only when the assertion in its place is.
                    if not again[entry.key].stands_for:
                        again[entry.key].stands_for = entry.stands_for or entry.ticket
                    self._forget(entry)
                else:
                    kept.append(entry)
            # Numbers that were given out must be used as they were.
            numbered = [entry for entry in kept if entry.number is not None]
            rest = [entry for entry in kept if entry.number is None]
            self.entries = deque([*numbered, *front, *rest])
            self._ordered = False
        return bool(front)

    # -- the disk's side

    def opened(self, producer_epoch: int, session_epoch: str, *, moved: bool) -> None:
        """The producer is open; *moved*: the order or the numbers are others than before."""
        if not self.kept and not self.orders:
            return
        self.orders.append(Opened(producer_epoch, session_epoch))
        if moved:
            rows: list[tuple[int, Row]] = []
            number = self.accepted
            for entry in self.entries:
                before = entry.pos
                number += not entry.is_value
                rows.append((before, self._place(entry, number, fresh=not before)))
            self.kept = len(rows)
            self._kept_number = number
            self._mark_grew = False
            self.orders.append(Reorder(rows, self.accepted))
        self.holding = True

    def keep(self) -> None:
        """Order everything that is not on disk yet to be put there."""
        fresh: list[Entry] = []
        for entry in reversed(self.entries):
            if entry.pos:
                break
            fresh.append(entry)
        if self._mark_grew:
            grown = next(entry for entry in reversed(self.entries) if entry.pos)
            self.orders.append(Recount(grown.pos, grown.skipped))
            self._mark_grew = False
        if not fresh:
            return
        fresh.reverse()
        number = self._kept_number if self.kept else self.accepted
        rows = []
        for entry in fresh:
            number += not entry.is_value
            rows.append(self._place(entry, number, fresh=True))
        self.kept += len(rows)
        self._kept_number = number
        self.orders.append(Append(fresh, rows))

    def _place(self, entry: Entry, number: int, *, fresh: bool) -> Row:
        self._pos += 1
        entry.pos = self._pos
        return Row(
            entry.pos,
            number + entry.is_value,
            entry.sha256,
            entry.skipped,
            entry.counted,
            entry.size,
            entry.data if fresh else None,
        )

    def take_orders(self) -> list[Order]:
        """What is to be done on disk, in order; none is given twice."""
        orders, self.orders = self.orders, []
        return orders

    def done(self, orders: Iterable[Order]) -> None:
        """These orders have been carried out."""
        self.keeping = True
        for order in orders:
            if isinstance(order, Append):
                self._let_go(order.entries)
            elif isinstance(order, Opened):
                self.holding = any(isinstance(other, Opened) for other in self.orders)

    @property
    def away(self) -> bool:
        """Whether the bytes of something are on disk only."""
        return any(entry.data is None for entry in self.entries)

    def _let_go(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.number is not None or entry.data is None or not entry.pos:
                continue
            if entry.is_value:
                entry.data = None
            elif entry.counted and self._crowded():
                self._unload(entry)
                entry.data = None

    def _crowded(self) -> bool:
        return self._loaded > LOADED_CHANGES or self._loaded_size > LOADED_BYTES

    def loaded(self, found: Sequence[tuple[int, bytes]]) -> None:
        """Bytes that were wanted, by their places on disk, in order."""
        self.wanted = None
        data = dict(found)
        last = found[-1][0] if found else 0
        for entry in islice(self.entries, self.sent, None):
            if entry.pos > last or not entry.pos:
                break
            if entry.data is None and entry.pos in data:
                entry.data = data[entry.pos]
                if entry.counted:
                    self._loaded += 1
                    self._loaded_size += entry.size

    def unkeep(self) -> int:
        """The disk is of no use any more: what was only there is lost; how many changes that were."""
        lost = 0
        for entry in self.entries:
            entry.pos = 0
            if entry.data is None and entry.is_value:
                entry.data, entry.uploaded = b"", True  # what refers to it is refused, and names the place
            elif entry.data is None:
                self.leave_out(entry)
                self.dropped += 1
                lost += 1
        self.kept = 0
        self.orders.clear()
        self.wanted = None
        self.holding = self.keeping = self._mark_grew = False
        return lost

    def restore(self, rows: Iterable[Row], accepted: int) -> None:
        """Begin with what an earlier process had left on disk (without the bytes)."""
        self.keeping = True
        for row in rows:
            self.ticket += not row.sha256
            entry = Entry(
                self.ticket,
                None,
                row.size,
                counted=row.counted,
                number=None if row.sha256 else row.number,
                sha256=row.sha256,
                skipped=row.skipped,
                pos=row.pos,
            )
            if entry.skipped:
                entry = mark(self.ticket, row.skipped, row.number, row.pos)
            elif entry.is_value:
                self._values_size += row.size
            else:
                self.pending += 1
            if entry.counted:
                self._changes += 1
                self._size += entry.size
            self.entries.append(entry)
            self._pos = row.pos
            self._kept_number = row.number - entry.is_value
        self.kept = len(self.entries)
        self.accepted = accepted
