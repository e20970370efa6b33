"""The observer's pieces as small widgets, to be put together with any others of ipywidgets.

A part has no data of its own. In the kernel it looks at its `Observer`; in the browser it is drawn from the
same store as the observer's own views, and sends nothing. So ten parts cost the server and the kernel
no more than one observer.

The traits of a part are *mirrored*: the kernel keeps its copy from the observer, the browser its own from
the store, and neither is sent to the other. That is what makes ``jslink`` work while a cell runs, and in the
browser a trait also tells what only the browser can know: that the kernel is not heard. ``selected`` alone is
the reader's, and travels both ways.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from html import escape
from typing import Any, ClassVar, Final

import anywidget
import traitlets

from wsmonitor.protocol.entities import Chain, Session, Step
from wsmonitor.protocol.errors import UsageError

from . import boxes, kernel_channel
from .bundle import PART_ENTRY, bundle
from .copies import Copies
from .feed import now
from .live import caller, heard
from .observer import Observer

SPEAKERS: Final = 50
"""How many browser views are told apart by their numbering."""

_making = threading.RLock()


class _OnePerObserver(type(anywidget.AnyWidget)):  # type: ignore[misc]  # its type is not known to mypy
    """Makes one part of a class per observer: a cell that is run again leaves one, not two."""

    def __call__(cls, target: Any, *, new: bool = False, **options: Any) -> Any:
        with _making:
            observer = _observer(target, options)
            if not new:
                for part in observer.companions:
                    # Not of exactly this type: anywidget gives each widget a class of its own.
                    if isinstance(part, cls) and not part.closed:
                        return part
            return super().__call__(observer)


def _observer(target: Any, options: dict[str, Any]) -> Observer:
    if isinstance(target, Observer):
        if options:
            raise TypeError(f"an observer is given: {', '.join(sorted(options))} cannot be changed here")
        if target.closed:
            raise UsageError("this observer is closed: watch anew")
        return target
    from .watching import borrow

    return borrow(target, **options)


class _Age(traitlets.Float):  # type: ignore[type-arg]  # traitlets' own type takes two
    """Seconds since the server was last heard: computed when it is read, because it changes by itself."""

    def get(self, obj: Any, cls: Any = None) -> float | None:
        observer = obj.__dict__.get("observer")
        at = None if observer is None else observer.connection.last_frame_at
        return None if at is None else max(0.0, now().mono - at)


class Part(anywidget.AnyWidget, metaclass=_OnePerObserver):
    """Base of the parts: ``Part(target, *, new=False, ...)``.

    Args:
        target: an `Observer`, or what `wsmonitor.watch` takes; further keywords are those of ``watch``.
        new: make another one, also where there is one of this class for this observer.

    The observer that a part was given lives on when the part is closed. One that it made itself is closed
    with the last part that uses it, unless `wsmonitor.watch` has given it to somebody in between. A part is
    closed with its observer.

    Traits, read-only:
        live (bool): the link to the server is there. In the browser: what is shown is known to be current.
        seq (int): the number of the last event.

    Attributes:
        observer: what it shows a piece of.
        closed: whether `close` was called.
    """

    live = traitlets.Bool(False, read_only=True).tag(sync=True)
    seq = traitlets.Int(0, read_only=True).tag(sync=True)

    _of = traitlets.Unicode().tag(sync=True)
    _observer_model = traitlets.Unicode().tag(sync=True)
    _piece = traitlets.Unicode().tag(sync=True)
    _token = traitlets.Unicode().tag(sync=True)

    observer: Observer
    closed = False

    _esm = bundle(entry=PART_ENTRY)

    piece: ClassVar[str] = ""
    """Which piece of the front-end it is: see static/parts.js."""

    words: ClassVar[str] = ""
    """What it is, in words."""

    mirrored: ClassVar[frozenset[str]] = frozenset({"live", "seq"})
    """The traits that the kernel and the browser each keep by themselves."""

    def __init__(self, target: Any, **options: Any) -> None:
        assert isinstance(target, Observer)  # the metaclass has made it one
        observer = target
        super().__init__(
            _of=observer._token,
            _observer_model=observer.model_id or "",
            _piece=self.piece,
            _token=secrets.token_hex(12),
        )
        self._own_layout = self.layout
        self._close_lock = threading.Lock()
        self.observer = observer
        observer.companions.append(self)
        caller.add(self)
        observer.observe(self._looked, ["connection", "session", "seq", "watching"])
        caller.wake(self)
        kernel_channel.register(self._token, self)
        boxes.teach()
        self.on_msg(heard(weakref.ref(self)))

    def close(self) -> None:
        """Take it out of the notebook. Idempotent."""
        if "observer" not in self.__dict__:
            super().close()  # it never came to life
            return
        with self._close_lock:
            already, self.closed = self.closed, True
        if already:
            return
        observer = self.observer
        with _making:
            observer.companions.remove(self)
            last = observer.borrowed and not observer.companions
        if not observer.closed:
            observer.unobserve(self._looked, ["connection", "session", "seq", "watching"])
        caller.remove(self)
        kernel_channel.forget(self._token)
        super().close()
        # A widget of its own, which ipywidgets makes for each and keeps for ever.
        self._own_layout.close()
        if last:
            observer.close()

    # -- traits (the callbacks' thread)

    def _looked(self, change: Any) -> None:
        if not self.closed:
            self.update_traits()

    def update_traits(self) -> None:
        """Bring the traits up to date. On the callbacks' thread; nothing is raised."""
        try:
            with self.hold_trait_notifications():
                for name, value in self.facts().items():
                    self.set_trait(name, value)
        except Exception as exc:  # noqa: BLE001 - a user's callback: nothing of ours may stop for it
            self.observer.callback_failed(exc)

    def facts(self) -> Mapping[str, Any]:
        """The traits' values, from the observer's."""
        return {"live": self.observer.connection.current, "seq": self.observer.seq}

    def _should_send_property(self, key: str, value: Any) -> bool:
        return key not in self.mirrored and bool(super()._should_send_property(key, value))

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """As in ipywidgets, but what the kernel knows by itself is not taken from a browser."""
        super().set_state({key: value for key, value in sync_data.items() if key not in self.mirrored})

    # -- from the browser (any thread)

    def hear(self, message: dict[str, Any], *, live: bool) -> None:
        """The browser said something. Must not block."""

    # -- display

    def __repr__(self) -> str:
        words = f"{type(self).__name__}({self.observer.target!r})"
        return f"{words}, closed" if self.closed else words

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        made = super()._repr_mimebundle_(**kwargs)
        data, metadata = made if isinstance(made, tuple) else (made, {})
        html = (
            f"<p><b>wsmonitor</b> {self.words} of <b>{escape(self.observer.target)}</b>. "
            "The live view needs a running kernel: run this cell. A static copy is below.</p>"
        )
        return {**(data or {}), "text/plain": repr(self), "text/html": html}, metadata

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        if self.closed:
            publish_display_data({"text/plain": repr(self)})
            return
        publish_display_data(*self._repr_mimebundle_())
        self.leave_copy()

    def copied(self) -> Copies:
        """Its static copies are its observer's."""
        return self.observer.copies

    def leave_copy(self) -> None:
        """Display a static copy in the cell that runs now; it is kept up to date."""
        self.observer.leave_copy()


