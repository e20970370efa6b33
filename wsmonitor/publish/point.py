"""Points that ordinary code passes by calling, and coroutines by awaiting."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, Generic, TypeVar, cast

from .run import WsMonitorWarning

T = TypeVar("T")

_COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

_warned: dict[str, dict[str | tuple[str, type[Warning], int], int]] = {}  # each line is warned about once


def called_from_coroutine() -> tuple[str, int] | None:
    """The file and line of a coroutine that called the function which called us; None for ordinary code.

    Coroutines can await. A running loop is not the sign for that: in a notebook there is one while ordinary
    cells run.
    """
    frame = sys._getframe(2)
    code = frame.f_code
    return (code.co_filename, frame.f_lineno) if code.co_flags & _COROUTINE else None


class Point(Generic[T]):
    """What `checkpoint` and `ask` return.

    Called from ordinary code, the wait is over when you get it, and `value` is its result. Called from a
    coroutine, nothing has been waited for yet: ``await`` it. Who forgets to is warned.
    """

    __slots__ = ("_deferred", "_done", "_later", "_value", "_what")

    def __init__(
        self,
        deferred: tuple[str, int] | None,
        what: str,
        now: Callable[[], T],
        later: Callable[[], Awaitable[T]],
    ) -> None:
        self._what = what
        self._later = later
        self._deferred = deferred
        self._done = deferred is None
        self._value: T | None = None if deferred else now()

    def __del__(self) -> None:
        # Not awaited: nobody was made to wait, and the program goes on as if it had been paused or asked.
        deferred = getattr(self, "_deferred", None)  # unset where the wait itself raised
        if deferred is not None:
            filename, line = deferred
            warnings.warn_explicit(
                f"wsmonitor: {self._what} in a coroutine was not awaited, and did nothing; "
                f"write `await ….{self._what}`",
                WsMonitorWarning,
                filename,
                line,
                registry=_warned.setdefault(filename, {}),
            )

    @property
    def value(self) -> T:
        """The result.

        Raises:
            RuntimeError: it was asked for in a coroutine, and has not been awaited.
        """
        if not self._done:
            raise RuntimeError("called from a coroutine: await it to get the result")
        return cast(T, self._value)

    def __await__(self) -> Generator[Any, Any, T]:
        self._deferred = None
        if not self._done:
            self._value = yield from self._later().__await__()
            self._done = True
        return cast(T, self._value)
