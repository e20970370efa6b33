"""A session at one position, for user code: an immutable copy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from wsmonitor.protocol.entities import Chain, Command, Problem, Producer, Session, Step
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TERMINAL

from .rows import milliseconds

COLUMNS: Final = (
    "chain", "id", "parent", "name", "kind", "state", "attempt", "started", "ended", "seconds",
    "done", "total", "unit", "error", "reason",
)  # fmt: skip


class SessionSnapshot:
    """What is known of a session: complete, verified, and never changed afterwards.

    Attributes:
        record: the session's own record (see `wsmonitor.protocol.entities.Session`).
        chains, steps, commands, producers, problems: read-only mappings of id to record.
        epoch, seq: the position: after event ``seq`` of ``epoch``.
        digest: over all of it; equal to the server's at the same position.
    """

    __slots__ = ("chains", "commands", "digest", "epoch", "problems", "producers", "record", "seq", "steps")

    record: Session
    chains: Mapping[str, Chain]
    steps: Mapping[str, Step]
    commands: Mapping[str, Command]
    producers: Mapping[str, Producer]
    problems: Mapping[str, Problem]
    epoch: str
    seq: int
    digest: str

    def __init__(self, state: SessionState, record: Session) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("record", record)
        put("chains", MappingProxyType(state.chains))
        put("steps", MappingProxyType(state.steps))
        put("commands", MappingProxyType(state.commands))
        put("producers", MappingProxyType(state.producers))
        put("problems", MappingProxyType(state.problems))
        put("epoch", state.epoch)
        put("seq", state.seq)
        put("digest", state.digest)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a snapshot cannot be changed")

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def run(self) -> int:
        """1 for the first run of this name, 2 for the second …"""
        return self.record.run

    @property
    def state(self) -> str:
        return self.record.state

    @property
    def reason(self) -> str:
        return self.record.reason

    @property
    def terminal(self) -> bool:
        """Whether it has ended, well or not."""
        return self.record.state in TERMINAL

    @property
    def counts(self) -> dict[str, int]:
        """How many steps (every attempt counts) are in which state."""
        found: dict[str, int] = {}
        for step in self.steps.values():
            found[step.state] = found.get(step.state, 0) + 1
        return dict(sorted(found.items()))

    def records(self) -> list[dict[str, Any]]:
        """One dict per step, in the order in which they were made.

        ``started`` and ``ended`` are milliseconds since 1970 UTC or None, ``seconds`` is the duration.
        """
        found = []
        for step in sorted(
            self.steps.values(), key=lambda step: (int(step.created or step.started or 0), step.id)
        ):
            started, ended = milliseconds(step.started), milliseconds(step.ended)
            chain = self.chains.get(step.chain)
            progress = step.progress
            values = (
                chain.name if chain is not None else step.chain,
                step.id,
                step.parent,
                step.name,
                step.kind,
                step.state,
                step.attempt,
                started,
                ended,
                (int(step.ended) - int(step.started)) / 1e9 if step.started and step.ended else None,
                progress.done if progress else None,
                progress.total if progress else None,
                progress.unit if progress else "",
                step.error.message if step.error else "",
                step.reason,
            )
            found.append(dict(zip(COLUMNS, values, strict=True)))
        return found

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items()) or "no steps"
        return f"<session {self.name!r} run {self.run}: {self.state}; {counts}>"


def take(state: SessionState) -> SessionSnapshot | None:
    """The snapshot of *state*, which the caller gives away; None while there is no session in it."""
    record = state.session
    return None if record is None else SessionSnapshot(state, record)


__all__ = ["SessionSnapshot", "take"]
