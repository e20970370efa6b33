"""The state of a topic at one position, immutable, in encoded pages that many syncs share.

The entities are frozen records, so the copy is shallow. Pages are encoded when they are first
pulled, a slice at a time: the first page of a session with 50,000 steps does not wait for the last, and
nobody else waits for a whole page. What many are sent alike is framed once, too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Final

from msgspec import Raw

from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Entity
from wsmonitor.protocol.reducer import SessionState

Page = list[tuple[str, Raw]]
Frames = Sequence[tuple[bytes, int]]
"""Chunks of joined frames, each with the number of frames in it."""

DROPPABLE: Final = frozenset({"error", "command", "listing"})
"""The kinds whose entities can be dropped; the others stay as long as their session."""

SLICE: Final = 128
"""Entities that are encoded at a stretch: of small ones a tenth of a millisecond."""

FRAMED: Final = 4 * 1024 * 1024
"""Bytes of frames that are kept of one snapshot, for those who pull the same pages."""

FRAMED_PAGES: Final = 32
"""Pages whose frames are kept: who subscribes again and again on one connection asks for another one each
time, and a session at rest would gather them up to all those bytes."""

_OVERHEAD: Final = 16  # bytes around an entity in a page: its kind, brackets, quotes, comma


def slices(entities: Iterable[tuple[str, Entity]], size: int) -> Iterator[tuple[Page, bool] | None]:
    """Cut *entities* into encoded pages of about *size* bytes; the flag marks the last (there is one).

    None after each `SLICE` in between.
    """
    page: Page = []
    filled = 0
    for number, (kind, entity) in enumerate(entities, 1):
        raw = encode_record(entity)
        length = len(bytes(raw)) + _OVERHEAD
        if page and filled + length > size:
            yield page, False
            page, filled = [], 0
        page.append((kind, raw))
        filled += length
        if number % SLICE == 0:
            yield None
    yield page, True


def pages(entities: Iterable[tuple[str, Entity]], size: int) -> Iterator[tuple[Page, bool]]:
    """`slices`, without the pauses."""
    return (page for page in slices(entities, size) if page is not None)


class Snapshot:
    """A shared copy. Entities come in the order session, chains, steps, then the rest."""

    __slots__ = (
        "__weakref__",
        "_framed",
        "_framed_size",
        "_pages",
        "_rest",
        "base",
        "count",
        "epoch",
        "keys",
    )

    def __init__(self, state: SessionState, page_size: int) -> None:
        self.epoch = state.epoch
        self.base = state.seq
        # By kind, without a tuple per entity: a million of them are copied in milliseconds.
        copy = [(kind, list(group.values())) for kind, group in state.entities.items()]
        self.count = sum(len(group) for _, group in copy)
        self.keys = frozenset((kind, ident) for kind in DROPPABLE for ident in state.entities[kind])
        self._pages: list[tuple[Page, bool]] = []
        self._rest = slices(((kind, entity) for kind, group in copy for entity in group), page_size)
        self._framed: dict[Hashable, Frames] = {}
        self._framed_size = 0

    def ready(self, number: int) -> bool:
        """Work a slice at page *number*, from 0, if it is not there. Whether it is now."""
        if len(self._pages) <= number:
            page = next(self._rest)
            if page is not None:
                self._pages.append(page)
        return len(self._pages) > number

    def page(self, number: int) -> tuple[Page, bool]:
        """Page *number*, and whether it is the last."""
        while not self.ready(number):
            pass
        return self._pages[number]

    def framed(self, key: Hashable, make: Callable[[], Frames]) -> Frames:
        """What *make* gives, made once for the same *key* while there is room."""
        known = self._framed.get(key)
        if known is None:
            known = self._framed[key] = make()
            self._framed_size += _size(known)
            while self._framed_size > FRAMED or len(self._framed) > FRAMED_PAGES:
                self._framed_size -= _size(self._framed.pop(next(iter(self._framed))))
        return known


def _size(frames: Frames) -> int:
    return sum(len(chunk) for chunk, _ in frames)
