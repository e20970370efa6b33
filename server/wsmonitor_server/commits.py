"""The one commit path: what all sessions have at their tails is committed together, one group at a time.

While a group is being made last, the next one gathers. What waits is bounded: `room` is where a
publishing connection waits. The path outlives every fault: of a store, and of what is done after a commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from .ledger import Batch
from .metrics import GROUP_SIZES, SECONDS, Histogram, Value
from .session import LoadedSession
from .stores.base import MovedError, Store, StoreError

log = logging.getLogger(__name__)

# Bytes that wait for commit before a publisher waits. Also what one group commit and its broadcast may
# hold up the loop with: about 20 ms.
QUEUE_LIMIT: Final = 512 * 1024


class Outcome(Protocol):
    """Who is told what became of a group."""

    def ended(self, failure: StoreError | None) -> None:
        """Told once for each group, before the others: what went wrong, if anything did."""

    def committed(self, loaded: LoadedSession, batch: Batch) -> None:
        """Told for each session of a group that was made last."""

    def moved(self, loaded: LoadedSession) -> None:
        """Told for each session of a group that another node has written to first."""

    async def failed(self, loaded: LoadedSession, exc: StoreError) -> None:
        """Told for each session of a group that was not made last, or of which nobody knows."""


class CommitPath:
    """See the module's text.

    Args:
        clock: monotonic seconds.

    Attributes:
        lock: held while the store writes session data; who removes a session takes it, too.
        commits, failures: how many groups there were.
        conflicts: how many sessions of these another node had written to first.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._seconds = Histogram(SECONDS)
        self._sizes = Histogram(GROUP_SIZES)
        self._dirty: dict[str, LoadedSession] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()  # it is given in the order in which it was asked for
        self._settled = asyncio.Event()
        self._settled.set()
        self._task: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()
        self.queued = 0
        self.commits = 0
        self.failures = 0
        self.conflicts = 0

    def measures(self) -> dict[str, Value]:
        """Figures of `figures.METRICS`."""
        return {
            "commits_total": self.commits,
            "commits_failed_total": self.failures,
            "commit_seconds": self._seconds,
            "commit_sessions": self._sizes,
            "commit_queue_bytes": self.queued,
        }

    def start(self, outcome: Outcome) -> None:
        """Commit from now on; *outcome* is told what becomes of it."""
        self._task = asyncio.create_task(self._run(outcome), name="wsmonitor commits")

    async def stop(self) -> None:
        """End at once; `settle` before, to have everything committed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def settle(self) -> None:
        """Wait until nothing waits for a commit any more."""
        await self._settled.wait()

    def mark(self, loaded: LoadedSession) -> None:
        """*loaded* has something to commit."""
        self._dirty[loaded.id] = loaded
        self._settled.clear()
        self._wake.set()

    def forget(self, loaded: LoadedSession) -> None:
        """*loaded* is gone."""
        if self._dirty.get(loaded.id) is loaded:
            del self._dirty[loaded.id]

    def add(self, size: int) -> None:
        """So many bytes more wait for the next group."""
        self.queued += size

    @property
    def has_room(self) -> bool:
        """Whether `room` would not wait."""
        return self.queued < QUEUE_LIMIT and not self._turn.locked()

    async def room(self) -> None:
        """Wait until less than the limit waits for commit (BOUNDED: this is the backpressure).

        One after the other, in the order in which they ask: else who always has more to say takes all the
        room each time that there is some, and the others wait until it falls silent.
        """
        async with self._turn:
            while self.queued >= QUEUE_LIMIT:
                self._room.clear()
                await self._room.wait()

    async def _run(self, outcome: Outcome) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self.lock:
                dirty, self._dirty = self._dirty, {}
                taken = [
                    (loaded, batch)
                    for loaded in dirty.values()
                    if not loaded.removed and (batch := loaded.take()) is not None
                ]
                if taken:
                    await self._commit(taken, outcome)
            self.queued = sum(loaded.ledger.open_size for loaded in self._dirty.values())
            if self.queued < QUEUE_LIMIT:
                self._room.set()
            if not self._dirty:
                self._settled.set()

    async def _commit(self, taken: list[tuple[LoadedSession, Batch]], outcome: Outcome) -> None:
        failure: StoreError | None = None
        moved: frozenset[str] = frozenset()
        began = self._clock()
        try:
            await self._store.commit([batch.commit for _, batch in taken])
        except MovedError as exc:
            moved = exc.sessions
        except StoreError as exc:
            log.error("commit failed: %s", exc)
            failure = exc
        except Exception as exc:
            log.exception("commit failed")
            failure = StoreError(f"a fault of the store: {exc!r}", outcome_known=False)
        self._seconds.observe(self._clock() - began)
        self._sizes.observe(len(taken))
        self.conflicts += len(moved)
        if failure is None:
            self.commits += 1
        else:
            self.failures += 1
        outcome.ended(failure)
        for loaded, batch in taken:
            try:
                if loaded.id in moved:
                    outcome.moved(loaded)
                    continue
                if failure is None:
                    outcome.committed(loaded, batch)
                    continue
                cause = failure
            except Exception as exc:
                log.exception("session %s: a fault after the commit", loaded.id)
                cause = StoreError(f"a fault after the commit: {exc!r}", outcome_known=False)
            try:
                await outcome.failed(loaded, cause)
            except Exception:
                # One session's fault must not end the commit path of the others.
                log.exception("session %s: a fault after a failed commit", loaded.id)
