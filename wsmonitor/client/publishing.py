"""What `Connection.publication` gives: a handle that any thread may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsmonitor.protocol.changes import Change, SessionChange
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.messages import Hold

from .own import own_runs
from .types import PublicationListener

if TYPE_CHECKING:
    from .connection import Connection
    from .driver import Lasting
    from .keeper import Keeper, Kept
    from .publication import PublicationMachine
    from .spoolfile import SpoolFile


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
        self._call(lambda: self._publication._acknowledged(number))

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
        self._call(lambda: self._publication._fenced(removed))

    def wants(self) -> None:
        self._call(self._publication._look)

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
        limits: dict[str, int],
        keep_for: Lasting | None,
        file: SpoolFile | None = None,
    ) -> None:
        self.left: Kept | None = None  # once it is closed: what was not committed, and where it is kept
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
            **limits,
        )
        self._keeper: Keeper | None = None
        if keep_for is not None or file is not None:
            from .keeper import Keeper

            place = keep_for or Lasting()
            self._keeper = Keeper(self._machine, self._shared, place, listener.unkept, file=file)
        if file is not None:
            facts, rows = file.facts, file.rows()
            self._machine.restore(
                rows,
                accepted=rows[0].number - 1 if rows else facts.accepted,
                holder=facts.holder,
                producer_epoch=facts.producer_epoch,
                session_epoch=facts.session_epoch,
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
            whether everything was committed and the goodbye was taken. What is left is in `left`: kept on
            disk if this publication does that, else given up.
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
        self._abandon(ended=True)
        return done

    def leave_kept(self, *, ended: bool) -> None:
        """Let go without a goodbye; what is left stays on disk. *ended*: whether one is due after it."""
        if not self._closed:
            self._abandon(ended=ended)

    def _abandon(self, *, ended: bool = False) -> None:
        if self._keeper is not None and self.left is None:
            self.left = self._keeper.finish(ended=ended)
        self._closed = True
        self._connection._publications.pop(self, None)
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

    def _acknowledged(self, number: int) -> None:
        self._look()
        self._listener.acknowledged(number)

    def _fenced(self, removed: bool) -> None:
        self._look()
        self._listener.fenced(removed=removed)

    def _look(self) -> None:
        if self._keeper is not None:
            self._keeper.look()

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
            self._look()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._shared.runner.call_soon(self._pump)

    def _pump(self) -> None:
        self._woken = False
        self._shared.driver.input(lambda now: self._machine.pump(now.mono))
        self._look()