class Chosen:
    """What readers chose, of several views that number their choices: a late one changes nothing."""

    def __init__(self) -> None:
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, message: dict[str, Any]) -> str | None:
        """The choice in *message*; None if it is none, or an old one."""
        by, number, row = message.get("by"), message.get("n"), message.get("row")
        if message.get("do") != "select" or not isinstance(row, str) or len(row) > 500:
            return None
        if not isinstance(by, str) or len(by) > 100 or not isinstance(number, int):
            return None
        with self._lock:
            if number <= self._numbers.get(by, 0):
                return None
            self._numbers[by] = number
            self._numbers.move_to_end(by)
            while len(self._numbers) > SPEAKERS:
                self._numbers.popitem(last=False)
        return row


class ConnectionStatus(Part):
    """How the link to the server is: the observer's strip by itself, with "why?" and "Reconnect now".

    Traits, read-only, besides those of `Part`:
        phase (str): ``idle locating connecting authenticating live waiting failed closed``.
        reason (str): why it is not live, in words; "" while it is.
        attempt (int): attempts since the link was last there.
        rtt (float | None): the round-trip time in seconds.
        age (float | None): seconds since the server was last heard. Computed when it is read; in the browser
            it goes on by itself, once a second. In the kernel it is not observed.
        state (str): the session's state, "" while there is none.
        watching (int): how many people watch the session.
    """

    phase = traitlets.Unicode("idle", read_only=True).tag(sync=True)
    reason = traitlets.Unicode("", read_only=True).tag(sync=True)
    attempt = traitlets.Int(0, read_only=True).tag(sync=True)
    rtt = traitlets.Float(None, allow_none=True, read_only=True).tag(sync=True)
    age = _Age(None, allow_none=True, read_only=True).tag(sync=True)
    state = traitlets.Unicode("", read_only=True).tag(sync=True)
    watching = traitlets.Int(0, read_only=True).tag(sync=True)

    piece = "status"
    words = "connection status"
    mirrored = Part.mirrored | {"phase", "reason", "attempt", "rtt", "age", "state", "watching"}

    def facts(self) -> Mapping[str, Any]:
        """See the class."""
        observer = self.observer
        status = observer.connection
        return {
            **super().facts(),
            "phase": status.phase,
            "reason": "" if status.live else status.reason,
            "attempt": status.attempt,
            "rtt": status.rtt,
            "state": observer.state,
            "watching": observer.watching,
        }


