"""Feeds: what one topic is at its committed head, its last events, and who listens to it.

A feed knows no sockets and no clock. Only what is committed gets into it, so that nobody ever
sees an event that a crash could take back. A subscription is in one of two places: in ``syncs``
while its sync runs (no live events are queued for it then), in ``subscribers`` afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol
from weakref import ref

from msgspec import Raw

from wsmonitor.protocol import messages
from wsmonitor.protocol.codec import encode
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Entity
from wsmonitor.protocol.messages import HistoryPage
from wsmonitor.protocol.reducer import SessionState

from .framing import Delivery
from .ports import Subscriber
from .snapshot import Snapshot
from .stores.bus import People

SHARE_DISTANCE: Final = 256
"""How many events behind the head a snapshot may be and still be shared with the next sync."""

KEEP: Final = 30.0
"""Seconds after a sync has begun for which its snapshot is kept for those who come next: so long a storm of
reconnects is spread at most."""

KEEP_ENTITIES: Final = 100_000
"""A snapshot of more is not kept: it takes hundreds of megabytes."""

CROWD: Final = 0.001
"""Seconds for each observer, at least, between two messages of who watches: it costs 1 % of the time then."""


class Numbered(NamedTuple):
    """An event as the ledger numbered it: the bytes for all, and what they say.

    ``number`` is what the entity adds to the digest (None: not computed yet).
    """

    seq: int
    encoded: bytes
    kind: str
    entity: Entity
    drops: tuple[tuple[str, str], ...] = ()
    number: int | None = None


class Kept(NamedTuple):
    """An event in history. ``digest`` is the state's after it (None: loaded from a store, not known)."""

    seq: int
    encoded: bytes
    digest: str | None


class Closable(Protocol):
    """A running sync, as the feed sees it."""

    subscriber: Subscriber

    def close(self) -> None: ...


class Presence:
    """Who watches, told at most once per interval.

    People are counted by ``instance``: one program with two subscriptions is one observer.

    Attributes:
        elsewhere: who watches at other nodes.
        dirty: whether there is something to tell.
    """

    def __init__(self, names: int) -> None:
        self.elsewhere: dict[str, People] = {}
        self._limit = names
        self._next = 0.0
        self.dirty = False

    @staticmethod
    def here(subscribers: Iterable[Subscriber]) -> dict[str, str]:
        """Instance to name of those who are connected to this server."""
        people: dict[str, str] = {}
        for number, subscriber in enumerate(subscribers):
            people.setdefault(subscriber.instance or f"#{number}", subscriber.name)
        return people

    def who(self, subscribers: Iterable[Subscriber]) -> tuple[int, tuple[str, ...]]:
        """The count, and the first names in alphabetical order."""
        people = self.here(subscribers)
        for node, others in self.elsewhere.items():
            for instance, name in others:
                # Who gave no instance is somebody else at every node.
                people.setdefault(f"{node}{instance}" if instance.startswith("#") else instance, name)
        return len(people), tuple(sorted(name for name in people.values() if name)[: self._limit])

    def deadline(self) -> float | None:
        return self._next if self.dirty else None

    def due(self, now: float, interval: float) -> bool:
        """Whether it may be told now; then the next time is not before *interval* seconds."""
        if not self.dirty or now < self._next:
            return False
        self.dirty = False
        self._next = now + interval
        return True


