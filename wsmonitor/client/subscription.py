"""One subscription of one topic as a sans-IO machine, with its verified replica.

Theory
------
The replica (`state`) is only ever changed in two ways: by the next live event, and by being swapped
for a shadow that a sync has built and whose digest agreed with the server's. Until that swap the
old replica stays visible; `phase` says that it is stale.

A sync begins with ``subscribe``, which carries a new *generation* and, where there is a verified
replica, its position. From then until the ``sync_begin`` with the same generation, whatever arrives
for the topic belongs to an earlier subscription and is dropped. Pages are pulled one by one; after
the last come the events behind its base, then ``synced``.

What was missed while away arrives as history. It is told once, marked (`EventsReplayed`), and never
reduced: the pages have it already. What can no longer be had is told as `GapFound`. Together with the
live events, every seq from the first position on is told exactly once, in order (GAPLESS, ONCE).

Live rules (rule 6 of the protocol): another epoch: sync. ``seq <= applied``: drop and count.
``seq = applied + 1``: apply, then tell. Beyond: sync, on the open connection.

Syncs that fail again and again are spread by `Backoff`, so that two sides that disagree do not
keep each other busy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.errors import ProtocolError, StateError
from wsmonitor.protocol.messages import (
    Batch,
    ClientMessage,
    Event,
    Position,
    Presence,
    Removed,
    Resync,
    Subscribe,
    SyncBegin,
    Synced,
    SyncNext,
    SyncPage,
    Unsubscribe,
)
from wsmonitor.protocol.reducer import SessionState, decode_entity

from .backoff import Backoff
from .types import (
    BatchApplied,
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SubscriptionPhase,
    SyncCompleted,
    SyncStarted,
    Update,
)

Delivery = Literal["all", "latest"]
Stage = Literal["off", "requested", "pages", "tail", "live", "pausing", "over"]
"""off: no link; requested: `subscribe` sent; pages, tail: a sync runs; live: verified; pausing: until
the next sync may begin; over: the server will not show it."""

SYNC_TIMEOUT: Final = 30.0
"""Seconds without any progress of a sync, after which it is begun anew."""

CALM_AFTER: Final = 10.0
"""Seconds of being live after which the delay between syncs starts anew."""


@dataclass(slots=True)
class Counters:
    """What a subscription has seen. Read from any thread; written by the runner's."""

    applied: int = 0
    duplicates: int = 0  # events at or below the position, dropped
    foreign: int = 0  # messages of an earlier generation, dropped
    replayed: int = 0
    syncs: int = 0  # completed
    gaps: int = 0  # losses that were found, by a seq beyond the next or by a heartbeat
    mismatches: int = 0  # digests that did not agree


@dataclass(slots=True)
class _Shadow:
    """A replica under construction."""

    begin: SyncBegin
    state: SessionState
    resumed_from: int | None  # the seq after which nothing has been told yet; None: nothing to resume
    page: int = 0
    history: list[Event] = field(default_factory=list)
    tail: list[Event] = field(default_factory=list)


