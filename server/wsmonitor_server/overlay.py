"""A session's entities at the tail: what was written behind the head, over the head's state. Pure."""

from __future__ import annotations

from wsmonitor.protocol.entities import Entity
from wsmonitor.protocol.reducer import SessionState

from .hub import Numbered

Key = tuple[str, str]
"""An entity's kind and id."""


class Overlay:
    """See the module's text.

    Attributes:
        digest: of all entities at the tail, as a number.
    """

    def __init__(self, state: SessionState) -> None:
        # By what was written, or dropped: the seq that did, the entity, and what that adds to the digest.
        self._written: dict[Key, tuple[int, Entity | None, int]] = {}
        self._state = state
        self.digest = int(state.digest, 16)

    def get(self, kind: str, ident: str) -> Entity | None:
        """An entity at the tail."""
        written = self._written.get((kind, ident))
        if written is not None:
            return written[1]
        return self._state.entities[kind].get(ident)

    def put(self, kind: str, ident: str, seq: int, entity: Entity | None, number: int) -> None:
        """Event *seq* makes it *entity*, which adds *number* to the digest; None and 0: it is dropped."""
        key = (kind, ident)
        before = self._written.get(key)
        self.digest += number - (self._state.hash_of(kind, ident) if before is None else before[2])
        self._written[key] = (seq, entity, number)

    def landed(self, event: Numbered) -> None:
        """*event* becomes part of the head: what nothing behind it has written is there from now on."""
        for key in ((event.kind, event.entity.id), *event.drops):
            written = self._written.get(key)
            if written is not None and written[0] <= event.seq:
                del self._written[key]

    def written(self) -> list[tuple[str, str, Entity | None]]:
        """What was written behind the head: kind, id, and what it is now."""
        return [(kind, ident, entity) for (kind, ident), (_, entity, _) in self._written.items()]

    def clear(self, state: SessionState) -> None:
        """Nothing is written behind the head, which is *state*."""
        self._written.clear()
        self._state = state
        self.digest = int(state.digest, 16)

    def __len__(self) -> int:
        """How many entities are others than at the head."""
        return len(self._written)
