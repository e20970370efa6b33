"""What `Connection.subscribe` and `Connection.publication` give: handles that any thread may use."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from wsmonitor.protocol.changes import Change, SessionChange
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.errors import UsageError, WaitTimeoutError
from wsmonitor.protocol.messages import Hold
from wsmonitor.protocol.reducer import SessionState

from .conflate import Conflation
from .own import own_runs
from .publication import PublicationMachine
from .runner import log
from .subscription import Counters, Delivery, SubscriptionMachine
from .types import (
    BatchApplied,
    EventApplied,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    PublicationListener,
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
        self._connection._subscriptions.discard(self)
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


class _Events:
    """Takes what a publication's machine tells, and calls the listener in its turn."""

    def __init__(self, publication: Publication) -> None:
        self._publication = publication
        self._call = publication._shared.core.call
        self._listener = publication._listener

    def opened(self, epoch: str, known: bool) -> None:
        self._call(lambda: self._publication._opened(epoch, known))

    def acknowledged(self, number: int) -> None:
        self._publication._shared.changed.notify_all()
        self._call(lambda: self._listener.acknowledged(number))

    def uploaded(self, sha256: str) -> None:
        self._publication._shared.changed.notify_all()

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        self._publication._shared.changed.notify_all()
        self._call(lambda: self._publication._rejected(number, change, error))

    def overflowed(self, count: int) -> None:
        self._call(lambda: self._listener.overflowed(count))

    def drained(self, dropped: int) -> None:
        self._call(lambda: self._listener.drained(dropped))

    def command(self, command: Command) -> None:
        self._call(lambda: self._listener.command(command))

    def held(self, holds: tuple[Hold, ...]) -> None:
        self._call(lambda: self._listener.held(holds))

    def fenced(self, *, removed: bool) -> None:
        self._publication._shared.changed.notify_all()
        self._call(lambda: self._listener.fenced(removed=removed))

    def finished(self) -> None:
        self._publication._shared.changed.notify_all()
        self._call(self._publication._leave)


class Publication:
    """One producer of one session. `submit` never blocks; the spool empties itself."""

    def __init__(
        self,
        connection: Connection,
        session: str,
        producer: str,
        listener: PublicationListener,
        agent: str,
        limit_changes: int,
        limit_bytes: int,
    ) -> None:
        self.session = session
        self.producer = producer
        self._connection = connection
        self._shared = connection._shared
        self._listener = listener
        self._woken = False
        self._asserting = False
        self._closed = False
        self._name = ""  # of the run, if it is named from here
        core = self._shared.core
        self._machine: PublicationMachine = core.publication(
            session,
            producer,
            agent,
            _Events(self),
            limit_changes=limit_changes,
            limit_bytes=limit_bytes,
        )
        core_listener = connection.listen(listener.status)
        self._stop_listening = core_listener
        self._shared.input(core.publish, self._machine)

    def __repr__(self) -> str:
        return f"<Publication {self.session!r} as {self.producer!r} {self._machine.stage}>"

    @property
    def stage(self) -> str:
        """off, opening, open, pausing, closing, closed, fenced or refused (see `publication`)."""
        return self._machine.stage

    @property
    def unacknowledged(self) -> int:
        """How many submitted changes are not committed yet."""
        return self._machine.unacknowledged

    @property
    def dropped(self) -> int:
        """How many changes were dropped because the spool was full."""
        return self._machine.dropped

    def submit(self, change: Change) -> int | None:
        """Publish *change*, from any thread, without blocking.

        Returns:
            its number, 1, 2, 3 …; None if the spool is full (it is counted, and the server is told)
            or nothing can be sent any more (closed, fenced, refused, or after a fork).

        Raises:
            TypeError: it holds something that is not JSON.
            UsageError: a field is out of its range, or the change is too large for any message.
        """
        if self._closed or self._shared.abandoned or self._machine.stage in ("fenced", "refused"):
            return None
        with self._shared.lock:
            number = self._machine.submit(change, asserting=self._asserts())
        if number is not None and isinstance(change, SessionChange) and change.name:
            # Before the caller goes on: whoever watches this name from here on means this run.
            self._name = change.name
            own_runs.begun(self._shared.place, change.name, self.session)
        self._wake()
        return number

    def submit_value(self, data: bytes, sha256: str) -> bool:
        """Have a large value uploaded before the changes that are submitted after this.

        Returns:
            False when too many bytes of values wait already, or nothing can be sent any more.
        """
        if self._closed or self._shared.abandoned or self._machine.stage in ("fenced", "refused"):
            return False
        with self._shared.lock:
            taken = self._machine.submit_value(data, sha256, asserting=self._asserts())
        self._wake()
        return taken

    def flush(self, timeout: float | None = None) -> bool:
        """Block until everything submitted is committed; False if it was not in time.

        Not on the runner's thread.
        """
        if self._shared.abandoned:
            return False
        self._connection._may_block()
        machine = self._machine
        with self._shared.lock:
            self._shared.changed.wait_for(
                lambda: machine.empty or machine.stage in ("closed", "fenced", "refused"), timeout
            )
            return machine.empty

    def close(self, timeout: float = 1.0) -> bool:
        """Say goodbye once everything is committed; block for *timeout* seconds at most.

        Returns:
            whether everything was committed and the goodbye was taken. What is left is given up.
        """
        if self._closed:
            return self._machine.stage == "closed"
        self._closed = True
        if self._shared.abandoned:
            return False
        machine = self._machine
        self._shared.input(lambda now: machine.close(now.mono))
        if timeout > 0 and not self._shared.runner.here:
            with self._shared.lock:
                self._shared.changed.wait_for(
                    lambda: machine.stage in ("closed", "fenced", "refused"), timeout
                )
        done = machine.stage == "closed"
        self._abandon()
        return done

    def _abandon(self) -> None:
        self._closed = True
        self._connection._publications.discard(self)
        self._connection.call_soon(self._leave)

    def _leave(self) -> None:
        self._closed = True
        self._stop_listening()
        if not self._machine.acknowledged:
            self._never()
        core = self._shared.core
        key = (self.session, self.producer)
        if core.publications.get(key) is self._machine:
            del core.publications[key]

    def _rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        if not self._machine.acknowledged and (
            isinstance(change, SessionChange) or self._machine.stage == "refused"
        ):
            self._never()
        self._listener.rejected(number, change, error)

    def _never(self) -> None:
        """The server has not taken the run: its name means another again."""
        if self._name:
            own_runs.withdrawn(self._shared.place, self._name, self.session)

    def _asserts(self) -> bool:
        return self._asserting and self._shared.runner.here

    def _opened(self, epoch: str, known: bool) -> None:
        self._asserting = True
        try:
            self._listener.opened(epoch, known)
        finally:
            self._asserting = False
            self._shared.driver.input(lambda now: self._machine.reasserted(now.mono))

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._shared.runner.call_soon(self._pump)

    def _pump(self) -> None:
        self._woken = False
        self._shared.driver.input(lambda now: self._machine.pump(now.mono))
