"""`track()`: a loop that shows its progress, and where pause and cancel take effect."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from .node import Node

T = TypeVar("T")


class Track(Generic[T]):
    """An iterable around another one. ``for`` it, or ``async for`` it (also around an ordinary iterable).

    Before each item it is a point: it waits while paused, and raises `Cancelled` when cancelled. Of nested
    tracks of one step the outermost shows the progress.
    """

    def __init__(
        self,
        node: Node | None,
        iterable: Iterable[T] | AsyncIterable[T],
        total: int | float | None = None,
        unit: str = "",
    ) -> None:
        self._node = node
        self._iterable = iterable
        self._unit = unit
        self._total = total if total is not None else _length(iterable)

    def __len__(self) -> int:
        return len(cast(Any, self._iterable))

    def __iter__(self) -> Iterator[T]:
        if not isinstance(self._iterable, Iterable):
            raise TypeError("this is an async iterable: use `async for`")
        if self._node is None:
            return iter(self._iterable)
        return self._run(self._node, self._iterable)

    def _run(self, node: Node, iterable: Iterable[T]) -> Iterator[T]:
        control, total, unit = node.run.control, self._total, self._unit
        shows = self._begin(node)
        done = 0
        try:
            control.check(node)
            for item in iterable:
                yield item
                done += 1
                if shows:
                    node.live = (done, total, unit)
                    if not node.live_held:
                        node.progress(done, total, unit)
                if control.attention:
                    control.check(node)
        finally:
            self._end(node, shows)

    def __aiter__(self) -> AsyncIterator[T]:
        return self._arun()

    async def _arun(self) -> AsyncIterator[T]:
        node = self._node
        if node is None:
            async for item in _async(self._iterable):
                yield item
            return
        control, total, unit = node.run.control, self._total, self._unit
        shows = self._begin(node)
        done = 0
        try:
            await control.acheck(node)
            async for item in _async(self._iterable):
                yield item
                done += 1
                if shows:
                    node.progress(done, total, unit)
                if control.attention:
                    await control.acheck(node)
        finally:
            self._end(node, shows)

    def _begin(self, node: Node) -> bool:
        node.run.ensure_open()
        if node.tracked:
            return False
        node.tracked = True
        node.progress(0, self._total, self._unit)
        return True

    @staticmethod
    def _end(node: Node, shows: bool) -> None:
        if shows:
            node.tracked = False


async def _async(iterable: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(iterable, AsyncIterable):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item


def _length(iterable: object) -> int | None:
    try:
        length = operator.length_hint(iterable, -1)
    except Exception:  # noqa: BLE001 - a user's __len__ may do anything; then the total is not known
        return None
    return length if length >= 0 else None
