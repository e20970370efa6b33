"""The base of the widgets that show something live: paced frames down, questions up, and an end.

What a widget shows is its *view* (see `sender.Shown`): the sender asks it for change sets and key frames, and
knows no more of it. `Observer` shows one session; a list of sessions would have a view of its own.

A subclass makes its view, calls `__init__`, makes what it needs, and at last `serve`. It overrides `drain`,
`report` and, as it needs them, `beat`, `refresh`, `questions` and `release`.
"""

from __future__ import annotations

import secrets
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import anywidget
import traitlets

from . import boxes, kernel_channel
from .bundle import bundle, stylesheet
from .callbacks import Caller
from .feed import now
from .pacing import Pacing
from .packing import Message, Wanted
from .requests import Desk, Question
from .sender import Sender, Shown
from .view import Frame, Now

PAGES_ASKED: Final = 4_000

sender: Final = Sender(now)
caller: Final = Caller()


class LiveWidget(anywidget.AnyWidget):
    """See the module's docstring.

    Attributes:
        view: what is shown; touched by the sender's thread only.
        pacing: when it is told.
        closed: whether `close` was called.
    """

    _key = traitlets.Dict().tag(sync=True)
    _token = traitlets.Unicode().tag(sync=True)
    _part = traitlets.Unicode("").tag(sync=True)
    """Which part of the front-end is mounted: see ``PARTS`` in static/observer.js."""

    closed = False

    _esm = bundle()
    _css = stylesheet()

    def __init__(self, view: Shown, **traits: Any) -> None:
        self._wrapped: dict[Any, Any] = {}
        self._close_lock = threading.Lock()
        self._serving = False
        super().__init__(_token=secrets.token_hex(12), **traits)
        self._own_layout = self.layout
        self.view = view
        self.pacing = Pacing(now().mono)
        self.messages: deque[Message] = deque()
        self.wanted = Wanted()
        self._asked_for: deque[list[int]] = deque(maxlen=16)
        self._desk = Desk(self.questions(), self._answer, lambda: len(self.messages))
        self._browser_at: float | None = None

    # -- what a subclass gives

    def drain(self, moment: Now) -> None:
        """Bring the view up to date (on the sender's thread)."""

    def beat(self, moment: Now) -> Frame:
        """How the link is at this moment: in every message, because it changes without any change."""
        return {}

    def refresh(self) -> None:
        """Bring the public traits up to date (on the callbacks' thread)."""

    def report(self, code: str, message: str, *, traceback: str = "") -> None:
        """Something went wrong in showing; from any thread."""

    def questions(self) -> Mapping[str, Question]:
        """What a browser may ask, besides what every live widget hears (see `requests`)."""
        return {}

    def reconnect_now(self) -> None:
        """The browser asks for an attempt to reach the server at once."""

    def release(self) -> None:
        """Let go of what the widget was fed from. Called once, by `close`."""

    # -- life

    def serve(self) -> None:
        """From here on it is shown, and heard."""
        self._serving = True
        boxes.teach()
        self.on_msg(heard(weakref.ref(self)))
        kernel_channel.register(self._token, self)
        caller.add(self)
        sender.add(self)

    def close(self) -> None:
        """Stop showing, and take the views out of the notebook. Idempotent."""
        if not self.__dict__.get("_serving"):
            super().close()  # it never came to life
            return
        with self._close_lock:
            already, self.closed = self.closed, True
        if already:
            return
        sender.remove(self)
        caller.remove(self)
        kernel_channel.forget(self._token)
        self.release()
        super().close()
        # A widget of its own, which ipywidgets makes for each and keeps for ever.
        self._own_layout.close()

    def changed(self) -> None:
        """There is, or may be, something new to show and to tell; cheap, and from any thread."""
        self.pacing.changed()
        sender.wake()
        caller.wake(self)

    def announced(self) -> None:
        """A page may have made this widget from an announcement (see `revival`): a key frame completes it."""
        self.pacing.hurry()
        sender.wake()

    # -- the sender's thread

    def work(self, moment: Now) -> None:
        """Bring the view up to date, then answer what was asked of it."""
        self.drain(moment)
        self._desk.work()
        while self._asked_for:
            self.wanted.want(self._asked_for.popleft())

    def send_message(self, message: Frame, buffers: list[bytes] | None = None) -> None:
        """Give a custom message to the browser."""
        self.send(message, buffers)

    def send_key(self, key: Frame) -> None:
        """Put a key frame into the trait."""
        self._key = key

    def troubled(self, exc: Exception) -> None:
        """Something went wrong on the way to the browser."""
        text = "".join(traceback.format_exception(exc))
        self.report("internal", f"{exc.__class__.__name__}: {exc}", traceback=text)

    # -- from the browser (any thread)

    def hear(self, message: dict[str, Any], *, live: bool) -> None:
        """The browser said something; *live*: by a way that works while a cell runs. Never blocks."""
        moment = now().mono
        self._browser_at = moment
        self.pacing.seen(moment, live)
        what = message.get("do")
        want = message.get("want")
        if isinstance(want, list):
            self._asked_for.append([page for page in want if isinstance(page, int)][:PAGES_ASKED])
        if what == "hello":
            self.pacing.hurry()
            sender.wake()
        elif what == "pages":
            sender.wake()
        elif what == "reconnect":
            self.reconnect_now()
        elif self._desk.take(message, live):
            sender.wake(urgent=True)

    def _answer(self, message: Message) -> None:
        self.messages.append(message)
        sender.wake(urgent=True)

    @property
    def browser_heard(self) -> float | None:
        """Seconds since a browser answered; None if none ever did."""
        return None if self._browser_at is None else now().mono - self._browser_at

    # -- traits and callbacks (the callbacks' thread)

    def update_traits(self) -> None:
        """Bring the public traits up to date; nothing is raised, because this thread serves all."""
        try:
            self.refresh()
        except Exception as exc:  # noqa: BLE001 - see above
            self.callback_failed(exc)

    def observe(
        self, handler: Callable[[Any], Any], names: Any = traitlets.All, type: str = "change"
    ) -> None:
        """As everywhere in ipywidgets; what *handler* raises goes to ``errors``, and stops nothing."""
        if not self.__dict__.get("_serving"):
            # The base classes' own handlers, registered while the widget is being made.
            super().observe(handler, names=names, type=type)
            return

        def safe(change: Any) -> None:
            try:
                handler(change)
            except Exception as exc:  # noqa: BLE001 - the user's code: nothing of ours may stop for it
                self.callback_failed(exc)

        wrapped = self._wrapped.setdefault(handler, safe)
        super().observe(wrapped, names=names, type=type)

    def unobserve(
        self, handler: Callable[[Any], Any], names: Any = traitlets.All, type: str = "change"
    ) -> None:
        """As everywhere in ipywidgets."""
        super().unobserve(self._wrapped.get(handler, handler), names=names, type=type)

    def callback_failed(self, exc: Exception) -> None:
        """What the user's code raised in a callback is to be seen where errors are."""
        text = "".join(traceback.format_exception(exc))
        self.report("callback_failed", f"{exc.__class__.__name__}: {exc}", traceback=text)


def heard(ref: weakref.ref[Any]) -> Callable[[Any, Any, Any], None]:
    """The comm's handler, which does not keep the widget alive."""

    def hear(widget: Any, content: Any, buffers: Any) -> None:
        found = ref()
        if found is not None and isinstance(content, dict):
            found.hear(content, live=False)

    return hear
