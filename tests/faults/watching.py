"""Observers that keep account of what they were told, and name every promise that was broken to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec.structs import replace

from wsmonitor.client import (
    EventApplied,
    EventsReplayed,
    GapFound,
    Subscription,
    SyncCompleted,
    Target,
    Update,
    connect,
)
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Entity, Step
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState, decode_entity

from .server import TIMING

PATIENCE: Final = 120.0
"""Seconds until something that must happen counts as not happening."""

CLIENT_TIMING: Final = Timing(
    healthy_after=TIMING["healthy_after"], handshake_timeout=TIMING["handshake_timeout"]
)


class Place(Protocol):
    """Where observers and producers connect to: a server, or what stands in front of several."""

    @property
    def url(self) -> str: ...
    def token(self, sub: str, role: str = "admin") -> str:
        """A token for all sessions."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event as an observer was told of it: its place, whose change it was (or ""), the change's number."""

    seq: int
    producer: str
    number: int
    epoch: str = ""


class Watch:
    """One observer of one session, on a connection of its own.

    Args:
        handshake_timeout: seconds that an attempt to connect may take.

    Attributes:
        told: all events, live and replayed, in the order of telling.
        broken: promises that were not kept, in words.
        resets, gaps: what was announced as reset or as missing.
    """

    def __init__(
        self,
        server: Place,
        session: str,
        name: str,
        *,
        handshake_timeout: float = TIMING["handshake_timeout"],
    ) -> None:
        self.session = session
        self.name = name
        self.told: list[Told] = []
        self.broken: list[str] = []
        self.resets: list[str] = []
        self.gaps: list[tuple[int, int]] = []
        self._last_ns = 0  # the server's time of the last event that was told live
        self._numbers: dict[str, int] = {}  # step's id to the number that it was told to have
        self._changed = threading.Condition()
        self._subscription: Subscription | None = None
        target = Target(url=server.url, token=server.token(name, "observe"), name=name, insecure=True)
        timing = replace(CLIENT_TIMING, handshake_timeout=handshake_timeout)
        self.connection = connect(target, timing=timing)
        self._subscription = self.connection.subscribe(session, self._tell)

    @property
    def subscription(self) -> Subscription:
        assert self._subscription is not None
        return self._subscription

    # -- on the client's thread

    def _tell(self, update: Update) -> None:
        with self._changed:
            match update:
                case EventApplied(event, entity):
                    self._take(event, entity)
                    self._last_ns = int(event.ts)
                case EventsReplayed(events):
                    for event in events:
                        self._take(event, decode_entity(event.kind, event.entity))
                case GapFound(first, last):
                    self.gaps.append((first, last))
                case SyncCompleted(epoch, seq, previous, reset):
                    self._synced(epoch, seq, previous, reset)
                case _:
                    pass
            self._changed.notify_all()

    def _take(self, event: Event, entity: Entity | None) -> None:
        producer, number = "", 0
        if isinstance(entity, Step) and "n" in entity.metrics and entity.state == "running":
            number = int(entity.metrics["n"])
            producer = entity.producer
            if number <= self._numbers.get(entity.id, 0):
                self.broken.append(f"{entity.id} went from {self._numbers[entity.id]} to {number}")
            self._numbers[entity.id] = number
        self.told.append(Told(event.seq, producer, number, event.epoch))

    def _synced(self, epoch: str, seq: int, previous: tuple[str, int] | None, reset: str) -> None:
        if reset:
            self.resets.append(reset)
            self._numbers.clear()
        elif previous is not None and previous[0] != epoch and previous[1] > 0:
            self.broken.append(f"another epoch, {previous} to {epoch}, was not announced")
        elif previous is not None and previous[0] == epoch and seq < previous[1]:
            self.broken.append(f"seq went from {previous[1]} to {seq}")
        state = None if self._subscription is None else self._subscription.state
        if state is not None and not reset:
            for ident, number in numbers_of(state).items():
                if number < self._numbers.get(ident, 0):
                    self.broken.append(f"{ident} went from {self._numbers[ident]} to {number} by a sync")

    # -- on the test's thread

    def wait(self, condition: Callable[[Watch], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait until *condition* holds. Raises `AssertionError` saying *what* did not happen."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), patience):
                status = self.connection.status
                raise AssertionError(
                    f"{self.name}: {what}: not within {patience:g} s; the link is {status.phase} "
                    f"({status.reason}), the subscription {self.subscription.phase} at "
                    f"{self.subscription.position}"
                )

    def wait_past(self, ns: int) -> None:
        """Wait until it was told, live, of something that the server did after *ns* (nanoseconds UTC)."""
        self.wait(lambda watch: watch._last_ns > ns, "something new")

    def wait_beyond(self, producer: str, number: int) -> None:
        """Wait until it was told of a change of *producer* beyond *number*."""
        self.wait(lambda watch: watch.last(producer) > number, f"a change of {producer} beyond {number}")

    def wait_not_live(self, producer: str) -> None:
        """Wait until it shows that *producer* is not heard."""
        self.wait(lambda watch: watch.liveness(producer) != "live", f"that {producer} is gone")

    def liveness(self, producer: str) -> str:
        """How *producer* is heard, as this observer was told."""
        record = self.snapshot().producers.get(producer)
        return "" if record is None else record.liveness

    def last(self, producer: str) -> int:
        """The number of *producer*'s last change that it was told of."""
        return next((one.number for one in reversed(self.told) if one.producer == producer), 0)

    @property
    def seen(self) -> int:
        """The last seq that it was told of."""
        return self.told[-1].seq if self.told else 0

    def snapshot(self) -> SessionState:
        """Its verified replica."""
        state = self.subscription.snapshot()
        assert state is not None
        return state

    def close(self) -> None:
        self.connection.close()


def numbers_of(state: SessionState) -> dict[str, int]:
    """Step's id to the number of the change that it shows."""
    return {ident: int(step.metrics["n"]) for ident, step in state.steps.items() if "n" in step.metrics}
