"""All machines of one connection together, still without a socket: who gets which message.

The driver gives it bytes and the time, and carries out the actions that it takes with `take`.
Listeners are called by the driver, after the machines have come to rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from wsmonitor.protocol.codec import decode_server
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR, PROTOCOL_MINOR, Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import ConnectionFailedError, RequestError, WsMonitorError
from wsmonitor.protocol.messages import (
    Ack,
    Batch,
    ClientMessage,
    Deliver,
    Done,
    Draining,
    Error,
    Event,
    Fenced,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HoldChanged,
    Presence,
    PublishOpened,
    Refreshed,
    Rejected,
    Removed,
    Resync,
    ServerMessage,
    SyncBegin,
    Synced,
    SyncPage,
    ValueAck,
    Welcome,
)

from .actions import Action, Call, Send, Tell
from .clock import Instant
from .errors import RequestTimeoutError
from .link import Link
from .pacer import Pacer
from .publication import PublicationMachine
from .spool import PublicationEvents
from .subscription import Delivery, SubscriptionMachine
from .types import ConnectionStatus, Update


@dataclass(slots=True)
class _Pending:
    """A request: waiting for the link, or for its answer."""

    build: Callable[[int], ClientMessage]
    answered: Callable[[ServerMessage], None]
    failed: Callable[[WsMonitorError], None]
    deadline: float
    timeout: float
    sent: bool = False


class ClientCore:
    """One connection: its link, its subscriptions, its publications, its requests.

    Args:
        random: gives numbers in [0, 1), uniformly.
        agent: program and version.
        name: what others see in the presence list.
        instance: one per process.
        timing: the times that hold until the server names its own.
    """

    def __init__(
        self,
        *,
        random: Callable[[], float],
        agent: str = "",
        name: str = "",
        instance: str = "",
        timing: Timing | None = None,
    ) -> None:
        self._random = random
        self._actions: list[Action] = []
        self._request = 0
        self._generation = 0
        self._pending: dict[int, _Pending] = {}
        self._told: ConnectionStatus | None = None
        self._calm = False  # the link was told that everything is in sync
        self.status_listeners: list[Callable[[ConnectionStatus], None]] = []
        self.subscriptions: dict[str, SubscriptionMachine] = {}
        self.publications: dict[tuple[str, str], PublicationMachine] = {}
        self.pacer = Pacer()
        hello = Hello(major=PROTOCOL_MAJOR, minor=PROTOCOL_MINOR, agent=agent, name=name, instance=instance)
        self.link = Link(
            lambda action: self._actions.append(action),
            random=random,
            next_request=self.next_request,
            hello=hello,
            timing=timing,
        )

    # ------------------------------------------------------------------ the owner's side

    def take(self, now: Instant) -> list[Action]:
        """The actions to carry out, in order; none is given twice."""
        self._settle(now)
        actions, self._actions = self._actions, []
        return actions

    @property
    def at_rest(self) -> bool:
        """Whether `take` would give nothing, and change nothing."""
        return not self._actions and self._calm and self.link.status is self._told

    def next_request(self) -> int:
        """A request number that nobody else has."""
        self._request += 1
        return self._request

    def subscribe(
        self,
        now: Instant,
        topic: str,
        tell: Callable[[Update], None],
        *,
        delivery: Delivery = "all",
        interval_ms: int = 1000,
    ) -> SubscriptionMachine:
        """Watch a topic that is not watched yet. ``tell`` is called by the driver, not from within."""
        machine = SubscriptionMachine(
            topic,
            send=self._send,
            tell=lambda update: self._actions.append(Tell(tell, update)),
            random=self._random,
            next_generation=self._next_generation,
            delivery=delivery,
            interval_ms=interval_ms,
        )
        self.subscriptions[topic] = machine
        self._calm = False
        if self.link.status.phase == "live":
            machine.connected(now.mono)
        return machine

    def unsubscribe(self, topic: str) -> None:
        """Stop watching a topic."""
        machine = self.subscriptions.pop(topic, None)
        if machine is not None:
            machine.close()

    def publish(self, now: Instant, machine: PublicationMachine) -> None:
        """Take a publication in."""
        self.publications[machine.session, machine.producer] = machine
        welcome = self.link.status.welcome
        if self.link.status.phase == "live" and welcome is not None:
            machine.connected(now.mono, welcome)

    def publication(
        self, session: str, producer: str, agent: str, events: PublicationEvents, **limits: int
    ) -> PublicationMachine:
        """A machine for a new publication; `publish` takes it in. May be called from any thread."""
        return PublicationMachine(
            session,
            producer,
            agent=agent,
            send=self._send,
            events=events,
            next_request=self.next_request,
            random=self._random,
            pacer=self.pacer,
            **limits,
        )

    def request(
        self,
        now: Instant,
        build: Callable[[int], ClientMessage],
        answered: Callable[[ServerMessage], None],
        failed: Callable[[WsMonitorError], None],
        timeout: float,
    ) -> None:
        """Send a request as soon as the link is live. It is never sent twice."""
        number = self.next_request()
        pending = _Pending(build, answered, failed, now.mono + timeout, timeout)
        self._pending[number] = pending
        status = self.link.status
        if status.phase == "live":
            self._ask(number, pending)
        elif status.phase in ("failed", "closed"):
            del self._pending[number]
            self._fail_request(
                pending, status.code or "connection_lost", status.reason or "the link is closed"
            )

    def call(self, function: Callable[[], None]) -> None:
        """Have the driver call *function* in its place among the actions."""
        self._actions.append(Call(function))

    # ------------------------------------------------------------------ input

    def receive(self, now: Instant, data: str | bytes) -> None:
        """One WebSocket message arrived."""
        self.link.frame(now)
        message = decode_server(data)
        if type(message) is Event:
            # Before all others, because nearly all messages are events.
            machine = self.subscriptions.get(message.topic)
            if machine is not None:
                machine.event(now.mono, message)
            return
        if message is None:
            return  # of a later minor version
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, now, message)
        else:
            self._answer(message)

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called, in seconds of the monotonic clock; None for never."""
        deadlines = [self.link.next_deadline()]
        deadlines.extend(machine.next_deadline() for machine in self.subscriptions.values())
        deadlines.extend(machine.next_deadline() for machine in self.publications.values())
        deadlines.extend(pending.deadline for pending in self._pending.values())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: Instant) -> None:
        """Act on all deadlines that have passed."""
        self.link.handle_timeout(now)
        self._settle(now)
        for subscription in list(self.subscriptions.values()):
            subscription.handle_timeout(now.mono)
        for publication in list(self.publications.values()):
            publication.handle_timeout(now.mono)
        for number, pending in list(self._pending.items()):
            if now.mono >= pending.deadline:
                del self._pending[number]
                status = self.link.status
                why = "" if status.live else f"; there is no link: {status.reason or status.phase}"
                error = RequestTimeoutError(f"no answer within {pending.timeout:g} s{why}")
                self.call(lambda failed=pending.failed, error=error: failed(error))  # type: ignore[misc]

    # ------------------------------------------------------------------ the link's changes

    def _settle(self, now: Instant) -> None:
        """Tell the other machines, and the listeners, what became of the link."""
        status = self.link.status
        told = self._told
        if status is not told:
            self._told = status
            was = told.phase if told is not None else "idle"
            if status.phase == "live" and was != "live":
                self._link_up(now, status)
            elif was == "live" and status.phase != "live":
                self._link_down(now, status)
            if status.phase in ("failed", "closed") and was != status.phase:
                self._fail_requests(status, all_of_them=True)
            for listener in list(self.status_listeners):
                self.call(lambda listener=listener: listener(status))  # type: ignore[misc]
        if not self._calm and status.phase == "live":
            self._calm = all(machine.stage in ("live", "over") for machine in self.subscriptions.values())
            if self._calm:
                self.link.synced(now)

    def _link_up(self, now: Instant, status: ConnectionStatus) -> None:
        self._calm = False
        assert status.welcome is not None
        for subscription in self.subscriptions.values():
            subscription.connected(now.mono)
        for publication in self.publications.values():
            publication.connected(now.mono, status.welcome)
        for number, pending in list(self._pending.items()):
            if not pending.sent:
                self._ask(number, pending)

    def _link_down(self, now: Instant, status: ConnectionStatus) -> None:
        for subscription in self.subscriptions.values():
            subscription.disconnected(now.mono, status.reason)
        for publication in self.publications.values():
            publication.disconnected()
        self._fail_requests(status, all_of_them=False)

    def _fail_requests(self, status: ConnectionStatus, *, all_of_them: bool) -> None:
        for number, pending in list(self._pending.items()):
            if pending.sent or all_of_them:
                del self._pending[number]
                code = status.code or "connection_lost"
                self._fail_request(pending, code, status.reason or f"the link is {status.phase}")

    def _fail_request(self, pending: _Pending, code: str, reason: str) -> None:
        error = ConnectionFailedError(code, reason)
        self.call(lambda: pending.failed(error))

    def _ask(self, number: int, pending: _Pending) -> None:
        pending.sent = True
        self._send(pending.build(number))

    def _send(self, message: ClientMessage) -> None:
        self._actions.append(Send(message))

    def _next_generation(self) -> int:
        self._generation += 1
        return self._generation

    # ------------------------------------------------------------------ messages

    def _batch(self, now: Instant, message: Batch) -> None:
        machine = self.subscriptions.get(message.topic)
        if machine is not None:
            machine.batch(now.mono, message)

    def _sync_begin(self, now: Instant, message: SyncBegin) -> None:
        machine = self.subscriptions.get(message.topic)
        if machine is not None:
            machine.sync_begin(now.mono, message)

    def _sync_page(self, now: Instant, message: SyncPage) -> None:
        machine = self.subscriptions.get(message.topic)
        if machine is not None:
            machine.sync_page(now.mono, message)

    def _synced(self, now: Instant, message: Synced) -> None:
        machine = self.subscriptions.get(message.topic)
        if machine is not None:
            machine.synced(now.mono, message)

    def _resync(self, now: Instant, message: Resync) -> None:
        machine = self.subscriptions.get(message.topic)
        if machine is not None:
            machine.resync(now.mono, message)

    def _removed(self, now: Instant, message: Removed) -> None:
        machine = self.subscriptions.get(message.topic)
        if machine is not None:
            machine.removed(message)

    def _presence(self, now: Instant, message: Presence) -> None:
        machine = self.subscriptions.get(message.topic)
        if machine is not None:
            machine.presence_changed(message)

    def _heartbeat(self, now: Instant, message: Heartbeat) -> None:
        recovered = self.link.status.degraded is not None and message.degraded is None
        self.link.heartbeat(now, message)
        if recovered:
            for publication in self.publications.values():
                publication.recovered(now.mono)
        for topic, (epoch, seq, digest) in message.heads.items():
            machine = self.subscriptions.get(topic)
            if machine is not None:
                machine.head(now.mono, epoch, seq, digest)

    def _opened(self, now: Instant, message: PublishOpened) -> None:
        machine = self.publications.get((message.session, message.producer))
        if machine is not None:
            machine.publish_opened(now.mono, message)

    def _ack(self, now: Instant, message: Ack) -> None:
        machine = self.publications.get((message.session, message.producer))
        if machine is not None:
            machine.ack(now.mono, message.accepted)

    def _rejected(self, now: Instant, message: Rejected) -> None:
        machine = self.publications.get((message.session, message.producer))
        if machine is not None:
            machine.rejected(message.number, message.error)

    def _fenced(self, now: Instant, message: Fenced) -> None:
        machine = self.publications.get((message.session, message.producer))
        if machine is not None:
            machine.fenced(removed=message.reason == "removed")

    def _deliver(self, now: Instant, message: Deliver) -> None:
        machine = self.publications.get((message.session, message.producer))
        if machine is not None:
            machine.deliver(message.command)
            machine.pump(now.mono)

    def _hold(self, now: Instant, message: HoldChanged) -> None:
        machine = self.publications.get((message.session, message.producer))
        if machine is not None:
            machine.hold_changed(message.hold)

    def _value_ack(self, now: Instant, message: ValueAck) -> None:
        if not any(machine.value_ack(now.mono, message) for machine in self.publications.values()):
            self._answer(message)

    def _done(self, now: Instant, message: Done) -> None:
        if not any(machine.done(message.request) for machine in list(self.publications.values())):
            self._answer(message)

    def _error(self, now: Instant, message: Error) -> None:
        if self.link.error(now, message):
            return
        error = message.error
        if message.request is None:
            self._scoped_error(now, error)
            return
        number = message.request
        if any(m.request_failed(now.mono, number, error) for m in list(self.publications.values())):
            return
        pending = self._pending.pop(number, None)
        if pending is not None:
            failure = RequestError(error)
            self.call(lambda: pending.failed(failure))

    def _scoped_error(self, now: Instant, error: ErrorInfo) -> None:
        """An error that answers no request: it concerns a subscription, a publication, or the connection."""
        topic = error.details.get("topic")
        machine = self.subscriptions.get(topic) if isinstance(topic, str) else None
        if machine is not None:
            if error.code in _FINAL:
                machine.refused(error.message)
            else:
                machine.fault(now.mono, error.message)
            return
        named = error.details.get("producer")
        for (session, producer), publication in self.publications.items():
            if session == error.session and named in (None, producer):
                publication.failed(now.mono, error)

    def _answer(self, message: ServerMessage) -> None:
        number = getattr(message, "request", None)
        pending = self._pending.pop(number, None) if isinstance(number, int) else None
        if pending is not None:
            self.call(lambda: pending.answered(message))


