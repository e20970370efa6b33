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
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Literal, cast

import msgspec

from wsmonitor.protocol.changes import (
    Change,
    CommandChange,
    SkippedChange,
)
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Command, ErrorInfo
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

from .backoff import CEILING, Backoff
from .entries import Entry, Row
from .pacer import Pacer
from .spool import PublicationEvents, Spool, SpoolLimits

Stage = Literal["off", "opening", "open", "pausing", "closing", "closed", "fenced", "refused"]
"""off: no link; opening: ``publish_open`` sent; pausing: until it may be opened again; closing: the goodbye
is under way; closed, fenced, refused: nothing more is sent."""

REMEMBERED_COMMANDS: Final = 10_000
_DEFAULTS: Final = Limits()
REPLY_TIMEOUT: Final = 30.0
"""Seconds to wait for the answer to an opening, a goodbye or a page."""

_encoder: Final = msgspec.json.Encoder()
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
        limit_kept_changes: how many changes wait in all, while they are kept on disk too.
        limit_kept_bytes: how many bytes of them.
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
        limit_kept_changes: int = 200_000,
        limit_kept_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self.session = session
        self.producer = producer
        self.agent = agent
        self.spool = Spool(
            SpoolLimits(limit_changes, limit_bytes, limit_values, limit_kept_changes, limit_kept_bytes)
        )
        self.stage: Stage = "off"
        self.producer_epoch = 0
        self._told_limit = ""
        # Random, so that nobody who takes the producer over is taken for us.
        self.holder = "".join(f"{int(random() * 2**32):08x}" for _ in range(3))
        self._send = send
        self._events = events
        self._next_request = next_request
        self._pacer = pacer
        self._backoff = Backoff(random)
        self._earliest = 0.0  # while pausing: when the server wants to be asked again at the earliest
        self._batch_changes = _DEFAULTS.batch_changes
        self._batch_size = _DEFAULTS.batch_size
        self._page_size = _DEFAULTS.page_size
        self._next_number = 1  # of the next change that is sent
        self._told_dropped = 0
        self._opened_once = False
        self._renumbered = False  # at the last opening
        self._restored = False  # whether it goes on with what an earlier process had left
        self.session_epoch = ""
        self._request: int | None = None  # of publish_open, publish_close
        self._upload: int | None = None  # of the running value_put
        self._commands: OrderedDict[str, None] = OrderedDict()
        self._holds: dict[tuple[str, str], Hold] = {}
        self._wants_close = False
        self._deadline: float | None = None

    # ------------------------------------------------------------------ the owner's side

    @property
    def unacknowledged(self) -> int:
        """How many changes are not committed yet (overflow marks and values not counted)."""
        return self.spool.pending

    @property
    def acknowledged(self) -> int:
        """The ticket up to which everything is committed; 0 while nothing is."""
        return self.spool.acknowledged

    @property
    def dropped(self) -> int:
        """How many changes were dropped, in all."""
        return self.spool.dropped

    @property
    def empty(self) -> bool:
        """Whether everything is committed. An uploaded value stays until a change behind it is."""
        return self.spool.empty

    def submit(self, change: Change, *, asserting: bool = False) -> int | None:
        """Put *change* into the spool; its ticket, or None when the spool is full.

        ``asserting``: by the owner, within `PublicationEvents.opened`.

        Raises:
            TypeError: it holds something that is not JSON.
            UsageError: a field is out of its range, or it is too large for any message.
        """
        return self.spool.add(change, asserting=asserting)

    def submit_value(self, data: bytes, sha256: str, *, asserting: bool = False) -> bool:
        """Put a large value into the spool; False when too much of the kind waits already."""
        return self.spool.add_value(data, sha256, asserting=asserting)

    def restore(
        self, rows: Iterable[Row], *, accepted: int, holder: str, producer_epoch: int, session_epoch: str
    ) -> None:
        """Go on with what an earlier process had left on disk, as that process: it must have ended.

        Args:
            rows: what it left, in order.
            accepted: the last wire number that it knew as accepted.
            holder: what it called itself.
            producer_epoch: under which it held the producer last.
            session_epoch: of the session's history then; "" if it never got that far.
        """
        self.spool.restore(rows, accepted)
        self.holder = holder
        self.producer_epoch = producer_epoch
        self.session_epoch = session_epoch
        self._opened_once = bool(session_epoch)
        self._restored = True

    def close(self, now: float) -> None:
        """Say goodbye as soon as everything is committed."""
        self._wants_close = True
        self.pump(now)

    # ------------------------------------------------------------------ the link

    def connected(self, now: float, welcome: Welcome) -> None:
        """The link is up: open the producer."""
        self._batch_changes = max(1, welcome.batch_changes)
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
        self.spool.unsent()
        if self.stage not in ("closed", "fenced", "refused"):
            self.stage = "off"

    def recovered(self, now: float) -> None:
        """The server takes changes again: delays that grew while it did not are no longer needed."""
        if self.stage == "pausing" and self._deadline is not None:
            self._backoff.reset()
            soon = max(self._earliest, now + self._backoff.next_delay())
            self._deadline = min(self._deadline, soon)

    # ------------------------------------------------------------------ messages

    def publish_opened(self, now: float, message: PublishOpened) -> None:
        """The server says how far it has come."""
        if self.stage != "opening" or message.request != self._request:
            return
        self._request = None
        self._backoff.reset()
        self.producer_epoch = message.producer_epoch
        spool = self.spool
        sent = max((entry.number for entry in spool.entries if entry.number is not None), default=0)
        self._next_number = message.accepted + 1
        # What an earlier process had in memory only, behind what it kept, may have been accepted too.
        most = message.accepted if self._restored else max(sent, spool.accepted)
        continued = spool.accepted <= message.accepted <= most
        if self._restored and not self._opened_once:
            # It never heard from the server, so nothing of it was ever sent, and its numbers were a guess:
            # another process may have had the producer before.
            continued = False
        if continued:
            self._acknowledge(message.accepted)
        else:
            # It knows less than it had acknowledged, or more than we ever sent: another store.
            # Numbers begin anew behind what it has.
            spool.renumber(message.accepted)
        self._renumbered = not continued
        other = self._opened_once and message.epoch != self.session_epoch
        known = message.known and continued and not other
        self._opened_once = True
        self.session_epoch = message.epoch
        self.stage = "open"
        spool.unsent()
        for entry in spool.entries:
            # Uploads that nothing refers to yet may be lost with a restart: ask again, which is cheap.
            entry.uploaded = False
        spool.begin_assertion()
        self._events.opened(message.epoch, known)
        holds = {(hold.chain, hold.step): hold for hold in message.holds}
        if holds != self._holds:
            self._holds = holds
            self._events.held(tuple(holds.values()))

    def reasserted(self, now: float) -> None:
        """The owner has been told ``opened``: put what it asserted in front, and go on sending."""
        asserted = self.spool.end_assertion()
        self.spool.opened(self.producer_epoch, self.session_epoch, moved=asserted or self._renumbered)
        self.pump(now)

    def ack(self, now: float, accepted: int) -> None:
        """All changes up to wire number *accepted* are committed.

        What was not sent since the producer was opened is not acknowledged by it: its number may be another
        one, and it will be sent, and answered, again.
        """
        if self.stage not in ("open", "closing") or accepted >= self._next_number:
            return
        self._acknowledge(accepted)
        self.pump(now)

    def rejected(self, number: int, error: ErrorInfo) -> None:
        """One change was refused, finally; its number is used."""
        for entry in self.spool.entries:
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
        entry = self._next()
        assert entry is not None  # what goes before everything that is unsent stays until that is committed
        if message.complete:
            entry.uploaded = True
            self._deadline = None
            self._events.uploaded(entry.sha256)
            self.pump(now)
        else:
            self._put(now, entry, message.received, asking=False)
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
                self._pause(now, error)
            else:
                # The change that refers to it will be refused, and that names the place.
                self._deadline = None
                refused = self._next()
                assert refused is not None
                refused.uploaded = True
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
            self._pause(now, error)
        elif error.code == "fenced":
            self._fence(error)
        else:
            self.stage = "refused"
            self._deadline = None
            self._events.rejected(0, None, error)
        return True

    def failed(self, now: float, error: ErrorInfo) -> None:
        """An error about this session's publishing that names no request: ask how far the server has come."""
        if self.stage == "open" and error.code in _REOPEN:
            self._pause(now, error)
        elif self.stage in ("open", "closing") and error.code in ("not_available", "forbidden"):
            # A renewed token no longer covers this session.
            self.stage = "refused"
            self._deadline = None
            self._events.rejected(0, None, error)
        elif self.stage in ("open", "closing") and error.code == "fenced":
            self._fence(error)

    def _fence(self, error: ErrorInfo) -> None:
        self.stage = "fenced"
        self._deadline = None
        self._events.fenced(removed=error.details.get("reason") == "removed")

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
        spool = self.spool
        if self.stage != "open" or spool.asserting or spool.holding:
            return
        while (entry := self._next()) is not None:
            if entry.is_value:
                if not entry.uploaded:
                    if self._upload is None:
                        self._put(now, entry, 0, asking=True)
                    return
                spool.sent += 1
                continue
            if spool.sent_size >= 2 * self._batch_size or not self._send_batch(now):
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

    def _next(self) -> Entry | None:
        """What is to be sent next."""
        spool = self.spool
        return spool.entries[spool.sent] if spool.sent < len(spool.entries) else None

    def _open(self, now: float) -> None:
        self.stage = "opening"
        self.spool.unsent()
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

    def _pause(self, now: float, error: ErrorInfo) -> None:
        self.stage = "pausing"
        self._upload = None
        self.spool.unsent()
        asked = error.details.get("retry_after")
        if asked is not None and error.message != self._told_limit:
            # Nothing is lost, but somebody has to know why nothing moves.
            self._told_limit = error.message
            self._events.rejected(0, None, error)
        self._earliest = now + (min(float(asked), CEILING) if isinstance(asked, int | float) else 0.0)
        self._deadline = max(self._earliest, now + self._backoff.next_delay())

    def _send_batch(self, now: float) -> bool:
        spool = self.spool
        room = self._batch_size - _ENVELOPE
        batch = spool.batch(self._batch_changes, room)
        if not batch:
            self._events.wants()
            return False
        if not self._pacer.take(now):
            self._deadline = self._pacer.next_at(now)
            return False
        if batch[0].size > room:
            self._too_large(batch[0], room)
        first = self._next_number
        for number, entry in enumerate(batch, first):
            entry.number = number
            if entry.skipped:
                entry.data = _encoder.encode(SkippedChange(first=number, last=number, count=entry.skipped))
                entry.size = len(entry.data)
        self._next_number += len(batch)
        self._send(
            Publish(
                session=self.session,
                producer=self.producer,
                producer_epoch=self.producer_epoch,
                first=first,
                # Encoded once, on the thread that published: sent as it is.
                changes=cast("list[Change]", [msgspec.Raw(entry.data or b"") for entry in batch]),
            )
        )
        spool.sent += len(batch)
        spool.sent_size += sum(entry.size + 1 for entry in batch)
        return True

    def _too_large(self, entry: Entry, room: int) -> None:
        """This server takes smaller messages than ours: without this, it would close on us for ever."""
        change, length = entry.change, entry.size
        self.spool.leave_out(entry)
        self._events.rejected(
            entry.ticket,
            change,
            ErrorInfo(
                code="message_too_large",
                message=f"a change of {length:,} bytes; this server takes {room:,}",
                session=self.session,
            ),
        )

    def _put(self, now: float, entry: Entry, received: int, *, asking: bool) -> None:
        """Upload the next page; at first only ask, without data, how much is there already."""
        if entry.data is None:
            self.spool.wanted = entry
            self._deadline = None
            self._events.wants()
            return
        page = b"" if asking else entry.data[received : received + self._page_size]
        self._upload = self._next_request()
        self._deadline = now + REPLY_TIMEOUT
        self._send(
            ValuePut(
                request=self._upload,
                session=self.session,
                sha256=entry.sha256,
                total=entry.size,
                offset=received,
                data=base64.b64encode(page).decode("ascii"),
            )
        )

    def _acknowledge(self, accepted: int) -> None:
        ticket = self.spool.acknowledge(accepted)
        if ticket:
            self._events.acknowledged(ticket)
        if self.spool.relieved():
            self._events.drained(self.dropped)
