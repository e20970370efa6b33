"""Live widgets in a page that opens, or is loaded again, while a cell runs.

JupyterLab and Notebook 7 find a notebook's widgets by asking the kernel for them on the shell channel, where
a running cell stands in the way: the page shows "Loading widget…" until the cell has ended (see
docs/explanation/pages-and-busy-kernels.md). But what the kernel *says* arrives all the same. So the kernel
says it unasked: when somebody new listens to its IOPub socket, and no page has brought a live widget to life
shortly after, it announces a small widget, `_Reviver`, whose front-end (static/revive.js) makes those of our
widgets that the page lacks from the state that comes with it. A page that has them takes no notice.

Who listens is known from the socket's own monitor, which is ZeroMQ's and needs no protocol. Where there is no
such socket (no kernel, another kernel), nothing happens, and pages show the widgets when the cell has ended.
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import anywidget
import traitlets

from .bundle import bundle

AFTER: Final = (0.4, 0.8, 1.2, 1.7, 2.5, 4.0, 8.0)
"""Seconds after a listener has come at which it is told, unless a page has spoken: the first may come too
early for a page that is still being made, and a page that is not busy needs none of it."""

COMPLETE: Final = 0.3
"""Seconds after an announcement at which key frames are sent: a page's own request for one may wait for 3 s,
in which its front-end holds all messages back because the kernel has not told who it is."""

CLOSE_AFTER: Final = 20.0
"""Seconds after which an announcement is taken back: its page has long done what it says."""

LIMIT: Final = 230_000
"""Characters of widget state in one announcement, about; what is beyond it comes with the next."""


class Due:
    """When to announce. Pure: time is an argument, in seconds."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def came(self, now: float) -> None:
        """Somebody new listens."""
        self._times = sorted([*self._times, *(now + wait for wait in AFTER)])[: 4 * len(AFTER)]

    def spoke(self) -> None:
        """A page has brought a widget to life: no page needs more."""
        self._times = []

    def take(self, now: float) -> bool:
        """Whether to announce at *now*; several that are due are one."""
        due = [at for at in self._times if at <= now]
        del self._times[: len(due)]
        return bool(due)

    def next(self) -> float | None:
        """When to ask again."""
        return self._times[0] if self._times else None


class _Reviver(anywidget.AnyWidget):
    """The announcement: shows nothing."""

    _esm = bundle(entry="revive.js")
    _models: Any = traitlets.List().tag(sync=True)
    """``[{"id", "state"}]``, each after those that it refers to. Code and style, which many of them have
    alike, stand in ``_texts``, and in a state ``{"text": its number}``."""
    _texts: Any = traitlets.List().tag(sync=True)


