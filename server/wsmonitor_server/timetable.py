"""What is due when: in each session that is in memory, and of the server's own jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from . import commands
from .agenda import Agenda
from .background import Background
from .clock import Clock
from .logs import fields
from .session import LoadedSession
from .sessions import Sessions

log = logging.getLogger(__name__)

Job = Callable[[float, int], None]
"""What is due, at the time in seconds of the monotonic clock, and in nanoseconds of the wall clock."""


class Timetable:
    """See the module's text.

    Args:
        interval: seconds between two messages of who watches a session.
        changed: to be called when a session has something to commit, or other deadlines.
        jobs: the server's own, by names that no session has.
    """

    def __init__(
        self,
        sessions: Sessions,
        background: Background,
        clock: Clock,
        interval: float,
        changed: Callable[[LoadedSession], None],
        jobs: Mapping[str, Job],
    ) -> None:
        self._sessions = sessions
        self._background = background
        self._clock = clock
        self._interval = interval
        self._changed = changed
        self._jobs = jobs
        self._unarmed: dict[str, LoadedSession] = {}  # whose deadlines may be others at the end of the turn
        self.agenda = Agenda(clock, self._due, stood_still=self._stood_still, gather=self._arm_all)

    def set(self, job: str, when: float | None) -> None:
        """*job* is due at *when* (monotonic seconds), and not at what was set before; None: never."""
        self.agenda.set(job, when)

    def arm(self, loaded: LoadedSession) -> None:
        """The deadlines of *loaded* may be others: looked at once a turn, however often it changes."""
        if not self._unarmed:
            asyncio.get_running_loop().call_soon(self._arm_all)
        self._unarmed[loaded.id] = loaded

    def forget(self, loaded: LoadedSession) -> None:
        """Nothing of *loaded* is due any more."""
        self.agenda.set(loaded.id, None)

    def _arm_all(self) -> None:
        if not self._unarmed:
            return
        unarmed, self._unarmed = self._unarmed, {}
        now, now_ns = self._clock.monotonic(), self._clock.wall_ns()
        for loaded in unarmed.values():
            if self._sessions.get(loaded.id) is loaded:
                self.agenda.set(loaded.id, loaded.arm(now, now_ns))

    def _stood_still(self, late: float) -> None:
        # A suspended machine, a blocked process: nobody could be heard, which is not their silence.
        log.warning("the server stood still for %.1f s", late)
        for loaded in self._sessions:
            loaded.watch.begin_anew(self._clock.monotonic())
            self.arm(loaded)

    def _due(self, key: str, now: float, now_ns: int) -> None:
        if (job := self._jobs.get(key)) is not None:
            job(now, now_ns)
        elif (loaded := self._sessions.get(key)) is not None:
            self._session_due(loaded, now, now_ns)

    def _session_due(self, loaded: LoadedSession, now: float, now_ns: int) -> None:
        nodes = self._sessions.nodes
        if loaded.retries:
            # While the store takes nothing, a producer's silence may be our refusals.
            loaded.watch.begin_anew(now)
        for producer, verdict in loaded.watch.handle_timeout(now):
            loaded.verdicts[producer] = verdict
            log.info("a producer is %s", verdict, extra=fields(session=loaded.id, producer=producer))
            holder = loaded.holders.get(producer)
            if holder is not None:
                holder.events.silent()
        if loaded.retry_at is not None and loaded.retry_at <= now:
            loaded.retry_at = None
            if nodes is not None:
                nodes.retry(loaded)
        if loaded.following.behind:
            # What is due can only be done behind what is being read: then it is armed again.
            self.agenda.set(loaded.id, loaded.retry_at or now + 1.0)
            return
        loaded.feed.let_go(now)
        loaded.apply_verdicts(now_ns)
        commands.expire(loaded.authority, now_ns)
        if loaded.retry_at is None and not loaded.ledger.uncommitted:
            loaded.retries = 0  # nothing of ours waits any more: silence from here on is the producer's
        here = loaded.feed.tell_presence(now, self._interval)
        if here is not None and nodes is not None:
            self._background.spawn(nodes.tell_watching(loaded, here))
        if loaded.evictable and loaded.idle_since + loaded.keep <= now:
            self._sessions.let_go(loaded)
            self.forget(loaded)
        else:
            self._changed(loaded)