class Feed:
    """One topic.

    Attributes:
        topic: as subscribers name it.
        state: at the committed head; replaced only by `restart`.
        history: the last events, in order, without a hole, up to the head.
        kept_until: when `let_go` has something to do; None if never.
    """

    def __init__(
        self,
        topic: str,
        state: SessionState,
        limits: Limits,
        history: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        self.topic = topic
        self.state = state
        self.history: deque[Kept] = deque()
        self.history_size = 0
        self.subscribers: dict[int, Subscriber] = {}
        self.syncs: dict[int, Closable] = {}
        self.presence = Presence(limits.presence_names)
        self._limits = limits
        self._snapshot: Callable[[], Snapshot | None] = lambda: None
        self._kept: Snapshot | None = None
        self.kept_until: float | None = None
        for seq, encoded in history:
            self._keep(Kept(seq, encoded, None))
        self._trim()

    # -- events

    @property
    def first_kept(self) -> int:
        """The oldest seq in history; the head's successor when there is none."""
        return self.history[0].seq if self.history else self.state.seq + 1

    def append(self, events: Sequence[Numbered]) -> None:
        """Apply committed events, keep them, and hand them to every subscriber."""
        for event in events:
            self.state.put(event.kind, event.entity, event.number)
            for kind, ident in event.drops:
                self.state.drop(kind, ident)
            self.state.seq = event.seq
            self._keep(Kept(event.seq, event.encoded, self.state.digest))
        if events and self.subscribers:
            delivery = Delivery(tuple(event.encoded for event in events))
            # A listener that goes away while it is told must not disturb the others.
            for subscriber in list(self.subscribers.values()):
                subscriber.tell(self.topic, self.state.seq, delivery)
        self._trim()

    def _keep(self, kept: Kept) -> None:
        self.history.append(kept)
        self.history_size += len(kept.encoded)

    def _trim(self) -> None:
        limits = self._limits
        while self.history and (
            len(self.history) > limits.history_events or self.history_size > limits.history_size
        ):
            self.history_size -= len(self.history.popleft().encoded)

    def since(self, seq: int) -> list[bytes]:
        """The events after *seq*, which history must still reach back to."""
        missing = self.state.seq - seq
        return [kept.encoded for kept in list(self.history)[len(self.history) - missing :]]

    def history_page(self, first: int, limit: int, size: int, request: int) -> HistoryPage:
        """Kept events from seq *first* on: at most *limit*, and about *size* bytes (but at least one)."""
        events: list[Raw] = []
        for kept in self.history:
            if kept.seq < first:
                continue
            size -= len(kept.encoded)
            if len(events) == limit or (events and size < 0):
                break
            events.append(Raw(kept.encoded))
        return HistoryPage(request=request, events=events, first_kept=self.first_kept, head=self.state.seq)

    def digest_at(self, seq: int) -> str | None:
        """The state's digest after event *seq*, or None where that is not known."""
        if seq == self.state.seq:
            return self.state.digest
        index = seq - self.first_kept
        return self.history[index].digest if 0 <= index < len(self.history) else None

    def snapshot(self, at_least: int) -> Snapshot:
        """An immutable copy of the state, shared with other syncs while one of them still uses it.

        Its base is at least *at_least*: a client that resumes never gets a state older than its own.
        """
        shared = self._snapshot()
        if (
            shared is None
            or shared.epoch != self.state.epoch
            or not max(at_least, self.first_kept - 1, self.state.seq - SHARE_DISTANCE) <= shared.base
        ):
            shared = Snapshot(self.state, self._limits.page_size)
            self._snapshot = ref(shared)
            self._kept = None
        return shared

    def keep_snapshot(self, now: float) -> None:
        """Keep what the last sync was given for those who come within `KEEP` seconds of *now*."""
        snapshot = self._snapshot()
        if snapshot is not None and snapshot.count <= KEEP_ENTITIES:
            self._kept = snapshot
            # Not moved with each of a storm: half a second more or less does not matter.
            if self.kept_until is None or self.kept_until < now + KEEP - 0.5:
                self.kept_until = now + KEEP

    def let_go(self, now: float) -> None:
        """Keep the snapshot no longer, if it is time."""
        if self.kept_until is not None and self.kept_until <= now:
            self._kept = self.kept_until = None

    # -- subscribers

    @property
    def used(self) -> bool:
        return bool(self.subscribers or self.syncs)

    def begin(self, sync: Closable) -> None:
        """A sync starts; what the subscriber had on this topic ends."""
        self.detach(sync.subscriber)
        self.syncs[id(sync.subscriber)] = sync

    def attach(self, sync: Closable) -> None:
        """A sync is over: from here its subscriber gets live events."""
        # One that was ended does not come here: see `Closable.close`.
        del self.syncs[id(sync.subscriber)]
        self.subscribers[id(sync.subscriber)] = sync.subscriber
        self.presence.dirty = True

    def detach(self, subscriber: Subscriber) -> None:
        sync = self.syncs.pop(id(subscriber), None)
        if sync is not None:
            sync.close()
        if self.subscribers.pop(id(subscriber), None) is not None:
            self.presence.dirty = True

    def tell_presence(self, now: float, interval: float) -> People | None:
        """Tell who watches, if that changed and it is time; then, who of them is connected here."""
        if self.presence.due(now, max(interval, CROWD * len(self.subscribers))):
            count, names = self.presence.who(self.subscribers.values())
            message = messages.Presence(topic=self.topic, count=count, names=list(names))
            delivery = Delivery((encode(message),))
            for subscriber in list(self.subscribers.values()):
                subscriber.presence(self.topic, delivery)
            return tuple(self.presence.here(self.subscribers.values()).items())
        return None

    def _release(self) -> list[Subscriber]:
        everybody = [*self.subscribers.values(), *(sync.subscriber for sync in self.syncs.values())]
        for sync in list(self.syncs.values()):
            sync.close()
        self.subscribers.clear()
        self.syncs.clear()
        return everybody

    def restart(self, state: SessionState, history: Iterable[tuple[int, bytes]] = ()) -> None:
        """Go on with *state*, of another epoch or later than what was told: everybody subscribes again."""
        self.state = state
        self.history.clear()
        self.history_size = 0
        for seq, encoded in history:
            self._keep(Kept(seq, encoded, None))
        self._trim()
        for subscriber in self._release():
            subscriber.reset(self.topic)

    def remove(self) -> None:
        """The topic is gone."""
        for subscriber in self._release():
            subscriber.removed(self.topic, "removed")
