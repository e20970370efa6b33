"""One producer of one session as a sans-IO machine: the spool, and how it is emptied.

Theory
------
What a program publishes goes into a bounded spool, in order, and stays there until the server has
committed it. Nothing here waits for the network. Two numbers are kept apart:

- a *ticket* is what `submit` gives: 1, 2, 3 … for as long as this publication lives;
- a *wire number* is what the server counts. It is given when a change is first sent. After a
  reconnect the server says how many it has accepted, and what is left is sent again with the
  same wire numbers, so that nothing is applied twice.

A server that knows less than it had acknowledged is a new store, or a restored one: there the
numbering goes on from what *it* expects. What was acknowledged before is gone there, so the owner is
told ``opened(known=False)`` and asserts again what it owns: what it submits within that call goes
in front of what still waits, and replaces waiting changes to the same entities.

When the spool is full, the newest changes are dropped and counted; in their place the server is told
``skipped``. Commands' answers are never dropped: there are few, and they are waited for.

Large values are uploaded page by page in their place in the order, before the changes behind them.

Sending is paced by `Pacer`, so that a program that publishes in a tight loop sends full batches and
never meets the server's rate limit.
"""

from __future__ import annotations

import base64
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Literal, cast

import msgspec

from wsmonitor.protocol.changes import (
    Change,
    CommandChange,
    SkippedChange,
)
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.messages import (
    ClientMessage,
    Hold,
    Publish,
    PublishClose,
    PublishOpen,
    PublishOpened,
    ValueAck,
    ValuePut,
    Welcome,
)

from .backoff import Backoff
from .pacer import Pacer
from .spool import Entry, PublicationEvents, entity_key

Stage = Literal["off", "opening", "open", "pausing", "closing", "closed", "fenced", "refused"]
"""off: no link; opening: ``publish_open`` sent; pausing: until it may be opened again; closing: the goodbye
is under way; closed, fenced, refused: nothing more is sent."""

REMEMBERED_COMMANDS: Final = 10_000
_DEFAULTS: Final = Limits()
REPLY_TIMEOUT: Final = 30.0
"""Seconds to wait for the answer to an opening, a goodbye or a page."""

LARGEST_CHANGE: Final = _DEFAULTS.batch_size // 2
"""Bytes of one encoded change: far above what a server takes into one event, far below one message."""

_encoder: Final = msgspec.json.Encoder()
_check: Final = msgspec.json.Decoder(Change)
_ENVELOPE: Final = 2048  # bytes of a `publish` message around its changes

_REOPEN: Final = frozenset(
    {"store_failed", "read_only", "out_of_sequence", "internal", "limit_exceeded", "unexpected_message"}
)
"""Errors after which the producer is opened again: the server then says how far it has come."""


