"""Who holds which producer: opening, fencing, publishing, leaving; and commands on their way to them.

A producer is held by one connection at a time. Opening it again raises its epoch and fences the
holder before; a failed commit ends every holder of its session, because what they sent is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.changes import Change, SessionChange, Unreadable
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.messages import Hold, PublishOpen, PublishOpened

from . import commands, holds
from .clock import Clock
from .commits import CommitPath
from .following import Published, Superseded
from .hub import Numbered
from .ledger import Batch
from .merge import Rejection
from .ports import ProducerEvents, Refusal
from .replies import refusal, store_refusal
from .session import LoadedSession
from .stores.base import Store, StoreError


def rejected(rejection: Rejection, session: str) -> Refusal:
    """What a client is told whose request, and not only one change, was refused."""
    return refusal(rejection.code, rejection.message, session=session)


class Holder:
    """An open producer on one connection: `ports.ProducerHandle`.

    Attributes:
        opened: whether its opening is committed; commands go to nobody before.
        ended: why it is no longer the holder; None while it is.
        left: whether that is because it was closed: what it has sent before counts.
        undone: whether that is only because another node was first: nobody is told, it is judged again.
    """

    def __init__(
        self, desk: ProducerDesk, loaded: LoadedSession, producer: str, epoch: int, events: ProducerEvents
    ) -> None:
        self.session = loaded.id
        self.producer = producer
        self.epoch = epoch
        self.events = events
        self.loaded = loaded
        self.opened = False
        self.ended: ErrorInfo | None = None
        self.left = False
        self.undone = False
        self._desk = desk

    async def publish(self, producer_epoch: int, first: int, changes: Sequence[Change | Unreadable]) -> None:
        """See `ports.ProducerHandle.publish`. Raises `Refusal`."""
        await self._desk.publish(self, producer_epoch, first, changes)

    def publish_now(self, producer_epoch: int, first: int, changes: Sequence[Change | Unreadable]) -> bool:
        """See `ports.ProducerHandle.publish_now`. Raises `Refusal`."""
        return self._desk.publish_now(self, producer_epoch, first, changes)

    def heard(self) -> None:
        """See `ports.ProducerHandle.heard`."""
        self._desk.heard(self)

    async def close(self, *, goodbye: bool) -> None:
        """See `ports.ProducerHandle.close`. Raises `Refusal` when a goodbye could not be kept."""
        await self._desk.close(self, goodbye=goodbye)

    def check(self, producer_epoch: int) -> None:
        """Raise `Refusal` when it is no longer the holder."""
        if self.ended is not None:
            raise Refusal(self.ended)
        if producer_epoch != self.epoch:
            raise refusal("fenced", f"the producer's epoch is {self.epoch}", session=self.session)


class ProducerDesk:
    """The holders of all sessions.

    Args:
        changed: to be called when a session has something to commit, or other deadlines.
        allowed: raises `Refusal` while nothing may be taken.
        shared: whether other nodes write to the store, too.
    """

    def __init__(
        self,
        store: Store,
        commits: CommitPath,
        clock: Clock,
        changed: Callable[[LoadedSession], None],
        allowed: Callable[[str], None],
        *,
        shared: bool = False,
    ) -> None:
        self._shared = shared
        self._store = store
        self._commits = commits
        self._clock = clock
        self._changed = changed
        self._allowed = allowed

    async def open(
        self,
        message: PublishOpen,
        loaded: LoadedSession,
        claims: Claims,
        events: ProducerEvents,
    ) -> tuple[PublishOpened, Holder]:
        """Make the caller the holder. Raises `Refusal`."""
        while True:
            try:
                return await self._open(message, loaded, claims, events)
            except Superseded:
                continue  # judged again, behind what another node has committed

    async def _open(
        self, message: PublishOpen, loaded: LoadedSession, claims: Claims, events: ProducerEvents
    ) -> tuple[PublishOpened, Holder]:
        authority, ledger, producer = loaded.authority, loaded.ledger, message.producer
        # A producer that was declared crashed and comes back is asked to assert what it owns.
        known = ledger.position(producer) is not None and not authority.owns_crashed(producer)
        try:
            entity = authority.open_producer(
                producer,
                claims.sub,
                message.agent,
                self._clock.wall_ns(),
                holder=message.holder,
                held=message.producer_epoch,
            )
        except Rejection as rejection:
            raise rejected(rejection, loaded.id) from None
        before = loaded.holders.get(producer)
        if before is not None:
            self.fence(before)
        holder = Holder(self, loaded, producer, entity.epoch, events)
        loaded.holders[producer] = holder
        loaded.goodbyes.discard(producer)
        loaded.watch.opened(producer, self._clock.monotonic(), events.last_heard)
        loaded.verdicts[producer] = "live"
        self._changed(loaded)
        failure: Refusal | None = None
        try:
            await loaded.barrier()
        except Refusal as exc:
            failure = exc
        if holder.ended is not None and not holder.undone:
            # Fenced, or removed, meanwhile: who was told so must not be told that it is open.
            failure = Refusal(holder.ended)
        if failure is not None:
            raise failure
        if holder.undone:
            raise Superseded
        holder.opened = True
        # In a later turn: the connection tells its client first that the producer is open.
        asyncio.get_running_loop().call_soon(self._deliver_waiting, holder)
        opened = PublishOpened(
            request=message.request,
            session=loaded.id,
            producer=producer,
            producer_epoch=entity.epoch,
            accepted=ledger.positions[producer].accepted,
            epoch=ledger.epoch,
            known=known,
            holds=self._holds_for(loaded, producer),
        )
        return opened, holder

    # -- ends

    def _end(self, holder: Holder, error: ErrorInfo) -> None:
        holder.ended = error
        if holder.loaded.holders.get(holder.producer) is holder:
            del holder.loaded.holders[holder.producer]

    def fence(self, holder: Holder, *, removed: bool = False) -> None:
        """Another holder took over, or the session was *removed*."""
        words = "the session was removed" if removed else "another holder opened this producer"
        details = {"reason": "removed"} if removed else {}
        self._end(holder, refusal("fenced", words, session=holder.session, details=details).info)
        holder.events.fenced(holder.session, holder.producer, removed=removed)

    def fail(self, loaded: LoadedSession, error: ErrorInfo) -> None:
        """A commit failed: what the holders of this session sent is gone, they are to come again."""
        loaded.following.pending.clear()
        for holder in list(loaded.holders.values()):
            self._fail(holder, error)

    def _fail(self, holder: Holder, error: ErrorInfo) -> None:
        loaded = holder.loaded
        self._end(holder, error)
        self._unwatch(loaded, holder.producer, self._clock.monotonic())
        if holder.opened:  # else the refusal of its opening says it all
            holder.events.failed(loaded.id, holder.producer, error)

    @staticmethod
    def _unwatch(loaded: LoadedSession, producer: str, now: float) -> None:
        if producer not in loaded.feed.state.producers:
            # It was to be opened for the first time: there is no such producer.
            loaded.watch.closed(producer)
            loaded.verdicts.pop(producer, None)
        elif (verdict := loaded.watch.disconnected(producer, now)) is not None:
            loaded.verdicts[producer] = verdict

    async def close(self, holder: Holder, *, goodbye: bool) -> None:
        """The holder leaves: with a goodbye its silence is expected, otherwise it is stale at once."""
        loaded, producer = holder.loaded, holder.producer
        if holder.ended is not None:
            return
        self._end(holder, refusal("unexpected_message", "the producer was closed", session=loaded.id).info)
        holder.left = True
        if goodbye:
            loaded.watch.closed(producer)
            loaded.verdicts.pop(producer, None)
            loaded.goodbyes.add(producer)
            loaded.say_goodbye(producer, self._clock.wall_ns())
        elif (verdict := loaded.watch.disconnected(producer, self._clock.monotonic())) is not None:
            loaded.verdicts[producer] = verdict
            loaded.authority.set_liveness(producer, verdict, self._clock.wall_ns())
        self._changed(loaded)
        while goodbye:
            try:
                await loaded.barrier()
            except Superseded:
                continue  # it was said again, behind what another node has committed
            break

    def heard(self, holder: Holder) -> None:
        """A frame arrived on the holder's connection."""
        loaded = holder.loaded
        if holder.ended is None and loaded.watch.heard(holder.producer, self._clock.monotonic()):
            loaded.verdicts[holder.producer] = "live"
            loaded.authority.set_liveness(holder.producer, "live", self._clock.wall_ns())
            self._changed(loaded)

    # -- changes

    async def publish(
        self, holder: Holder, producer_epoch: int, first: int, changes: Sequence[Change | Unreadable]
    ) -> None:
        """Take changes. Raises `Refusal`; then nothing was taken."""
        holder.check(producer_epoch)
        loaded, session = holder.loaded, holder.session
        self._allowed(session)
        await self._commits.room()
        await self._caught_up(loaded)
        run = 0
        uploaded: set[str] = set()
        try:
            for sha256 in loaded.authority.missing_uploads(changes):
                if await self._store.value_has(session, sha256):
                    uploaded.add(sha256)
            if loaded.ledger.facts.session is None:
                names = [one.name for one in changes if isinstance(one, SessionChange)]
                if names and isinstance(names[0], str):
                    run = await self._store.next_run(names[0])
        except StoreError as exc:
            raise store_refusal(exc, session) from exc
        await self._caught_up(loaded)  # what was awaited may have taken long enough to be behind again
        self._take(holder, producer_epoch, first, changes, run, uploaded)

    @staticmethod
    async def _caught_up(loaded: LoadedSession) -> None:
        """Wait until the next number is known: what is undone now counts again behind what is being read."""
        try:
            await loaded.following.caught_up()
        except StoreError as exc:
            raise store_refusal(exc, loaded.id) from exc

    def publish_now(
        self, holder: Holder, producer_epoch: int, first: int, changes: Sequence[Change | Unreadable]
    ) -> bool:
        """Take changes, if nothing has to be waited for: room, or what the store knows. Raises `Refusal`."""
        loaded = holder.loaded
        if (
            not self._commits.has_room
            or loaded.following.behind
            or loaded.ledger.facts.session is None
            or loaded.authority.missing_uploads(changes)
        ):
            return False
        self._take(holder, producer_epoch, first, changes, 0, ())
        return True

    def _take(
        self,
        holder: Holder,
        producer_epoch: int,
        first: int,
        changes: Sequence[Change | Unreadable],
        run: int,
        uploaded: Collection[str],
    ) -> None:
        loaded, session = holder.loaded, holder.session
        # What was awaited may have taken long enough for another holder, or a failure.
        holder.check(producer_epoch)
        self._allowed(session)
        before = loaded.ledger.open_size
        try:
            last = loaded.authority.publish(
                holder.producer, first, changes, self._clock.wall_ns(), run=run, uploaded=uploaded
            )
        except Rejection as rejection:
            raise rejected(rejection, session) from None
        if self._shared:
            loaded.following.pending.append(Published(holder, first, last, changes, run, uploaded))
        self._commits.add(max(0, loaded.ledger.open_size - before))
        self._changed(loaded)

    def tell(self, loaded: LoadedSession, batch: Batch) -> None:
        """A batch is committed: tell its producers, rejections before acknowledgements, then commands."""
        while loaded.following.pending and _taken(loaded, loaded.following.pending[0]):
            loaded.following.pending.popleft()
        for producer, number, error in batch.rejections:
            if (holder := loaded.holders.get(producer)) is not None:
                holder.events.rejected(loaded.id, producer, number, error)
        for producer, accepted in batch.acks.items():
            holder = loaded.holders.get(producer)
            if holder is not None and holder.opened:
                holder.events.acked(loaded.id, producer, accepted)
        self._tell_events(loaded, batch.events)

    def _tell_events(self, loaded: LoadedSession, events: Sequence[Numbered]) -> None:
        for event in events:
            if isinstance(event.entity, Command) and event.entity.state == "requested":
                holder = loaded.holders.get(loaded.authority.target(event.entity))
                if holder is not None and holder.opened:
                    holder.events.deliver(loaded.id, holder.producer, event.entity)
        self._tell_holds(loaded, events)

    def _holds_for(self, loaded: LoadedSession, producer: str) -> list[Hold]:
        state = loaded.feed.state
        loaded.holds = holds.holds(state)
        return [one for target, one in loaded.holds.items() if holds.owner(state, target) != producer]

    def _tell_holds(self, loaded: LoadedSession, events: Sequence[Numbered]) -> None:
        """Tell the producers that work beneath what another one owns when it is paused or cancelled."""
        if len(loaded.holders) < 2 and not loaded.holds:
            return
        state = loaded.feed.state
        for event in events:
            target = holds.target_of(event.entity)
            if target is None or (not isinstance(event.entity, Command) and target not in loaded.holds):
                continue
            now = holds.hold(state, target)
            before = loaded.holds.pop(target, None)
            if now.want != "run":
                loaded.holds[target] = now
            if now == before or (before is None and now.want == "run"):
                continue
            owner = holds.owner(state, target)
            for holder in loaded.holders.values():
                if holder.opened and holder.producer != owner:
                    holder.events.held(loaded.id, holder.producer, now)

    # -- other nodes

    def undo(self, loaded: LoadedSession) -> None:
        """What is not committed is void, because another node was first: it is to be done `again`."""
        loaded.ledger.rollback()
        now = self._clock.monotonic()
        for holder in [one for one in loaded.holders.values() if not one.opened]:
            # Its opening is judged again by who waits for it.
            holder.undone = True
            self._end(holder, refusal("unexpected_message", "superseded", session=loaded.id).info)
            self._unwatch(loaded, holder.producer, now)

    def adopted(self, loaded: LoadedSession, events: Sequence[Numbered], moved: Iterable[str]) -> None:
        """A commit was applied that was read, mostly another node's; it moved the positions of *moved*."""
        for producer in moved:
            position = loaded.ledger.positions[producer]
            holder = loaded.holders.get(producer)
            if holder is not None and position.epoch > holder.epoch:
                self.fence(holder)
                holder = None
            if holder is None and position.node != loaded.node:
                # Another node hears it from here on. (Its own is read here, too, when its answer was lost.)
                loaded.watch.closed(producer)
                loaded.verdicts.pop(producer, None)
        self._tell_events(loaded, events)

    def again(self, loaded: LoadedSession) -> None:
        """Do again what `undo` has thrown away, as far as it still may be done."""
        loaded.resolve(Superseded())
        now_ns = self._clock.wall_ns()
        pending, loaded.following.pending = loaded.following.pending, deque()
        for one in pending:
            holder = one.holder
            if not self._counts(holder):
                continue  # its client sends it again, or is told that another has taken over
            try:
                loaded.authority.publish(
                    holder.producer, one.first, one.changes, now_ns, run=one.run, uploaded=one.uploaded
                )
            except Rejection as rejection:
                self._fail(holder, rejected(rejection, loaded.id).info)
            else:
                loaded.following.pending.append(one)
        loaded.apply_verdicts(now_ns)
        self._changed(loaded)

    @staticmethod
    def _counts(holder: Holder) -> bool:
        """Whether what *holder* has sent is to be taken: it holds its producer, or was the last to do so."""
        position = holder.loaded.ledger.position(holder.producer)
        last = position is not None and position.epoch == holder.epoch
        return holder.ended is None or (holder.left and last)

    def _deliver_waiting(self, holder: Holder) -> None:
        if holder.ended is None:
            for command in commands.deliverable(
                holder.loaded.authority, holder.producer, self._clock.wall_ns()
            ):
                holder.events.deliver(holder.session, holder.producer, command)


def _taken(loaded: LoadedSession, one: Published) -> bool:
    """Whether all of *one* is committed, or never will be."""
    position = loaded.ledger.positions.get(one.holder.producer)
    if position is None:
        return False
    return position.epoch > one.holder.epoch or position.accepted >= one.last
