"""What happened, in lines for people: updates and changes of the connection become log lines.

Pure apart from what it remembers: the last state of each entity, so that a line is written when
a state changes and not at each step of a progress bar.
"""

from __future__ import annotations

from collections.abc import Iterator

from wsmonitor.client.types import (
    BatchApplied,
    ConnectionStatus,
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    SyncCompleted,
    Update,
)
from wsmonitor.export.pieces import headline
from wsmonitor.export.words import NANO, Tone, duration, look, one_line, plural
from wsmonitor.protocol.entities import Chain, Command, Entity, Problem, Producer, Session, Step
from wsmonitor.protocol.errors import StateError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState, decode_entity

from .scene import LogLine

_RESET = {
    "epoch": "the server began a new history",
    "ahead": "the server's history is behind what was shown here",
    "diverged": "what was shown here differed from the server's state",
}
_COMMAND_TONES: dict[str, Tone] = {"applied": "good", "rejected": "bad", "expired": "bad", "unknown": "bad"}
_LIVENESS: dict[str, tuple[Tone, str]] = {
    "live": ("good", "is heard"),
    "stale": ("wait", "is not heard"),
    "lost": ("bad", "is lost"),
}


class Story:
    """Turns what a subscription tells into log lines."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], str] = {}
        self._chains: dict[str, str] = {}
        self._status = ConnectionStatus()
        self._lost_at: float | None = None

    def seen(self, state: SessionState) -> None:
        """Take *state* as known: what it holds is not told as news."""
        self._states = {(kind, entity.id): _state_of(entity) for kind, entity in state}
        self._chains = {chain.id: chain.name for chain in state.chains.values()}

    def update(self, update: Update, wall: int) -> Iterator[LogLine]:
        """The lines of *update*; *wall* is our clock, in nanoseconds, where the server gave no time."""
        match update:
            case EventApplied(event=event, entity=entity):
                yield from self._event(event, entity, replayed=False)
            case EventsReplayed(events=events):
                if events:
                    told = f"{plural(len(events), 'missed event')} added to the log"
                    yield LogLine(wall, "good", "", told)
                for event in events:
                    try:
                        entity = decode_entity(event.kind, event.entity)
                    except StateError:
                        continue  # a record of the past that this version cannot read
                    yield from self._event(event, entity, replayed=True)
            case GapFound(first=first, last=last):
                told = (
                    f"events {first:,} to {last:,} can no longer be had; the state is complete all the same"
                )
                yield LogLine(wall, "wait", "", told)
            case SyncCompleted(seq=seq, previous=previous, reset=reset):
                if reset:
                    yield LogLine(wall, "wait", "", f"{_RESET.get(reset, reset)}: everything was read anew")
                elif previous is not None:
                    yield LogLine(wall, "good", "", f"full state verified at event {seq:,}")
            case PhaseChanged(phase="not_available", reason=reason):
                yield LogLine(wall, "bad", "", reason or "the session is not available")
            case PhaseChanged(phase="absent"):
                yield LogLine(wall, "idle", "", "there is no such session yet; waiting for it")
            case BatchApplied(seq=seq, entities=entities):
                yield LogLine(wall, "idle", "", f"{plural(len(entities), 'change')}, up to event {seq:,}")

    def status(self, status: ConnectionStatus, now: float, wall: int) -> Iterator[LogLine]:
        """The lines of a change of the connection; *now* is the monotonic clock."""
        old, self._status = self._status, status
        if status.phase == "live" and old.phase != "live":
            if self._lost_at is not None:
                yield LogLine(wall, "good", "", f"reconnected after {duration(now - self._lost_at)}")
            elif status.connections <= 1:
                where = f" to {status.url}" if status.url else ""
                yield LogLine(wall, "good", "", f"connected{where}")
            self._lost_at = None
        elif status.phase in ("waiting", "failed") and old.phase != status.phase:
            if self._lost_at is None and status.connections:
                self._lost_at = status.lost_at if status.lost_at is not None else now
                what = "connection lost"
            else:
                what = f"attempt {max(status.attempt, 1)} failed"
            told = f"{what}: {one_line(status.reason)}" if status.reason else what
            told += f" [{status.code}]" if status.code else ""
            if status.phase == "waiting" and status.next_attempt_at is not None:
                told += f"; next in {max(0.0, status.next_attempt_at - now):.0f} s"
            yield LogLine(wall, "bad" if status.phase == "failed" else "wait", "", told)
        if status.degraded is not None and old.degraded is None:
            yield LogLine(wall, "bad", "", f"the server takes no changes: {one_line(status.degraded.reason)}")
        elif status.live and status.degraded is None and old.degraded is not None:
            yield LogLine(wall, "good", "", "the server takes changes again")

    def _event(self, event: Event, entity: Entity | None, *, replayed: bool) -> Iterator[LogLine]:
        if entity is None:
            return
        if isinstance(entity, Chain):
            self._chains[entity.id] = entity.name
        key = (event.kind, entity.id)
        state = _state_of(entity)
        if not replayed:
            changed = self._states.get(key) != state
            self._states[key] = state
            for kind, ident in event.drop:
                self._states.pop((kind, ident), None)
            if not changed:
                return
        told = self._words(entity)
        if told is None:
            return
        tone, where, text = told
        if event.note:
            text += f" ({one_line(event.note)})"
        yield LogLine(int(event.ts or 0), tone, where, text + (" · missed" if replayed else ""))

    def _words(self, entity: Entity) -> tuple[Tone, str, str] | None:
        match entity:
            case Session() | Chain() | Step():
                return self._work_words(entity)
            case Command():
                text: str = entity.state
                if entity.state == "requested":
                    text += f" by {one_line(entity.actor, 40)}" if entity.actor else ""
                    text += f" via {one_line(entity.via, 40)}" if entity.via else ""
                if entity.reason:
                    text += f": {one_line(entity.reason)}"
                return _COMMAND_TONES.get(entity.state, "busy"), f"command {entity.name}", text
            case Producer():
                where = f"producer {one_line(entity.agent or entity.id, 60)}"
                if entity.closed:
                    return "idle", where, "said goodbye"
                return _LIVENESS[entity.liveness][0], where, _LIVENESS[entity.liveness][1]
            case Problem():
                mild = entity.severity in ("info", "warning")
                return "wait" if mild else "bad", entity.code, one_line(entity.message)
        return None

    def _work_words(self, entity: Session | Chain | Step) -> tuple[Tone, str, str]:
        name = one_line(entity.name, 60)
        where = f"chain {name}" if isinstance(entity, Chain) else name
        if isinstance(entity, Step):
            where = f"{one_line(self._chains.get(entity.chain, entity.chain), 40)} / {name}"
        appearance = look(entity.state)
        text = appearance.word
        if isinstance(entity, Step) and entity.attempt > 1:
            text += f", attempt {entity.attempt}"
        if entity.state in ("failed", "crashed") and entity.error is not None:
            text += f": {one_line(headline(entity.error))}"
        elif entity.reason:
            text += f": {one_line(entity.reason)}"
        elif entity.ended and entity.started:
            text += f" in {duration((int(entity.ended) - int(entity.started)) / NANO)}"
        return appearance.tone, where, text


def _state_of(entity: Entity) -> str:
    match entity:
        case Producer():
            return f"{entity.liveness} {entity.closed} {entity.epoch}"
        case Problem():
            return "told"
        case _:
            return str(entity.state)