class PublicationMachine:
    """One producer of one session on one connection.

    Args:
        session: the session's id.
        producer: fresh per process run.
        agent: what the producer calls itself, e.g. "train.py, pid 4711".
        send: takes the messages to send.
        events: what is told to the owner; called while the machine is in a valid state.
        next_request: gives request numbers.
        random: gives numbers in [0, 1), uniformly.
        pacer: shared by all publications of a connection.
        limit_changes: how many changes the spool holds.
        limit_bytes: how many bytes of encoded changes the spool holds.
        limit_values: how many bytes of values wait for their upload.
    """

    def __init__(
        self,
        session: str,
        producer: str,
        *,
        agent: str,
        send: Callable[[ClientMessage], None],
        events: PublicationEvents,
        next_request: Callable[[], int],
        random: Callable[[], float],
        pacer: Pacer,
        limit_changes: int = 50_000,
        limit_bytes: int = 32 * 1024 * 1024,
        limit_values: int = 512 * 1024 * 1024,
    ) -> None:
        self.session = session
        self.producer = producer
        self.agent = agent
        self.limit_changes = limit_changes
        self.limit_bytes = limit_bytes
        self.limit_values = limit_values
        self.stage: Stage = "off"
        self.producer_epoch = 0
        # Random, so that nobody who takes the producer over is taken for us.
        self.holder = "".join(f"{int(random() * 2**32):08x}" for _ in range(3))
        self.dropped = 0  # in all
        self._send = send
        self._events = events
        self._next_request = next_request
        self._pacer = pacer
        self._backoff = Backoff(random)
        self._batch_changes = _DEFAULTS.batch_changes
        self._batch_size = _DEFAULTS.batch_size
        self._page_size = _DEFAULTS.page_size
        self._spool: deque[Entry] = deque()
        self._sent = 0  # entries at the spool's front that were sent on this connection
        self._sent_bytes = 0
        self._ticket = 0
        self._changes = 0
        self._bytes = 0
        self._value_bytes = 0
        self._acked = 0  # the last ticket that was told as acknowledged
        self._accepted = 0  # the last wire number that the server has accepted
        self._next_number = 1  # of the next change that is sent
        self._pending = 0  # changes that are not committed
        self._ordered = True  # tickets rise along the spool
        self._told_dropped = 0
        self._opened_once = False
        self._session_epoch = ""
        self._request: int | None = None  # of publish_open, publish_close
        self._upload: int | None = None  # of the running value_put
        self._front: list[Entry] | None = None  # while the owner asserts again
        self._commands: OrderedDict[str, None] = OrderedDict()
        self._holds: dict[tuple[str, str], Hold] = {}
        self._wants_close = False
        self._overflowing = False
        self._deadline: float | None = None
        self._now = 0.0

    # ------------------------------------------------------------------ the owner's side

    @property
    def unacknowledged(self) -> int:
        """How many changes are not committed yet (overflow marks and values not counted)."""
        return self._pending

    @property
    def acknowledged(self) -> int:
        """The ticket up to which everything is committed; 0 while nothing is."""
        return self._acked

    @property
    def empty(self) -> bool:
        """Whether everything is committed. An uploaded value stays until a change behind it is."""
        return all(entry.value is not None and entry.uploaded for entry in self._spool)

    def submit(self, change: Change, *, asserting: bool = False) -> int | None:
        """Put *change* into the spool; its ticket, or None when the spool is full.

        ``asserting``: by the owner, within `PublicationEvents.opened`.

        Raises:
            TypeError: it holds something that is not JSON.
            UsageError: a field is out of its range, or it is too large for any message.
        """
        encoded = _encoder.encode(change)
        try:
            # What the server would refuse as a message must not enter: it would take its batch along.
            _check.decode(encoded)
        except msgspec.ValidationError as exc:
            raise UsageError(f"this change cannot be published: {exc}") from exc
        if len(encoded) > LARGEST_CHANGE:
            raise UsageError(f"this change has {len(encoded):,} bytes; {LARGEST_CHANGE:,} is the most")
        counted = not isinstance(change, CommandChange)
        if counted and (self._changes >= self.limit_changes or self._bytes + len(encoded) > self.limit_bytes):
            self._overflow()
            return None
        self._ticket += 1
        entry = Entry(self._ticket, change, encoded, counted=counted)
        if counted:
            self._changes += 1
            self._bytes += len(encoded)
        self._pending += 1
        self._append(entry, asserting)
        return self._ticket

    def submit_value(self, data: bytes, sha256: str, *, asserting: bool = False) -> bool:
        """Put a large value into the spool; False when too much of the kind waits already."""
        if self._value_bytes + len(data) > self.limit_values:
            return False
        self._value_bytes += len(data)
        entry = Entry(self._ticket, None, b"", counted=False, value=data, sha256=sha256)
        self._append(entry, asserting)
        return True

    def close(self, now: float) -> None:
        """Say goodbye as soon as everything is committed."""
        self._wants_close = True
        self.pump(now)

    # ------------------------------------------------------------------ the link

    def connected(self, now: float, welcome: Welcome) -> None:
        """The link is up: open the producer."""
        self._batch_changes = welcome.batch_changes
        self._batch_size = min(welcome.batch_size, welcome.message_size)
        # Base64 makes four bytes of three; the message must stay below the limit.
        self._page_size = max(1, min(welcome.page_size, (welcome.message_size - _ENVELOPE) * 3 // 4))
        self._backoff.reset()
        if self.stage not in ("closed", "fenced", "refused"):
            self._open(now)

    def disconnected(self) -> None:
        """The link is down: what was sent and not acknowledged will be sent again."""
        self._request = self._upload = None
        self._deadline = None
        self._sent = self._sent_bytes = 0
        if self.stage not in ("closed", "fenced", "refused"):
            self.stage = "off"

    # ------------------------------------------------------------------ messages

    def publish_opened(self, now: float, message: PublishOpened) -> None:
        """The server says how far it has come."""
        if self.stage != "opening" or message.request != self._request:
            return
        self._request = None
        self._backoff.reset()
        self.producer_epoch = message.producer_epoch
        sent = max(
            (entry.number for entry in self._spool if entry.number is not None), default=self._accepted
        )
        self._next_number = message.accepted + 1
        continued = self._accepted <= message.accepted <= sent
        if continued:
            self._acknowledge(message.accepted)
        else:
            # It knows less than it had acknowledged, or more than we ever sent: another store.
            # Numbers begin anew behind what it has.
            for entry in self._spool:
                entry.number = None
            self._accepted = message.accepted
        other = self._opened_once and message.epoch != self._session_epoch
        known = message.known and continued and not other
        self._opened_once = True
        self._session_epoch = message.epoch
        self.stage = "open"
        self._sent = self._sent_bytes = 0
        for entry in self._spool:
            # Uploads that nothing refers to yet may be lost with a restart: ask again, which is cheap.
            entry.uploaded = False
        self._front = []
        self._events.opened(message.epoch, known)
        holds = {(hold.chain, hold.step): hold for hold in message.holds}
        if holds != self._holds:
            self._holds = holds
            self._events.held(tuple(holds.values()))

    def reasserted(self, now: float) -> None:
        """The owner has been told ``opened``: put what it asserted in front, and go on sending."""
        front, self._front = self._front or [], None
        if front:
            again = {key: entry for entry in front if (key := entity_key(entry.change)) is not None}
            kept: deque[Entry] = deque()
            for entry in self._spool:
                key = entity_key(entry.change)
                if key in again and entry.number is None:
                    # What it said counts as committed only when the assertion in its place is.
                    if not again[key].stands_for:
                        again[key].stands_for = entry.stands_for or entry.ticket
                    self._forget(entry)
                else:
                    kept.append(entry)
            # Numbers that were given out must be used as they were.
            numbered = [entry for entry in kept if entry.number is not None]
            rest = [entry for entry in kept if entry.number is None]
            self._spool = deque([*numbered, *front, *rest])
            self._ordered = False
        self.pump(now)

    def ack(self, now: float, accepted: int) -> None:
        """All changes up to wire number *accepted* are committed."""
        if self.stage not in ("open", "closing"):
            return
        self._acknowledge(accepted)
        self.pump(now)

    def rejected(self, number: int, error: ErrorInfo) -> None:
        """One change was refused, finally; its number is used."""
        for entry in self._spool:
            if entry.number == number:
                self._events.rejected(entry.ticket, entry.change, error)
                return
        self._events.rejected(0, None, error)

    def deliver(self, command: Command) -> bool:
        """A command arrived; False when it did before. The answer "delivered" is published by itself."""
        if command.id in self._commands:
            return False
        self._commands[command.id] = None
        while len(self._commands) > REMEMBERED_COMMANDS:
            self._commands.popitem(last=False)
        if command.state == "requested":
            self.submit(CommandChange(id=command.id, state="delivered"))
        self._events.command(command)
        return True

    def hold_changed(self, hold: Hold) -> None:
        """What is wanted of our work beneath something that another producer owns is different now."""
        key = (hold.chain, hold.step)
        if hold.want == "run":
            self._holds.pop(key, None)
        else:
            self._holds[key] = hold
        self._events.held(tuple(self._holds.values()))

    def fenced(self, *, removed: bool = False) -> None:
        """Another holder opened this producer, or its session was *removed*."""
        if self.stage in ("open", "closing"):
            # While we open it again on the same connection, the one that is fenced is our own past.
            self.stage = "fenced"
            self._deadline = None
            self._events.fenced(removed=removed)

    def value_ack(self, now: float, message: ValueAck) -> bool:
        """A page of an upload arrived there; False when it is not ours."""
        if message.request != self._upload:
            return False
        self._upload = None
        entry = self._spool[self._sent] if self._sent < len(self._spool) else None
        if entry is None or entry.value is None:
            return True
        if message.complete:
            entry.uploaded = True
            self._deadline = None
            self._events.uploaded(entry.sha256)
            self.pump(now)
        else:
            self._put(now, entry, entry.value, message.received)
        return True

    def done(self, request: int) -> bool:
        """The goodbye was taken; False when it is not ours."""
        if request != self._request or self.stage != "closing":
            return False
        self.stage = "closed"
        self._request = None
        self._deadline = None
        self._events.finished()
        return True

    def request_failed(self, now: float, request: int, error: ErrorInfo) -> bool:
        """An error about one of our requests; False when it is not ours."""
        if request == self._upload:
            self._upload = None
            if error.retryable:
                self._pause(now)
            else:
                # The change that refers to it will be refused, and that names the place.
                self._deadline = None
                self._spool[self._sent].uploaded = True
                self._events.rejected(0, None, error)
                self.pump(now)
            return True
        if request != self._request:
            return False
        self._request = None
        if self.stage == "closing":
            self.stage = "closed"
            self._events.finished()
        elif error.retryable:
            self._pause(now)
        elif error.code == "fenced":
            self.stage = "fenced"
            self._deadline = None
            self._events.fenced(removed=False)
        else:
            self.stage = "refused"
            self._deadline = None
            self._events.rejected(0, None, error)
        return True

    def failed(self, now: float, error: ErrorInfo) -> None:
        """An error about this session's publishing that names no request: ask how far the server has come."""
        if self.stage == "open" and error.code in _REOPEN:
            self._pause(now)
        elif self.stage in ("open", "closing") and error.code in ("not_available", "forbidden"):
            # A renewed token no longer covers this session.
            self.stage = "refused"
            self._deadline = None
            self._events.rejected(0, None, error)

    # ------------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called; None for never."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Open again, or send what had to wait for its turn."""
        if self._deadline is None or now < self._deadline:
            return
        self._deadline = None
        if self.stage in ("pausing", "opening") or self._upload is not None:
            self._upload = None
            self._open(now)
        elif self.stage == "closing":
            self.stage = "closed"
            self._events.finished()
        else:
            self.pump(now)

    def pump(self, now: float) -> None:
        """Send what may be sent."""
        if self.dropped > self._told_dropped:
            self._told_dropped = self.dropped
            self._events.overflowed(self.dropped)
        if self.stage != "open" or self._front is not None:
            return
        while self._sent < len(self._spool):
            entry = self._spool[self._sent]
            if entry.value is not None:
                if not entry.uploaded:
                    if self._upload is None:
                        self._put(now, entry, b"", 0)
                    return
                self._sent += 1
                continue
            if self._sent_bytes >= 2 * self._batch_size or not self._send_batch(now):
                return
        if self._wants_close and self.empty:
            self.stage = "closing"
            self._deadline = now + REPLY_TIMEOUT
            self._request = self._next_request()
            self._send(
                PublishClose(
                    request=self._request,
                    session=self.session,
                    producer=self.producer,
                    producer_epoch=self.producer_epoch,
                )
            )

    # ------------------------------------------------------------------ inside

    def _open(self, now: float) -> None:
        self.stage = "opening"
        self._sent = self._sent_bytes = 0
        self._deadline = now + REPLY_TIMEOUT
        self._request = self._next_request()
        self._send(
            PublishOpen(
                request=self._request,
                session=self.session,
                producer=self.producer,
                agent=self.agent,
                holder=self.holder,
                producer_epoch=self.producer_epoch,
            )
        )

    def _pause(self, now: float) -> None:
        self.stage = "pausing"
        self._upload = None
        self._sent = self._sent_bytes = 0
        self._deadline = now + self._backoff.next_delay()

    def _append(self, entry: Entry, asserting: bool) -> None:
        if asserting and self._front is not None:
            self._front.append(entry)
        else:
            self._spool.append(entry)

    def _send_batch(self, now: float) -> bool:
        if not self._pacer.take(now):
            self._deadline = self._pacer.next_at(now)
            return False
        batch: list[Entry] = []
        size = 0
        room = self._batch_size - _ENVELOPE
        for entry in islice(self._spool, self._sent, self._sent + self._batch_changes):
            if entry.value is not None:
                break
            if len(entry.encoded) > room:
                self._too_large(entry, room)
            if batch and size + len(entry.encoded) + 1 > room:
                break
            batch.append(entry)
            size += len(entry.encoded) + 1
        first = self._next_number
        for number, entry in enumerate(batch, first):
            entry.number = number
            if entry.skipped:
                entry.change = SkippedChange(first=number, last=number, count=entry.skipped)
                entry.encoded = _encoder.encode(entry.change)
        self._next_number += len(batch)
        self._send(
            Publish(
                session=self.session,
                producer=self.producer,
                producer_epoch=self.producer_epoch,
                first=first,
                # Encoded once, on the thread that published: sent as it is.
                changes=cast("list[Change]", [msgspec.Raw(entry.encoded) for entry in batch]),
            )
        )
        self._sent += len(batch)
        self._sent_bytes += size
        return True

    def _too_large(self, entry: Entry, room: int) -> None:
        """This server takes smaller messages than ours: without this, it would close on us for ever."""
        change, length = entry.change, len(entry.encoded)
        if entry.counted:
            self._changes -= 1
            self._bytes -= length
        self._pending -= 1
        entry.counted = False
        entry.skipped = 1
        entry.change = SkippedChange(first=1, last=1, count=1)
        entry.encoded = _encoder.encode(entry.change)
        self._events.rejected(
            entry.ticket,
            change,
            ErrorInfo(
                code="message_too_large",
                message=f"a change of {length:,} bytes; this server takes {room:,}",
                session=self.session,
            ),
        )

    def _put(self, now: float, entry: Entry, data: bytes, offset: int) -> None:
        assert entry.value is not None
        page = entry.value[offset : offset + self._page_size] if data or offset else data
        self._upload = self._next_request()
        self._deadline = now + REPLY_TIMEOUT
        self._send(
            ValuePut(
                request=self._upload,
                session=self.session,
                sha256=entry.sha256,
                total=len(entry.value),
                offset=offset,
                data=base64.b64encode(page).decode("ascii"),
            )
        )

    def _acknowledge(self, accepted: int) -> None:
        self._accepted = max(self._accepted, accepted)
        progressed = False
        while self._spool:
            entry = self._spool[0]
            if entry.value is not None:
                # Kept until what is behind it is committed: a lost upload is made again.
                behind = next((e for e in self._spool if e.value is None), None)
                if behind is None or behind.number is None or behind.number > accepted:
                    break
            elif entry.number is None or entry.number > accepted:
                break
            self._spool.popleft()
            if self._sent:
                self._sent -= 1
                self._sent_bytes = max(0, self._sent_bytes - len(entry.encoded) - 1)
            self._forget(entry)
            progressed = True
        if progressed:
            tickets = (entry.stands_for or entry.ticket for entry in self._spool if entry.value is None)
            if self._ordered:
                ticket = next(tickets, self._ticket + 1) - 1
            else:
                ticket = min(tickets, default=self._ticket + 1) - 1
                self._ordered = not self._spool
            if ticket > self._acked:
                self._acked = ticket
                self._events.acknowledged(ticket)
        if (
            self._overflowing
            and self._changes <= self.limit_changes // 2
            and self._bytes <= self.limit_bytes // 2
        ):
            self._overflowing = False
            self._events.drained(self.dropped)

    def _forget(self, entry: Entry) -> None:
        if entry.counted:
            self._changes -= 1
            self._bytes -= len(entry.encoded)
        if entry.value is not None:
            self._value_bytes -= len(entry.value)
        elif not entry.skipped:
            self._pending -= 1

    def _overflow(self) -> None:
        self.dropped += 1
        self._overflowing = True
        last = self._spool[-1] if self._spool else None
        if last is not None and last.skipped and last.number is None:
            last.skipped += 1
        else:
            mark = SkippedChange(first=1, last=1, count=1)
            self._ticket += 1
            self._spool.append(Entry(self._ticket, mark, _encoder.encode(mark), counted=False, skipped=1))
