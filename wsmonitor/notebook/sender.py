"""The process's one sender: takes change sets from observers' views and gives them to the browser.

One daemon thread for all observers. It alone touches their views. It lives while there is an
observer, and it paces: see `pacing`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from .pacing import TICK, Bucket, Pacing
from .packing import Message, Wanted, packed
from .view import Frame, Now

LATE: Final = 0.5
"""Seconds that a frame waits for answers, which come first otherwise: somebody waits for them."""

PAGE_RESERVE: Final = 2.0
"""Messages that pages leave to frames and answers."""


class Shown(Protocol):
    """What a widget shows, as the sender sees it. `view.View` is one."""

    @property
    def number(self) -> int:
        """Of the last frame."""

    @property
    def offset(self) -> float:
        """Seconds by which the server's clock is ahead of ours."""

    def frame(self, now: Now) -> Frame | None:
        """The change set since the last frame, or None when nothing changed."""

    def key(self, now: Now) -> Frame:
        """Everything, as of the last frame."""


@runtime_checkable
class Large(Shown, Protocol):
    """What may be too much for one message, and then travels by pages (see `view`)."""

    @property
    def pages(self) -> int:
        """How many pages there are."""

    def page(self, page: int) -> list[dict[str, Any]]:
        """The rows of a page, as of the last frame."""

    def glance(self, now: Now) -> Frame | None:
        """A small frame for when nobody seems to look; None when nothing changed."""


class Outlet(Protocol):
    """A live widget, as the sender sees it."""

    @property
    def view(self) -> Shown:
        """What it shows."""

    pacing: Pacing
    messages: deque[Message]
    """Answers that wait to be sent, besides the frames."""
    wanted: Wanted

    def work(self, now: Now) -> None:
        """Bring the view up to date (on the sender's thread)."""

    def beat(self, now: Now) -> Frame:
        """How the link is at this moment."""

    def send_message(self, message: Frame, buffers: list[bytes] | None = None) -> None:
        """Give a custom message to the browser."""

    def send_key(self, key: Frame) -> None:
        """Put a key frame into the trait."""

    def troubled(self, exc: Exception) -> None:
        """Something went wrong while this observer was served."""


class Sender:
    """See the module's docstring. ``clock`` gives both clocks' present."""

    def __init__(self, clock: Callable[[], Now]) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._outlets: list[Outlet] = []
        self._flagged = False
        self._urgent = False
        self._thread: threading.Thread | None = None
        self._bucket = Bucket(clock().mono)

    def add(self, outlet: Outlet) -> None:
        """Serve *outlet* from now on."""
        with self._condition:
            self._outlets.append(outlet)
            self._stretch()
            self._flagged = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wsmonitor-sender", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def remove(self, outlet: Outlet) -> None:
        """Serve *outlet* no more; the thread ends with the last one."""
        with self._condition:
            if outlet in self._outlets:
                self._outlets.remove(outlet)
                self._stretch()
            self._flagged = True
            self._condition.notify_all()

    def _stretch(self) -> None:
        for outlet in self._outlets:
            # Signs of life take half of what may be sent at the most.
            outlet.pacing.stretch = max(1.0, len(self._outlets) / 10)

    def wake(self, *, urgent: bool = False) -> None:
        """Something changed, or (*urgent*) somebody waits for an answer. Cheap, and from any thread."""
        if not self._flagged or (urgent and not self._urgent):
            with self._condition:
                self._flagged = True
                self._urgent = self._urgent or urgent
                self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._outlets:
                    self._thread = None
                    return
                self._flagged = self._urgent = False
                outlets = list(self._outlets)
            began = self._clock().mono
            deadline = self.serve(outlets, self._clock())
            with self._condition:
                self._condition.wait_for(lambda: self._flagged, max(0.0, deadline - self._clock().mono))
                # However often something changes, there are ten passes a second at most, but for answers.
                self._condition.wait_for(
                    lambda: self._urgent or not self._outlets,
                    max(0.0, began + TICK - self._clock().mono),
                )

    def serve(self, outlets: list[Outlet], now: Now) -> float:
        """Send what is due, and return when to come again (monotonic seconds)."""
        deadline = now.mono + 60.0
        for outlet in outlets:
            try:
                outlet.work(now)
                late = outlet.pacing.deadline(now.mono) < now.mono - LATE
                if not late:
                    self._answer(outlet, now)
                self._serve_one(outlet, now)
                if late:
                    self._answer(outlet, now)
            except Exception as exc:  # noqa: BLE001 - one observer's trouble must not stop the others
                outlet.troubled(exc)
            deadline = min(deadline, outlet.pacing.deadline(now.mono))
            if outlet.messages or outlet.wanted:
                deadline = now.mono
        # Who was served first waits longest the next time.
        with self._condition:
            if self._outlets:
                self._outlets.append(self._outlets.pop(0))
        return deadline

    def _answer(self, outlet: Outlet, now: Now) -> None:
        while outlet.messages and self._bucket.take(now.mono):
            self._send(outlet, outlet.messages.popleft())

    def _send(self, outlet: Outlet, message: Message) -> None:
        frame, buffers = message
        outlet.pacing.spent(len(_encode(frame)) + sum(map(len, buffers)))
        outlet.send_message(frame, buffers)

    def _serve_one(self, outlet: Outlet, now: Now) -> None:
        pacing, view = outlet.pacing, outlet.view
        action = pacing.next(now.mono)
        # Before a frame is made: one that was made must be sent, for its number is used up.
        if action is not None and self._bucket.take(now.mono):
            common = {"due": round(pacing.promise(now.mono) * 1000), "beat": outlet.beat(now)}
            if action == "glance":
                frame = view.glance(now) if isinstance(view, Large) else None
            elif action == "alive":
                frame = None
            else:
                frame = view.frame(now)
                if frame is not None and "pages" in frame and isinstance(view, Large):
                    versions = frame["pages"]
                    outlet.wanted.want(k for k, version in enumerate(versions) if version == frame["n"])
            if action == "key":
                key = {**view.key(now), **common}
                if frame is not None and "pages" in key:
                    # A key frame that has no rows would tell a browser to fetch what has just changed.
                    self._bucket.use()
                    self._send(outlet, packed({**frame, **common}))
                size = len(_encode(key))
                pacing.spent(size)
                outlet.send_key(key)
                if "pages" in key:
                    outlet.wanted.cycle(len(key["pages"]))
                pacing.sent("key", now.mono, changed=frame is not None, size=size)
            else:
                if frame is not None:
                    self._send(outlet, packed({**frame, **common}))
                elif action != "frame":
                    alive = {"type": "alive", "n": view.number, "at": now.at(view.offset)}
                    self._send(outlet, ({**alive, **common}, []))
                pacing.sent(action, now.mono, changed=frame is not None)
        # After the frame: a page is as of the last frame that was sent.
        if isinstance(view, Large):
            self._pages(outlet, view, now)

    def _pages(self, outlet: Outlet, view: Large, now: Now) -> None:
        if outlet.pacing.asleep(now.mono):
            outlet.wanted.clear()
        if not outlet.wanted or not self._bucket.take(now.mono, PAGE_RESERVE):
            return
        common = {"due": round(outlet.pacing.promise(now.mono) * 1000), "beat": outlet.beat(now)}
        message = outlet.wanted.message(view.page, view.number, now.at(view.offset))
        if message is not None:
            self._send(outlet, ({**message[0], **common}, message[1]))


_encode = msgspec.json.Encoder().encode