def _state(widget: Any, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    found: dict[str, Any] = widget.get_state(key=set(widget.keys) - leave_out)
    return found


def announcements(widgets: Iterable[Any]) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    """What makes *widgets* in a page: models and texts, as `_Reviver` has them; in parts of `LIMIT`."""
    models: list[dict[str, Any]] = []
    texts: list[str] = []
    size = 0
    for widget in widgets:
        # A key frame may be large, and comes as soon as the page has said hello.
        state = _state(widget, frozenset({"_key"}))
        large = {name: state[name] for name in ("_esm", "_css") if isinstance(state.get(name), str)}
        small = {name: value for name, value in state.items() if name not in large}
        more = len(str(small)) + sum(len(text) for text in large.values() if text not in texts)
        if models and size + more > LIMIT:
            yield models, texts
            models, texts, size = [], [], 0
            more = len(str(small)) + sum(map(len, large.values()))
        size += more
        texts += [text for text in dict.fromkeys(large.values()) if text not in texts]
        numbers = {name: {"text": texts.index(text)} for name, text in large.items()}
        models += [
            {"id": widget.layout.model_id, "state": _state(widget.layout)},
            {"id": widget.model_id, "state": {**small, **numbers}},
        ]
    if models:
        yield models, texts


class Revival:
    """Watches who listens to this process's kernel, for as long as there are widgets to announce.

    Its thread is idle until somebody comes, and ends with the last widget. *clock* gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._widgets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._due = Due()
        self._thread: threading.Thread | None = None
        self._iopub: Any = None

    def offer(self, widget: Any) -> None:
        """Announce *widget* from now on, until `withdraw`."""
        with self._lock:
            self._widgets.add(widget)
            if self._thread is not None:
                return
            self._iopub = _iopub_thread()
            if self._iopub is None:
                return
            self._thread = threading.Thread(target=self._run, name="wsmonitor-revival", daemon=True)
            self._thread.start()

    def withdraw(self, widget: Any) -> None:
        """No longer."""
        with self._lock:
            self._widgets.discard(widget)
            if not self._widgets and self._thread is not None:
                # That ends the wait of the thread.
                _unmonitor(self._iopub)

    def spoke(self) -> None:
        """A page has brought a widget to life."""
        with self._lock:
            self._due.spoke()

    def _run(self) -> None:
        while True:
            goes_on = self._watch()
            with self._lock:
                if not goes_on or not self._widgets:
                    self._thread = None
                    return

    def _watch(self) -> bool:
        """Until the monitor is stopped, because there are no widgets, or the kernel ends: then False."""
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        monitor = _monitor(self._iopub)
        if monitor is None:
            return False
        with self._lock:
            if not self._widgets:
                _unmonitor(self._iopub)
        announced: list[tuple[float, _Reviver]] = []
        complete: list[float] = []
        try:
            while True:
                now = self._clock()
                with self._lock:
                    announce = self._due.take(now)
                    following = self._due.next()
                if announce:
                    announced += [(now + CLOSE_AFTER, made) for made in self._announce()]
                    complete.append(now + COMPLETE)
                if complete and complete[0] <= now:
                    complete.pop(0)
                    for widget in self._open():
                        if hasattr(widget, "announced"):
                            widget.announced()
                while announced and announced[0][0] <= now:
                    _take_back(announced.pop(0)[1])
                times = [*complete[:1], *(at for at, _ in announced[:1])]
                times += [following] if following is not None else []
                wait = max(0, round((min(times) - now) * 1000)) + 1 if times else None
                if not monitor.poll(wait):
                    continue
                # Only here does this end: ZeroMQ would wait for ever to tell of an event to a monitor
                # that is closed before it is stopped, and the kernel's IOPub with it.
                if recv_monitor_message(monitor)["event"] == zmq.EVENT_MONITOR_STOPPED:
                    return True
                with self._lock:
                    self._due.came(self._clock())
        except zmq.ContextTerminated:
            return False
        finally:
            monitor.close(linger=0)
            for _, made in announced:
                _take_back(made)

    def _open(self) -> list[Any]:
        with self._lock:
            return [widget for widget in self._widgets if getattr(widget, "comm", None) is not None]

    def _announce(self) -> list[_Reviver]:
        made: list[_Reviver] = []
        for models, texts in announcements(self._open()):
            try:
                made.append(_Reviver(_models=models, _texts=texts))
            except Exception:  # noqa: BLE001 - a kernel that ends: pages show the widgets when it answers
                break
        return made


def _take_back(made: _Reviver) -> None:
    layout = made.layout
    made.close()
    layout.close()


def _iopub_thread() -> Any:
    """The thread that owns the kernel's IOPub socket; None where there is none."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    thread = getattr(getattr(get_ipython(), "kernel", None), "iopub_thread", None)
    complete = hasattr(getattr(thread, "socket", None), "get_monitor_socket") and hasattr(thread, "schedule")
    return thread if complete else None


def _monitor(iopub: Any) -> Any:
    """A socket that tells of each new listener, or None. A ZeroMQ socket is for its own thread only."""
    import zmq

    events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_MONITOR_STOPPED
    # Never the same address twice: the last monitor may still be on its way out.
    address = f"inproc://wsmonitor-{secrets.token_hex(8)}"
    made: list[Any] = []
    done = threading.Event()

    def make() -> None:
        try:
            made.append(iopub.socket.get_monitor_socket(events, address))
        finally:
            done.set()

    iopub.schedule(make)
    return made[0] if done.wait(30) and made else None


def _unmonitor(iopub: Any) -> None:
    """Let the monitor say that it is stopped."""

    def stop() -> None:
        if not iopub.socket.closed:
            iopub.socket.disable_monitor()

    if iopub.thread.is_alive():
        iopub.schedule(stop)


revival: Final = Revival()