class Heartbeat(Part):
    """The two links at a glance: server and producer, each with its beat.

    Traits, read-only, besides those of `Part`:
        rtt (float | None): the round-trip time to the server in seconds.
        age (float | None): as in `ConnectionStatus`.
        producer (str): the worst of what is heard of the programs that publish the session: ``live stale
            lost``; ``closed`` when all have said goodbye; "" while there is none, or while it is not
            known, because the link to the server is down.
    """

    rtt = traitlets.Float(None, allow_none=True, read_only=True).tag(sync=True)
    age = _Age(None, allow_none=True, read_only=True).tag(sync=True)
    producer = traitlets.Unicode("", read_only=True).tag(sync=True)

    piece = "heartbeat"
    words = "heartbeat"
    mirrored = Part.mirrored | {"rtt", "age", "producer"}

    def facts(self) -> Mapping[str, Any]:
        """See the class."""
        return {**super().facts(), "rtt": self.observer.connection.rtt, "producer": self._heard_producer()}

    def _heard_producer(self) -> str:
        snapshot = self.observer.session
        if snapshot is None or not self.observer.connection.current or not snapshot.producers:
            return ""
        open_ones = {one.liveness for one in snapshot.producers.values() if not one.closed}
        if snapshot.terminal or not open_ones:
            return "closed"
        return next(word for word in ("lost", "stale", "live") if word in open_ones)


class EventLog(Part):
    """What happened, newest first: the session's events, and the link's.

    Traits, read-only, besides those of `Part`:
        last (str): the newest entry in words; "" while there is none.
    """

    last = traitlets.Unicode("", read_only=True).tag(sync=True)

    piece = "log"
    words = "event log"
    mirrored = Part.mirrored | {"last"}

    def facts(self) -> Mapping[str, Any]:
        """See the class."""
        return {**super().facts(), "last": self.observer.feed.chronicle.newest}


class SessionTree(Part):
    """Chains, steps and their timeline.

    Traits, besides those of `Part`:
        state (str): the session's state, "" while there is none. Read-only.
        selected (str): the chosen row: ``c:`` and a chain's id, ``s:`` and a step's id (its first attempt's);
            "" for none. Set it to choose and show a row. What a reader chooses arrives also while a cell
            runs.
    """

    state = traitlets.Unicode("", read_only=True).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)

    piece = "tree"
    words = "tree"
    mirrored = Part.mirrored | {"state"}

    def __init__(self, target: Any, **options: Any) -> None:
        self._chosen = Chosen()
        self._choice: str | None = None
        self._taken: str | None = None
        super().__init__(target, **options)

    def facts(self) -> Mapping[str, Any]:
        """See the class."""
        return {**super().facts(), "state": self.observer.state}

    def update_traits(self) -> None:
        """As in `Part`, and what the reader has chosen."""
        choice, self._choice = self._choice, None
        if choice is not None and choice != self.selected:
            self._take_choice(choice)
        super().update_traits()

    def _take_choice(self, choice: str) -> None:
        self._taken = choice
        try:
            self.selected = choice
        except Exception as exc:  # noqa: BLE001 - a user's callback: nothing of ours may stop for it
            self.observer.callback_failed(exc)
        finally:
            self._taken = None

    def _should_send_property(self, key: str, value: Any) -> bool:
        # The browser has it already.
        taken = key == "selected" and value == self._taken
        return not taken and super()._should_send_property(key, value)

    def hear(self, message: dict[str, Any], *, live: bool) -> None:
        """The reader chose a row."""
        row = self._chosen.take(message)
        if row is not None:
            self._choice = row
            caller.wake(self)

    @property
    def record(self) -> Session | Chain | Step | None:
        """The record of the chosen row, of a step its newest attempt; None without a choice, or a row."""
        snapshot = self.observer.session
        if snapshot is None or ":" not in self.selected:
            return None
        kind, _, ident = self.selected.partition(":")
        if kind == "c":
            return snapshot.chains.get(ident)
        first = snapshot.steps.get(ident)
        if first is None or not first.step_key:
            return first
        key = (first.chain, first.parent, first.step_key)
        attempts = [s for s in snapshot.steps.values() if (s.chain, s.parent, s.step_key) == key]
        return max(attempts, key=lambda step: step.attempt)
