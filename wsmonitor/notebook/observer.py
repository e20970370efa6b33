"""The observer: a widget whose traits are what is known of a session. Thin: others do the work.

==============  ======================================================================
`live`          the base: when a browser is told, and what it may ask
`feed`          from the client's thread to the view
`view`, `rows`  what a browser is shown, as change sets
`sender`        when it is sent
`callbacks`     the thread of public traits and user callbacks
`facts`         who waits for an end, a state, a number
`until`         who waits for a condition of their own
==============  ======================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import traitlets

from wsmonitor.client.types import ConnectionStatus
from wsmonitor.protocol.entities import Command, Scalar
from wsmonitor.protocol.errors import ConnectionFailedError, SessionFailed, UsageError, WaitTimeoutError
from wsmonitor.protocol.states import TRANSITIONS

from .answers import questions
from .copies import Copies
from .facts import Facts, Goal
from .feed import Feed, now
from .live import LiveWidget, caller
from .own import is_own
from .requests import Question
from .rows import ROW_LIMIT
from .snapshot import SessionSnapshot, take
from .source import Source
from .trace import placeholder, plain, trace
from .until import Conditions, checked
from .values import inline, whole
from .view import Frame, Now, View

if TYPE_CHECKING:
    import pandas as pd

STEPS_AT_ONCE: Final = 2_000
"""Steps of a session whose static copy is made while its cell waits: some milliseconds."""

T = TypeVar("T")

HISTORY_PATIENCE: Final = 10.0
"""Seconds that ``to_frame("events")`` waits for what the server keeps."""


class Observer(LiveWidget):
    """What is known of one session, live. `wsmonitor.watch` makes it; display it, or use its traits.

    All public traits are read-only, and written by one thread, on which `observe` callbacks run one at a
    time and in order; at most ten times a second, between which changes are summed up. What a callback
    raises is caught, and appears in ``errors``.

    Traits:
        session (SessionSnapshot | None): the verified copy; None while there is no such session.
        state (str): the session's state, "" while there is none.
        seq (int): the number of the last event that ``session`` includes.
        run (int): 1 for the first run of this name …; 0 while there is no session.
        connection (ConnectionStatus): how the link to the server is.
        watching (int): how many people watch the session.
        errors (tuple[ErrorInfo, ...]): the last 100 things that went wrong in observing.
    """

    session = traitlets.Instance(SessionSnapshot, allow_none=True, read_only=True)
    state = traitlets.Unicode("", read_only=True)
    seq = traitlets.Int(0, read_only=True)
    run = traitlets.Int(0, read_only=True)
    connection = traitlets.Instance(ConnectionStatus, args=(), read_only=True)
    watching = traitlets.Int(0, read_only=True)
    errors = traitlets.Tuple(read_only=True)

    view: View

    borrowed = False
    """Whether only parts use it: it was made for one, and `wsmonitor.watch` has not given it to anybody."""

    def __init__(self, target: str, source: Source, *, row_limit: int = ROW_LIMIT) -> None:
        self.target = target
        self._source = source
        super().__init__(View(target, row_limit=row_limit))
        self._errors_told = 0
        self._ended = False
        self._conditions: Conditions[Observer] = Conditions()
        self.copies = Copies()
        self.companions: list[Any] = []  # the parts that show a piece of it
        self.feed = Feed(self.view, source.live_state, self.changed)
        self.serve()
        source.start(self.feed)

    # -- waiting, commands, files

    def wait(
        self,
        timeout: float | None = None,
        *,
        seq: int | None = None,
        state: str | Collection[str] | None = None,
    ) -> SessionSnapshot:
        """Block this cell (never the widget) until the session has ended, or reached *seq* or *state*.

        It is judged on verified data only. The traits are up to date when this returns, and when it
        raises `SessionFailed`.

        Args:
            timeout: seconds, None for ever.
            seq: an event number to be reached.
            state: a state, or several of which one is enough.

        Raises:
            SessionFailed: it ended as failed, cancelled or crashed, or without reaching what was asked.
            WaitTimeoutError: a `TimeoutError`; the message says what is known.
            ConnectionFailedError: the link is down for good.
            UsageError: called from a callback (it would wait for itself), on a closed observer, or for the
                end of this notebook's own recording.
        """
        self._not_in_a_callback()
        future: Future[Facts] = Future()
        try:  # from here on: an interrupt may come at any moment
            self._wait(future, seq, state)
            future.result(timeout)
        except FutureTimeout:
            raise self._too_late(timeout) from None
        except SessionFailed:
            # Who catches it looks at ``session`` next.
            caller.flush(self).result()
            raise
        finally:
            future.cancel()
        caller.flush(self).result()
        return self._known()

    async def wait_async(
        self,
        timeout: float | None = None,
        *,
        seq: int | None = None,
        state: str | Collection[str] | None = None,
    ) -> SessionSnapshot:
        """As `wait`, without blocking the loop."""
        future: Future[Facts] = Future()
        try:
            self._wait(future, seq, state)
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._too_late(timeout) from None
        except SessionFailed:
            await asyncio.wrap_future(caller.flush(self))
            raise
        finally:
            future.cancel()
        await asyncio.wrap_future(caller.flush(self))
        return self._known()

    def wait_until(self, condition: Callable[[Observer], T], timeout: float | None = None) -> T:
        """Block this cell (never the widget) until ``condition(observer)`` is true; what it returned.

        It is asked at once, and whenever the traits have changed: at most ten times a second, so that what
        was so for a moment only may be missed. It runs on the callbacks' thread, and should be quick.
        ``session`` is None while there is none, and is a verified copy, of the past where the link is lost:
        ask for ``connection.live`` as well where that matters. The session's end alone ends no waiting.

        Args:
            condition: a function of the observer, such as ``lambda obs: obs.watching == 2``.
            timeout: seconds, None for ever.

        Raises:
            WaitTimeoutError: a `TimeoutError`; the message says what is known.
            ConnectionFailedError: it is not true, and the link is down for good.
            UsageError: called from a callback (it would wait for itself), or on a closed observer.
            TypeError: *condition* is no function, or a coroutine function.
            Exception: whatever *condition* raises.
        """
        self._not_in_a_callback()
        words = checked(condition)
        future: Future[T] = Future()
        try:
            self._wait_until(future, condition)
            return future.result(timeout)
        except FutureTimeout:
            if future.done():  # the condition's own
                raise
            raise self._too_late(timeout, f"{words} was not true") from None
        finally:
            future.cancel()

    async def wait_until_async(self, condition: Callable[[Observer], T], timeout: float | None = None) -> T:
        """As `wait_until`, without blocking the loop; *condition* runs on the callbacks' thread as well."""
        words = checked(condition)
        future: Future[T] = Future()
        try:
            self._wait_until(future, condition)
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise
            raise self._too_late(timeout, f"{words} was not true") from None
        finally:
            future.cancel()

    def _wait_until(self, future: Future[T], condition: Callable[[Observer], T]) -> None:
        if self.closed:
            raise UsageError("this observer is closed")

        def begin() -> None:
            self._conditions.enter(future, condition)
            caller.wake(self)

        # As in `_wait`: not the run before one that this process has just begun.
        if not self._source.call_soon(begin):
            begin()

    @staticmethod
    def _not_in_a_callback() -> None:
        if caller.here:
            raise UsageError(
                "wait() in a callback would wait for itself: use another thread, or the trait's change"
            )

    def _wait(self, future: Future[Facts], seq: int | None, state: str | Collection[str] | None) -> None:
        if self.closed:
            raise UsageError("this observer is closed")
        watch, goal = self.feed.watch, Goal.of(seq, state, TRANSITIONS)
        if goal.ends and is_own(self.target, watch.facts.session_id):
            raise UsageError(
                "this would wait for ever: it is this very notebook's recording, which goes on while this "
                "cell runs. Wait for a state or a seq, or in another notebook"
            )
        # Judged on the client's thread, behind what was begun there before: a run that this process has
        # published a moment ago is the one that is meant, and not the end of the run before it.
        if not self._source.call_soon(lambda: watch.enter(future, goal)):
            watch.enter(future, goal)

    def _known(self) -> SessionSnapshot:
        assert self.session is not None  # whoever waited for a fact has a session
        return self.session

    def _too_late(self, timeout: float | None, what: str = "not reached") -> WaitTimeoutError:
        facts, status = self.feed.watch.facts, self._source.status()
        known = (
            f"{facts.state or 'no state'} at seq {facts.seq}" if facts.session_id else "no such session yet"
        )
        doubt = (
            ""
            if facts.current
            else f"; not verified: the link is {status.phase}"
            + (f" ({status.reason})" if status.reason else "")
        )
        looked = f"; looked: {'; '.join(status.looked)}" if status.looked and not status.live else ""
        return WaitTimeoutError(f"{self.target}: {what} within {timeout:g} s: {known}{doubt}{looked}")

    def command(
        self, name: str, *, chain: str = "", step: str = "", deadline: float = 30.0, **args: Scalar
    ) -> Future[Command]:
        """Send a command to the session: ``obs.command("pause")``.

        Returns a future of the command's record once the server has it; what becomes of it is in
        ``session.commands``. *deadline*: seconds after which it expires, if the producer has not accepted it.

        Raises:
            UsageError: the observer is closed, or there is no session yet.
        """
        if self.closed:
            raise UsageError("this observer is closed")
        return self._source.command(name, chain, step, dict(args), deadline)

    def value(self, sha256: str, *, timeout: float = 120.0) -> bytes:
        """An input or output of the session, whole, by its digest: what the details show page by page.

        Waits for the session, if it is not known yet. *timeout* in seconds.

        Raises:
            WaitTimeoutError: it has not come in time.
            RequestError: the server does not keep such a value of this session.
            UsageError: called from a callback, or on a closed observer.
        """
        until = now().mono + timeout
        if self._source.snapshot() is None:
            self.wait(timeout, seq=1)
        state = self._source.snapshot()
        session = "" if state is None else state.topic
        if state is not None and (known := inline(state, sha256)) is not None:
            return known
        return whole(
            lambda offset, length: self._source.fetch_value(session, sha256, offset, length),
            lambda: until - now().mono,
        )

    def reconnect_now(self) -> None:
        """Try to reach the server at once."""
        self._source.reconnect_now()

    def to_html(self, path: str | Path) -> Path:
        """Write the session as one HTML file that stands alone, and return its path.

        While the link is there, log lines and recorded outputs are fetched for it, for 30 s at the most.

        Raises:
            UsageError: there is no session yet.
            OSError: the file cannot be written.
        """
        from .html_file import write

        path = Path(path)
        write(self._source, path)
        return path

    def to_frame(self, what: Literal["steps", "events"] = "steps") -> pd.DataFrame:
        """The steps, or the events, as a pandas DataFrame.

        ``"steps"``: one row per step, and each attempt is one (columns: `snapshot.COLUMNS`). ``"events"``:
        one row per event of the session, and per change of the link (columns: `chronicle.Entry`): what this
        observer saw, filled up with what the server still keeps. Times are UTC timestamps, NaT for what
        has not happened. Where there is nothing the frame is empty, and has its columns all the same.

        Raises:
            ImportError: pandas is not installed.
            UsageError: there is no session yet, or *what* is something else.
        """
        from .tables import check, events_frame, steps_frame

        check(what)
        if what == "events":
            return events_frame(self.feed.chronicle.entries(self._source.history(HISTORY_PATIENCE)))
        snapshot = self.session
        if snapshot is None:
            raise UsageError("there is no session yet")
        return steps_frame(snapshot)

    def release(self) -> None:
        """Nobody can wait any more; leave the connection."""
        closed = UsageError("the observer was closed")
        self.feed.watch.end(closed)
        self._conditions.end(closed)
        self._source.close()
        forget(self)
        for part in list(self.companions):
            part.close()

    def report(self, code: str, message: str, *, traceback: str = "") -> None:
        """Something is to be seen in ``errors``."""
        self.feed.report(code, message, traceback=traceback)

    # -- traits (the callbacks' thread)

    def refresh(self) -> None:
        """Bring the public traits up to date."""
        feed = self.feed
        state = self._source.snapshot()
        snapshot = None if state is None else take(state)
        # One notification after all are set: a callback sees traits that fit together.
        with self.hold_trait_notifications():
            self.set_trait("connection", feed.status)
            self.set_trait("watching", feed.presence)
            if feed.errors_told != self._errors_told:
                self._errors_told = feed.errors_told
                self.set_trait("errors", tuple(feed.errors))
            old = self.session
            if (
                snapshot is None
                or old is None
                or (old.id, old.epoch, old.seq) != (snapshot.id, snapshot.epoch, snapshot.seq)
            ):
                self.set_trait("session", snapshot)
                self.set_trait("seq", 0 if snapshot is None else snapshot.seq)
                self.set_trait("run", 0 if snapshot is None else snapshot.run)
                self.set_trait("state", "" if snapshot is None else snapshot.state)
        self._update_copies(snapshot)
        link = self.connection
        failed = ConnectionFailedError(link.code, link.reason or link.code)
        self._conditions.judge(self, failed if link.phase == "failed" else None)

    # -- the sender's thread

    def drain(self, moment: Now) -> None:
        """Bring the view up to date."""
        self.feed.drain(moment)
        ended = self.view.terminal
        if ended != self._ended:
            self._ended = ended
            self.pacing.hurry()

    def beat(self, moment: Now) -> Frame:
        """How the link is at this moment."""
        return self.view.beat(moment, self._source.status())

    def questions(self) -> Mapping[str, Question]:
        """What a browser may ask."""
        return questions(self.view, self._source)

    # -- display

    def __repr__(self) -> str:
        return plain(self.target)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        made = super()._repr_mimebundle_(**kwargs)
        data, metadata = made if isinstance(made, tuple) else (made, {})
        if data is None:
            return None
        return {**data, "text/plain": plain(self.target), "text/html": placeholder(self.target)}, metadata

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        if self.closed:
            publish_display_data({"text/plain": f"{plain(self.target)}, closed"})
            return
        data, metadata = self._repr_mimebundle_()
        publish_display_data(data, metadata)
        self.leave_copy()

    def copied(self) -> Copies:
        """What its static copies are; they are its parts' too."""
        return self.copies

    def leave_copy(self) -> None:
        """Display a static copy in the cell that runs now; it is kept up to date."""
        state = self._source.snapshot()
        # Of very many steps the copy is made by another thread: a cell is not to wait for it.
        snapshot = take(state) if state is not None and len(state.steps) <= STEPS_AT_ONCE else None
        if snapshot is None:
            self.copies.display()
        else:
            as_of, key = self._copied_at(snapshot)
            self.copies.display(trace(snapshot, as_of, live=self.feed.status.current), now().mono, key)
        caller.wake(self)

    def _update_copies(self, snapshot: SessionSnapshot | None) -> None:
        """Bring the static copies up to date: at the end, when the link is lost, and once a minute."""
        if snapshot is not None:
            as_of, key = self._copied_at(snapshot)
            live = self.feed.status.current
            self.copies.update(lambda: trace(snapshot, as_of, live=live), now().mono, key)

    def _copied_at(self, snapshot: SessionSnapshot) -> tuple[int, Hashable]:
        """Up to when *snapshot* is verified, in milliseconds, and what is told at once when it changes."""
        moment, status = now(), self.feed.status
        key = (snapshot.id, snapshot.state) if snapshot.terminal else None
        doubt = None if status.current else ("lost", status.lost_at, status.degraded)
        return moment.known(status), key or doubt


# ---------------------------------------------------------------------- one observer per target

_lock = RLock()
_memo: dict[tuple[Any, ...], Observer] = {}


def remembered(key: tuple[Any, ...], make: Callable[[], Observer]) -> Observer:
    """The open observer that was made for *key*, or a new one."""
    with _lock:
        found = _memo.get(key)
        if found is None or found.closed:
            found = _memo[key] = make()
        return found


def forget(observer: Observer) -> None:
    """*observer* was closed: the next call makes another."""
    with _lock:
        for key in [key for key, other in _memo.items() if other is observer]:
            del _memo[key]


def observers() -> list[Observer]:
    """The open observers of this process that `wsmonitor.watch` remembers."""
    with _lock:
        return list(_memo.values())
