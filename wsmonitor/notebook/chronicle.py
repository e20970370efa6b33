"""What an observer was told, event by event: what ``to_frame("events")`` is made of. Pure.

An entry is a plain tuple in the order of `EVENT_COLUMNS`. The session's own events have the number that the
server gave them; what concerns the link (``connection``, ``sync``, ``gap``) has none, and is dated by the
kernel's best estimate of the server's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from wsmonitor.protocol.entities import Chain, Command, Entity, Listing, Problem, Producer, Session, Step
from wsmonitor.protocol.errors import StateError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import decode_entity

from .rows import failure_line, milliseconds, one_line

LIMIT: Final = 20_000
"""Entries kept: the oldest go first."""


class Entry(NamedTuple):
    """One line of the chronicle.

    Attributes:
        time: milliseconds since 1970 UTC, by the server's clock.
        seq: the event's number in its session; None for what concerns the link.
        kind: ``session chain step command producer error``, or ``connection sync gap``.
        id: the entity's id; a session's id for ``sync``.
        name: its name; for a command the command's, for a producer its program, for an error its code.
        state: the state after the event; a producer's liveness, an error's severity, the link's phase.
        attempt: of a step; else None.
        text: in one line why: the failure, else the reason, else the last log line, else "".
        replayed: it was told afterwards (missed while away, or from the server's history), and not live.
    """

    time: int
    seq: int | None
    kind: str
    id: str
    name: str
    state: str
    attempt: int | None
    text: str
    replayed: bool


EVENT_COLUMNS: Final = Entry._fields


def entity_of(event: Event) -> Entity | None:
    """What *event*, of the history, brought; None where that cannot be read here.

    It may be of a later version, or of an earlier one: that it happened is known all the same.
    """
    try:
        return decode_entity(event.kind, event.entity)
    except StateError:
        return None


def told_later(event: Event) -> Entry:
    """The entry of *event*, which was not seen live."""
    return entry(event, entity_of(event), replayed=True)


def entry(event: Event, entity: Entity | None, *, replayed: bool = False) -> Entry:
    """The entry of *event*, whose entity, decoded, is *entity*; None for a kind that is not known here."""
    at = milliseconds(event.ts) or 0
    told: tuple[str, str, str, int | None, str]
    match entity:
        case Session() | Chain():
            told = (entity.id, entity.name, entity.state, None, failure_line(entity.error) or entity.reason)
        case Step():
            text = failure_line(entity.error) or entity.reason or entity.log_last
            told = (entity.id, entity.name, entity.state, entity.attempt, text)
        case Command():
            told = (entity.id, entity.name, entity.state, None, entity.reason)
        case Producer():
            told = (entity.id, entity.agent, "closed" if entity.closed else entity.liveness, None, "")
        case Problem():
            told = (entity.id, entity.code, entity.severity, None, entity.message)
        case Listing():
            told = (entity.id, entity.name, entity.state, None, entity.problem or entity.reason)
        case _:
            told = ("", "", "", None, "")
    ident, name, state, attempt, text = told
    return Entry(at, event.seq, event.kind, ident, name, state, attempt, one_line(text), replayed)


class Chronicle:
    """The newest `LIMIT` entries of one observer. One thread writes; any may read a copy.

    A run that is followed in the place of another begins a new chronicle: all events are of one session.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._entries: deque[Entry] = deque(maxlen=limit)

    def applied(self, event: Event, entity: Entity | None) -> None:
        """One event was applied live."""
        self._entries.append(entry(event, entity))

    def replayed(self, events: Iterable[Event]) -> None:
        """Events that were missed while away."""
        self._entries.extend(map(told_later, events))

    def link(self, at: int, kind: str, state: str, text: str, ident: str = "") -> None:
        """Something happened to the link, at *at* milliseconds."""
        self._entries.append(Entry(at, None, kind, ident, "", state, None, one_line(text), False))

    @property
    def newest(self) -> str:
        """The newest entry in words; "" while there is none."""
        if not self._entries:
            return ""
        last = self._entries[-1]
        words = " ".join(part for part in (last.kind, last.name, last.state.replace("_", " ")) if part)
        return f"{words}: {last.text}" if last.text else words

    def restart(self) -> None:
        """Another run is followed: the entries of the one before go, those of the link stay."""
        kept = [old for old in self._entries if old.seq is None]
        self._entries.clear()
        self._entries.extend(kept)

    def entries(self, history: Iterable[Event] = ()) -> list[Entry]:
        """All entries in the order of time; events of *history* (the server's) fill in what is not here."""
        # The deque may grow under a reader on another thread: a copy of it is one step of the interpreter.
        own = list(self._entries)
        known = {old.seq for old in own}
        own += [told_later(event) for event in history if event.seq not in known]
        return sorted(own, key=lambda one: (one.time, one.seq or 0))


def frame_columns(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    """The entries by column."""
    rows = list(entries)
    return {name: [row[n] for row in rows] for n, name in enumerate(EVENT_COLUMNS)}
