"""One loaded session: its authority and feed, who holds its producers, and what it waits for."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsmonitor.protocol.changes import Change
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.reducer import SessionState

from .authority import Authority, Batch
from .commands import next_deadline_ns
from .hub import Feed
from .liveness import LivenessWatch, Verdict
from .ports import ProducerEvents
from .stores.base import StoredSession

if TYPE_CHECKING:
    from .engine import SessionEngine


class Holder:
    """An open producer on one connection: `ports.ProducerHandle`."""

    def __init__(
        self, engine: SessionEngine, loaded: LoadedSession, producer: str, epoch: int, events: ProducerEvents
    ) -> None:
        self.session = loaded.id
        self.producer = producer
        self.epoch = epoch
        self.events = events
        self.loaded = loaded
        self.opened = False  # whether its opening is committed: commands go to nobody before
        self.ended: ErrorInfo | None = None  # why it is no longer the holder
        self._engine = engine

    async def publish(self, producer_epoch: int, first: int, changes: Sequence[Change]) -> None:
        """See `ports.ProducerHandle.publish`. Raises `Refusal`."""
        await self._engine.publish(self, producer_epoch, first, changes)

    def heard(self) -> None:
        self._engine.heard(self)

    async def close(self, *, goodbye: bool) -> None:
        await self._engine.close_producer(self, goodbye=goodbye)


class LoadedSession:
    """A session in memory.

    Attributes:
        verdicts: what the server's clock says of each watched producer, and ``goodbyes`` who left;
            applied again after a failed commit.
        waiters: who waits for the commit of what is open; ``flight``: of what is being committed.
    """

    def __init__(
        self,
        session: str,
        epoch: str,
        stored: StoredSession | None,
        *,
        limits: Limits,
        timing: Timing,
        now: float,
    ) -> None:
        self.id = session
        state = SessionState(session, epoch) if stored is None else stored.state
        state.epoch = epoch
        self.feed = Feed(session, state, limits, () if stored is None else stored.history)
        self.authority = Authority(
            self.feed,
            {} if stored is None else stored.producers,
            limits,
            values=() if stored is None else stored.values,
            size=0 if stored is None else stored.size,
        )
        self.watch = LivenessWatch(timing)
        self.verdicts: dict[str, Verdict] = {}
        self.goodbyes: set[str] = set()
        self.holders: dict[str, Holder] = {}
        self.waiters: list[Future[None]] = []
        self.flight: list[Future[None]] = []
        self.removed = False
        self.retry_at: float | None = None
        self.retries = 0
        self.idle_since = now
        facts = self.authority.facts
        for producer in facts.producers.values():
            if producer.closed or (producer.liveness == "lost" and not facts.open_entities[producer.id]):
                continue
            level: Verdict = "lost" if producer.liveness == "lost" else "stale"
            self.watch.loaded(producer.id, level, now)
            self.verdicts[producer.id] = level

    @property
    def evictable(self) -> bool:
        """Whether nobody would notice if it were not in memory."""
        return not (
            self.feed.used
            or self.holders
            or len(self.watch)
            or self.retry_at is not None
            or self.authority.uncommitted
            or self.authority.facts.pending
        )

    def next_deadline(self, now: float, now_ns: int, keep: float) -> float | None:
        """When something is due, in seconds of the monotonic clock; None if never."""
        expires = next_deadline_ns(self.authority)
        candidates = [
            self.watch.next_deadline(),
            None if expires is None else now + max(0, expires - now_ns) / 1e9,
            self.feed.presence.deadline(),
            self.retry_at,
            self.idle_since + keep if self.evictable else None,
        ]
        return min((when for when in candidates if when is not None), default=None)

    def apply_verdicts(self, now_ns: int) -> None:
        """Bring the records in line with what the server's clock says of the producers."""
        for producer, verdict in list(self.verdicts.items()):
            if verdict == "crashed":
                self.authority.set_liveness(producer, "lost", now_ns)
                self.authority.crash(producer, now_ns)
            else:
                self.authority.set_liveness(producer, verdict, now_ns)
        for producer in self.goodbyes:
            self.authority.set_liveness(producer, "live", now_ns, closed=True)

    def verdicts_kept(self) -> None:
        """Everything is committed: what is said for good need not be said again."""
        self.goodbyes.clear()
        self.verdicts = {one: verdict for one, verdict in self.verdicts.items() if verdict != "crashed"}

    def take(self) -> Batch | None:
        """The next batch for the store; who waited for what is in it waits for its commit now."""
        batch = self.authority.take_batch()
        if batch is not None:
            self.flight, self.waiters = self.waiters, []
        return batch
