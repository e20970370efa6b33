"""Planted faults: small wrong changes of the real code, each of which the simulation has to catch.

They prove that the oracle can fail. Every one is a mistake that somebody has made in a messaging system, or
could make here with one careless line. The invariants that may catch it are named beside it: a fault that is
caught by another one says that the oracle sees less than it should.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from wsmonitor.client import publication, subscription
from wsmonitor.client.core import ClientCore
from wsmonitor.client.link import Link
from wsmonitor.client.publication import PublicationMachine
from wsmonitor.client.spool import Spool
from wsmonitor.client.subscription import SubscriptionMachine
from wsmonitor.client.types import EventApplied, GapFound
from wsmonitor.protocol.access import Claims
from wsmonitor_server.auth import Authenticator
from wsmonitor_server.authority import Authority
from wsmonitor_server.commits import CommitPath
from wsmonitor_server.hub import Feed
from wsmonitor_server.liveness import LivenessWatch
from wsmonitor_server.outbox import Outbox
from wsmonitor_server.outcomes import Outcomes
from wsmonitor_server.producers import ProducerDesk
from wsmonitor_server.subscription import Subscription
from wsmonitor_server.sync import TopicSync

from . import disk
from .plan import Plan, make_plan

Patch = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        name: what is wrong.
        caught_by: names of invariants.
        patch: makes the code wrong for as long as it is entered.
        focus: happenings among which it shows itself; all of them when it is empty.
        shared: whether it is one of servers that share a Redis.
        quiet: whether it shows itself only where programs are silent, but for the beginning.
    """

    name: str
    caught_by: frozenset[str]
    patch: Patch
    focus: frozenset[str] = frozenset()
    shared: bool = False
    quiet: bool = False

    def plan(self, seed: int) -> Plan:
        """The plan of *seed* for this fault."""
        plan = make_plan(seed, only=self.focus or None, shared=self.shared)
        if self.quiet:
            plan.silence()
        return plan


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def method(owner: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    """Replace a method by what *make* makes of it."""
    return lambda: replaced(owner, name, make(owner.__dict__[name]))


def together(*patches: Patch) -> Patch:
    """Several mistakes together, where the code has a second line of defence behind the first."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            yield

    return patched


def _broadcast_first(real: Any) -> Any:
    async def commit(self: CommitPath, taken: Any, outcome: Any) -> None:
        for loaded, batch in taken:
            outcome.committed(loaded, batch)
        with contextlib.suppress(Exception):
            await self._store.commit([batch.commit for _, batch in taken])

    return commit


def _acknowledged_first(real: Any) -> Any:
    async def publish(self: ProducerDesk, holder: Any, epoch: int, first: int, changes: Any) -> None:
        await real(self, holder, epoch, first, changes)
        if holder.ended is None:
            holder.events.acked(holder.session, holder.producer, first + len(changes) - 1)

    return publish


def _old_events_too(real: Any) -> Any:
    def event(self: SubscriptionMachine, now: float, event: Any) -> None:
        if self.stage in ("requested", "pages") and self.state is not None:
            self._tell(EventApplied(event, None))
        real(self, now, event)

    return event


def _gaps_applied(real: Any) -> Any:
    def live(self: SubscriptionMachine, now: float, event: Any) -> None:
        if self.stage == "live" and self.state is not None and event.seq > self.state.seq + 1:
            self.state.seq = event.seq - 1
        real(self, now, event)

    return live


def _no_epoch(real: Any) -> Any:
    def judge(self: TopicSync, resume: Any) -> Any:
        if resume is not None:
            seq = min(resume.seq, self._feed.state.seq)
            resume = msgspec.structs.replace(resume, epoch=self._feed.state.epoch, seq=seq, digest="")
        return real(self, resume)

    return judge


def _no_epoch_here_either(real: Any) -> Any:
    def synced(self: SubscriptionMachine, now: float, message: Any) -> None:
        if self.state is not None and self._shadow is not None:
            self.state.epoch = self._shadow.state.epoch
        real(self, now, message)

    return synced


def _only_events(real: Any) -> Any:
    return lambda shadow: [update for update in real(shadow) if not isinstance(update, GapFound)]


def _knows_less(real: Any) -> Any:
    def open_producer(self: Authority, producer: str, *args: Any, **more: Any) -> Any:
        position = self.ledger.position(producer)
        if position is not None:
            self.ledger.move(position.at(max(0, position.accepted - 3)))
        return real(self, producer, *args, **more)

    return open_producer


def _mute_in_silence(real: Any) -> Any:
    def mute(self: Any, reason: Any) -> None:
        self._peer.outbox.drop(self.lane)

    return mute


def _numbers_anew(real: Any) -> Any:
    def opened(self: PublicationMachine, now: float, message: Any) -> None:
        self.spool.renumber(message.accepted)
        real(self, now, message)

    return opened


def _dropped_when_sent(real: Any) -> Any:
    def disconnected(self: PublicationMachine) -> None:
        for _ in range(self.spool.sent):
            self.spool._forget(self.spool.entries.popleft())
        real(self)

    return disconnected


def _forgets_keys(real: Any) -> Any:
    return lambda self, key: None


def _patterns_ignored(real: Any) -> Any:
    return lambda self, session: True


def _keeps_subscriber(real: Any) -> Any:
    def detach(self: Feed, subscriber: Any) -> None:
        kept = self.subscribers.get(id(subscriber))
        real(self, subscriber)
        if kept is not None:
            self.subscribers[id(subscriber)] = kept

    return detach


def _never_too_much(real: Any) -> Any:
    return property(lambda self: False)


def _valid_for_ever(real: Any) -> Any:
    return lambda self, credential, wall: None


def _revocation_for_new_ones(real: Any) -> Any:
    def problem(self: Authenticator, credential: Any, wall: float) -> Any:
        found = real(self, credential, wall)
        return None if found is not None and found.code == "token_revoked" else found

    return problem


def _never_dead(real: Any) -> Any:
    return lambda self: math.inf


def _no_verdict(real: Any) -> Any:
    def handle_timeout(self: LivenessWatch, now: float) -> Any:
        real(self, now)
        return []

    return handle_timeout


def _anybody_comes_back(real: Any) -> Any:
    def open_producer(self: Authority, *args: Any, holder: str = "", held: int = 0) -> Any:
        return real(self, *args, holder=holder, held=0)

    return open_producer


def _same_epoch(real: Any) -> Any:
    def lost_power(self: disk.KeptDisk) -> None:
        before = self._kept.epoch, {name: kept.epoch for name, kept in self._kept._sessions.items()}
        real(self)
        self._kept.epoch = before[0]
        for name, kept in self._kept._sessions.items():
            kept.epoch = before[1][name]

    return lost_power


def _epoch_goes_on(real: Any) -> Any:
    async def reload(self: Outcomes, loaded: Any, failure: Any) -> None:
        # The error is taken for "nothing was written", which nobody knows.
        loaded.ledger.rollback()

    return reload


def _acknowledges_replaced(real: Any) -> Any:
    def end_assertion(self: Spool) -> bool:
        asserted = bool(real(self))
        for entry in self.entries:
            entry.stands_for = 0
        return asserted

    return end_assertion


def _requests_again(real: Any) -> Any:
    def link_down(self: ClientCore, now: Any, status: Any) -> None:
        for topic in list(self.subscriptions):
            machine = self.subscriptions[topic]
            # A handler that subscribes again does so from the position before its event.
            if machine.state is not None and machine.state.seq > 1:
                machine.state.seq -= 1
        real(self, now, status)

    return link_down


def fault(
    name: str, caught_by: str, patch: Patch, *focus: str, shared: bool = False, quiet: bool = False
) -> Fault:
    """A planted fault; see `Fault`."""
    return Fault(name, frozenset(caught_by.split()), patch, frozenset(focus), shared, quiet)


FAULTS: Final = (
    fault("broadcast before commit", "HONEST DURABLE", method(CommitPath, "_commit", _broadcast_first)),
    fault("acknowledgement before commit", "DURABLE", method(ProducerDesk, "publish", _acknowledged_first)),
    fault(
        "events of the old subscription are told",
        "ONCE GAPLESS MONOTONE AGREE ORDER",
        method(SubscriptionMachine, "event", _old_events_too),
        "subscription churn",
        "slow network",
        "burst",
        "stall a connection",
    ),
    fault(
        "what overflows is dropped in silence, and gaps are applied over",
        "GAPLESS AGREE",
        together(
            method(Subscription, "mute", _mute_in_silence),
            method(SubscriptionMachine, "event", _gaps_applied),
        ),
        "burst",
        "stall a connection",
        "slow network",
    ),
    fault(
        "the position is moved after the handler",
        "ONCE GAPLESS MONOTONE AGREE HONEST",
        method(ClientCore, "_link_down", _requests_again),
    ),
    fault(
        "replay without epoch",
        "MONOTONE AGREE HONEST GAPLESS ONCE",
        together(
            method(TopicSync, "_judge", _no_epoch),
            method(SubscriptionMachine, "synced", _no_epoch_here_either),
        ),
    ),
    fault(
        "a hole in history is not told",
        "GAPLESS",
        method(subscription, "_account", _only_events),
        "burst",
        "partition an observer",
        "half-open connection",
        "stall a connection",
    ),
    fault(
        "the server knows less than it acknowledged",
        "ONCE ORDER DURABLE",
        method(Authority, "open_producer", _knows_less),
    ),
    fault(
        "what is sent again gets new numbers",
        "ONCE ORDER",
        method(PublicationMachine, "publish_opened", _numbers_anew),
    ),
    fault(
        "what was sent is forgotten with the link",
        "DURABLE",
        method(PublicationMachine, "disconnected", _dropped_when_sent),
    ),
    fault(
        "the window of remembered commands is too small",
        "ONCE",
        lambda: replaced(publication, "REMEMBERED_COMMANDS", 0),
        "command",
        "kill server",
        "reset a connection",
        "slow network",
        "slow disk",
    ),
    fault(
        "the same key is taken for another command, on both sides",
        "ONCE",
        together(
            method(Authority, "command", _forgets_keys),
            lambda: replaced(publication, "REMEMBERED_COMMANDS", 0),
        ),
        "command",
        "the same command again",
    ),
    fault("patterns of tokens are not looked at", "ISOLATED", method(Claims, "covers", _patterns_ignored)),
    fault("who has left is still sent to", "ISOLATED CLEAN", method(Feed, "detach", _keeps_subscriber)),
    fault(
        "an outbox without a limit",
        "BOUNDED",
        method(Outbox, "state_overflow", _never_too_much),
        "burst",
        "stall a connection",
        "slow network",
    ),
    fault(
        "expiry is checked at the handshake only",
        "EXPIRED",
        method(Authenticator, "problem", _valid_for_ever),
    ),
    fault(
        "revocation is checked at the handshake only",
        "EXPIRED",
        method(Authenticator, "problem", _revocation_for_new_ones),
    ),
    fault("a silent link looks alive", "HONEST", method(Link, "_dead_at", _never_dead)),
    fault("a dead producer looks alive", "HONEST", method(LivenessWatch, "handle_timeout", _no_verdict)),
    fault(
        "who was away takes its producer back",
        "DURABLE ORDER ONCE AGREE",
        method(Authority, "open_producer", _anybody_comes_back),
        "take a producer over",
        "partition a publisher",
        "half-open connection",
        "suspend a publisher",
        "burst",
    ),
    fault(
        "the epoch outlasts the loss of power",
        "DURABLE HONEST AGREE MONOTONE ORDER GAPLESS",
        method(disk.KeptDisk, "lost_power", _same_epoch),
        "lose power",
        "burst",
        "command",
    ),
    fault(
        "an unknown outcome is taken for a failure",
        "DURABLE ONCE AGREE HONEST",
        method(Outcomes, "_reload", _epoch_goes_on),
    ),
    fault(
        "what was replaced counts as committed",
        "DURABLE",
        method(Spool, "end_assertion", _acknowledges_replaced),
        "disk error of unknown outcome",
        "crash server at an effect",
        "kill server",
        "slow disk",
        "burst",
    ),
)
"""All planted faults."""
