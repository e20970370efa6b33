"""driver: what arrives in one piece is carried out as if each message had come by itself.

The reference is the plain loop: one message into the machines, then all that they ask for, then the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.scale import many
from wsmonitor.client.actions import Call, Disconnect, Send, Tell
from wsmonitor.client.clock import Instant
from wsmonitor.client.core import ClientCore
from wsmonitor.client.driver import Driver
from wsmonitor.client.types import EventApplied, Update
from wsmonitor.protocol.codec import encode
from wsmonitor.protocol.errors import ProtocolError
from wsmonitor.protocol.messages import (
    Batch,
    Event,
    Heartbeat,
    Presence,
    Removed,
    Resync,
    ServerMessage,
    SyncBegin,
    Synced,
    SyncPage,
)
from wsmonitor.protocol.reducer import SessionState

from .test_link import welcome

NOW = Instant(100.0, 1_700_000_000.0)
TOPICS = ("a", "b")


class Stage:
    """A core with two live subscriptions, and everything that it told and sent."""

    def __init__(self) -> None:
        self.core = ClientCore(random=lambda: 0.5)
        self.told: list[object] = []
        self.sent: list[Any] = []
        self.core.status_listeners.append(lambda status: self.told.append(status.phase))
        self.core.link.start(NOW)
        self.core.link.located(NOW, 1, "ws://here:1/", "token")
        self.core.link.opened(NOW, 1)
        self.run()
        self.plainly(encode(welcome()))
        for topic in TOPICS:
            self.core.subscribe(NOW, topic, self._listener(topic))
        for topic, machine in self.core.subscriptions.items():
            about = {"topic": topic, "generation": machine._generation}
            self.plainly(encode(SyncBegin(**about, epoch="e", base=0)))
            self.plainly(encode(SyncPage(**about, page=0, base=0, last=True)))
            self.plainly(encode(Synced(**about, seq=0, digest="0" * 32)))
            assert machine.stage == "live"
        self.told.clear()
        self.sent.clear()

    def _listener(self, topic: str) -> Callable[[Update], None]:
        def tell(update: Update) -> None:
            machine = self.core.subscriptions.get(topic)
            state = None if machine is None else machine.state
            # A listener sees the state of its event, and none of a later one.
            self.told.append((topic, update, None if state is None else (state.seq, state.digest)))
            if isinstance(update, EventApplied) and update.event.note == "close the other":
                self.core.unsubscribe("b" if topic == "a" else "a")
            elif isinstance(update, EventApplied) and update.event.note == "call":
                # Before the next message is looked at.
                self.core.call(lambda: self.told.append((topic, "called", machine and machine.position)))
            elif isinstance(update, EventApplied) and update.event.note == "raise":
                raise ValueError("the listener's own fault")

        return tell

    def run(self) -> None:
        while actions := self.core.take(NOW):
            for action in actions:
                try:
                    match action:
                        case Tell(listener, update):
                            listener(update)
                        case Call(function):
                            function()
                        case Send(message):
                            self.sent.append(message)
                        case Disconnect():
                            self.sent.append(action)
                except ValueError:
                    pass  # logged by the driver

    def plainly(self, data: bytes) -> bool:
        """The reference. False: the link is down."""
        try:
            self.core.receive(NOW, data)
        except ProtocolError as exc:
            self.core.link.fault(
                NOW, self.core.link.attempt, f"a message could not be handled: ProtocolError: {exc}"
            )
            self.run()
            return False
        self.run()
        return True

    def facts(self) -> tuple[object, ...]:
        machines = {
            topic: (machine.position, machine.phase, machine.reason, machine.stage, machine.counters)
            for topic, machine in self.core.subscriptions.items()
        }
        digests = {
            topic: machine.state.digest
            for topic, machine in self.core.subscriptions.items()
            if machine.state is not None
        }
        return (self.told, self.sent, machines, digests, self.core.link.status)


class Loop:
    """Of a loop, only what a driver needs that has no timers yet."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Arming the timer is not looked at here."""


class Clock:
    loop = Loop()

    def now(self) -> Instant:
        return NOW

    def recent(self, last: Instant) -> Instant:
        return last


