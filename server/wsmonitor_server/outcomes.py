"""What follows a commit: who is told that it was made, and what becomes of a session whose commit failed.

When nothing was written, the tail is thrown away and its producers are told to come back; when nobody knows
whether it was written, the session is loaded anew under a fresh epoch, which everybody sees.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.reducer import SessionState

from .clock import Clock
from .commits import CommitPath
from .condition import Condition
from .directory import Directory
from .ledger import Batch
from .logs import fields
from .producers import ProducerDesk
from .replies import store_refusal
from .session import LoadedSession
from .sessions import Sessions
from .stores.base import Store, StoreError
from .timetable import Timetable

log = logging.getLogger(__name__)


class Outcomes:
    """See the module's text: `commits.Outcome`.

    Args:
        changed: to be called when a session has something to commit, or other deadlines.
        listed: to be called when the directory may have other deadlines.
        counts: of ``events``, ``rejected`` and ``deliveries``.
        token_hex: random hexadecimal digits, so many bytes, for epochs.
    """

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        commits: CommitPath,
        producers: ProducerDesk,
        directory: Directory,
        timetable: Timetable,
        condition: Condition,
        clock: Clock,
        *,
        changed: Callable[[LoadedSession], None],
        listed: Callable[[], None],
        counts: Counter[str],
        token_hex: Callable[[int], str],
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._commits = commits
        self._producers = producers
        self._directory = directory
        self._timetable = timetable
        self._condition = condition
        self._clock = clock
        self._changed = changed
        self._listed = listed
        self._counts = counts
        self._token_hex = token_hex

    def ended(self, failure: StoreError | None) -> None:
        """A group was made last, unless there is a *failure*."""
        self._condition.committed(failure)

    def committed(self, loaded: LoadedSession, batch: Batch) -> None:
        """*batch* was made last."""
        nodes = self._sessions.nodes
        loaded.retries = 0
        loaded.following.version += 1
        self._sessions.known.add(loaded.id)
        self._counts["events"] += len(batch.events)
        self._counts["rejected"] += len(batch.rejections)
        self._counts["deliveries"] += len(batch.events) * len(loaded.feed.subscribers)
        for event in batch.events:
            if isinstance(event.entity, Command):
                one = event.entity
                log.info("a command is %s", one.state, extra=fields(session=loaded.id, command=one.id))
        loaded.ledger.committed(batch)
        self._producers.tell(loaded, batch)
        loaded.resolve(None)
        if not loaded.ledger.uncommitted:
            loaded.verdicts_kept()
            if loaded.crashing:
                loaded.apply_verdicts(self._clock.wall_ns())
        listing = batch.commit.listing
        if listing is not None and nodes is None:
            moved = self._directory.update(listing, self._clock.monotonic(), self._clock.wall_ns())
            if moved:
                self._listed()
        self._changed(loaded)
        if nodes is not None:
            nodes.advance(loaded)

    def moved(self, loaded: LoadedSession) -> None:
        """Another node has written first."""
        assert self._sessions.nodes is not None  # only a store that is shared says so
        self._sessions.nodes.moved(loaded)

    async def failed(self, loaded: LoadedSession, exc: StoreError) -> None:
        """A commit was not made, or nobody knows."""
        failure = store_refusal(exc, loaded.id)
        if self._sessions.nodes is not None:
            # Whether it was written will be read.
            loaded.ledger.rollback()
            self._sessions.nodes.moved(loaded)
        elif exc.outcome_known:
            loaded.ledger.rollback()
        else:
            await self._reload(loaded, failure.info)
        loaded.resolve(failure)
        self._producers.fail(loaded, failure.info)
        # What the server itself has to say of the producers is tried again.
        loaded.retries += 1
        loaded.retry_at = self._clock.monotonic() + min(30.0, 2.0 ** min(loaded.retries - 1, 5))
        self._timetable.arm(loaded)

    async def _reload(self, loaded: LoadedSession, failure: ErrorInfo) -> None:
        """Go on from what the store has, under a new epoch; without it, from nothing that is in memory."""
        try:
            stored = await self._store.load(loaded.id)
        except StoreError as exc:
            log.error("session %s cannot be loaded again: %s", loaded.id, exc)
            stored = None
            self._sessions.begin_anew(loaded, failure)
            self._commits.forget(loaded)
            self._timetable.forget(loaded)
        epoch = self._token_hex(8)
        if stored is None:
            loaded.ledger.restart(SessionState(loaded.id, epoch), {})
            return
        stored.state.epoch = epoch
        loaded.ledger.restart(stored.state, stored.producers, stored.retired, stored.size)
        loaded.ledger.touch()
