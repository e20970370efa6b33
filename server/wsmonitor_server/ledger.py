"""The two heads of one session: what is numbered, and what is committed. Pure: the store is somebody else's.

The *tail* is what is numbered; the *head* is what is committed. An entity that is written becomes the next
event: it is encoded once, stands in the overlay over the head's state, and waits in a `Batch`. Only when
the store has made the batch last does the head advance (`Ledger.committed`), and only then is anything
told to anybody. When the store fails, everything behind the head is thrown away (`Ledger.rollback`)::

    write ──> overlay, tail ──take_batch()──> store.commit ──committed()──> head, feed, acknowledgements
                   ^                              │
                   └────────── rollback() <───────┘ failed

What may be written, and what a change means, says `authority`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from wsmonitor.protocol.codec import decode_event, encode, encode_record
from wsmonitor.protocol.digest import entity_hash, to_hex
from wsmonitor.protocol.entities import Command, Entity, ErrorInfo, LogRecord
from wsmonitor.protocol.errors import ProtocolError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState, decode_entity

from .facts import Facts
from .hub import Feed, Numbered
from .merge import Rejection
from .overlay import Overlay
from .releases import Releases
from .stores.base import Commit, ProducerPosition

TRIM_STEP: Final = 256
"""Events that may lie behind the kept history before the store is told to forget them."""


@dataclass(slots=True)
class Batch:
    """What one commit makes last, and what is to be told when it has.

    Attributes:
        acks: producer to the last number that this batch takes.
        rejections: (producer, number, error), told after the events and before the acknowledgements.
        size: bytes of the events; ``entity_bytes``: of all entities behind them.
        end: the seq behind which the next batch begins.
    """

    commit: Commit
    events: list[Numbered] = field(default_factory=list)
    acks: dict[str, int] = field(default_factory=dict)
    rejections: list[tuple[str, int, ErrorInfo]] = field(default_factory=list)
    size: int = 0
    entity_bytes: int = 0

    @property
    def end(self) -> int:
        return self.commit.expected_head + len(self.events)


class Ledger:
    """See the module's text.

    Args:
        feed: the head, with its history.
        producers: the positions at the head.
        values: SHA-256 of large values that the store keeps for the session.
        size: bytes of the entities at the head.
        retired: how many finished commands the store keeps apart.

    Attributes:
        feed: the committed head; `committed` and `adopt` advance it.
        positions: of the producers, at the head.
        facts: what is counted, at the tail.
        tail: the seq of the last numbered event.
    """

    def __init__(
        self,
        feed: Feed,
        producers: Mapping[str, ProducerPosition],
        *,
        values: Collection[str] = (),
        size: int = 0,
        retired: int = 0,
    ) -> None:
        self.session = feed.topic
        self.feed = feed
        self.positions = dict(producers)
        self.tail = feed.state.seq
        self.facts = Facts(feed.state, size)
        self._overlay = Overlay(feed.state)
        self._releases = Releases((one for one in values if one not in self.facts.references), self.tail)
        self._tail_positions: dict[str, ProducerPosition] = {}
        self._batch: Batch | None = None
        self._in_flight: list[Batch] = []
        self._store_first = feed.first_kept
        self._head_bytes = size  # of the entities at the head
        self._retired = retired  # committed commands whose records were dropped

    # -- reading the tail

    @property
    def epoch(self) -> str:
        return self.feed.state.epoch

    @property
    def uncommitted(self) -> bool:
        return self._batch is not None or bool(self._in_flight)

    @property
    def committing(self) -> bool:
        """Whether a batch is being committed."""
        return bool(self._in_flight)

    @property
    def open(self) -> bool:
        """Whether a batch is being filled (and not only one being committed)."""
        return self._batch is not None

    @property
    def open_size(self) -> int:
        """Bytes of the events that wait for the next commit."""
        return 0 if self._batch is None else self._batch.size

    @property
    def size(self) -> int:
        """Bytes kept for the session: entities, history, large values."""
        return self.facts.entity_bytes + self.facts.value_bytes + self.feed.history_size

    def get(self, kind: str, ident: str) -> Entity | None:
        """An entity at the tail."""
        return self._overlay.get(kind, ident)

    def position(self, producer: str) -> ProducerPosition | None:
        """A producer's position at the tail."""
        return self._tail_positions.get(producer) or self.positions.get(producer)

    @property
    def producer_count(self) -> int:
        """How many producers there are at the tail."""
        return len(self.positions.keys() | self._tail_positions.keys())

    @property
    def retired(self) -> int:
        """How many commands there were whose records the state no longer has."""
        return self._retired + sum(len(batch.commit.retired) for batch in self._uncommitted())

    def retiring(self, key: str) -> bytes | None:
        """The record of the command *key*, if it is on its way out of the state into the store."""
        for batch in self._uncommitted():
            if (data := batch.commit.retired.get(key)) is not None:
                return data
        return None

    def _uncommitted(self) -> list[Batch]:
        return self._in_flight if self._batch is None else [*self._in_flight, self._batch]

    # -- writing at the tail

    def write(
        self,
        kind: str,
        entity: Entity,
        now: str,
        *,
        drops: Sequence[tuple[str, str]] = (),
        note: str = "",
        limit: int | None = None,
    ) -> None:
        """Number *entity*, whose seq is the tail's next, as the next event; the same event drops *drops*.

        Args:
            now: nanoseconds UTC, as a string.
            note: for the audit.
            limit: bytes that the event may have.

        Raises:
            Rejection: ``event_too_large``; nothing was written.
        """
        seq = self.tail + 1
        raw = encode_record(entity)
        encoded = encode(
            Event(
                topic=self.session,
                epoch=self.epoch,
                seq=seq,
                ts=now,
                kind=kind,
                entity=raw,
                drop=list(drops),
                note=note,
            )
        )
        if limit is not None and len(encoded) > limit:
            raise Rejection(
                "event_too_large",
                f"{kind} {entity.id!r} would make an event of {len(encoded):,} bytes; {limit:,} are allowed",
            )
        self._enter(Numbered(seq, encoded, kind, entity, tuple(drops), entity_hash(entity)), bytes(raw))

    def move(self, position: ProducerPosition) -> None:
        """Have a producer at *position*, and acknowledge that."""
        batch = self._open_batch()
        self._tail_positions[position.producer] = position
        batch.commit.producers[position.producer] = position
        batch.acks[position.producer] = position.accepted

    def reject(self, producer: str, number: int, error: ErrorInfo) -> None:
        """Have *producer* told, with the batch, that its change *number* is refused."""
        self._open_batch().rejections.append((producer, number, error))

    def log(self, step: str, records: Iterable[LogRecord]) -> None:
        """Have the store keep lines of *step*."""
        self._open_batch().commit.logs.extend((step, record) for record in records)

    def retire(self, command: Command) -> None:
        """Have the store keep the record of a command that the state no longer has."""
        self._open_batch().commit.retired[command.id] = bytes(encode_record(command))

    def touch(self) -> None:
        """Have a batch even without events: so that the store learns of a new epoch."""
        self._open_batch()

    def _open_batch(self) -> Batch:
        if self._batch is None:
            self._batch = Batch(Commit(self.session, self.epoch, self.tail))
        return self._batch

    def _enter(self, event: Numbered, raw: bytes) -> None:
        """*event* is the next at the tail; *raw* is its entity, encoded."""
        batch, key = self._open_batch(), (event.kind, event.entity.id)
        assert event.number is not None
        self._replace(*key, event.seq, event.entity, event.number, len(raw))
        for dropped in event.drops:
            self._replace(*dropped, event.seq, None, 0, 0)
            batch.commit.entities.pop(dropped, None)
            batch.commit.drops.add(dropped)
        for sha256, referred in self.facts.take_reference_changes():
            if referred:
                batch.commit.values.add(sha256)
            else:
                self._releases.add(sha256, event.seq, committed=self.feed.state.seq)
        batch.commit.entities[key] = raw
        batch.commit.drops.discard(key)
        batch.commit.events.append((event.seq, event.encoded))
        batch.events.append(event)
        batch.size += len(event.encoded)
        self.tail = event.seq

    def _replace(self, kind: str, ident: str, seq: int, new: Entity | None, number: int, size: int) -> None:
        old = self._overlay.get(kind, ident)
        self.facts.replace(kind, ident, old, new)
        # Encoding the old one again is cheaper than remembering the length of every entity.
        self.facts.entity_bytes += size - (0 if old is None else len(bytes(encode_record(old))))
        self._overlay.put(kind, ident, seq, new, number)

    # -- committing

    def take_batch(self) -> Batch | None:
        """What is to be committed next, or None. Batches are committed in the order they were taken."""
        batch, self._batch = self._batch, None
        if batch is None:
            return None
        commit = batch.commit
        first = self.feed.first_kept
        if first - self._store_first >= TRIM_STEP:
            commit.first_kept = first
        commit.released = self._releases.due(first, self.facts.references)
        commit.listing = self.facts.listing(self.size)
        commit.attention = self.facts.attention
        commit.digest = to_hex(self._overlay.digest)
        batch.entity_bytes = self.facts.entity_bytes
        self._in_flight.append(batch)
        return batch

    def committed(self, batch: Batch) -> None:
        """The store has made *batch* last: the head advances, and subscribers get its events."""
        commit = batch.commit
        self._in_flight.remove(batch)
        self._head_bytes = batch.entity_bytes
        for event in batch.events:
            self._overlay.landed(event)
        self._retired += len(commit.retired)
        self.positions.update(commit.producers)
        for producer, position in commit.producers.items():
            if self._tail_positions.get(producer) == position:
                del self._tail_positions[producer]
        if commit.first_kept:
            self._store_first = commit.first_kept
        self._releases.done(commit.released, batch.end)
        self.feed.append(batch.events)

    def adopt(
        self,
        events: Sequence[bytes],
        producers: Mapping[str, ProducerPosition],
        *,
        released: Collection[str] = (),
        retired: int = 0,
    ) -> list[Numbered]:
        """Another node's commit has become what the store has: the head advances by it, and is told.

        Args:
            events: encoded, from the head's successor on.
            producers: the positions that it moved.
            released: SHA-256 of values that the session no longer keeps.
            retired: how many finished commands it moved out of the state.

        Returns:
            the events. Nothing may wait for a commit here: `rollback` before.

        Raises:
            ProtocolError, StateError: they are not what follows the head.
        """
        assert not self.uncommitted
        numbered = [self._read(encoded, seq) for seq, encoded in enumerate(events, self.tail + 1)]
        for event, raw in numbered:
            self._enter(event, raw)
        self._releases.forget(released)
        self.positions.update(producers)
        self._retired += retired
        if (batch := self._batch) is not None:
            self._batch = None
            self._in_flight.append(batch)
            batch.entity_bytes = self.facts.entity_bytes
            self.committed(batch)
        return [event for event, _ in numbered]

    def _read(self, encoded: bytes, seq: int) -> tuple[Numbered, bytes]:
        event = decode_event(encoded)
        entity = decode_entity(event.kind, event.entity)
        if entity is None or event.seq != seq or event.epoch != self.epoch:
            raise ProtocolError(
                "bad_message", f"event {event.seq} of {event.epoch} does not follow {seq - 1}"
            )
        numbered = Numbered(seq, encoded, event.kind, entity, tuple(event.drop), entity_hash(entity))
        return numbered, bytes(event.entity)

    def rollback(self) -> None:
        """The store failed, and wrote nothing: everything behind the head is thrown away."""
        self.facts.revert(self._overlay.written(), self.feed.state, self._head_bytes)
        self._forget_tail()

    def _forget_tail(self) -> None:
        self._overlay.clear(self.feed.state)
        self._tail_positions.clear()
        self._batch = None
        self._in_flight.clear()
        self.tail = self.feed.state.seq
        self._releases.undo(self.tail)

    def restart(
        self,
        state: SessionState,
        producers: Mapping[str, ProducerPosition],
        retired: int = 0,
        size: int = 0,
        *,
        history: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """Nobody knows what the store has: go on from what was loaded anew, under *state*'s epoch.

        Args:
            retired: how many finished commands the store keeps apart.
            size: bytes of *state*'s entities.
            history: its last events, if it is not of a new epoch.
        """
        self._retired = retired
        self.positions = dict(producers)
        self.feed.restart(state, history)
        self._store_first = self.feed.first_kept
        self._head_bytes = size
        self.facts = Facts(state, size)
        self._forget_tail()
