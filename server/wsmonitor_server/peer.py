"""One client's connection after its handshake, as a machine without I/O. Pure: no loop, no socket.

Phases::

    hello ──hello──> open ──drain──> draining
      │               │                 │
      └───────────────┴──────close──────┴──> closed

What arrives is given to `Peer.receive`; what is to leave goes into the outbox, and the `Wire` is told. Time
comes from the clock that was passed in; the owner calls `handle_timeout` when `next_deadline` has come. The
requests themselves are carried out by `requests.Requests`.

Every message in and every flush out is preceded by the check that the token still holds (rule 13).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from wsmonitor._version import __version__
from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.codec import DamagedPublish, decode_client, encode
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR, PROTOCOL_MINOR, Limits, Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import ProtocolError
from wsmonitor.protocol.ids import is_directory
from wsmonitor.protocol.messages import (
    ClientMessage,
    Draining,
    Error,
    Heartbeat,
    HeartbeatAck,
    Hello,
    ServerMessage,
    Welcome,
)

from .auth import Authenticator, Credential
from .framing import Framed
from .limiter import TokenBucket
from .outbox import Lane, Outbox
from .ports import Clock, Engine
from .replies import error_info
from .subscription import Subscription
from .tenants import Tenants

if TYPE_CHECKING:
    from .requests import Requests

Phase = Literal["hello", "open", "draining", "closed"]

TRANSITIONS: Final[dict[Phase, frozenset[Phase]]] = {
    "hello": frozenset({"open", "closed"}),
    "open": frozenset({"draining", "closed"}),
    "draining": frozenset({"closed"}),
    "closed": frozenset(),
}

CONTROL_FACTOR: Final = 4
"""The control lane may hold so many times what the state lane may, before the connection is closed."""

_ALIKE: Final = frozenset({"not_available", "unexpected_message"})
"""Answers to who asks for what is forbidden, or is not there: the same, to the letter, each time."""

LATE_FACTOR: Final = 2.0
"""A tick later than so many intervals: this process stood still, which proves nothing about the peer."""


class Wire(Protocol):
    """What a peer asks of its connection. Nothing here blocks."""

    def flush_soon(self) -> None:
        """Something waits in the outbox."""

    def flush_now(self) -> None:
        """Write what the socket takes, in this turn."""

    def write_rest(self, data: bytes, taken: int) -> None:
        """Keep what of *data* was not taken by `Peer.straight`, and write it before all else."""

    def close(self, code: int, reason: str, *, flush: bool) -> None:
        """Close; with *flush*, what waits in the outbox goes out before."""

    def finish(self, code: int, reason: str, until: float) -> None:
        """Close when all that waits in the outbox has gone out, or at *until*, of the loop's clock."""

    def run(self, lane: Hashable, size: int, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *job* after those that wait in *lane*."""

    def idle(self, lane: Hashable) -> bool:
        """Whether nothing runs or waits in *lane*, so that what comes need not wait for its turn."""

    def forget_waiting(self) -> None:
        """Forget the jobs that wait; what runs goes on to its end."""

    def bulk(self) -> AbstractAsyncContextManager[None]:
        """Entered when no page waits in the outbox: a page may be added."""

    @property
    def bulk_free(self) -> bool:
        """Whether `bulk` could be entered now."""

    async def turn(self) -> None:
        """Let everybody else have a turn."""

    def rearm(self) -> None:
        """`next_deadline` has become earlier."""

    @property
    def held(self) -> bool:
        """Whether we have stopped reading from the socket (so that silence is our doing)."""


class Services(Protocol):
    """What all peers of a server share."""

    engine: Engine
    auth: Authenticator
    timing: Timing
    limits: Limits
    clock: Clock
    tenants: Tenants
    instance: str
    stopped: bool
    counters: Counter[str]
    counted: defaultdict[str, Counter[str]]
    """Figures by name and value of their label, both of `figures.METRICS`."""

    def frame(self, payload: bytes) -> bytes:
        """*payload* as a WebSocket frame."""

    def framed(self, payloads: tuple[bytes, ...]) -> Framed:
        """*payloads*, which go to many in this turn of the loop, as frames."""

    async def authenticate(self, token: str) -> Credential:
        """Verify a token; raises `AuthError`."""

    def spread(self) -> float:
        """Seconds over which clients should spread their first reconnect."""

    def information(self, *, full: bool) -> dict[str, Any]: ...
    def opened(self, peer: Peer) -> None:
        """The hello came: the connection is open."""

    def request_stop(self) -> None: ...
    def fault(self, peer: Peer, what: str) -> str:
        """Log the current exception; returns the correlation id that the client is told."""

    def refused(self, peer: Peer, info: ErrorInfo, request: int | None) -> str:
        """Log what *peer* is refused; returns the correlation id."""

    def done(self, peer: Peer, event: str, **values: object) -> None:
        """Log what was done for *peer*, where somebody may ask about it later."""


class _Identified(msgspec.Struct):
    id: str


_identified: Final = msgspec.json.Decoder(_Identified)


class Peer:
    """The machine of one connection.

    Args:
        ident: the connection's id in the logs.
        credential: from the handshake.
        services: what all connections share.
        wire: this connection's I/O.

    Attributes:
        straight: gives events to the kernel without a detour over the outbox; set by the wire while nothing
            waits. It returns how many bytes were taken, and raises `OSError` where none were; the
            rest belongs to `Wire.write_rest`. A token that is revoked, or whose keys are rotated,
            closes the connection at that moment, so that only its time has to be looked at before.
        expires: when the token ends (seconds since 1970).
        turn: the turn of the loop in which `straight` was used last.
    """

    __slots__ = (
        "_beat_number",
        "_beat_sent",
        "_bucket",
        "_heard",
        "_hello_deadline",
        "_left",
        "_next_beat",
        "_requests",
        "credential",
        "expires",
        "hello",
        "ident",
        "limits",
        "outbox",
        "phase",
        "round_trip",
        "services",
        "straight",
        "subscriptions",
        "tenant",
        "turn",
        "wire",
    )

    def __init__(self, *, ident: str, credential: Credential, services: Services, wire: Wire) -> None:
        from .requests import Requests

        now = services.clock.monotonic()
        self.ident = ident
        self.credential = credential
        self.tenant = services.tenants.of(credential.claims.tenant, now)
        self.expires: float = credential.claims.exp
        self.straight: Callable[[bytes], int] | None = None
        self.turn = -1
        self.services = services
        self.wire = wire
        self.limits = limits = services.limits
        self.phase: Phase = "hello"
        self.hello: Hello | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.round_trip: float | None = None
        self.outbox = Outbox(
            messages=limits.outbox_messages,
            size=limits.outbox_size,
            control_messages=CONTROL_FACTOR * limits.outbox_messages,
            control_size=CONTROL_FACTOR * limits.outbox_size,
        )
        self._requests: Requests = Requests(self)
        self._bucket = TokenBucket(limits.message_rate, limits.message_burst, now)
        self._hello_deadline = now + services.timing.handshake_timeout
        self._heard = now
        self._next_beat = now + services.timing.heartbeat_interval
        self._left = False
        self._beat_number = 0
        self._beat_sent = 0.0

    @property
    def last_heard(self) -> float:
        """When anything arrived last (monotonic seconds)."""
        return self._heard

    # -- what the connection tells

    def heard(self) -> None:
        """Bytes arrived: any frame counts as life."""
        self._heard = self.services.clock.monotonic()

    def receive(self, data: bytes) -> None:
        """One text message arrived."""
        if self.phase == "closed" or not self.still_valid():
            return
        if not self._within_rate():
            return
        try:
            message = decode_client(data, self.limits.message_size)
        except ProtocolError as exc:
            self._misbehaved(exc)
            return
        self._requests.heard()
        immediate = _IMMEDIATE.get(type(message))
        if self.phase == "hello" and type(message) is not Hello:
            self.send_error(
                error_info("unexpected_message", "the first message has to be `hello`"), _request(message)
            )
        elif immediate is not None:
            immediate(self, message)
        else:
            self._requests.submit(message, len(data))

    def receive_part(self) -> None:
        """A frame arrived that is no whole message: a ping or pong, or a part of what is to come."""
        if self.phase != "closed" and self.still_valid():
            self._within_rate()

    def receive_binary(self) -> None:
        """One binary message arrived."""
        if self.phase != "closed" and self.still_valid() and self._within_rate():
            self.send_error(error_info("binary_message", "this protocol uses text messages only"))

    def oversize(self) -> bytes:
        """A message above the limit arrived: what to tell before the connection is closed."""
        info = error_info("message_too_large", f"this server accepts {self.limits.message_size:,} bytes")
        return encode(Error(error=info))

    def lost(self) -> None:
        """The connection is gone."""
        self._enter("closed")
        self._leave()

    def next_deadline(self) -> float:
        """When `handle_timeout` has to be called at the latest (monotonic seconds)."""
        clock = self.services.clock
        deadline = clock.monotonic() + self.credential.claims.exp - clock.wall_ns() / 1e9
        if self.phase == "hello":
            return min(deadline, self._hello_deadline)
        deadline = min(deadline, self._next_beat, self._heard + self.services.timing.heartbeat_timeout)
        for subscription in self.subscriptions.values():
            if subscription.batch_due is not None and subscription.batch_due < deadline:
                deadline = subscription.batch_due
        return deadline

    def handle_timeout(self) -> None:
        """Do what is due."""
        if self.phase == "closed" or not self.still_valid():
            return
        now = self.services.clock.monotonic()
        timing = self.services.timing
        if self.phase == "hello":
            if now >= self._hello_deadline:
                self.send_error(error_info("handshake_timeout", "no `hello` in time"))
                self.close(CloseCode.HEARTBEAT_TIMEOUT, "no hello in time")
            return
        if self.wire.held:
            self._heard = now
        if now - self._next_beat > LATE_FACTOR * timing.heartbeat_interval:
            # We stood still, and may not have read what arrived: a probe, and one interval for the answer.
            self._heard = max(self._heard, now - timing.heartbeat_timeout + timing.heartbeat_interval)
        if now - self._heard >= timing.heartbeat_timeout:
            self.close(CloseCode.HEARTBEAT_TIMEOUT, f"nothing heard for {timing.heartbeat_timeout:g} s")
            return
        self._send_batches(now)
        if now >= self._next_beat:
            self._beat(now)

    # -- sending

    def send(self, message: ServerMessage) -> None:
        """Queue a message of the control lane; its overflow closes the connection."""
        self.send_encoded(encode(message))

    def send_encoded(self, payload: bytes) -> None:
        """`send`, for what is encoded already."""
        if self.phase == "closed":
            return
        frame = self.services.frame(payload)
        if not self.outbox.put_control(frame):
            self.wire.flush_now()
            if self.outbox.control_overflow:
                self.outbox.clear()
                self.close(CloseCode.TOO_SLOW, "the control lane overflowed", flush=False)
                return
        self.wire.flush_soon()

    def send_bulk(self, payload: bytes, lane: Lane) -> None:
        """Queue a page of *lane*, inside `Wire.bulk`."""
        self.send_frames([(self.services.frame(payload), 1)], lane)

    def send_frames(self, chunks: Sequence[tuple[bytes, int]], lane: Lane) -> None:
        """`send_bulk`, for what is framed already: joined frames, each chunk with their number."""
        if self.phase != "closed":
            for frames, count in chunks:
                self.outbox.put_bulk(lane, frames, count)
            self.wire.flush_soon()

    def forget(self, subscription: Subscription) -> None:
        """Drop what waits for *subscription*, events and pages: it is over, or begins anew."""
        self.outbox.drop(subscription.lane)
        if self.outbox.drop(subscription.pages) and self.phase != "closed":
            self.wire.flush_soon()  # who waits to add a page may do so

    def send_error(self, info: ErrorInfo, request: int | None = None) -> None:
        """Tell the client of an error."""
        self.send(Error(error=self.correlated(info, request), request=request))

    def correlated(self, info: ErrorInfo, request: int | None = None) -> ErrorInfo:
        """*info* with the id by which its line is found in the server's log, which is written now."""
        self.services.counted["errors_total"][info.code] += 1
        if info.correlation:
            return info
        correlation = self.services.refused(self, info, request)
        if info.code in _ALIKE:
            return info
        return msgspec.structs.replace(info, correlation=correlation)

    def queue_events(self, subscription: Subscription, chunks: Sequence[tuple[bytes, int]]) -> None:
        """Queue live events that others get, too: joined frames, each chunk with their number.

        On overflow the greediest subscription is muted.
        """
        put, lane = self.outbox.put_state, subscription.lane
        for frames, count in chunks:
            if not put(lane, frames, count):
                self._overflow()
                if subscription.phase != "live":
                    return  # it was the one
        self.wire.flush_soon()

    def _overflow(self) -> None:
        # A burst of one loop turn is not slowness: what the socket takes at once does not count.
        self.wire.flush_now()
        while self.outbox.state_overflow:
            victim = self.outbox.victim()
            # Only who is subscribed has anything waiting: who ends takes it along.
            next(one for one in self.subscriptions.values() if one.lane is victim).mute("too_slow")

    def queue_loose(self, subscription: Subscription, message: ServerMessage) -> None:
        """Queue a message that may be dropped together with the subscription's events."""
        if not self.outbox.put_state(subscription.lane, self.services.frame(encode(message))):
            self._overflow()
        self.wire.flush_soon()

    def close(self, code: int, reason: str, *, flush: bool = True) -> None:
        """Close the connection from our side."""
        if self.phase != "closed":
            self._enter("closed")
            self.wire.close(code, reason, flush=flush)
            # Now, and not when the socket is gone: a peer that hangs must not look like one that watches.
            self._leave()

    def finish(self, code: int, reason: str, until: float) -> None:
        """Close the connection, but let go out what waits: for who does not read at the moment.

        *until*: seconds of the loop's clock, after which it is not waited for any longer.
        """
        if self.phase != "closed":
            self._enter("closed")
            self._leave(keep=True)
            self.wire.finish(code, reason, until)

    def drain(self, reconnect_ms: int) -> None:
        """Announce that the server stops."""
        if self.phase == "open":
            self._enter("draining")
            self.send(Draining(reconnect_ms=reconnect_ms))

    def _leave(self, *, keep: bool = False) -> None:
        if self._left:
            return
        self._left = True
        if not keep:
            self.outbox.clear()
        self.wire.forget_waiting()
        if self.services.stopped:
            # The session side has committed and gone: there is nothing to detach from.
            return
        for subscription in list(self.subscriptions.values()):
            self.end_subscription(subscription)
        self._requests.lost()

    # -- the token

    def still_valid(self) -> bool:
        """Whether the token holds now; when not, the connection is closed and nothing more is sent."""
        services = self.services
        problem = services.auth.problem(self.credential, services.clock.wall_ns() / 1e9)
        if problem is None:
            return True
        self.outbox.clear()
        expired = problem.code == "token_expired"
        self.close(
            CloseCode.TOKEN_EXPIRED if expired else CloseCode.UNAUTHORIZED, problem.message, flush=False
        )
        return False

    def adopt(self, credential: Credential) -> None:
        """A refresh: *credential* in place of the one before; what it does not cover ends."""
        patterns_changed = credential.claims.sessions != self.credential.claims.sessions
        self.credential = credential
        self.expires = credential.claims.exp
        for subscription in list(self.subscriptions.values()):
            subscription.claims = credential.claims
            if not self._requests.joining.may_watch(subscription.topic):
                subscription.removed(subscription.topic, "not_available")
            elif patterns_changed and is_directory(subscription.topic):
                # The directory is another list for other patterns: it is begun anew.
                subscription.reset(subscription.topic)
        self._requests.narrowed()
        self.wire.rearm()

    @property
    def publications(self) -> int:
        """How many producers this connection holds."""
        return self._requests.producers

    # -- subscriptions

    def end_subscription(self, subscription: Subscription) -> None:
        """Detach *subscription*; nothing of its topic is sent any more."""
        if self.subscriptions.pop(subscription.topic, None) is not None:
            self.tenant.subscriptions -= 1
            subscription.end()
            self.services.engine.unsubscribe(subscription.topic, subscription)

    @staticmethod
    def entity_id(entity: msgspec.Raw) -> str:
        """The id of an encoded entity."""
        return _identified.decode(entity).id

    def _send_batches(self, now: float, *, early: bool = False) -> None:
        for subscription in list(self.subscriptions.values()):
            due = subscription.batch_due
            if due is None or (due > now and not early):
                continue
            head = self._heads([subscription.topic]).get(subscription.topic)
            batch = subscription.batch(head, str(self.services.clock.wall_ns())) if head is not None else None
            if batch is not None:
                self.services.counters["conflated_total"] += batch.to - batch.from_ - len(batch.entities)
                self.queue_loose(subscription, batch)
            elif not early:
                # The head is ahead of what the hub has told: the rest follows within this turn.
                subscription.batch_due = now + subscription.interval

    def _heads(self, topics: list[str]) -> dict[str, tuple[str, int, str]]:
        return self.services.engine.heads(topics, self.credential.claims.sessions)

    # -- heartbeat

    def beat(self) -> None:
        """Send a heartbeat at once: what it says is another."""
        if self.phase == "open" and self.still_valid():
            self._beat(self.services.clock.monotonic())

    def _beat(self, now: float) -> None:
        self._next_beat = now + self.services.timing.heartbeat_interval
        self._beat_number += 1
        self._beat_sent = now
        self._send_batches(now, early=True)
        live = [
            subscription.topic
            for subscription in self.subscriptions.values()
            if subscription.phase == "live" and subscription.batch_due is None
        ]
        heads: dict[str, tuple[str, int, str]] = {}
        if live and not self.services.engine.holding:
            for topic, head in self._heads(live).items():
                subscription = self.subscriptions[topic]
                if subscription.told != head[:2]:
                    subscription.told = head[:2]
                    heads[topic] = head
        self.send(
            Heartbeat(
                n=self._beat_number,
                time=str(self.services.clock.wall_ns()),
                heads=heads,
                degraded=self.services.engine.degraded,
            )
        )

    # -- messages that are handled at once

    def _on_hello(self, message: Hello) -> None:
        if self.phase != "hello":
            self.send_error(error_info("unexpected_message", "`hello` was sent already"))
            return
        if message.major != PROTOCOL_MAJOR:
            self.send_error(
                error_info(
                    "unsupported_version",
                    f"this server (wsmonitor {__version__}) speaks protocol "
                    f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}, the client {message.major}.{message.minor}",
                    details={"major": PROTOCOL_MAJOR, "minor": PROTOCOL_MINOR, "server": __version__},
                )
            )
            self.close(CloseCode.UNSUPPORTED_VERSION, "unsupported version")
            return
        self.hello = message
        self._enter("open")
        services, claims, limits = self.services, self.credential.claims, self.limits
        self.send(
            Welcome(
                major=PROTOCOL_MAJOR,
                minor=PROTOCOL_MINOR,
                server=__version__,
                instance=services.instance,
                epoch=services.engine.epoch,
                subject=claims.sub,
                role=claims.role,
                sessions=claims.sessions,
                expires=claims.exp,
                time=str(services.clock.wall_ns()),
                heartbeat_interval=services.timing.heartbeat_interval,
                heartbeat_timeout=services.timing.heartbeat_timeout,
                quiet_after=services.timing.quiet_after,
                page_size=limits.page_size,
                inline_value=limits.inline_value,
                batch_changes=limits.batch_changes,
                batch_size=limits.batch_size,
                message_size=limits.message_size,
                spread=services.spread(),
                degraded=services.engine.degraded,
            )
        )
        now = services.clock.monotonic()
        self._next_beat = now + services.timing.heartbeat_interval
        services.opened(self)
        self.wire.rearm()

    def _within_rate(self) -> bool:
        """Count a frame. False: it is one too many, and the connection is closed."""
        if self._bucket.take(self._heard):
            return True
        self.send_error(
            error_info(
                "rate_limited",
                f"more than {self.limits.message_rate:g} messages a second "
                f"(in a burst {self.limits.message_burst})",
            )
        )
        self.close(CloseCode.RATE_LIMITED, "rate limited")
        return False

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self.send(HeartbeatAck(n=message.n, time=str(self.services.clock.wall_ns())))

    def _on_heartbeat_ack(self, message: HeartbeatAck) -> None:
        if message.n == self._beat_number:
            self.round_trip = self.services.clock.monotonic() - self._beat_sent

    def _misbehaved(self, exc: ProtocolError) -> None:
        self.send_error(error_info(exc.code, str(exc)), exc.request)
        if exc.code == "message_too_large":
            self.close(1009, "message too large")
        elif exc.fatal or exc.code == "bad_json":
            # What is not JSON comes from something that does not speak this protocol.
            self.close(CloseCode.BAD_REQUEST, exc.code)

    def _enter(self, phase: Phase) -> None:
        if phase in TRANSITIONS[self.phase]:
            self.phase = phase
            if phase == "closed":
                self.straight = None
        elif phase != self.phase:
            raise AssertionError(f"a connection cannot go from {self.phase} to {phase}")


def _request(message: ClientMessage | DamagedPublish) -> int | None:
    return getattr(message, "request", None)


_IMMEDIATE: Final[dict[type, Callable[[Peer, Any], None]]] = {
    Hello: Peer._on_hello,
    Heartbeat: Peer._on_heartbeat,
    HeartbeatAck: Peer._on_heartbeat_ack,
}
