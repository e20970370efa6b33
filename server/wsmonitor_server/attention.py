"""Sessions whose producers nobody heard for a while, because a server was away: they are watched again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from . import commands
from .clock import Clock
from .ports import Refusal
from .session import LoadedSession
from .sessions import Sessions

log = logging.getLogger(__name__)


class Attention:
    """Loads them one after the other, while others are served already: one of a million steps takes half a
    minute.

    Args:
        changed: to be called when a session has something to commit, or other deadlines.
    """

    def __init__(self, sessions: Sessions, clock: Clock, changed: Callable[[LoadedSession], None]) -> None:
        self._sessions = sessions
        self._clock = clock
        self._changed = changed
        self._task: asyncio.Task[None] | None = None

    def turn_to(self, sessions: Sequence[str]) -> None:
        """Have *sessions* watched, in this order, and no longer those that were to be before."""
        if sessions:
            self.turn_away()
            self._task = asyncio.create_task(self._attend(sessions))

    def turn_away(self) -> None:
        """Load no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def paid(self) -> None:
        """Wait until all are watched."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _attend(self, sessions: Sequence[str]) -> None:
        for session in sessions:
            if session not in self._sessions.known:
                continue  # removed meanwhile
            # What is wrong with one session must not keep the others from being watched.
            try:
                loaded = await self._sessions.load(session)
                loaded.apply_verdicts(self._clock.wall_ns())
                commands.expire(loaded.authority, self._clock.wall_ns())
                self._changed(loaded)
            except Refusal as exc:
                log.error("session %s cannot be loaded: %s", session, exc.info.message)
            except Exception:
                log.exception("session %s: a fault in watching it again", session)