class Driven(Driver):
    """A driver that keeps what it would send."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(cast(Any, Clock()), stage.core, threading.RLock(), cast(Any, None), lambda: None)
        self._stage = stage

    def _do(self, action: Any) -> None:
        match action:
            case Send(message):
                self._stage.sent.append(message)
            case Disconnect():
                self._stage.sent.append(action)
            case _:
                super()._do(action)


def event(topic: str, seq: int, what: str, note: str) -> Event:
    step = {
        "id": f"s{seq % 3}",
        "chain": "c",
        "name": "n",
        "metrics": {"seq": seq, "half": seq / 2},
        "seq": seq,
    }
    kind, entity, epoch = "step", msgspec.json.encode(step), "e"
    match what:
        case "unreadable":
            entity = b'{"id":"s/1","chain":"c","name":"n"}'
        case "of tomorrow":
            kind, entity = "hologram", b'{"id":"h"}'
        case "other epoch":
            epoch = "f"
    drop = [("step", f"s{(seq + 1) % 3}")] if what == "dropping" else []
    return Event(
        topic=topic, epoch=epoch, seq=seq, ts="1", kind=kind, entity=msgspec.Raw(entity), drop=drop, note=note
    )


_GOOD = ["good", "dropping", "of tomorrow"]
_BAD = ["gap", "again", "unreadable", "other epoch", "resync", "removed", "batch", "no json"]
_BESIDES = ["heartbeat", "wrong heartbeat", "presence", "of a later version"]
_WHAT = st.just("good") | st.sampled_from(_GOOD) | st.sampled_from([*_BAD, *_BESIDES])
_NOTE = st.just("") | st.sampled_from(["", "close the other", "call", "raise"])


def messages(plan: Sequence[tuple[str, str, str]]) -> list[bytes]:
    """What a server would send, and what it would not, with the seqs and digests that are right so far."""
    states = {topic: SessionState(topic, "e") for topic in TOPICS}
    made: list[bytes] = []
    for topic, what, note in plan:
        state = states[topic]
        message: ServerMessage
        match what:
            case "gap":
                message = event(topic, state.seq + 2, what, note)
            case "again":
                message = event(topic, max(1, state.seq), what, note)
            case "heartbeat":
                message = Heartbeat(n=len(made), heads={topic: (state.epoch, state.seq, state.digest)})
            case "wrong heartbeat":
                message = Heartbeat(n=len(made), heads={topic: (state.epoch, state.seq, "f" * 32)})
            case "presence":
                message = Presence(topic=topic, count=len(made), names=["x"])
            case "resync":
                message = Resync(topic=topic, reason="too_slow")
            case "removed":
                message = Removed(topic=topic, reason="removed")
            case "batch":
                about = {"epoch": "e", "ts": "1", "digest": state.digest}
                message = Batch(topic=topic, from_=state.seq, to=state.seq + 2, entities=[], **about)
            case "no json":
                made.append(b'{"type":"event"')
                continue
            case "of a later version":
                made.append(b'{"type":"hologram"}')
                continue
            case _:
                message = event(topic, state.seq + 1, what, note)
                if what in _GOOD:
                    state.apply(message)
        made.append(encode(message))
    return made


@settings(max_examples=many(60), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(TOPICS), _WHAT, _NOTE), max_size=40),
    st.lists(st.integers(1, 12), min_size=1, max_size=20),
)
@example(
    [("a", "good", "call"), ("a", "good", "raise"), ("a", "good", "close the other"), ("b", "good", "")], [4]
)
def test_a_piece_is_carried_out_as_its_messages_one_by_one(
    plan: list[tuple[str, str, str]], sizes: list[int]
) -> None:
    sent = messages(plan)
    plain = Stage()
    for data in sent:
        if not plain.plainly(data):
            break  # the connection is no more
    ours = Stage()
    driver = Driven(ours)
    pieces, at = [], 0
    while at < len(sent):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(sent[at : at + size])
        at += size
    for piece in pieces:
        if ours.core.link.status.phase == "live":
            driver._receive(piece)
    assert ours.facts() == plain.facts()
