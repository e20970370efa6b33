"""``watch --json``: one JSON object per line. The form of each line is documented in docs/reference/cli.md.

Records are those of the Python API, with every field written out. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from wsmonitor.client.types import (
    BatchApplied,
    ConnectionStatus,
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SyncCompleted,
    SyncStarted,
    Update,
)
from wsmonitor.export.document import full
from wsmonitor.protocol.entities import Entity
from wsmonitor.protocol.errors import StateError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState, decode_entity

Line = dict[str, Any]


def text(line: Line) -> str:
    """*line* as JSON on one line, without its newline."""
    return msgspec.json.encode(line).decode()


def connection(status: ConnectionStatus, now: float, at: int) -> Line:
    """A change of the connection. Times are seconds from now; ``at`` is our clock, nanoseconds UTC."""
    waiting = status.next_attempt_at
    return {
        "type": "connection",
        "at": str(at),
        "phase": status.phase,
        "url": status.url,
        "attempt": status.attempt,
        "next_attempt_in": round(max(0.0, waiting - now), 3) if waiting is not None else None,
        "lost_for": round(max(0.0, now - status.lost_at), 3) if status.lost_at is not None else None,
        "code": status.code,
        "reason": status.reason,
        "looked": list(status.looked),
        "rtt": round(status.rtt, 6) if status.rtt is not None else None,
        "connections": status.connections,
        "degraded": degraded(status),
        "server": status.welcome.server if status.welcome is not None and status.live else None,
    }


def degraded(status: ConnectionStatus) -> Line | None:
    """Why the server takes no changes, and since when in nanoseconds UTC; None while it does."""
    why = status.degraded
    return None if why is None else {"code": why.code, "reason": why.reason, "since": why.since}


def run(session: str, number: int, at: int) -> Line:
    """The name is bound to this run from here on."""
    return {"type": "run", "at": str(at), "session": session, "run": number}


def synced(session: str, state: SessionState, update: SyncCompleted, at: int) -> Line:
    """A verified full state: what came before may be forgotten."""
    return {
        "type": "synced",
        "at": str(at),
        "session": session,
        "epoch": state.epoch,
        "seq": state.seq,
        "digest": state.digest,
        "previous": list(update.previous) if update.previous is not None else None,
        "reset": update.reset,
        "entities": [[kind, full(entity)] for kind, entity in state],
    }


def updates(session: str, update: Update, at: int) -> Iterator[Line]:
    """The lines of one update. `SyncCompleted` needs the state: see `synced`."""
    head: Line = {"type": "", "at": str(at), "session": session}
    match update:
        case EventApplied(event=event, entity=entity):
            yield {**head, **_event(event, entity), "replayed": False}
        case EventsReplayed(events=events):
            for event in events:
                try:
                    entity = decode_entity(event.kind, event.entity)
                except StateError:
                    entity = None
                yield {**head, **_event(event, entity), "replayed": True}
        case GapFound(first=first, last=last):
            yield {**head, "type": "gap", "first": first, "last": last}
        case PhaseChanged(phase=phase, reason=reason):
            yield {**head, "type": "subscription", "phase": phase, "reason": reason}
        case PresenceChanged(count=count, names=names):
            yield {**head, "type": "presence", "count": count, "names": list(names)}
        case BatchApplied(seq=seq, entities=entities, dropped=dropped):
            records = [[kind, full(entity)] for kind, entity in entities]
            yield {
                **head,
                "type": "batch",
                "seq": seq,
                "entities": records,
                "drop": [list(d) for d in dropped],
            }
        case SyncStarted() | SyncCompleted():
            return


def _event(event: Event, entity: Entity | None) -> Line:
    # An entity of a kind that this version does not know is passed on as it came.
    record = full(entity) if entity is not None else msgspec.json.decode(event.entity)
    return {
        "type": "event",
        "epoch": event.epoch,
        "seq": event.seq,
        "ts": event.ts,
        "kind": event.kind,
        "entity": record,
        "drop": [list(drop) for drop in event.drop],
        "note": event.note,
    }