class SubscriptionMachine:
    """One topic on one connection, over all its syncs.

    Args:
        topic: a session's id, or a directory topic.
        send: takes the messages to send.
        tell: takes the updates for the listeners; they are told after the machine has returned.
        random: gives numbers in [0, 1), uniformly.
        next_generation: gives numbers, each larger than any before on this connection.
        delivery: every event, or batches of the latest states at most every ``interval_ms``.
    """

    def __init__(
        self,
        topic: str,
        *,
        send: Callable[[ClientMessage], None],
        tell: Callable[[Update], None],
        random: Callable[[], float],
        next_generation: Callable[[], int],
        delivery: Delivery = "all",
        interval_ms: int = 1000,
    ) -> None:
        self.topic = topic
        self.delivery = delivery
        self.interval_ms = interval_ms
        self.state: SessionState | None = None  # the verified replica
        self.phase: SubscriptionPhase = "waiting"
        self.reason = ""
        self.presence = PresenceChanged(0, ())
        self.counters = Counters()
        self.stage: Stage = "off"
        self._send = send
        self._tell = tell
        self._next_generation = next_generation
        self._backoff = Backoff(random)
        self._generation = -1
        self._shadow: _Shadow | None = None
        self._resume = True  # whether the next sync may build upon the replica's position
        self._absent = False
        self._live_since: float | None = None
        self._hurried = False  # the one sync without a delay has been spent
        self._deadline: float | None = None
        self._behind: tuple[str, int] | None = None  # a head that batches have not reached yet

    # ------------------------------------------------------------------ reading

    @property
    def position(self) -> tuple[str, int] | None:
        """The verified ``(epoch, seq)``; None before the first sync."""
        state = self.state
        return None if state is None else (state.epoch, state.seq)

    @property
    def verified(self) -> bool:
        """Whether the replica is current as far as anybody here can know."""
        return self.stage == "live"

    # ------------------------------------------------------------------ the link

    def connected(self, now: float) -> None:
        """The link is up: subscribe, from the verified position if there is one."""
        self._backoff.reset()
        self._hurried = False
        self._live_since = None
        self._begin(now)

    def disconnected(self, now: float, reason: str) -> None:
        """The link is down: what is shown is from now on stale."""
        self.stage = "off"
        self._shadow = None
        self._deadline = None
        self._behind = None
        if self.phase not in ("closed",):
            self._set_phase("waiting", reason)

    def close(self) -> None:
        """Nobody listens any more."""
        if self.stage not in ("off", "over"):
            self._send(Unsubscribe(topic=self.topic))
        self.stage = "over"
        self._shadow = None
        self._deadline = None
        self.phase = "closed"

    def redeliver(self, now: float, delivery: Delivery, interval_ms: int) -> None:
        """Change how updates are delivered, by a new sync from the present position."""
        if (delivery, interval_ms) == (self.delivery, self.interval_ms):
            return
        self.delivery, self.interval_ms = delivery, interval_ms
        if self.stage not in ("off", "over"):
            self._begin(now)

    # ------------------------------------------------------------------ messages

    def sync_begin(self, now: float, message: SyncBegin) -> None:
        """The server answers our ``subscribe``: from here on, what arrives is ours."""
        if message.generation != self._generation or self.stage != "requested":
            self.counters.foreign += 1
            return
        old = self.state if self._resume else None
        resumed = old.seq if old is not None and old.epoch == message.epoch and not message.reset else None
        self._shadow = _Shadow(
            message, SessionState(self.topic, message.epoch, message.base), resumed_from=resumed
        )
        self.stage = "pages"
        self._deadline = now + SYNC_TIMEOUT
        self._tell(SyncStarted(message.entities))
        self._send(SyncNext(topic=self.topic, generation=self._generation, page=0))

    def sync_page(self, now: float, message: SyncPage) -> None:
        """One page for the shadow."""
        shadow = self._shadow
        if message.generation != self._generation or self.stage != "pages" or shadow is None:
            self.counters.foreign += 1
            return
        if message.page != shadow.page:
            self.counters.duplicates += 1
            return
        try:
            for kind, raw in message.entities:
                entity = decode_entity(kind, raw)
                if entity is not None:
                    shadow.state.put(kind, entity)
            for kind, ident in message.drop:
                shadow.state.drop(kind, ident)
            shadow.history.extend(decode_event(raw) for raw in message.history)
        except (StateError, ProtocolError) as exc:
            self._again(now, f"a page of the sync cannot be read: {exc}", resume=False)
            return
        # `message.gap` needs no care of its own: what history does not account for is a gap.
        shadow.state.seq = message.base
        shadow.page += 1
        self._deadline = now + SYNC_TIMEOUT
        if message.last:
            self.stage = "tail"
        else:
            self._send(SyncNext(topic=self.topic, generation=self._generation, page=shadow.page))

    def synced(self, now: float, message: Synced) -> None:
        """The end of the sync: swap the shadow in, if it agrees."""
        shadow = self._shadow
        if message.generation != self._generation or self.stage != "tail" or shadow is None:
            self.counters.foreign += 1
            return
        shadow.state.settle()
        if shadow.state.seq != message.seq or shadow.state.digest != message.digest:
            self.counters.mismatches += 1
            self._again(
                now,
                f"the state that was received does not agree with the server's at {message.seq}: "
                "it was not used",
                resume=False,
            )
            return
        previous = self.position
        past = _account(shadow)
        self.state = shadow.state
        self._shadow = None
        self._resume = True
        self.stage = "live"
        self._deadline = None
        self._live_since = now
        self._absent = shadow.begin.absent and len(shadow.state) == 0
        self.counters.syncs += 1
        for update in past:
            if isinstance(update, EventsReplayed):
                self.counters.replayed += len(update.events)
            self._tell(update)
        reset = shadow.begin.reset
        if not reset and previous is not None and previous[0] != shadow.state.epoch:
            reset = "epoch"
        elif not reset and previous is not None and previous[1] > shadow.state.seq:
            reset = "ahead"
        self._tell(SyncCompleted(shadow.state.epoch, shadow.state.seq, previous, reset))
        self._set_phase("absent" if self._absent else "live")

    def event(self, now: float, event: Event) -> None:
        """One event, live or in the tail of a sync."""
        state = self.state
        if self.stage != "live" or state is None:
            self._tail_event(now, event)
        elif event.epoch != state.epoch:
            self._lost(now, "the server began a new history")
        elif event.seq <= state.seq:
            self.counters.duplicates += 1
        elif event.seq > state.seq + 1:
            self._lost(now, f"event {event.seq} came, expected {state.seq + 1}")
        else:
            try:
                entity = state.apply(event)
            except StateError as exc:
                self._again(now, f"event {event.seq} cannot be applied: {exc}", resume=False)
                return
            self.counters.applied += 1
            self._tell(EventApplied(event, entity))
            if self._absent:
                self._appeared()

    def batch(self, now: float, batch: Batch) -> None:
        """With delivery "latest": what changed since our position."""
        state = self.state
        if self.stage != "live" or state is None:
            self.counters.foreign += 1
            return
        if batch.epoch != state.epoch:
            self._lost(now, "the server began a new history")
            return
        if batch.to <= state.seq:
            self.counters.duplicates += 1
            return
        if batch.from_ != state.seq:
            self._lost(now, f"a batch begins at {batch.from_}, expected {state.seq}")
            return
        try:
            decoded = [(kind, decode_entity(kind, raw)) for kind, raw in batch.entities]
        except StateError as exc:
            self._again(now, f"a batch cannot be read: {exc}", resume=False)
            return
        entities = tuple((kind, entity) for kind, entity in decoded if entity is not None)
        drops = tuple(batch.drop)
        before = [(kind, e.id, state.entities[kind].get(e.id)) for kind, e in entities]
        before += [(kind, ident, state.entities.get(kind, {}).get(ident)) for kind, ident in drops]
        for kind, entity in entities:
            state.put(kind, entity)
        for kind, ident in drops:
            state.drop(kind, ident)
        if batch.digest != state.digest:
            # What stays visible until the sync must be the last state that was verified.
            for kind, ident, old in reversed(before):
                if old is None:
                    state.drop(kind, ident)
                else:
                    state.put(kind, old)
            self.counters.mismatches += 1
            self._again(now, f"a batch up to {batch.to} does not agree with the server's state", resume=False)
            return
        state.seq = batch.to
        self.counters.applied += 1
        self._tell(BatchApplied(batch.to, entities, drops))
        self._appeared()

    def resync(self, now: float, message: Resync) -> None:
        """The server dropped live events for this subscription."""
        if self.stage in ("live", "pages", "tail"):
            why = (
                "too slow for the rate of events" if message.reason == "too_slow" else "the server began anew"
            )
            self._lost(now, why)

    def removed(self, message: Removed) -> None:
        """The topic is not there (any more) for us."""
        if self.stage in ("off", "over"):
            return
        self.refused("it was removed" if message.reason == "removed" else "not available to this token")

    def refused(self, reason: str) -> None:
        """The server will not show the topic."""
        self.stage = "over"
        self._shadow = None
        self._deadline = None
        self._set_phase("not_available", reason)

    def fault(self, now: float, reason: str) -> None:
        """The server could not follow us: ask anew, after a delay (``removed`` may be on its way)."""
        if self.stage in ("requested", "pages", "tail", "live"):
            self._hurried = True
            self._again(now, reason, resume=True)

    def head(self, now: float, epoch: str, seq: int, digest: str) -> None:
        """A heartbeat names the topic's head: whoever is behind it has lost something (rule 8)."""
        state = self.state
        if self.stage != "live" or state is None:
            return
        behind = (epoch, seq)
        state.settle()
        if epoch != state.epoch:
            self._lost(now, "the server began a new history")
        elif seq > state.seq:
            # A batch may still be on its way; a head that was passed on a whole beat ago may not.
            if self.delivery == "all" or (self._behind is not None and state.seq < self._behind[1]):
                self._lost(now, f"events up to {seq} were lost on the way")
            else:
                self._behind = behind
        elif seq < state.seq:
            self._again(now, f"we are ahead of the server, at {state.seq} against {seq}", resume=True)
        elif digest and digest != state.digest:
            self.counters.mismatches += 1
            self._again(now, f"our state at {seq} differs from the server's", resume=False)
        else:
            self._behind = None

    def presence_changed(self, message: Presence) -> None:
        """Who watches."""
        if self.stage in ("off", "over"):
            return
        self.presence = PresenceChanged(message.count, tuple(message.names))
        self._tell(self.presence)

    # ------------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called; None for never."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Begin the sync that was put off, or give up one that makes no progress."""
        if self._deadline is None or now < self._deadline:
            return
        if self.stage == "pausing":
            self._begin(now)
        else:
            self._again(now, f"the sync made no progress for {SYNC_TIMEOUT:g} s", resume=True)

    # ------------------------------------------------------------------ inside

    def _tail_event(self, now: float, event: Event) -> None:
        if self.stage != "tail" or self._shadow is None:
            self.counters.foreign += 1
            return
        try:
            self._shadow.state.apply(event)
        except StateError as exc:
            self._again(now, f"the events after the sync do not fit: {exc}", resume=True)
            return
        self._shadow.tail.append(event)
        self._deadline = now + SYNC_TIMEOUT

    def _appeared(self) -> None:
        if self._absent:
            self._absent = False
            self._set_phase("live")

    def _lost(self, now: float, reason: str) -> None:
        self.counters.gaps += 1
        self._again(now, reason, resume=True)

    def _again(self, now: float, reason: str, *, resume: bool) -> None:
        """Sync again: at once the first time, later ones after growing delays."""
        self._shadow = None
        self._resume = self._resume and resume
        if self._live_since is not None and now - self._live_since >= CALM_AFTER:
            self._backoff.reset()
            self._hurried = False
        self._live_since = None  # one calm excuses one failure, not all that follow it
        if not self._hurried:
            self._hurried = True
            self._set_phase("syncing", reason)
            self._begin(now)
            return
        self._deadline = now + self._backoff.next_delay()
        # The old subscription may still send: it is ours no more.
        self.stage = "pausing"
        self._set_phase("syncing", reason)

    def _begin(self, now: float) -> None:
        self._generation = self._next_generation()
        self._shadow = None
        self._behind = None
        self.stage = "requested"
        self._deadline = now + SYNC_TIMEOUT
        state = self.state if self._resume else None
        resume: Position | None = None
        if state is not None:
            state.settle()
            resume = Position(epoch=state.epoch, seq=state.seq, digest=state.digest)
        self._send(
            Subscribe(
                topic=self.topic,
                generation=self._generation,
                resume=resume,
                delivery=self.delivery,
                interval_ms=self.interval_ms,
            )
        )
        if self.phase != "syncing":
            self._set_phase("syncing")

    def _set_phase(self, phase: SubscriptionPhase, reason: str = "") -> None:
        if (phase, reason) != (self.phase, self.reason):
            self.phase, self.reason = phase, reason
            self._tell(PhaseChanged(phase, reason))


def _account(shadow: _Shadow) -> list[EventsReplayed | GapFound]:
    """What a finished sync tells of the past: every seq once, as an event or within a gap, in order.

    A first sync, and one after a reset, has no past to tell: its position begins at its end.
    """
    if shadow.resumed_from is None:
        return []
    told = shadow.resumed_from
    updates: list[EventsReplayed | GapFound] = []
    run: list[Event] = []
    for event in (*shadow.history, *shadow.tail):
        if event.epoch != shadow.state.epoch or event.seq <= told:
            continue
        if event.seq > told + 1:
            if run:
                updates.append(EventsReplayed(tuple(run)))
                run = []
            updates.append(GapFound(told + 1, event.seq - 1))
        run.append(event)
        told = event.seq
    if run:
        updates.append(EventsReplayed(tuple(run)))
    if told < shadow.state.seq:
        updates.append(GapFound(told + 1, shadow.state.seq))
    return updates


__all__ = ["CALM_AFTER", "SYNC_TIMEOUT", "Counters", "Delivery", "SubscriptionMachine"]
