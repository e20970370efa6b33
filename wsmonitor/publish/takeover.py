"""What the earlier process left open is ended when another one resumes its session.

With ``resume=`` a process takes over the producer of the session's owner, and with it what that one had
begun: chains and steps that nobody works on any more, and commands that it had accepted. The server tells
which those are, by one sync, after the earlier holder was fenced; then nothing of them can change any more
behind our back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from wsmonitor.client.types import PhaseChanged, SyncCompleted
from wsmonitor.protocol.changes import ChainChange, CommandChange, StepChange
from wsmonitor.protocol.states import TERMINAL

if TYPE_CHECKING:
    from wsmonitor.protocol.reducer import SessionState

    from .channel import ConnectionLike
    from .run import Run

REASON: Final = "left open by the process before: the session was resumed by another one"


def end_what_was_left(
    run: Run, connection: ConnectionLike, producer: str, *, done: Callable[[], None]
) -> None:
    """Have what *producer*'s earlier process left open ended; then, or when it cannot be known, *done*."""
    _Takeover(run, producer, done).begin(connection)


class _Takeover:
    def __init__(self, run: Run, producer: str, done: Callable[[], None]) -> None:
        self._run = run
        self._producer = producer
        self._done: Callable[[], None] | None = done
        self._subscription: Any = None

    def begin(self, connection: ConnectionLike) -> None:
        self._subscription = connection.subscribe(self._run.session_id, self._told)

    def _told(self, update: Any) -> None:
        # On the connection's thread.
        over = isinstance(update, PhaseChanged) and update.phase in ("not_available", "closed")
        done = self._done
        if done is None or not (over or isinstance(update, SyncCompleted)):
            return
        self._done = None
        if not over:
            with self._run.lock:
                self._end(self._subscription.state)
        self._subscription.close()
        done()

    def _end(self, state: SessionState) -> None:
        run, submit = self._run, self._run.channel.submit
        now = run.now()
        # Steps first: a chain ends after what is in it, the inner before the outer.
        for step in reversed(list(state.steps.values())):
            if self._left(step):
                submit(StepChange(id=step.id, state="cancelled", reason=REASON, ended=now, commands=()))
        for chain in state.chains.values():
            if self._left(chain):
                submit(ChainChange(id=chain.id, state="cancelled", reason=REASON, ended=now))
        for command in state.commands.values():
            target = state.steps.get(command.step) or state.chains.get(command.chain) or state.session
            if (
                command.state == "accepted"
                and target is not None
                and target.producer == self._producer
                and not run.gave(command.step or command.chain)
            ):
                submit(CommandChange(id=command.id, state="unknown", reason=REASON))

    def _left(self, work: Any) -> bool:
        return work.producer == self._producer and work.state not in TERMINAL and not self._run.gave(work.id)
