"""The state of a topic at one position, immutable, in encoded pages that many syncs share.

The entities are frozen records, so the copy is shallow. Pages are encoded when they are first
pulled: the first page of a session with 50,000 steps does not wait for the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Raw

from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Entity
from wsmonitor.protocol.reducer import SessionState

Page = list[tuple[str, Raw]]

DROPPABLE: Final = frozenset({"error", "command", "listing"})
"""The kinds whose entities can be dropped; the others stay as long as their session."""

_OVERHEAD: Final = 16  # bytes around an entity in a page: its kind, brackets, quotes, comma


def pages(entities: Iterable[tuple[str, Entity]], size: int) -> Iterator[tuple[Page, bool]]:
    """Cut *entities* into encoded pages of about *size* bytes; the flag marks the last (there is one)."""
    page: Page = []
    filled = 0
    for kind, entity in entities:
        raw = encode_record(entity)
        length = len(bytes(raw)) + _OVERHEAD
        if page and filled + length > size:
            yield page, False
            page, filled = [], 0
        page.append((kind, raw))
        filled += length
    yield page, True


class Snapshot:
    """A shared copy. Entities come in the order session, chains, steps, then the rest."""

    __slots__ = ("__weakref__", "_pages", "_rest", "base", "count", "epoch", "keys")

    def __init__(self, state: SessionState, page_size: int) -> None:
        self.epoch = state.epoch
        self.base = state.seq
        # By kind, without a tuple per entity: a million of them are copied in milliseconds.
        copy = [(kind, list(group.values())) for kind, group in state.entities.items()]
        self.count = sum(len(group) for _, group in copy)
        self.keys = frozenset((kind, ident) for kind in DROPPABLE for ident in state.entities[kind])
        self._pages: list[tuple[Page, bool]] = []
        self._rest = pages(((kind, entity) for kind, group in copy for entity in group), page_size)

    def page(self, number: int) -> tuple[Page, bool]:
        """Page *number*, from 0, and whether it is the last."""
        while len(self._pages) <= number:
            self._pages.append(next(self._rest))
        return self._pages[number]
