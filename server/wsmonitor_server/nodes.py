"""Several servers over one store: what this node does because of what the others do.

All nodes are equal, and none owns a session. A node judges changes on its own tail, as if it were alone;
the store takes a commit only if nobody was first (`stores.base.MovedError`). Then, and whenever the bus
tells of another node's commit, the tail is thrown away, the other's events become the head and are told
here, and what was published here is judged again behind them::

    bus: another's commit ──> undo the tail ──> adopt: head, feed, holders ──> again: what was published here
                                                   ^
    MovedError ──> read from the store what was missed

So every node's feeds carry the same events under the same numbers, whoever made them. A node that cannot be
sure to know all revocations (`sure`) neither sends nor takes anything of sessions.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from wsmonitor.protocol.errors import WsMonitorError
from wsmonitor.protocol.messages import Position
from wsmonitor.protocol.reducer import SessionState

from .attention import Attention
from .background import Background
from .clock import Clock
from .directory import Directory
from .metrics import Value
from .producers import ProducerDesk
from .replies import refusal
from .revocations import Revocations
from .session import LoadedSession
from .sessions import Sessions
from .stores.base import StoredSession, StoreError
from .stores.bus import (
    Committed,
    Lost,
    Message,
    NodeGone,
    People,
    Regenerated,
    SessionRemoved,
    Shared,
    TokenRevoked,
    WardenChanged,
    Watching,
)

log = logging.getLogger(__name__)

UNSURE: Final = 1.0
"""Seconds without a word from the store after which a token may have been revoked that is taken for good here
(invariant EXPIRED)."""

LOOK: Final = 0.25
"""Seconds between two looks at whether this node is sure."""

RETRY: Final = 1.0
"""Seconds until a session that could not be read is read again."""


_KINDS: Final[dict[type[Message], str]] = {
    Committed: "committed",
    SessionRemoved: "removed",
    TokenRevoked: "revoked",
    Watching: "watching",
    NodeGone: "node_gone",
    WardenChanged: "warden",
    Lost: "lost",
    Regenerated: "regenerated",
}
"""What a message is counted as."""


class Nodes:
    """See the module's text.

    Args:
        changed: to be called when a session has something to commit, or other deadlines.
        listed: to be called when the directory may have other deadlines.
        forget: takes a session that was removed out of memory, and tells all who use it.
        doubtful: `sure` is another.
        counts: of ``deliveries``: events that were told here, times those who watch.
    """

    def __init__(
        self,
        store: Shared,
        directory: Directory,
        producers: ProducerDesk,
        clock: Clock,
        sessions: Sessions,
        revocations: Revocations,
        attention: Attention,
        background: Background,
        *,
        changed: Callable[[LoadedSession], None],
        listed: Callable[[], None],
        forget: Callable[[LoadedSession], None],
        doubtful: Callable[[], None],
        counts: Counter[str],
    ) -> None:
        self._store = store
        self._directory = directory
        self._producers = producers
        self._clock = clock
        self._sessions = sessions
        self._background = background
        self._changed = changed
        self._listed = listed
        self._forget = forget
        self._revocations = revocations
        self._attention = attention
        self._doubtful = doubtful
        self._counts = counts
        self._making_up = False
        self._told_sure = True
        self._arriving: dict[str, deque[Committed]] = {}  # news of sessions that are being loaded
        self._alive: set[str] = set()
        self._warden = False
        self._doubt = 0  # how many times messages were missed whose effects are not made up for yet
        self._heard: Counter[str] = Counter()
        self._adopted = self._reread = self._repairs = 0
        store.listen(self.hear)

    @property
    def node(self) -> str:
        return self._store.node

    @property
    def sure(self) -> bool:
        """Whether nothing that matters can have been missed: revocations above all."""
        return self._doubt == 0 and self._clock.monotonic() - self._store.sure() <= UNSURE

    @property
    def trouble(self) -> str:
        """What is wrong with the way to the others; "" where nothing is known to be."""
        return self._store.trouble()

    def measures(self) -> dict[str, Value]:
        """Figures of `figures.METRICS`."""
        return {
            "node_sure": int(self.sure),
            "bus_sure_age_seconds": max(0.0, self._clock.monotonic() - self._store.sure()),
            "bus_messages_total": {kind: self._heard[kind] for kind in _KINDS.values()},
            "adopted_total": self._adopted,
            "reread_total": self._reread,
            "repairs_total": self._repairs,
            "epochs_total": self._heard["regenerated"],
            "warden": int(self._warden),
        }

    async def opened(self) -> None:
        """The store is open: learn who is there. Raises `StoreError`."""
        self._alive |= await self._store.nodes()

    def ours(self, node: str) -> bool:
        """Whether the producers that were on *node* are this node's to watch over, if nobody holds them."""
        return node == self.node or (self._warden and node not in self._alive)

    @contextmanager
    def arriving(self, session: str) -> Iterator[deque[Committed]]:
        """While *session* is being loaded: what is told of it meanwhile."""
        news = self._arriving[session] = deque()
        try:
            yield news
        finally:
            del self._arriving[session]

    async def watching(self, session: str) -> dict[str, People]:
        """Who watches the session at other nodes."""
        return await self._store.watching(session)

    async def tell_watching(self, loaded: LoadedSession, people: People) -> None:
        """Tell the other nodes who watches here. What cannot be told now is told again."""
        try:
            await self._store.tell_watching(loaded.id, people)
        except StoreError as exc:
            log.warning("session %s: the other nodes cannot be told who watches: %s", loaded.id, exc)
            loaded.feed.presence.dirty = True

    # -- what the bus tells

    def hear(self, message: Message) -> None:
        """A message of the bus. Must not raise: the bus goes on."""
        self._heard[_KINDS[type(message)]] += 1
        try:
            self._hear(message)
        except Exception:
            log.exception("a fault in what another node told: %s", type(message).__name__)

    def _hear(self, message: Message) -> None:
        match message:
            case Committed():
                self._committed(message)
            case SessionRemoved(session, _, node):
                if node != self.node:
                    self._removed(session)
            case TokenRevoked(jti, expires):
                self._revocations.take(jti, expires)
            case Watching(session, node, people):
                if node != self.node:
                    self._lives(node)
                    self._watched(session, node, people)
            case NodeGone(node):
                self._gone(node)
            case WardenChanged(mine):
                self._warden = mine
                if mine:
                    self._background.spawn(self._take_charge())
                else:
                    self._review()
            case Lost() | Regenerated():
                self._miss()

    def _miss(self) -> None:
        self._doubt += 1
        self._background.spawn(self._make_up())
        self.look()

    def _committed(self, message: Committed) -> None:
        session = message.session
        self._sessions.known.add(session)
        self._lives(message.node)
        if message.listing is not None:
            # In the bus's order, this node's own included: an older line must not come after a newer one.
            self._directory.update(message.listing, self._clock.monotonic(), self._clock.wall_ns())
            self._listed()
        if (news := self._arriving.get(session)) is not None:
            news.append(message)
        if message.node != self.node and (loaded := self._sessions.get(session)) is not None:
            loaded.following.news.append(message)
            self.advance(loaded)

    def _removed(self, session: str) -> None:
        loaded = self._sessions.get(session)
        if loaded is not None:
            self._forget(loaded)
        else:
            self._sessions.known.discard(session)
            self._directory.remove(session, self._clock.wall_ns())
            self._listed()

    def _watched(self, session: str, node: str, people: People) -> None:
        loaded = self._sessions.get(session)
        if loaded is None:
            return
        presence = loaded.feed.presence
        if people:
            presence.elsewhere[node] = people
        else:
            presence.elsewhere.pop(node, None)
        presence.dirty = True
        self._changed(loaded)

    def _lives(self, node: str) -> None:
        """*node* is there, whatever was thought of it: it watches over its own producers."""
        if node not in self._alive:
            self._alive.add(node)
            self._review()

    def _review(self) -> None:
        """Others are there, or watch over the rest: what is this node's to watch over?"""
        now = self._clock.monotonic()
        for loaded in self._sessions:
            loaded.watch_over(self.ours, now)
            self._changed(loaded)

    def _gone(self, node: str) -> None:
        self._alive.discard(node)
        for loaded in self._sessions:
            if node in loaded.feed.presence.elsewhere:
                self._watched(loaded.id, node, ())
        if self._warden:
            self._background.spawn(self._take_charge())

    async def _take_charge(self) -> None:
        """Nobody else watches over the producers of nodes that are gone: this one does."""
        try:
            self._alive |= await self._store.nodes()
            listings = await self._store.listings()
        except StoreError as exc:
            log.error("the sessions of a node that is gone cannot be found: %s", exc)
            return
        now, now_ns = self._clock.monotonic(), self._clock.wall_ns()
        for loaded in self._sessions:
            loaded.watch_over(self.ours, now)
            loaded.apply_verdicts(now_ns)
            self._changed(loaded)
        wanted = sorted((one for one, attention in listings if attention), key=lambda one: one.size)
        self._attention.turn_to([one.id for one in wanted if one.id not in self._sessions])

    # -- sessions

    def advance(self, loaded: LoadedSession) -> None:
        """Apply what other nodes have committed, unless a commit of ours, or a look into the store, runs."""
        if loaded.following.behind or loaded.removed or loaded.ledger.committing:
            return
        while loaded.following.news and loaded.following.news[0].version <= loaded.following.version:
            loaded.following.news.popleft()
        if not loaded.following.news:
            return
        news = list(loaded.following.news)
        if any(one.version != loaded.following.version + at for at, one in enumerate(news, 1)):
            self.moved(loaded)
            return
        loaded.following.news.clear()
        self._adopt(loaded, news)

    def _adopt(self, loaded: LoadedSession, commits: list[Committed]) -> None:
        """Make *commits*, which follow what is here, the head."""
        again = loaded.ledger.uncommitted
        if again:
            self._producers.undo(loaded)
        for commit in commits:
            ledger = loaded.ledger
            if commit.epoch != ledger.epoch or commit.head != ledger.tail:
                self.moved(loaded)
                break
            try:
                events = ledger.adopt(
                    commit.events, commit.producers, released=commit.released, retired=commit.retired
                )
            except WsMonitorError as exc:
                log.error("session %s: what another node has committed cannot be read: %s", loaded.id, exc)
                ledger.rollback()
                self.moved(loaded, whole=True)
                break
            loaded.following.version = commit.version
            self._adopted += 1
            self._counts["deliveries"] += len(events) * len(loaded.feed.subscribers)
            self._producers.adopted(loaded, events, commit.producers)
        if again and not loaded.following.behind:
            self._producers.again(loaded)
        elif again:
            loaded.following.redo = True
        self._changed(loaded)

    def judges(self, loaded: LoadedSession, position: Position | None) -> bool:
        """Whether *position* can be judged here: no other node can have told it, or what it told is known."""
        if position is None or not position.seq or position.epoch in loaded.following.left:
            return True
        state = loaded.feed.state
        return position.epoch == state.epoch and position.seq <= state.seq

    async def caught_up(self, loaded: LoadedSession, position: Position) -> None:
        """Wait until what others have committed is read (`moved`), so that *position* can be judged.

        Raises:
            StoreError: it cannot be read now.
        """
        await loaded.following.caught_up()
        if position.epoch != loaded.feed.state.epoch:
            loaded.following.leave(position.epoch)

    def moved(self, loaded: LoadedSession, *, whole: bool = False) -> None:
        """The store has more than is known here: read it, and do nothing else with the session meanwhile."""
        if loaded.ledger.uncommitted:
            self._producers.undo(loaded)
            loaded.following.redo = True
        if not loaded.following.behind:
            loaded.following.behind = True
            self._background.spawn(self._follow(loaded, whole))

    async def _follow(self, loaded: LoadedSession, whole: bool) -> None:
        loaded.following.was_read(await self._read(loaded, whole))

    async def _read(self, loaded: LoadedSession, whole: bool) -> bool:
        """One attempt at reading what others have committed; False if it was not possible."""
        try:
            missed = None if whole else await self._store.missed(loaded.id, loaded.following.version)
            stored = None if missed else await self._store.load(loaded.id)
            gone = not missed and stored is None and loaded.following.version > 0
            removed = gone and await self._store.tombstone(loaded.id) is not None
            if gone and not removed and loaded.ledger.epoch == self._store.epoch:
                # Nothing was lost: somebody has deleted what the store had of it. All others are to hear it.
                log.error("session %s: the store has nothing of it any more: it counts as removed", loaded.id)
                await self._store.remove(loaded.id, at=self._clock.wall_ns())
                removed = True
        except StoreError as exc:
            log.error("session %s cannot be read: %s", loaded.id, exc)
            # Looked at again by `retry`; nothing of it is sent or taken until then.
            loaded.retry_at = loaded.following.failed_until = self._clock.monotonic() + RETRY
            self._changed(loaded)
            return False
        self._reread += 1
        loaded.following.behind = False
        if loaded.removed:
            return True
        if loaded.ledger.uncommitted:
            # What came meanwhile was judged on what is no longer the head.
            self._producers.undo(loaded)
            loaded.following.redo = True
        if missed:
            self._adopt(loaded, missed)
        elif removed:
            self._forget(loaded)
            return True
        elif gone:
            self._lose(loaded)
        else:
            self._replace(loaded, stored)
        if loaded.following.redo and not loaded.following.behind:
            loaded.following.redo = False
            self._producers.again(loaded)
        self._changed(loaded)
        self.advance(loaded)
        return True

    def retry(self, loaded: LoadedSession) -> None:
        """A deadline of *loaded* has come: if it could not be read, read it now."""
        until = loaded.following.failed_until
        if until is not None and until <= self._clock.monotonic():
            loaded.following.failed_until = None
            self._background.spawn(self._follow(loaded, whole=False))

    def _replace(self, loaded: LoadedSession, stored: StoredSession | None) -> None:
        """Go on from *stored*: too much was missed, or the session goes on under another epoch."""
        if stored is None:
            return  # nobody has committed anything yet
        here = (loaded.following.version, loaded.ledger.epoch)
        if (stored.version, stored.state.epoch) == here:
            return  # nothing was missed
        continued = stored.state.epoch == loaded.ledger.epoch or not loaded.following.version
        loaded.ledger.restart(
            stored.state, stored.producers, stored.retired, stored.size, history=stored.history
        )
        loaded.following.version = stored.version
        if continued:
            self._producers.adopted(loaded, (), stored.producers)
        else:
            self._ask_again(loaded)
        loaded.watch_over(self.ours, self._clock.monotonic())

    def _lose(self, loaded: LoadedSession) -> None:
        """The store has lost the session; nobody has removed it. It begins anew, with what is asserted."""
        loaded.ledger.restart(SessionState(loaded.id, self._store.epoch), {})
        loaded.following.version = 0
        self._ask_again(loaded)
        if not loaded.following.news:
            self._sessions.known.discard(loaded.id)
            self._directory.remove(loaded.id, self._clock.wall_ns())
            self._listed()

    def _ask_again(self, loaded: LoadedSession) -> None:
        """Who publishes is to come again, and to assert what it owns."""
        lost = refusal(
            "store_failed", "the store may have lost what it had: send it again", session=loaded.id
        )
        loaded.resolve(lost)
        self._producers.fail(loaded, lost.info)

    # -- doubt

    async def _make_up(self) -> None:
        """Messages were missed: read from the store what they may have said."""
        if self._making_up:
            return  # it sees that there is more doubt, and does it again
        self._making_up = True
        try:
            while self._doubt and await self._read_all():
                pass
        finally:
            self._making_up = False
        self.look()

    async def _read_all(self) -> bool:
        """One reading of everything; False if it was not possible."""
        doubt = self._doubt
        try:
            revoked = await self._store.revoked()
            listings = await self._store.listings()
            self._alive = set(await self._store.nodes())
            watching = {
                loaded.id: await self._store.watching(loaded.id)
                for loaded in self._sessions
                if loaded.feed.used
            }
        except StoreError as exc:
            log.error("what was missed cannot be read: %s", exc)
            return False
        for jti, expires in revoked.items():
            self._revocations.take(jti, expires)
        now, now_ns = self._clock.monotonic(), self._clock.wall_ns()
        there = {listing.id for listing, _ in listings}
        for listing, _ in listings:
            self._sessions.known.add(listing.id)
            if listing.state != "absent":
                self._directory.update(listing, now, now_ns)
        self._listed()
        for session in [
            one for one in self._sessions.known if one not in there and one not in self._sessions
        ]:
            self._removed(session)
        for loaded in self._sessions:
            loaded.feed.presence.elsewhere = dict(watching.get(loaded.id, {}))
            loaded.feed.presence.dirty = True
            if not loaded.ledger.committing:
                self.moved(loaded)  # one that commits learns it by its commit
        self._review()
        if self._warden:
            self._background.spawn(
                self._take_charge()
            )  # that a node is gone may have been among what was missed
        self._repairs += 1
        if self._doubt == doubt:
            self._doubt = 0
        return True

    def look(self) -> None:
        """Now and then (`LOOK`): tell whether this node is sure, and try again what could not be read."""
        if self._doubt and not self._making_up:
            self._background.spawn(self._make_up())
        if self.sure != self._told_sure:
            self._told_sure = self.sure
            self._doubtful()