_FINAL: Final = frozenset({"not_available", "forbidden", "bad_id", "limit_exceeded"})
"""Errors about a topic that another subscribe on this connection would meet again."""

_HANDLERS: Final[dict[type, Callable[[ClientCore, Instant, Any], None]]] = {
    Batch: ClientCore._batch,
    SyncBegin: ClientCore._sync_begin,
    SyncPage: ClientCore._sync_page,
    Synced: ClientCore._synced,
    Resync: ClientCore._resync,
    Removed: ClientCore._removed,
    Presence: ClientCore._presence,
    Heartbeat: ClientCore._heartbeat,
    HeartbeatAck: lambda core, now, message: core.link.heartbeat_ack(now, message),
    Welcome: lambda core, now, message: core.link.welcome(now, message),
    Refreshed: lambda core, now, message: core.link.refreshed(now, message),
    Draining: lambda core, now, message: core.link.draining(now, message),
    PublishOpened: ClientCore._opened,
    Ack: ClientCore._ack,
    Rejected: ClientCore._rejected,
    Fenced: ClientCore._fenced,
    Deliver: ClientCore._deliver,
    HoldChanged: ClientCore._hold,
    ValueAck: ClientCore._value_ack,
    Done: ClientCore._done,
    Error: ClientCore._error,
}
"""Who takes which message. What is not here answers a request."""
