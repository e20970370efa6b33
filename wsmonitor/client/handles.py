"""What `Connection.subscribe` gives: a handle that any thread may use."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from wsmonitor.protocol.errors import UsageError, WaitTimeoutError
from wsmonitor.protocol.reducer import SessionState

from .conflate import Conflation
from .runner import log
from .subscription import Counters, Delivery, SubscriptionMachine
from .types import (
    BatchApplied,
    EventApplied,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SubscriptionPhase,
    SyncCompleted,
    Update,
)

if TYPE_CHECKING:
    from .connection import Connection

UPDATES_KEPT = 10_000
"""How many updates an async iterator keeps for a slow reader before it tells a gap instead."""


class Subscription:
    """One listener of one topic. All subscriptions of a topic in one connection share one replica."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        listener: Callable[[Update], None] | None,
        delivery: Delivery,
        interval_ms: int,
    ) -> None:
        self.topic = topic
        self.delivery: Delivery = delivery
        self.interval_ms = interval_ms
        self._connection = connection
        self._shared = connection._shared
        self._listeners: list[Callable[[Update], None]] = [] if listener is None else [listener]
        self._machine: SubscriptionMachine | None = None
        self._conflation = Conflation(interval_ms / 1000)
        self._cancel_batch: Callable[[], None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Subscription {self.topic!r} {self.phase} {self.position}>"

    @property
    def phase(self) -> SubscriptionPhase:
        """Whether what is shown is verified and current."""
        if self._closed:
            return "closed"
        return "waiting" if self._machine is None else self._machine.phase

    @property
    def reason(self) -> str:
        """Why it is in this phase, in words; empty when there is nothing to say."""
        return "" if self._machine is None else self._machine.reason

    @property
    def position(self) -> tuple[str, int] | None:
        """The verified ``(epoch, seq)``; None before the first sync."""
        return None if self._machine is None else self._machine.position

    @property
    def state(self) -> SessionState | None:
        """The live replica; None before the first sync. Only on the runner's thread; never write it."""
        return None if self._machine is None else self._machine.state

    @property
    def presence(self) -> PresenceChanged:
        """Who watches."""
        return PresenceChanged(0, ()) if self._machine is None else self._machine.presence

    @property
    def counters(self) -> Counters:
        """What happened so far: events applied, duplicates dropped, syncs, gaps."""
        return Counters() if self._machine is None else self._machine.counters

    def snapshot(self) -> SessionState | None:
        """A copy of the verified replica, from any thread; None before the first sync."""
        with self._shared.lock:
            state = self.state
            return None if state is None else state.copy()

    def wait(self, condition: Callable[[Subscription], bool], timeout: float | None = None) -> None:
        """Block until *condition* holds after an update. Not on the runner's thread.

        Raises:
            WaitTimeoutError: it did not within *timeout* seconds; says in which phase we are.
        """
        self._connection._may_block()
        reached = threading.Event()
        failure: list[BaseException] = []

        def look(update: Update | None = None) -> None:
            try:
                if condition(self):
                    reached.set()
            except BaseException as exc:  # noqa: BLE001  # raised where it is waited for
                failure.append(exc)
                reached.set()

        def begin() -> None:
            self._listeners.append(look)
            look()

        if not self._connection.call_soon(begin):
            raise UsageError("the connection of this subscription is closed")
        try:
            if not reached.wait(timeout):
                why = f": {self.reason}" if self.reason else ""
                raise WaitTimeoutError(f"{self.topic} is {self.phase} after {timeout:g} s{why}")
        finally:
            self._connection.call_soon(lambda: self._remove(look))
        if failure:
            raise failure[0]

    async def updates(self) -> AsyncIterator[Update]:
        """Where things stand, and the updates from there on, for use on any event loop.

        Ends when the subscription is closed.

        A reader that falls far behind is told `GapFound` and the present position instead of what it
        missed; the replica is complete all the same.
        """
        loop = asyncio.get_running_loop()
        kept: deque[Update] = deque()
        ready = asyncio.Event()
        lock = threading.Lock()

        def wake() -> None:
            ready.set()

        def put(update: Update) -> None:
            with lock:
                state = self.state
                if len(kept) < UPDATES_KEPT or state is None:
                    kept.append(update)
                else:
                    first = _first_seq(kept)
                    kept.clear()
                    if first is not None:
                        kept.append(GapFound(first, state.seq))
                    kept.append(SyncCompleted(state.epoch, state.seq, None, ""))
                    kept.append(PhaseChanged(self.phase, self.reason))
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:  # the reader's loop has ended
                self._remove(put)

        def begin() -> None:
            for update in self._standing():
                put(update)
            if not self._closed:
                self._listeners.append(put)

        self._connection.call_soon(begin)
        try:
            while True:
                await ready.wait()
                ready.clear()
                while True:
                    with lock:
                        update = kept.popleft() if kept else None
                    if update is None:
                        break
                    yield update
                    if isinstance(update, PhaseChanged) and update.phase == "closed":
                        return
        finally:
            self._connection.call_soon(lambda: self._remove(put))

    def close(self) -> None:
        """Stop listening. The last thing that a listener hears is ``PhaseChanged("closed")``."""
        if self._closed:
            return
        self._closed = True
        self._connection._subscriptions.pop(self, None)
        self._connection.call_soon(self._detach)

    def _standing(self) -> list[Update]:
        """What a new listener is told of what others were told already, as far as it still holds."""
        machine = self._machine
        if self._closed:
            return [PhaseChanged("closed")]
        if machine is None:
            return []
        updates: list[Update] = []
        if machine.state is not None:
            updates.append(SyncCompleted(machine.state.epoch, machine.state.seq, None, ""))
        updates.append(PhaseChanged(machine.phase, machine.reason))
        if machine.presence.count:
            updates.append(machine.presence)
        return updates

    def _detach(self) -> None:
        self._told_so_far()  # only ends the timer: what is closed is told no more
        self._call(PhaseChanged("closed"))
        self._listeners.clear()
        self._shared.detach(self)

    def _remove(self, listener: Callable[[Update], None]) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def _deliver(self, update: Update) -> None:
        if self._closed:
            return
        if self.delivery == "latest":
            if isinstance(update, EventApplied | BatchApplied) and self._wire_brings_more():
                self._gather(update)
                return
            self._told_so_far()  # what was gathered came before this
        self._call(update)

    def _wire_brings_more(self) -> bool:
        machine = self._machine
        asked = (self.delivery, self.interval_ms)
        return machine is not None and (machine.delivery, machine.interval_ms) != asked

    def _gather(self, update: EventApplied | BatchApplied) -> None:
        # Somebody else in this process watches more closely: no second subscription for the same.
        delay = self._conflation.add(self._shared.runner.loop.time(), update)
        if delay <= 0:
            self._told_so_far()
        elif self._cancel_batch is None:
            self._cancel_batch = self._shared.runner.call_later(delay, self._told_so_far)

    def _told_so_far(self) -> None:
        if self._cancel_batch is not None:
            self._cancel_batch()
            self._cancel_batch = None
        batch = self._conflation.take(self._shared.runner.loop.time())
        if batch is not None and not self._closed:
            self._call(batch)

    def _call(self, update: Update) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(update)
            except Exception:  # noqa: BLE001  # one listener's fault is not the others'
                log.exception("a listener of %s failed", self.topic)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _first_seq(updates: deque[Update]) -> int | None:
    for update in updates:
        match update:
            case EventApplied(event):
                return event.seq
            case GapFound(first, _):
                return first
            case BatchApplied(seq):
                return seq
    return None
