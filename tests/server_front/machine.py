"""One connection's machine without a socket: messages go in and come out, and the test owns the clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.codec import decode_server, encode
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR, Limits, Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import (
    ClientMessage,
    Error,
    Hello,
    Presence,
    PublishOpened,
    ServerMessage,
    SyncBegin,
    Synced,
    Welcome,
)
from wsmonitor_server.auth import AuthError, Credential
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.framing import Delivery, Framed
from wsmonitor_server.peer import Peer
from wsmonitor_server.subscription import Subscription
from wsmonitor_server.tenants import Tenants

from .fakes import FakeEngine

YEAR = 365 * 86_400


def watching(count: int, *names: str) -> Delivery:
    """Who watches the topic ``s``, as the hub tells it."""
    return Delivery((encode(Presence(topic="s", count=count, names=list(names))),))


class FakeWire:
    """A socket that takes what it is given, when the test lets it, and runs jobs when it is told to."""

    def __init__(self) -> None:
        self.peer: Peer | None = None
        self.taking = True
        self.held = False
        self.jobs: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.lanes: list[Hashable] = []
        self.left: list[bytes] = []
        self.rest: list[bytes] = []
        self.closed: tuple[int, str, bool] | None = None
        self.finished: tuple[int, str, float] | None = None
        self.forgotten = 0
        self.rearmed = 0
        self.flushes = 0
        self.free = True
        self.turns = 0

    def flush_soon(self) -> None:
        self.flushes += 1

    def flush_now(self) -> None:
        assert self.peer is not None
        if self.taking:
            self.left += self.peer.outbox.take(1 << 30)

    def write_rest(self, data: bytes, taken: int) -> None:
        self.rest.append(data[taken:])

    def close(self, code: int, reason: str, *, flush: bool) -> None:
        assert self.peer is not None
        if flush:
            self.left += self.peer.outbox.take(1 << 30)
        self.closed = (code, reason, flush)

    def finish(self, code: int, reason: str, until: float) -> None:
        self.finished = (code, reason, until)

    def run(self, lane: Hashable, size: int, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.lanes.append(lane)
        self.jobs.append(job)

    def idle(self, lane: Hashable) -> bool:
        return not self.jobs

    def forget_waiting(self) -> None:
        self.forgotten += 1

    @asynccontextmanager
    async def bulk(self) -> AsyncIterator[None]:
        yield

    @property
    def bulk_free(self) -> bool:
        return self.free

    async def turn(self) -> None:
        self.turns += 1

    def rearm(self) -> None:
        self.rearmed += 1


class FakeAuth:
    """A token is good until it has expired, or the test says what is wrong with it."""

    def __init__(self) -> None:
        self.trouble: ErrorInfo | None = None

    def problem(self, credential: Credential, wall: float) -> ErrorInfo | None:
        if wall >= credential.claims.exp:
            return ErrorInfo(code="token_expired", message="the token has expired")
        return self.trouble


class FakeServices:
    """What a server's connections share."""

    def __init__(self, limits: Limits, timing: Timing) -> None:
        self.engine = FakeEngine()
        self.auth = FakeAuth()
        self.timing = timing
        self.limits = limits
        self.clock = ManualClock()
        self.instance = "i"
        self.tenants = Tenants()
        self.stopped = False
        self.tokens: dict[str, Credential] = {}
        self.faults: list[str] = []
        self.noted: list[tuple[str, dict[str, object]]] = []
        self.stops = 0
        self.turn = 0
        self.welcomed: list[Peer] = []
        self.counters: Counter[str] = Counter()
        self.counted: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def frame(self, payload: bytes) -> bytes:
        return payload

    def framed(self, payloads: tuple[bytes, ...]) -> Framed:
        framed = Framed(payloads, self.turn, self.clock.wall_ns() / 1e9)
        framed.chunks = [(payload, 1) for payload in payloads]
        return framed

    async def authenticate(self, token: str) -> Credential:
        try:
            return self.tokens[token]
        except KeyError:
            raise AuthError("unauthorized", "not this token") from None

    def spread(self) -> float:
        return 2.0

    def information(self, *, full: bool) -> dict[str, Any]:
        return {"full": full}

    def opened(self, peer: Peer) -> None:
        self.welcomed.append(peer)

    def request_stop(self) -> None:
        self.stops += 1

    def refused(self, peer: Peer, info: ErrorInfo, request: int | None) -> str:
        return ""

    def done(self, peer: Peer, event: str, **values: object) -> None:
        self.noted.append((event, values))

    def fault(self, peer: Peer, what: str) -> str:
        self.faults.append(what)
        return "4711"


