"""What pause, resume and cancel mean for the producers that they were not addressed to.

A command is delivered to one producer, the owner of what it names, and its record tells what became of
it there. Other producers may work beneath the same session, chain or step: forked children, joined
workers. They are told what is wanted of them from the records, by level and not by edge: for each target
``pause``, ``cancel`` or ``run``, all of it when they open, and each change. So a lost message does no
harm, nothing is executed twice, and nobody waits for a pause whose target has ended.

- ``cancel``: the owner accepted a cancel, and the target has not ended otherwise than ``cancelled``;
- ``pause``: of the pauses and resumes that the owner accepted the last is a pause, and the target is open;
- else ``run``.
"""

from __future__ import annotations

from typing import Final

from wsmonitor.protocol.entities import Chain, Command, Entity, Session, Step
from wsmonitor.protocol.messages import Hold
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TERMINAL

Target = tuple[str, str]
"""Kind and id of what a command names; the session's id is not repeated."""

_NAMES: Final = frozenset({"pause", "resume", "cancel"})
_IN_FORCE: Final = frozenset({"accepted", "applied"})
_SAYS: Final = {"pause": "paused", "cancel": "cancelled"}


def target_of(entity: Entity) -> Target | None:
    """The target whose hold may be another after an event with *entity*; None for none."""
    match entity:
        case Command(name=name, state=state):
            return _target(entity) if name in _NAMES and state not in ("requested", "delivered") else None
        case Session(state=state) if state in TERMINAL:
            return ("session", "")
        case Chain(state=state) if state in TERMINAL:
            return ("chain", entity.id)
        case Step(state=state) if state in TERMINAL:
            return ("step", entity.id)
    return None


def hold(state: SessionState, target: Target) -> Hold:
    """What is wanted of those who work beneath *target*."""
    return _hold(state, target, [one for one in state.commands.values() if _counts(one, target)])


def holds(state: SessionState) -> dict[Target, Hold]:
    """Everything that is in force, by target."""
    commands: dict[Target, list[Command]] = {}
    for command in state.commands.values():
        if command.name in _NAMES and command.state in _IN_FORCE:
            commands.setdefault(_target(command), []).append(command)
    found = {target: _hold(state, target, some) for target, some in commands.items()}
    return {target: one for target, one in found.items() if one.want != "run"}


def owner(state: SessionState, target: Target) -> str:
    """The producer that *target* belongs to, which has the command itself."""
    work = _work(state, target)
    return "" if work is None else work.producer


def _target(command: Command) -> Target:
    if command.step:
        return ("step", command.step)
    return ("chain", command.chain) if command.chain else ("session", "")


def _counts(command: Command, target: Target) -> bool:
    return command.name in _NAMES and command.state in _IN_FORCE and _target(command) == target


def _work(state: SessionState, target: Target) -> Session | Chain | Step | None:
    kind, ident = target
    if kind == "session":
        return state.session
    return state.chains.get(ident) if kind == "chain" else state.steps.get(ident)


def _hold(state: SessionState, target: Target, commands: list[Command]) -> Hold:
    kind, ident = target
    work = _work(state, target)
    last: Command | None = None
    if work is not None:
        for command in sorted(commands, key=lambda one: int(one.accepted or one.requested)):
            if command.name == "cancel":
                if work.state not in TERMINAL or work.state == "cancelled":
                    last = command
                    break
            elif work.state not in TERMINAL:
                last = command if command.name == "pause" else None
    want, reason = "run", ""
    if last is not None:
        want, actor = last.name, last.actor or last.via
        reason = f"{_SAYS[want]} by {actor}" if actor else _SAYS[want]
    return Hold(
        chain=ident if kind == "chain" else "",
        step=ident if kind == "step" else "",
        want="cancel" if want == "cancel" else "pause" if want == "pause" else "run",
        reason=reason,
    )
