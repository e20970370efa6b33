"""`SessionList`: all sessions of a server that a token covers, live: the dashboard."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from html import escape
from typing import Any, Final

import ipywidgets
import traitlets

from wsmonitor.client import ConnectionStatus as LinkStatus
from wsmonitor.client import Subscription, Target, connect
from wsmonitor.client.types import BatchApplied, EventApplied, PhaseChanged, Ssl, SyncCompleted, Update
from wsmonitor.protocol.entities import ErrorInfo, Listing
from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.ids import directory_topic

from .copies import EVERY, Copies
from .feed import ERROR_LIMIT, now
from .listings import Listings
from .live import LiveWidget, caller
from .observer import Observer
from .parts import Chosen
from .view import Frame, Now
from .watching import borrow, check_name, person, watch

INTERVAL: Final = 300
"""Milliseconds between two tellings of what changed: nobody reads faster."""

_making = threading.RLock()
_memo: dict[tuple[Any, ...], SessionList] = {}


class _OnePerServer(type(LiveWidget)):  # type: ignore[misc]  # its type is not known to mypy
    """Makes one list per server, token and name: a cell that is run again leaves one, not two."""

    def __call__(
        cls,
        target: str | None = None,
        *,
        url: str | None = None,
        token: str | Callable[[], str] | None = None,
        name: str | None = None,
        open: bool = False,
        new: bool = False,
        ssl: Ssl | None = None,
        insecure: bool | None = None,
    ) -> Any:
        who = name if name is not None else person()
        key = (url or os.environ.get("WSMONITOR_URL", ""), token, target or "", who, ssl, insecure)
        with _making:
            found = _memo.get(key)
            if found is None or found.closed or new:
                found = super().__call__(target, url=url, token=token, name=who, ssl=ssl, insecure=insecure)
                if not new:
                    _memo[key] = found
            found.opens = open
            return found


class SessionList(LiveWidget, metaclass=_OnePerServer):
    """The sessions of a server, live: ``wm.SessionList()``. Returns at once.

    The same call gives the same list, so that a cell that is run again leaves one, not two.

    Args:
        target: a name, to list its runs only.
        url, token, name, ssl, insecure: as `wsmonitor.watch` takes them. Only sessions that the token
            covers are listed.
        open: show the chosen session's observer below the list.
        new: make another list, also where there is one.

    Traits:
        selected (str): the chosen session's id, "" for none. Set it to choose. What a reader chooses arrives
            also while a cell runs.
        count (int): how many sessions there are. Read-only, as are the following.
        states (dict): how many of them are in which state.
        live (bool): the link to the server is there, and the list is current.
        connection (ConnectionStatus): how the link is; see `Observer`.
        errors (tuple[ErrorInfo, ...]): the last 100 things that went wrong.

    Raises:
        UsageError: *target* can be no name.
        ConfigurationError: a URL or a setting that cannot be right.
    """

    selected = traitlets.Unicode("").tag(sync=True)
    count = traitlets.Int(0, read_only=True)
    states = traitlets.Dict(read_only=True)
    live = traitlets.Bool(False, read_only=True)
    connection = traitlets.Instance(LinkStatus, args=(), read_only=True)
    errors = traitlets.Tuple(read_only=True)

    view: Listings

    def __init__(
        self,
        target: str | None = None,
        *,
        url: str | None = None,
        token: str | Callable[[], str] | None = None,
        name: str | None = None,
        open: bool = False,
        new: bool = False,
        ssl: Ssl | None = None,
        insecure: bool | None = None,
    ) -> None:
        # `open` and `new` are what the metaclass looks at.
        self.target = check_name(target) if target else ""
        place: dict[str, Any] = {
            "url": url,
            "token": token,
            "name": name or "",
            "ssl": ssl,
            "insecure": insecure,
        }
        self._place = place
        self.opens = False
        self._panel: ipywidgets.VBox | None = None
        self._shown: Observer | None = None
        self._callbacks: list[Callable[[str], Any]] = []
        self._chosen = Chosen()
        self._choice: str | None = None
        self._taken: str | None = None
        self._problems: list[ErrorInfo] = []
        self._lock = threading.Lock()
        self._whole: list[Listing] | None = None
        self._changes: dict[str, Listing | None] = {}
        self._position = ("", 0)
        self._phase: PhaseChanged = PhaseChanged("waiting")
        super().__init__(Listings(self.target), _part="sessions")
        self.copies = Copies()
        self._connection = connect(Target(**place, start=False))
        self._status = self._connection.status
        self._subscription: Subscription | None = None
        self.observe(lambda change: self._choice_made(change["new"]), "selected")
        self.serve()
        self._connection.listen(self._on_status)
        self._connection.call_soon(self._begin)

    # -- from the server (the client's thread)

    def _begin(self) -> None:
        if not self.closed:
            self._subscription = self._connection.subscribe(
                directory_topic(self.target or None), self._on_update, delivery="latest", interval_ms=INTERVAL
            )

    def _on_status(self, status: LinkStatus) -> None:
        self._status = status
        if status.phase in ("waiting", "failed"):
            self.report(status.code or "unreachable", status.reason or "no connection", again=True)
        self.changed()

    def _on_update(self, update: Update) -> None:
        subscription = self._subscription
        state = None if subscription is None else subscription.state
        with self._lock:
            match update:
                case EventApplied(event, entity):
                    self._merge([] if entity is None else [entity], event.drop)
                case BatchApplied(_, entities, dropped):
                    self._merge([entity for _, entity in entities], dropped)
                case SyncCompleted() if state is not None:
                    self._whole = list(state.listings.values())
                    self._changes.clear()
                case PhaseChanged():
                    self._phase = update
                case _:
                    return
            if state is not None:
                self._position = (state.epoch, state.seq)
        self.changed()

    def _merge(self, entities: list[Any], dropped: Any) -> None:
        for entity in entities:
            if isinstance(entity, Listing):
                self._changes[entity.id] = entity
        for kind, ident in dropped:
            if kind == "listing":
                self._changes[ident] = None

    # -- the sender's thread

    def drain(self, moment: Now) -> None:
        """Bring the view up to date."""
        with self._lock:
            whole, self._whole = self._whole, None
            changes, self._changes = self._changes, {}
            phase, position = self._phase, self._position
        view = self.view
        if whole is not None:
            view.replace(whole)
        for ident, listing in changes.items():
            if listing is None:
                view.drop(ident)
            else:
                view.put(listing)
        view.position(*position)
        view.subscription(phase.phase, phase.reason)
        view.connection(self._status)

    def beat(self, moment: Now) -> Frame:
        """How the link is at this moment."""
        return self.view.beat(moment, self._connection.status)

    # -- for user code

    @property
    def sessions(self) -> tuple[Listing, ...]:
        """What is listed, verified: what is open first, then the newest; () before the first answer."""
        from .listings import urgency

        subscription = self._subscription
        state = None if subscription is None else subscription.snapshot()
        return () if state is None else tuple(sorted(state.listings.values(), key=urgency, reverse=True))

    def on_select(self, callback: Callable[[str], Any], remove: bool = False) -> None:
        """Call ``callback(session_id)`` when a session is chosen, on the callbacks' thread.

        What it raises lands in ``errors``. *remove*: do so no longer.
        """
        if remove:
            self._callbacks.remove(callback)
        else:
            self._callbacks.append(callback)

    def watch(self) -> Observer:
        """The observer of the chosen session, as `wsmonitor.watch` gives it.

        Raises:
            UsageError: none is chosen.
        """
        if not self.selected:
            raise UsageError("no session is chosen")
        return watch(self.selected, **self._place)

    def reconnect_now(self) -> None:
        """Try to reach the server at once."""
        self._connection.reconnect_now()

    def report(self, code: str, message: str, *, traceback: str = "", again: bool = False) -> None:
        """Something is to be seen in ``errors``."""
        details = {"traceback": traceback} if traceback else {}
        self._problems.append(ErrorInfo(code=code, message=message, retryable=again, details=details))
        del self._problems[:-ERROR_LIMIT]
        caller.wake(self)

    def release(self) -> None:
        """Leave the connection, and the observer that was opened here."""
        if self._subscription is not None:
            self._subscription.close()
        self._connection.close()
        with _making:
            for key in [key for key, other in _memo.items() if other is self]:
                del _memo[key]
        if self._panel is not None:
            self._show(None)
            self._panel.close()
            self._panel.layout.close()

    # -- traits (the callbacks' thread)

    def refresh(self) -> None:
        """Bring the public traits up to date."""
        choice, self._choice = self._choice, None
        if choice is not None and choice != self.selected:
            # The browser has it already.
            self._taken = choice
            try:
                self.selected = choice
            finally:
                self._taken = None
        listed = self.sessions
        states: dict[str, int] = {}
        for listing in listed:
            states[listing.state] = states.get(listing.state, 0) + 1
        status = self._status
        with self.hold_trait_notifications():
            self.set_trait("connection", status)
            self.set_trait("live", status.current and self._phase.phase == "live")
            self.set_trait("count", len(listed))
            self.set_trait("states", dict(sorted(states.items())))
            if tuple(self._problems) != self.errors:
                self.set_trait("errors", tuple(self._problems))
        if self._position[0]:
            lost = None if status.current else ("lost", status.lost_at, status.degraded)
            self.copies.update(lambda: self._static_copy(listed), now().mono, lost)

    def _should_send_property(self, key: str, value: Any) -> bool:
        taken = key == "selected" and value == self._taken
        return not taken and bool(super()._should_send_property(key, value))

    def hear(self, message: dict[str, Any], *, live: bool) -> None:
        """The browser said something."""
        row = self._chosen.take(message)
        if row is not None:
            self._choice = row
            caller.wake(self)
        super().hear(message, live=live)

    def _choice_made(self, ident: str) -> None:
        for callback in list(self._callbacks):
            if ident:
                try:
                    callback(ident)
                except Exception as exc:  # noqa: BLE001 - the user's code: nothing of ours may stop for it
                    self.callback_failed(exc)
        if self._panel is not None:
            self._show(ident)

    # -- display

    def _show(self, ident: str | None) -> None:
        """Show the observer of session *ident* below the list, in the place of the one before."""
        panel, old = self._panel, self._shown
        assert panel is not None
        self._shown = borrow(ident, **self._place) if ident else None
        panel.children = (self,) if self._shown is None else (self, self._shown)
        if old is not None and old is not self._shown and old.borrowed and not old.companions:
            old.close()

    def __repr__(self) -> str:
        return f"SessionList({repr(self.target) if self.target else ''})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        made = super()._repr_mimebundle_(**kwargs)
        data, metadata = made if isinstance(made, tuple) else (made, {})
        what = f"runs of <b>{escape(self.target)}</b>" if self.target else "sessions"
        html = (
            f"<p><b>wsmonitor</b> list of {what}. "
            "The live view needs a running kernel: run this cell. A static copy is below.</p>"
        )
        return {**(data or {}), "text/plain": repr(self), "text/html": html}, metadata

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        if self.closed:
            publish_display_data({"text/plain": f"{self!r}, closed"})
            return
        data, metadata = self._repr_mimebundle_()
        if self.opens:
            if self._panel is None:
                self._panel = ipywidgets.VBox([self])
                if self.selected:
                    self._show(self.selected)
            view = "application/vnd.jupyter.widget-view+json"
            data = {**data, view: self._panel._repr_mimebundle_()[view]}
        publish_display_data(data, metadata)
        self.leave_copy()

    def copied(self) -> Copies:
        """What its static copies are."""
        return self.copies

    def leave_copy(self) -> None:
        """Display a static copy in the cell that runs now; it is kept up to date."""
        listed = self.sessions
        known = bool(self._position[0])
        self.copies.display(self._static_copy(listed) if known else "", now().mono if known else -EVERY)
        caller.wake(self)

    def _static_copy(self, listed: tuple[Listing, ...]) -> str:
        from .reports import listing_table
        from .trace import STATIC_ROWS, static_list

        moment, status = now(), self._status
        as_of, current = moment.known(status), status.current
        table = listing_table(listed[:STATIC_ROWS], live=current)._repr_html_()
        return static_list(table, len(listed), as_of, live=current)
