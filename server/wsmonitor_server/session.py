"""One loaded session: its ledger and authority, who holds its producers, and what it waits for."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import Hold
from wsmonitor.protocol.reducer import SessionState

from .authority import Authority
from .commands import next_deadline_ns
from .following import Following, Superseded
from .holds import Target
from .hub import Feed
from .ledger import Batch, Ledger
from .liveness import LivenessWatch, Verdict
from .ports import Refusal
from .stores.base import StoredSession

if TYPE_CHECKING:
    from .producers import Holder


IDLE: Final = 60.0
"""Seconds that a session nobody uses stays in memory."""

IDLE_ABSENT: Final = 1.0
"""The same, where there is no session under the id."""


class LoadedSession:
    """A session in memory.

    Attributes:
        node: the id of this node; empty where there is only one.
        verdicts: what the server's clock says of each watched producer, and ``goodbyes`` who left;
            applied again after a failed commit.
        holds: what is wanted of producers beneath what others own, as it was last told; only what holds.
        following: what other nodes have to do with it.
        gone: why nothing is done any more with what is in memory here; None while something is.
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
        node: str = "",
        ours: Callable[[str], bool] = lambda node: True,
    ) -> None:
        self.id = session
        self.node = node
        state = SessionState(session, epoch) if stored is None else stored.state
        state.epoch = epoch
        self.feed = Feed(session, state, limits, () if stored is None else stored.history)
        self.ledger = Ledger(
            self.feed,
            {} if stored is None else stored.producers,
            values=() if stored is None else stored.values,
            size=0 if stored is None else stored.size,
            retired=0 if stored is None else stored.retired,
        )
        self.authority = Authority(self.ledger, limits, node=node)
        self.watch = LivenessWatch(timing)
        self.verdicts: dict[str, Verdict] = {}
        self.goodbyes: set[str] = set()
        self.holders: dict[str, Holder] = {}
        self.holds: dict[Target, Hold] = {}
        self.waiters: list[Future[None]] = []
        self.flight: list[Future[None]] = []
        self.gone: ErrorInfo | None = None
        self.retry_at: float | None = None
        self.retries = 0
        self.idle_since = now
        self.following = Following(0 if stored is None else stored.version)
        self.watch_over(ours, now)

    def watch_over(self, ours: Callable[[str], bool], now: float) -> None:
        """Expect to hear of the producers that nobody holds and that were on one of *ours*, the nodes.

        Of others, which are not held here, somebody else says how they are: two verdicts would contradict
        each other for ever.
        """
        for name in [one for one in self.verdicts if one not in self.holders]:
            position = self.ledger.position(name)
            if not ours("" if position is None else position.node):
                self.watch.closed(name)
                del self.verdicts[name]
        facts = self.ledger.facts
        for producer in facts.producers.values():
            position = self.ledger.position(producer.id)
            if producer.id in self.watch or not ours("" if position is None else position.node):
                continue
            if producer.closed or (producer.liveness == "lost" and producer.id not in facts.open_of):
                continue
            level: Verdict = "lost" if producer.liveness == "lost" else "stale"
            self.watch.loaded(producer.id, level, now)
            self.verdicts[producer.id] = level

    @property
    def removed(self) -> bool:
        """Whether who wants to do something is to have the session loaded again."""
        return self.gone is not None

    @property
    def evictable(self) -> bool:
        """Whether nobody would notice if it were not in memory."""
        return not (
            self.feed.used
            or self.holders
            or len(self.watch)
            or self.retry_at is not None
            or self.ledger.uncommitted
            or self.following.behind
            or self.ledger.facts.pending
        )

    @property
    def keep(self) -> float:
        """Seconds to stay in memory when nobody uses it. What is not there costs nothing to load again,
        and anybody may ask for any number of ids that are not there."""
        return IDLE if self.feed.state.seq else IDLE_ABSENT

    def arm(self, now: float, now_ns: int) -> float | None:
        """When something is due, in seconds of the monotonic clock; None if never.

        Looked at when something may have changed: that is when it was used last.
        """
        candidates: list[float] = []
        if (when := self.watch.next_deadline()) is not None:
            candidates.append(when)
        if (expires := next_deadline_ns(self.authority)) is not None:
            candidates.append(now + max(0, expires - now_ns) / 1e9)
        if (when := self.feed.presence.deadline()) is not None:
            candidates.append(when)
        if (when := self.feed.kept_until) is not None:
            candidates.append(when)
        if self.retry_at is not None:
            candidates.append(self.retry_at)
        if not self.evictable:
            self.idle_since = now
        else:
            candidates.append(self.idle_since + self.keep)
        return min(candidates, default=None)

    def apply_verdicts(self, now_ns: int) -> None:
        """Bring the records in line with what the server's clock says of the producers."""
        for producer, verdict in list(self.verdicts.items()):
            if verdict == "crashed":
                self.authority.set_liveness(producer, "lost", now_ns)
                self.authority.crash(producer, now_ns)
            else:
                self.authority.set_liveness(producer, verdict, now_ns)
        for producer in self.goodbyes:
            self.say_goodbye(producer, now_ns)

    def say_goodbye(self, producer: str, now_ns: int) -> None:
        """*producer* has left in order."""
        self.authority.abandon_commands(producer, "its program said goodbye without an answer", now_ns)
        self.authority.set_liveness(producer, "live", now_ns, closed=True)

    def verdicts_kept(self) -> None:
        """Everything is committed: what is said for good need not be said again."""
        self.goodbyes.clear()
        if not self.verdicts:
            return
        open_of = self.ledger.facts.open_of
        self.verdicts = {
            one: verdict for one, verdict in self.verdicts.items() if verdict != "crashed" or one in open_of
        }

    @property
    def crashing(self) -> bool:
        """Whether a lost producer has left so much open that not all of it is declared crashed yet."""
        return "crashed" in self.verdicts.values()

    async def barrier(self) -> None:
        """Wait until what is at the tail now is committed.

        Raises:
            Refusal: it failed, or will never be: the session was removed.
            Superseded: another node was first, and what was at the tail is void: to be done again.
        """
        if self.gone is not None:
            raise Refusal(self.gone)
        if self.ledger.uncommitted:
            future: Future[None] = get_running_loop().create_future()
            (self.waiters if self.ledger.open else self.flight).append(future)
            await future

    def resolve(self, failure: Refusal | Superseded | None) -> None:
        """Who waited for the running commit goes on; with *failure*, also who waited for the next one."""
        waiters, self.flight = self.flight, []
        if failure is not None:
            waiters, self.waiters = [*waiters, *self.waiters], []
        for waiter in waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(failure)

    def take(self) -> Batch | None:
        """The next batch for the store; who waited for what is in it waits for its commit now."""
        batch = None if self.following.behind else self.ledger.take_batch()
        if batch is not None:
            batch.commit.version = self.following.version
            self.flight, self.waiters = self.waiters, []
        return batch
