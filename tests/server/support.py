"""What the tests of the session side share: an engine on a manual clock, and listeners that remember."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import msgspec

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.codec import decode_event, decode_server
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.digest import entity_hash
from wsmonitor.protocol.entities import Command, ErrorInfo, Value
from wsmonitor.protocol.messages import Event, Hold, Position, Presence, PublishOpen, PublishOpened
from wsmonitor.protocol.reducer import SessionState, decode_entity
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.framing import Delivery
from wsmonitor_server.ledger import Batch, Ledger
from wsmonitor_server.ports import ProducerHandle
from wsmonitor_server.stores.base import Store
from wsmonitor_server.stores.memory import MemoryStore
from wsmonitor_server.sync import TopicSync


def claims(sub: str = "alice", *, role: Any = "admin", sessions: tuple[str, ...] = ("*",)) -> Claims:
    return Claims(
        sub=sub, exp=2**40, jti=f"jti-{sub}", aud="wsmonitor", iss="wsmonitor", role=role, sessions=sessions
    )


def counting_hex() -> Any:
    """Hexadecimal digits that differ at every call and are the same in every run."""
    numbers = itertools.count(1)
    return lambda size: f"{next(numbers):0{2 * size}x}"


class Listener:
    """`ports.Subscriber` that remembers, and keeps a replica as a client would."""

    def __init__(self, name: str = "", who: Claims | None = None) -> None:
        self.claims = who or claims()
        self.name = name
        self.instance = name
        self.replica: SessionState | None = None
        self.events: list[Event] = []
        self.missed: list[Event] = []
        self.gaps: list[tuple[int, int]] = []
        self.present: list[tuple[int, list[str]]] = []
        self.removals: list[str] = []
        self.resets = 0
        self.generation = 0

    def tell(self, topic: str, seq: int, delivery: Delivery) -> None:
        encoded = delivery.payloads
        for at, one in enumerate(encoded, seq - len(encoded) + 1):
            self.event(topic, at, one)

    def event(self, topic: str, seq: int, encoded: bytes) -> None:
        event = decode_event(encoded)
        assert (event.topic, event.seq) == (topic, seq)
        self.events.append(event)
        assert self.replica is not None, "an event before the sync was over"
        self.replica.apply(event)

    def presence(self, topic: str, delivery: Delivery) -> None:
        told = decode_server(delivery.payloads[0])
        assert isinstance(told, Presence)
        self.present.append((told.count, list(told.names)))

    def removed(self, topic: str, reason: str) -> None:
        self.removals.append(reason)

    def reset(self, topic: str) -> None:
        self.resets += 1

    def position(self) -> Position:
        assert self.replica is not None
        return Position(epoch=self.replica.epoch, seq=self.replica.seq, digest=self.replica.digest)

    async def sync(self, engine: SessionEngine, topic: str, resume: Position | None = None) -> TopicSync:
        """A whole sync, as a client does it."""
        self.generation += 1
        running = await engine.subscribe(topic, self.generation, resume, self)
        await self.finish(running)
        return running

    async def finish(self, running: TopicSync) -> None:
        shadow = SessionState(running.begin.topic, running.begin.epoch, running.begin.base)
        number = 0
        while True:
            page = running.page(number)
            self.take(shadow, page)
            if page.last:
                break
            number += 1
        events, seq, digest = running.finish()
        for encoded in events:
            shadow.apply(decode_event(encoded))
        assert (shadow.seq, shadow.digest) == (seq, digest)
        self.replica = shadow

    def take(self, shadow: SessionState, page: Any) -> None:
        for kind, raw in page.entities:
            entity = decode_entity(kind, raw)
            assert entity is not None
            shadow.put(kind, entity)
        for kind, ident in page.drop:
            shadow.drop(kind, ident)
        self.missed.extend(decode_event(raw) for raw in page.history)
        if page.gap is not None:
            self.gaps.append(page.gap)
        shadow.seq = page.base


class Publisher:
    """`ports.ProducerEvents` that remembers, with the numbering of a producer."""

    def __init__(self, engine: SessionEngine, session: str, producer: str = "p1", sub: str = "alice") -> None:
        self.engine = engine
        self.session = session
        self.producer = producer
        self.claims = claims(sub)
        self.acks: list[int] = []
        self.heard_at = float("-inf")
        self.silences = 0
        self.rejections: list[tuple[int, str]] = []
        self.delivered: list[Command] = []
        self.fences = 0
        self.removals = 0  # of those fences: because the session was removed
        self.failures: list[ErrorInfo] = []
        self.next = 1
        self.opened: PublishOpened | None = None
        self.holds: list[Hold] = []
        self._handle: ProducerHandle | None = None

    @property
    def handle(self) -> ProducerHandle:
        assert self._handle is not None
        return self._handle

    async def open(self, *, holder: str = "", held: int = 0) -> Publisher:
        """Become the holder: *holder* is who it is, *held* the epoch under which it was that before."""
        self.opened, self._handle = await self.engine.open_producer(
            PublishOpen(
                request=1,
                session=self.session,
                producer=self.producer,
                agent="test",
                holder=holder,
                producer_epoch=held,
            ),
            self.claims,
            self,
        )
        self.next = self.opened.accepted + 1
        return self

    async def put(self, *changes: Any) -> None:
        """Publish *changes* and wait for their commit."""
        first = self.next
        self.next += len(changes)
        await self.handle.publish(self.handle.epoch, first, list(changes))
        await self.engine.settle()

    def last_heard(self) -> float:
        return self.heard_at

    def silent(self) -> None:
        self.silences += 1

    def acked(self, session: str, producer: str, accepted: int) -> None:
        self.acks.append(accepted)

    def rejected(self, session: str, producer: str, number: int, error: ErrorInfo) -> None:
        self.rejections.append((number, error.code))

    def deliver(self, session: str, producer: str, command: Command) -> None:
        self.delivered.append(command)

    def held(self, session: str, producer: str, hold: Hold) -> None:
        self.holds.append(hold)

    def fenced(self, session: str, producer: str, *, removed: bool) -> None:
        self.fences += 1
        self.removals += removed

    def failed(self, session: str, producer: str, error: ErrorInfo) -> None:
        self.failures.append(error)


def engine_on(store: Store | None = None, **options: Any) -> tuple[SessionEngine, ManualClock]:
    """An engine on a manual clock (not started)."""
    clock = options.pop("clock", None) or ManualClock()
    token_hex = counting_hex()
    engine = SessionEngine(
        store or MemoryStore(token_hex=token_hex),
        timing=options.pop("timing", Timing()),
        limits=options.pop("limits", Limits()),
        clock=clock,
        token_hex=token_hex,
        **options,
    )
    return engine, clock


def check_batch(ledger: Ledger, batch: Batch) -> None:
    """What holds of every batch that was just taken with nothing else in flight: its parts say the same.

    Events and entities have the seq that they are numbered with; what the store gets is what the events do to
    the head.
    """
    commit, head = batch.commit, ledger.feed.state
    after = head.copy()
    assert (commit.session, commit.epoch, commit.expected_head) == (head.topic, head.epoch, head.seq)
    written: dict[tuple[str, str], bytes] = {}
    dropped = set()
    for seq, (numbered, event) in enumerate(zip(batch.events, commit.events, strict=True), head.seq + 1):
        assert event == (seq, numbered.encoded)
        assert numbered.seq == seq
        decoded = decode_event(numbered.encoded)
        entity = decode_entity(decoded.kind, decoded.entity)
        assert (decoded.seq, decoded.kind, entity) == (seq, numbered.kind, numbered.entity)
        assert tuple(decoded.drop) == numbered.drops
        assert int(decoded.ts) > 0
        assert numbered.entity.seq == seq
        assert numbered.number == entity_hash(numbered.entity)
        after.apply(decoded)
        key = (numbered.kind, numbered.entity.id)
        dropped.discard(key)
        written[key] = bytes(decoded.entity)
        for gone in numbered.drops:
            written.pop(gone, None)
            dropped.add(gone)
    assert (commit.entities, commit.drops) == (written, dropped)
    assert (commit.digest, ledger.tail) == (after.digest, after.seq)
    assert batch.size == sum(len(encoded) for _, encoded in commit.events)
    assert batch.acks == {name: position.accepted for name, position in commit.producers.items()}
    assert (commit.listing, commit.attention) == (
        ledger.facts.listing(ledger.size),
        ledger.facts.attention,
    )
    for kind, entity in after:
        assert ledger.get(kind, entity.id) == entity


def text_value(text: str) -> Value:
    data = text.encode()
    return Value(text=text, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def large_value(data: bytes, preview: str = "") -> Value:
    return Value(text=preview, size=len(data), sha256=hashlib.sha256(data).hexdigest(), truncated=True)


def plain(entity: msgspec.Struct | None) -> Any:
    return None if entity is None else msgspec.to_builtins(entity)
