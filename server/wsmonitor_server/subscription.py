"""One connection's subscription to one topic: what the hub calls, and what the outbox gets. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Raw

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.messages import Batch, Removed, Resync

from .framing import Delivery, Framed
from .outbox import Lane
from .ports import Sync

if TYPE_CHECKING:
    from .peer import Peer

Phase = Literal[
    "syncing",  # pages are being pulled; the hub has nothing attached
    "live",
    "muted",  # events were dropped: the client has been told, and will subscribe again
    "over",
]


class Subscription:
    """Implements `ports.Subscriber`.

    With delivery "latest" the events are not queued but folded: the last entity per id waits for the
    next batch.

    Attributes:
        seq: the last event that was given to the outbox (or folded into the waiting batch).
        batch_due: when the waiting batch is to go out (monotonic seconds); None when none waits.
    """

    __slots__ = (
        "_folded",
        "_folded_drop",
        "_folded_from",
        "_folded_size",
        "_peer",
        "batch_due",
        "claims",
        "epoch",
        "generation",
        "instance",
        "interval",
        "lane",
        "latest",
        "name",
        "pages",
        "phase",
        "seq",
        "sync",
        "told",
        "topic",
    )

    def __init__(self, peer: Peer, topic: str, claims: Claims, name: str, instance: str) -> None:
        self._peer = peer
        self.topic = topic
        self.claims = claims
        self.name = name
        self.instance = instance
        self.lane = Lane()
        self.pages = Lane(bulk=True)
        self.phase: Phase = "syncing"
        self.generation = -1
        self.sync: Sync | None = None
        self.epoch = ""
        self.seq = 0
        self.told: tuple[str, int] | None = None  # the head that a heartbeat carried last
        self.latest = False
        self.interval = 1.0
        self.batch_due: float | None = None
        self._folded: dict[tuple[str, str], Raw] = {}
        self._folded_drop: dict[tuple[str, str], None] = {}
        self._folded_from = 0
        self._folded_size = 0

    # -- what the hub calls

    def tell(self, topic: str, seq: int, delivery: Delivery) -> None:
        """Send or queue committed events, the last of which is *seq*.

        The one code that runs for each observer of each commit.
        """
        if self.phase != "live":
            return
        if not self.latest:
            self.seq = seq
            peer = self._peer
            framed = delivery.framed or self._framed(delivery)
            write = peer.straight
            if write is not None and peer.turn != framed.turn and peer.expires > framed.valid:
                peer.turn = framed.turn
                framed.written += 1
                try:
                    taken = write(framed.data)
                except OSError:
                    taken = 0
                if taken != framed.size:
                    peer.wire.write_rest(framed.data, taken)
            else:
                peer.queue_events(self, framed.chunks)
            return
        encoded = delivery.payloads
        for at, one in enumerate(encoded, seq - len(encoded) + 1):
            if self.phase == "live":  # until it has become too much
                self._fold(at, one)

    def presence(self, topic: str, delivery: Delivery) -> None:
        """Tell who watches. Presence may be lost like an event: the next one replaces it."""
        if self.phase == "live":
            self._peer.queue_events(self, self._framed(delivery).chunks)

    def _framed(self, delivery: Delivery) -> Framed:
        if delivery.framed is None:
            delivery.framed = self._peer.services.framed(delivery.payloads)
        return delivery.framed

    def removed(self, topic: str, reason: str) -> None:
        """The topic is no longer there."""
        if self.phase != "over":
            self._peer.end_subscription(self)
            self._peer.send(
                Removed(topic=topic, reason="removed" if reason == "removed" else "not_available")
            )

    def reset(self, topic: str) -> None:
        """The topic's history was broken."""
        if self.phase in ("syncing", "live"):
            self.mute("reset")

    # -- what the peer calls

    def begin(self, generation: int, *, latest: bool, interval: float) -> None:
        """A new sync starts: what belonged to the one before is void."""
        self.stop_sync()
        self._peer.forget(self)
        self._clear_batch()
        self.phase = "syncing"
        self.generation = generation
        self.latest = latest
        self.interval = interval
        self.told = None

    def go_live(self, epoch: str, seq: int) -> None:
        """The sync is complete, and the hub attached."""
        self.sync = None
        self.epoch = epoch
        self.seq = seq
        self.told = (epoch, seq)
        self.phase = "live"

    def mute(self, reason: Literal["too_slow", "reset"]) -> None:
        """Drop what waits, and ask the client to subscribe again."""
        self.stop_sync()
        self._peer.forget(self)
        self._clear_batch()
        self.phase = "muted"
        self._peer.services.counted["resyncs_total"][reason] += 1
        self._peer.send(Resync(topic=self.topic, reason=reason))

    def stop_sync(self) -> None:
        """Give up a running sync."""
        if self.sync is not None:
            self.sync.close()
            self.sync = None

    def end(self) -> None:
        """Nothing is queued for it any more."""
        self.stop_sync()
        self._peer.forget(self)
        self._clear_batch()
        self.phase = "over"

    def batch(self, head: tuple[str, int, str], ts: str) -> Batch | None:
        """The waiting batch, if *head* (epoch, seq, digest) is where it ends; None while it is not."""
        epoch, seq, digest = head
        if self.batch_due is None or seq != self.seq or epoch != self.epoch:
            return None
        batch = Batch(
            topic=self.topic,
            epoch=epoch,
            from_=self._folded_from,
            to=seq,
            ts=ts,
            entities=[(kind, entity) for (kind, _), entity in self._folded.items()],
            drop=list(self._folded_drop),
            digest=digest,
        )
        self._clear_batch()
        return batch

    def _fold(self, seq: int, encoded: bytes) -> None:
        event = decode_event(encoded)
        if self.batch_due is None:
            self._folded_from = self.seq
            self.batch_due = self._peer.services.clock.monotonic() + self.interval
            self._peer.wire.rearm()
        self.seq = seq
        identity = self._peer.entity_id(event.entity)
        key = (event.kind, identity)
        self._folded_drop.pop(key, None)
        previous = self._folded.pop(key, None)
        self._folded_size += len(bytes(event.entity)) - (len(bytes(previous)) if previous is not None else 0)
        self._folded[key] = event.entity
        for dropped in event.drop:
            gone = self._folded.pop(dropped, None)
            if gone is not None:
                self._folded_size -= len(bytes(gone))
            self._folded_drop[dropped] = None
        if self._folded_size > self._peer.limits.outbox_size:
            self.mute("too_slow")

    def _clear_batch(self) -> None:
        self.batch_due = None
        self._folded = {}
        self._folded_drop = {}
        self._folded_size = 0