class Machine:
    """A peer with its surroundings."""

    def __init__(
        self,
        *,
        limits: dict[str, Any] | None = None,
        timing: dict[str, Any] | None = None,
        open: bool = True,
        **claims: Any,
    ) -> None:
        self.services = FakeServices(Limits(**(limits or {})), Timing(**(timing or {})))
        self.services.engine.frame = self.services.frame
        self.engine, self.clock, self.auth = self.services.engine, self.services.clock, self.services.auth
        self.wire = FakeWire()
        self.peer = Peer(
            ident="1",
            credential=self.credential(**claims),
            services=self.services,  # type: ignore[arg-type]
            wire=self.wire,
        )
        self.wire.peer = self.peer
        if open:
            self.give(Hello(major=PROTOCOL_MAJOR, name="Ada"))
            assert [type(message) for message in self.sent()] == [Welcome]

    def credential(self, **claims: Any) -> Credential:
        now = self.services.clock.wall_ns() // 10**9
        given = {"sub": "ada", "exp": now + YEAR, "jti": "1", "aud": "a", "iss": "i"}
        return Credential(Claims(**{**given, "role": "admin", "sessions": ("*",), **claims}), 0)

    def give(self, *messages: ClientMessage) -> None:
        """Messages that arrive. Requests wait until `settle`."""
        for message in messages:
            self.raw(encode(message))

    def raw(self, data: bytes) -> None:
        self.peer.heard()
        self.peer.receive(data)

    async def settle(self) -> None:
        """Carry out what waits, in order."""
        while self.wire.jobs:
            await self.wire.jobs.pop(0)()

    def sent(self) -> list[ServerMessage]:
        """What has left since the last call."""
        frames = self.wire.left + self.peer.outbox.take(1 << 30)
        self.wire.left = []
        found = [decode_server(frame) for frame in frames]
        assert None not in found
        return found  # type: ignore[return-value]

    async def ask(self, *messages: ClientMessage) -> list[ServerMessage]:
        """What is answered."""
        self.give(*messages)
        await self.settle()
        return self.sent()

    async def refused(self, message: ClientMessage) -> ErrorInfo:
        """The one error with which *message* is answered, under its number if it has one."""
        [answer] = await self.ask(message)
        assert isinstance(answer, Error), answer
        assert answer.request == getattr(message, "request", None)
        return answer.error

    async def watch(self, topic: str = "s", generation: int = 1, **options: Any) -> Subscription:
        """Subscribe, and pull the sync to its end."""
        [begun] = await self.ask_json("subscribe", topic=topic, generation=generation, **options)
        assert isinstance(begun, SyncBegin)
        *_, synced = await self.ask_json("sync_next", topic=topic, generation=generation, page=0)
        assert isinstance(synced, Synced)
        return self.peer.subscriptions[topic]

    async def publish(self, session: str = "s", producer: str = "p") -> None:
        """Open a producer."""
        [opened] = await self.ask_json("publish_open", request=1, session=session, producer=producer)
        assert isinstance(opened, PublishOpened)

    async def ask_json(self, type_: str, **fields: Any) -> list[ServerMessage]:
        self.raw(msgspec.json.encode({"type": type_, **fields}))
        await self.settle()
        return self.sent()
