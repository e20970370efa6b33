"""The event log of a view: what happened, in sentences, the newest of it. Pure.

An entry: ``{"n", "at", "tone", "what", "name", "text", "row"?, "replayed"?}``; see `view`.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import msgspec

from wsmonitor.protocol.entities import Chain, Command, Entity, Problem, Producer, Session, Step

from .head import Frame, state_words
from .rows import one_line

LOG_LIMIT: Final = 300

LOG_BYTES: Final = 40_000
"""Of entries as JSON, in one message."""

_encode = msgspec.json.Encoder().encode
_COMMAND_TONES: Final = {"applied": "good", "requested": "plain", "delivered": "plain", "accepted": "plain"}
_LIVENESS: Final = {"live": "is heard again", "stale": "is not heard", "lost": "is lost"}


class Sentence(NamedTuple):
    """``tone`` is one of ``plain good warn bad``; ``what name text`` read as one sentence."""

    tone: str
    what: str
    name: str
    text: str


def sentence(kind: str, entity: Entity, state: str | None, old: Entity | None) -> Sentence | None:
    """What is to be said of *entity*, which has come; None when nothing is.

    Args:
        kind: the entity's kind, as events have it.
        entity: as it is now.
        state: the state that was known of it, if it is one that has states.
        old: what was known of a command, a producer or a problem.
    """
    match entity:
        case Session() | Chain() | Step():
            if state == entity.state:
                return None
            tone, text = state_words(entity)
            return Sentence(tone, kind, entity.name, text)
        case Command():
            if isinstance(old, Command) and old.state == entity.state:
                return None
            who = entity.via or entity.actor
            text = " ".join(part for part in (f"from {who}" if who else "", entity.state) if part)
            if entity.reason:
                text += f": {one_line(entity.reason)}"
            return Sentence(_COMMAND_TONES.get(entity.state, "warn"), "command", entity.name, text)
        case Producer():
            if not isinstance(old, Producer) or old.liveness == entity.liveness:
                return None
            tone = "good" if entity.liveness == "live" else "warn"
            return Sentence(tone, "producer", one_line(entity.agent, 60), _LIVENESS[entity.liveness])
        case Problem():
            if old is not None:
                return None
            tone = "warn" if entity.severity in ("info", "warning") else "bad"
            return Sentence(tone, "", entity.code, one_line(entity.message))
        case _:
            return None


class Journal:
    """The newest entries. Not thread-safe: the view's thread owns it.

    Attributes:
        number: of the newest entry.
    """

    def __init__(self) -> None:
        self.number = 0
        self._entries: deque[Frame] = deque(maxlen=LOG_LIMIT)

    def add(self, at: int, said: Sentence, *, row: str = "", replayed: bool = False) -> None:
        """Append an entry: *at* in milliseconds of the server's clock; *row* is the row that it is about."""
        self.number += 1
        entry: Frame = {"n": self.number, "at": at, **said._asdict()}
        if row:
            entry["row"] = row
        if replayed:
            entry["replayed"] = True
        self._entries.append(entry)

    def newest(self, after: int) -> list[Frame]:
        """The entries after number *after*, as far as they fit: the newest."""
        found: list[Frame] = []
        size = 0
        for entry in reversed(self._entries):
            size += len(_encode(entry)) + 1
            if entry["n"] <= after or size > LOG_BYTES:
                break
            found.append(entry)
        found.reverse()
        return found
