"""The thread on which public traits are written, and with them the user's callbacks are run.

One daemon thread per process, apart from the sender's: a slow callback delays other callbacks
(they run one at a time, in order), and never what a browser shows. It lives while there is an observer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol

PERIOD: Final = 0.1
"""Seconds: traits change ten times a second at most; what lies between is not lost, it is summed up."""


class Subject(Protocol):
    """An observer, as this thread sees it."""

    def update_traits(self) -> None:
        """Bring the public traits up to date. Callbacks run within; nothing is raised."""


class Caller:
    """See the module's docstring."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._subjects: list[Subject] = []
        self._dirty: dict[int, Subject] = {}
        self._flushes: list[tuple[Subject, Future[None]]] = []
        self._thread: threading.Thread | None = None

    def add(self, subject: Subject) -> None:
        """Serve *subject* from now on."""
        with self._condition:
            self._subjects.append(subject)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wsmonitor-callbacks", daemon=True)
                self._thread.start()

    def remove(self, subject: Subject) -> None:
        """Serve *subject* no more; the thread ends with the last one."""
        with self._condition:
            self._subjects = [other for other in self._subjects if other is not subject]
            self._dirty.pop(id(subject), None)
            self._condition.notify_all()

    def wake(self, subject: Subject) -> None:
        """*subject* changed. Cheap, and from any thread."""
        if id(subject) not in self._dirty:
            with self._condition:
                if any(other is subject for other in self._subjects):
                    self._dirty[id(subject)] = subject
                    self._condition.notify_all()

    def flush(self, subject: Subject) -> Future[None]:
        """A future that is done when the traits have been brought up to date, begun after this call."""
        future: Future[None] = Future()
        with self._condition:
            if self._thread is None or self.here:
                future.set_result(None)
            else:
                self._flushes.append((subject, future))
                self._condition.notify_all()
        return future

    @property
    def here(self) -> bool:
        """Whether the caller runs on this thread: then it must not wait for it."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        last = -PERIOD
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._dirty or self._flushes or not self._subjects)
                pause = last + PERIOD - self._clock()
                if pause > 0:
                    self._condition.wait_for(lambda: self._flushes or not self._subjects, pause)
                flushes, self._flushes = self._flushes, []
                if not self._subjects:
                    self._thread = None
                    subjects = []
                else:
                    subjects = list({**self._dirty, **{id(s): s for s, _ in flushes}}.values())
                self._dirty = {}
            for subject in subjects:
                subject.update_traits()
            for _, future in flushes:
                future.set_result(None)
            if not subjects and self._thread is None:
                return
            last = self._clock()
