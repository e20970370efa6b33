"""Conflation for one listener with delivery "latest", where the wire brings more than it asked for.

All listeners of a topic share one replica and one subscription. Where another one wants every event, or
batches at a shorter interval, a "latest" listener's own batches are made here: the newest record of each
entity, at most once per interval, the first at once. Pure: time is passed in.
"""

from __future__ import annotations

from wsmonitor.protocol.entities import Entity

from .types import BatchApplied, EventApplied


class Conflation:
    """What one listener has not been told yet.

    Args:
        interval: seconds between two batches.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._entities: dict[tuple[str, str], Entity] = {}
        self._dropped: dict[tuple[str, str], None] = {}
        self._seq: int | None = None
        self._due = 0.0

    def add(self, now: float, update: EventApplied | BatchApplied) -> float:
        """Take *update* in; in how many seconds `take` is due."""
        if isinstance(update, EventApplied):
            entities = () if update.entity is None else ((update.event.kind, update.entity),)
            self._merge(update.event.seq, entities, tuple(update.event.drop))
        else:
            self._merge(update.seq, update.entities, update.dropped)
        return max(0.0, self._due - now)

    def take(self, now: float) -> BatchApplied | None:
        """What has been gathered; None if there is nothing."""
        if self._seq is None:
            return None
        batch = BatchApplied(
            self._seq,
            tuple((kind, entity) for (kind, _), entity in self._entities.items()),
            tuple(self._dropped),
        )
        self.clear()
        self._due = now + self._interval
        return batch

    def clear(self) -> None:
        """Forget what has been gathered: a sync brings it all."""
        self._entities.clear()
        self._dropped.clear()
        self._seq = None

    def _merge(
        self, seq: int, entities: tuple[tuple[str, Entity], ...], dropped: tuple[tuple[str, str], ...]
    ) -> None:
        self._seq = seq
        for kind, entity in entities:
            key = (kind, entity.id)
            self._dropped.pop(key, None)
            self._entities[key] = entity
        for key in dropped:
            self._entities.pop(key, None)
            self._dropped[key] = None
