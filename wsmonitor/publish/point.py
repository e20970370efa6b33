"""Points that ordinary code passes by calling, and coroutines by awaiting."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def called_from_coroutine() -> bool:
    """Whether the function that called our caller is a coroutine's code, which can await.

    A running loop is not the sign for that: in a notebook there is one while ordinary cells run.
    """
    frame = sys._getframe(2)
    return bool(frame.f_code.co_flags & _COROUTINE)


class Point(Generic[T]):
    """What `checkpoint` and `ask` return.

    Called from ordinary code, the wait is over when you get it, and `value` is its result. Called from a
    coroutine, nothing has been waited for yet: ``await`` it.
    """

    __slots__ = ("_done", "_later", "_value")

    def __init__(self, deferred: bool, now: Callable[[], T], later: Callable[[], Awaitable[T]]) -> None:
        self._later = later
        self._done = not deferred
        self._value: T | None = None if deferred else now()

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
        if not self._done:
            self._value = yield from self._later().__await__()
            self._done = True
        return cast(T, self._value)
