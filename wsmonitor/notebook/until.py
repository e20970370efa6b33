"""Who waits until something can be said of a widget's traits. Thread-safe.

Anybody enters; the callbacks' thread judges, after it has written the traits, so that a condition sees traits
that fit together and do not change under it.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from wsmonitor.protocol.errors import WsMonitorError

S = TypeVar("S")


def checked(condition: Callable[[S], object]) -> str:
    """The words that name *condition* in a message.

    Raises:
        TypeError: it cannot be called, or is a coroutine function, whose call would always count as true.
    """
    if not callable(condition):
        raise TypeError(f"a condition is a function of the observer, not {type(condition).__name__}")
    if inspect.iscoroutinefunction(condition):
        raise TypeError("a condition is a plain function, without async")
    name = getattr(condition, "__name__", "<lambda>")
    return "the condition" if name == "<lambda>" else f"{name}()"


class Conditions(Generic[S]):
    """The conditions that are waited for, each with the future of what it returns when that is true."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[Future[Any], Callable[[S], object]] = {}
        self._over: WsMonitorError | None = None

    def enter(self, future: Future[Any], condition: Callable[[S], object]) -> None:
        """Settle *future* at a later `judge`, or at `end`. It may have been cancelled already."""
        with self._lock:
            over = self._over
            self._waiters[future] = condition
        future.add_done_callback(self._forget)
        if over is not None:
            self._settle(future, None, over)

    def judge(self, subject: S, hopeless: WsMonitorError | None = None) -> None:
        """Ask each condition; what one raises is raised where it is waited for.

        *hopeless*: why those that are not true now will never be.
        """
        with self._lock:
            waiters = list(self._waiters.items())
        for future, condition in waiters:
            if future.done():
                continue
            try:
                found = condition(subject)
            except BaseException as exc:  # noqa: BLE001 - the user's code, on a thread that serves others
                self._settle(future, None, exc)
            else:
                if found:
                    self._settle(future, found)
                elif hopeless is not None:
                    self._settle(future, None, hopeless)

    def end(self, reason: WsMonitorError) -> None:
        """Nobody can wait any more."""
        with self._lock:
            self._over = reason
            waiters = list(self._waiters)
        for future in waiters:
            self._settle(future, None, reason)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._waiters.pop(future, None)

    def _settle(self, future: Future[Any], found: object, error: BaseException | None = None) -> None:
        with self._lock:
            if self._waiters.pop(future, None) is None:
                return  # cancelled, or another thread was first
        # False when it was cancelled this very moment.
        if future.set_running_or_notify_cancel():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(found)
