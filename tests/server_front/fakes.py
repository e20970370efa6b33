"""The smallest session side that the connection side can be tested against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.changes import Change
from wsmonitor.protocol.codec import encode, encode_record
from wsmonitor.protocol.entities import Chain, Command
from wsmonitor.protocol.messages import (
    CommandReply,
    CommandRequest,
    Degraded,
    Event,
    HistoryPage,
    LogsPage,
    Position,
    PublishOpen,
    PublishOpened,
    SyncBegin,
    Synced,
    SyncPage,
)
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.framing import Delivery, frame_text
from wsmonitor_server.ports import ProducerEvents, Pulled, Subscriber
from wsmonitor_server.replies import not_available, refusal


class FakeSync:
    def __init__(self, engine: FakeEngine, topic: str, generation: int, subscriber: Subscriber) -> None:
        self.engine, self.topic, self.generation, self.subscriber = engine, topic, generation, subscriber
        engine.syncs.append(self)
        self.begin = SyncBegin(
            topic=topic, generation=generation, epoch=engine.epoch, base=engine.state(topic).seq
        )
        self.closed = False

    def prepare(self, number: int) -> bool:
        return True

    def pull(self, number: int) -> Pulled:
        page = self.page(number)
        payloads, seq = [encode(page)], None
        if page.last:
            events, seq, digest = self.finish()
            synced = Synced(topic=self.topic, generation=self.generation, seq=seq, digest=digest)
            payloads += [*events, encode(synced)]
        return Pulled([(self.engine.frame(payload), 1) for payload in payloads], seq)

    def page(self, number: int) -> SyncPage:
        if self.closed:
            raise refusal("gone", "this sync is over", session=self.topic)
        state = self.engine.state(self.topic)
        return SyncPage(
            topic=self.topic,
            generation=self.generation,
            page=number,
            base=state.seq,
            entities=[(kind, encode_record(entity)) for kind, entity in state],
            last=True,
        )

    def finish(self) -> tuple[list[bytes], int, str]:
        self.engine.attached.setdefault(self.topic, []).append(self.subscriber)
        state = self.engine.state(self.topic)
        return [], state.seq, state.digest

    def close(self) -> None:
        self.closed = True


class FakeHandle:
    def __init__(self, engine: FakeEngine, session: str, producer: str, events: ProducerEvents) -> None:
        self.engine, self.session, self.producer, self.events = engine, session, producer, events
        self.epoch = 1
        self.heards = 0

    async def publish(self, producer_epoch: int, first: int, changes: Sequence[Change]) -> None:
        await asyncio.sleep(0)
        self._take(first, changes)

    def publish_now(self, producer_epoch: int, first: int, changes: Sequence[Change]) -> bool:
        if self.engine.takes_at_once:
            self._take(first, changes)
        return self.engine.takes_at_once

    def _take(self, first: int, changes: Sequence[Change]) -> None:
        for change in changes:
            self.engine.emit(self.session, Chain(id=getattr(change, "id", "c"), name="chain"))
        self.events.acked(self.session, self.producer, first + len(changes) - 1)

    def heard(self) -> None:
        self.heards += 1

    async def close(self, *, goodbye: bool) -> None:
        self.engine.closed_handles.put_nowait((self.session, self.producer, goodbye))


class FakeEngine:
    """Implements `ports.Engine` in memory. The topic ``removed`` is refused, ``broken`` is a fault."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.node = ""
        self.states: dict[str, SessionState] = {}
        self.attached: dict[str, list[Subscriber]] = {}
        self.syncs: list[FakeSync] = []
        self.handles: list[FakeHandle] = []
        self.closed_handles: asyncio.Queue[tuple[str, str, bool]] = asyncio.Queue()
        self.detached: asyncio.Queue[str] = asyncio.Queue()
        self.values: dict[str, bytes] = {}
        self.lookups: list[str] = []
        self.revocations: dict[str, int] = {}
        self.callbacks: list[Callable[[str], None]] = []
        self.degraded: Degraded | None = None
        self.holding = False
        self.degraded_callbacks: list[Callable[[], None]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.not_ready: Exception | None = None
        self.at_once = False
        self.takes_at_once = False
        self.frame = frame_text
        self.pending = False
        self.stopped = False

    def state(self, topic: str) -> SessionState:
        if topic not in self.states:
            self.states[topic] = SessionState(topic, self.epoch)
        return self.states[topic]

    def emit(self, topic: str, entity: Chain) -> bytes:
        """One committed event, to all who are attached."""
        state = self.state(topic)
        event = Event(
            topic=topic,
            epoch=self.epoch,
            seq=state.seq + 1,
            ts="1",
            kind="chain",
            entity=encode_record(entity),
        )
        state.apply(event)
        encoded = encode(event)
        for subscriber in list(self.attached.get(topic, [])):
            subscriber.tell(topic, event.seq, Delivery((encoded,)))
        return encoded

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    async def subscribe(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> FakeSync:
        self.lookups.append(topic)
        self.unsubscribe(topic, subscriber)
        await self.hold.wait()
        if topic == "removed":
            raise not_available(topic)
        if topic == "unreadable":
            raise refusal("store_failed", "the disk is away", session=topic)
        if topic == "broken":
            raise ValueError("a fault")
        return FakeSync(self, topic, generation, subscriber)

    def subscribe_at_once(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> FakeSync | None:
        return FakeSync(self, topic, generation, subscriber) if self.at_once else None

    def unsubscribe(self, topic: str, subscriber: Subscriber) -> None:
        if subscriber in self.attached.get(topic, []):
            self.attached[topic].remove(subscriber)
            self.detached.put_nowait(topic)

    def heads(self, topics: Sequence[str], patterns: tuple[str, ...] = ()) -> dict[str, tuple[str, int, str]]:
        return {t: (self.epoch, self.state(t).seq, self.state(t).digest) for t in topics}

    async def open_producer(
        self, message: PublishOpen, claims: Claims, events: ProducerEvents
    ) -> tuple[PublishOpened, FakeHandle]:
        session, producer = message.session, message.producer
        self.lookups.append(session)
        handle = FakeHandle(self, session, producer, events)
        self.handles.append(handle)
        opened = PublishOpened(
            request=message.request,
            session=session,
            producer=producer,
            producer_epoch=1,
            accepted=0,
            epoch=self.epoch,
            known=False,
        )
        return opened, handle

    async def command(self, message: CommandRequest, claims: Claims) -> CommandReply:
        self.lookups.append(message.session)
        record = Command(id=message.key, name=message.name, actor=claims.sub, deadline="2", requested="1")
        return CommandReply(request=message.request, command=record)

    async def logs(self, session: str, step: str, first: int, limit: int, request: int) -> LogsPage:
        self.lookups.append(session)
        return LogsPage(request=request, records=[], first_kept=1, count=0)

    async def history(self, session: str, first: int, limit: int, request: int) -> HistoryPage:
        self.lookups.append(session)
        return HistoryPage(request=request, events=[], first_kept=1, head=self.state(session).seq)

    async def value_begin(self, session: str, sha256: str, total: int) -> int:
        self.lookups.append(session)
        return len(self.values.get(sha256, b""))

    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        self.values[sha256] = self.values.get(sha256, b"") + data
        return len(self.values[sha256]) == total

    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None:
        self.lookups.append(session)
        data = self.values.get(sha256)
        return None if data is None else (data[offset : offset + length], len(data))

    async def remove(self, session: str) -> None:
        self.lookups.append(session)

    async def revoke(self, jti: str, expires: int) -> None:
        self.revocations[jti] = expires
        for callback in self.callbacks:
            callback(jti)

    def revoked(self, jti: str) -> bool:
        return jti in self.revocations

    def on_revocation(self, callback: Callable[[str], None]) -> None:
        self.callbacks.append(callback)

    def on_degraded(self, callback: Callable[[], None]) -> None:
        self.degraded_callbacks.append(callback)

    async def ready(self) -> None:
        if self.not_ready is not None:
            raise self.not_ready

    def status(self) -> dict[str, Any]:
        return {"sessions": len(self.states)}

    def value_bytes(self, sessions: Collection[str], uploads: Mapping[tuple[str, str], int]) -> int:
        return sum(uploads.values())

    def measures(self) -> dict[str, Any]:
        return {"sessions": len(self.states)}

    def busy(self) -> bool:
        return self.pending
