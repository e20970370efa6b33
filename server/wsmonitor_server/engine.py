"""The session side of the server: sessions in memory over a store, and the one commit path.

Changes of all sessions that come in while a commit runs are committed together in the next one
(group commit). Only after a commit anything is told, in this order: events, rejections,
acknowledgements, deliveries of commands, the directory.

When a commit fails and nothing was written, the tails of its sessions are thrown away and their
producers are told to come back; when nobody knows whether it was written, the sessions are loaded
anew under a fresh epoch, which everybody sees.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import Command
from wsmonitor.protocol.errors import ConfigurationError, InvalidIdError
from wsmonitor.protocol.ids import check_session_id, is_directory
from wsmonitor.protocol.messages import (
    CommandReply,
    CommandRequest,
    Degraded,
    HistoryPage,
    LogsPage,
    Position,
    PublishOpen,
    PublishOpened,
)

from . import commands
from .agenda import Agenda
from .clock import Clock, SystemClock
from .commits import CommitPath
from .directory import Directory
from .health import CHECK_EVERY, ROOM, StoreHealth
from .hub import Feed
from .ledger import Batch
from .logs import fields
from .maintenance import Maintenance
from .merge import Rejection
from .metrics import Value
from .nodes import LOOK, Nodes
from .ports import ProducerEvents, ProducerHandle, Refusal, Subscriber
from .producers import ProducerDesk, rejected
from .replies import not_available, refusal
from .retention import Retention
from .session import LoadedSession, Superseded, unsure
from .stores.base import Measured, Store, StoredSession, StoreError
from .stores.bus import Shared
from .sync import TopicSync
from .values import Values, store_refusal

log = logging.getLogger(__name__)

_LARGE: Final = 10_000  # entities of a session that is made ready in a thread of its own
_DIRECTORY: Final = "/directory"
_MAINTENANCE: Final = "/maintenance"
_STORE: Final = "/store"
_NODES: Final = "/nodes"


class SessionEngine:
    """`ports.Engine` over a store. Everything runs on the loop that called `start`.

    Args:
        store: where sessions last; opened and closed by `start` and `stop`.
        shared: the store again, where other servers use it, too.
        token_hex: random hexadecimal digits, so many bytes, for epochs.
    """

    def __init__(
        self,
        store: Store,
        *,
        timing: Timing | None = None,
        limits: Limits | None = None,
        retention: Retention | None = None,
        clock: Clock | None = None,
        shared: Shared | None = None,
        token_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self.store = store
        self.timing = timing or Timing()
        self.limits = limits or Limits()
        self.retention = retention or Retention()
        self.clock: Clock = clock or SystemClock()
        self.epoch = ""
        self._token_hex = token_hex
        self._directory = Directory(self.limits, lambda: token_hex(8))
        self._sessions: dict[str, LoadedSession] = {}
        self._loading: dict[str, asyncio.Task[LoadedSession]] = {}
        self._known: set[str] = set()
        self._fresh: set[str] = set()  # sessions whose next load begins a new epoch
        self._tasks: set[asyncio.Task[None]] = set()
        self._agenda = Agenda(self.clock, self._due, stood_still=self._stood_still, gather=self._arm_all)
        self._unarmed: dict[str, LoadedSession] = {}  # whose deadlines may be others at the end of the turn
        self._revoked: dict[str, int] = {}
        self._revocation_callbacks: list[Callable[[str], None]] = []
        self._health = StoreHealth(self.clock.wall_ns, self._health_changed)
        self._degraded_callbacks: list[Callable[[], None]] = []
        self._commits = CommitPath(
            store,
            self._committed,
            self._commit_failed,
            self._commit_moved,
            self._commit_ended,
            self.clock.monotonic,
        )
        self._producers = ProducerDesk(
            store, self._commits, self.clock, self._changed, self._allowed, shared=shared is not None
        )
        self.node = "" if shared is None else shared.node
        self._nodes: Nodes | None = None
        if shared is not None:
            self._nodes = Nodes(
                shared,
                self._directory,
                self._producers,
                self.clock,
                sessions=self._sessions,
                known=self._known,
                changed=self._changed,
                listed=self._arm_directory,
                forget=self._forget,
                revoked=self._take_revocation,
                attend=self._begin_to_attend,
                regenerated=self._take_epoch,
                doubtful=self._doubtful,
                spawn=self._spawn,
                delivered=self._count_deliveries,
            )
        self._values = Values(store, self.limits, self.clock)
        self._maintenance = Maintenance(store, self._directory, self._known, self._unused, self.remove)
        self._counters = {"events": 0, "rejected": 0, "deliveries": 0, "syncs": 0}
        self._attention: asyncio.Task[None] | None = None  # loads what is watched again after a start

    # -- life

    async def start(self) -> None:
        """Open the store. Sessions whose producers were open are watched again, with fresh timers.

        They are loaded one after the other while others are served already, the smallest first: one of a
        million steps takes half a minute.

        Raises:
            ConfigurationError: the store cannot be used.
        """
        await self.store.open()
        self.epoch = self.store.epoch
        try:
            if self._nodes is not None:
                await self._nodes.opened()
            self._revoked = {**self._revoked, **await self.store.revoked()}
            listings = await self.store.listings()
        except StoreError as exc:
            await self.store.close()
            raise ConfigurationError(str(exc)) from exc
        for listing, _ in listings:
            self._known.add(listing.id)
            if listing.state != "absent":
                self._directory.load(listing)
        # What can only be read is served, and everybody is told so.
        await self._check_store()
        self._commits.start()
        if self._nodes is None:
            attention = sorted((listing for listing, wanted in listings if wanted), key=lambda one: one.size)
            self._begin_to_attend([one.id for one in attention])
        else:
            # Of several nodes one is told to watch over what nobody else does.
            self._agenda.set(_NODES, self.clock.monotonic() + LOOK)
        self._agenda.set(_MAINTENANCE, self.clock.monotonic() + self.retention.interval)

    def _begin_to_attend(self, sessions: Sequence[str]) -> None:
        if sessions:
            before, self._attention = self._attention, None
            if before is not None:
                before.cancel()
            self._attention = asyncio.create_task(self._attend(sessions))

    async def _attend(self, sessions: Sequence[str]) -> None:
        for session in sessions:
            if session not in self._known:
                continue  # removed meanwhile
            # What is wrong with one session must not keep the others from being watched.
            try:
                loaded = await self._load(session)
                loaded.apply_verdicts(self.clock.wall_ns())
                commands.expire(loaded.authority, self.clock.wall_ns())
                self._changed(loaded)
            except Refusal as exc:
                log.error("session %s cannot be loaded: %s", session, exc.info.message)
            except Exception:
                log.exception("session %s: a fault in watching it again", session)

    async def attended(self) -> None:
        """Wait until every session whose producers were open at the start is watched again."""
        if self._attention is not None:
            await asyncio.wait((self._attention,))

    async def stop(self) -> None:
        """Commit what was accepted, then close the store."""
        self._agenda.close()
        if self._attention is not None:
            self._attention.cancel()
        await self.settle()
        self._agenda.stop()
        await self._cancel_tasks()
        await self._commits.stop()
        await self.store.close()
        # Until now other nodes could tell something, and have work begun by it.
        await self._cancel_tasks()

    async def _cancel_tasks(self) -> None:
        tasks = [*self._tasks, *self._loading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until nothing waits for a commit any more, and no maintenance is at work."""
        await self._commits.settle()
        while self._tasks:
            tasks = list(self._tasks)
            await asyncio.gather(*tasks)
            # From Python 3.12 on, gathering what is done already returns without a turn of the loop: the
            # tasks' own callbacks would never come to take them away.
            self._tasks.difference_update(tasks)
            await self._commits.settle()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- sessions in memory

    async def _load(self, session: str) -> LoadedSession:
        """The session, from memory or the store; an empty one where there is none yet."""
        loaded = self._sessions.get(session)
        if loaded is not None:
            return loaded
        try:
            check_session_id(session)
        except InvalidIdError as exc:
            raise refusal("bad_id", str(exc)) from exc
        task = self._loading.get(session)
        if task is None:
            task = asyncio.create_task(self._read(session), name=f"load {session}")
            self._loading[session] = task
            task.add_done_callback(lambda _: self._loading.pop(session, None))
        try:
            # One who gives up must not take the load away from the others.
            return await asyncio.shield(task)
        except StoreError as exc:
            raise store_refusal(exc, session) from exc

    async def _read(self, session: str) -> LoadedSession:
        if self._nodes is None:
            return await self._make(session, await self._stored(session))
        with self._nodes.arriving(session) as news:
            stored = await self.store.load(session)
            watching = await self._nodes.watching(session)
            loaded = await self._make(session, stored)
            loaded.feed.presence.elsewhere = watching
            loaded.news.extend(news)
        self._nodes.advance(loaded)
        return loaded

    async def _stored(self, session: str) -> StoredSession | None:
        return await self.store.load(session) if session in self._known else None

    async def _make(self, session: str, stored: StoredSession | None) -> LoadedSession:
        epoch = self.epoch if stored is None else stored.state.epoch
        if session in self._fresh or (stored is None and await self.store.tombstone(session) is not None):
            # What was under this id before is not continued.
            epoch = self._token_hex(8)
            if stored is not None:
                stored.history.clear()
        self._fresh.discard(session)
        make = partial(
            LoadedSession,
            session,
            epoch,
            stored,
            limits=self.limits,
            timing=self.timing,
            now=self.clock.monotonic(),
            node="" if self._nodes is None else self._nodes.node,
            ours=_all if self._nodes is None else self._nodes.ours,
        )
        if stored is not None and len(stored.state) > _LARGE:
            # What is counted of a million steps takes seconds, which are not the other sessions'.
            loaded = await asyncio.to_thread(make)
        else:
            loaded = make()
        self._sessions[session] = loaded
        self._arm(loaded)
        return loaded

    def _arm(self, loaded: LoadedSession) -> None:
        """The deadlines of *loaded* may be others: looked at once a turn, however often it changes."""
        if not self._unarmed:
            asyncio.get_running_loop().call_soon(self._arm_all)
        self._unarmed[loaded.id] = loaded

    def _arm_all(self) -> None:
        if not self._unarmed:
            return
        unarmed, self._unarmed = self._unarmed, {}
        now, now_ns = self.clock.monotonic(), self.clock.wall_ns()
        for loaded in unarmed.values():
            if self._sessions.get(loaded.id) is loaded:
                self._agenda.set(loaded.id, loaded.arm(now, now_ns))

    def _changed(self, loaded: LoadedSession) -> None:
        """Something of *loaded* may wait for a commit, and its deadlines may be others."""
        if loaded.ledger.uncommitted and not loaded.removed:
            self._commits.mark(loaded)
        self._arm(loaded)

    # -- time

    def handle_timeout(self) -> None:
        """Do what is due by the clock that was given."""
        self._agenda.look()

    def _stood_still(self, late: float) -> None:
        # A suspended machine, a blocked process: nobody could be heard, which is not their silence.
        log.warning("the server stood still for %.1f s", late)
        for loaded in self._sessions.values():
            loaded.watch.begin_anew(self.clock.monotonic())
            self._arm(loaded)

    def _due(self, key: str, now: float, now_ns: int) -> None:
        if key == _DIRECTORY:
            self._directory.handle_timeout(now, now_ns)
            self._arm_directory()
        elif key == _MAINTENANCE:
            self._agenda.set(_MAINTENANCE, now + self.retention.interval)
            self._spawn(self._maintain())
        elif key == _STORE:
            self._spawn(self._check_store())
        elif key == _NODES and self._nodes is not None:
            self._agenda.set(_NODES, now + LOOK)
            self._nodes.look()
        elif (loaded := self._sessions.get(key)) is not None:
            self._session_timeout(loaded, now, now_ns)

    def _session_timeout(self, loaded: LoadedSession, now: float, now_ns: int) -> None:
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
            if self._nodes is not None:
                self._nodes.retry(loaded)
        if loaded.behind:
            # What is due can only be done behind what is being read: then it is armed again.
            self._agenda.set(loaded.id, loaded.retry_at or now + 1.0)
            return
        loaded.feed.let_go(now)
        loaded.apply_verdicts(now_ns)
        commands.expire(loaded.authority, now_ns)
        if loaded.retry_at is None and not loaded.ledger.uncommitted:
            loaded.retries = 0  # nothing of ours waits any more: silence from here on is the producer's
        here = loaded.feed.tell_presence(now, self.timing.presence_interval)
        if here is not None and self._nodes is not None:
            self._spawn(self._nodes.tell_watching(loaded, here))
        if loaded.evictable and loaded.idle_since + loaded.keep <= now:
            del self._sessions[loaded.id]
            self._agenda.set(loaded.id, None)
        else:
            self._changed(loaded)

    def _arm_directory(self) -> None:
        self._agenda.set(_DIRECTORY, self._directory.next_deadline())

    # -- committing

    def _committed(self, loaded: LoadedSession, batch: Batch) -> None:
        loaded.retries = 0
        loaded.version += 1
        self._known.add(loaded.id)
        self._counters["events"] += len(batch.events)
        self._counters["rejected"] += len(batch.rejections)
        self._count_deliveries(len(batch.events) * len(loaded.feed.subscribers))
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
                loaded.apply_verdicts(self.clock.wall_ns())
        if batch.commit.listing is not None and self._nodes is None:
            self._directory.update(batch.commit.listing, self.clock.monotonic(), self.clock.wall_ns())
            self._arm_directory()
        self._changed(loaded)
        if self._nodes is not None:
            self._nodes.advance(loaded)

    def _count_deliveries(self, number: int) -> None:
        self._counters["deliveries"] += number

    def _commit_moved(self, loaded: LoadedSession) -> None:
        assert self._nodes is not None  # only a store that is shared says so
        self._nodes.moved(loaded)

    async def _commit_failed(self, loaded: LoadedSession, exc: StoreError) -> None:
        failure = store_refusal(exc, loaded.id)
        if self._nodes is not None:
            # Whether it was written will be read.
            loaded.ledger.rollback()
            self._nodes.moved(loaded)
        elif exc.outcome_known:
            loaded.ledger.rollback()
        else:
            await self._reload(loaded)
        loaded.resolve(failure)
        self._producers.fail(loaded, failure.info)
        # What the server itself has to say of the producers is tried again.
        loaded.retries += 1
        loaded.retry_at = self.clock.monotonic() + min(30.0, 2.0 ** min(loaded.retries - 1, 5))
        self._arm(loaded)

    async def _reload(self, loaded: LoadedSession) -> None:
        """Go on from what the store has, under a new epoch; without it, from nothing that is in memory."""
        try:
            stored = await self.store.load(loaded.id)
        except StoreError as exc:
            log.error("session %s cannot be loaded again: %s", loaded.id, exc)
            stored = None
            self._fresh.add(loaded.id)
            self._commits.forget(loaded)
            self._sessions.pop(loaded.id, None)
            self._agenda.set(loaded.id, None)
            loaded.removed = True
        epoch = self._token_hex(8)
        if stored is None:
            loaded.ledger.restart(type(loaded.feed.state)(loaded.id, epoch), {})
            return
        stored.state.epoch = epoch
        loaded.ledger.restart(stored.state, stored.producers, stored.retired, stored.size)
        loaded.ledger.touch()

    # -- producers

    async def open_producer(
        self, message: PublishOpen, claims: Claims, events: ProducerEvents
    ) -> tuple[PublishOpened, ProducerHandle]:
        """See `ports.Engine.open_producer`. Raises `Refusal`."""
        session = message.session
        self._allowed(session)
        loaded = await self._load(session)
        if message.producer_epoch and loaded.ledger.position(message.producer) is None:
            await self._refuse_removed(session)
        if session not in self._known and len(self._known) >= self.limits.sessions:
            raise refusal(
                "limit_exceeded", f"this server keeps {self.limits.sessions:,} sessions", session=session
            )
        opened = await self._producers.open(message, loaded, claims, events)
        self._known.add(session)
        return opened

    async def _refuse_removed(self, session: str) -> None:
        """Who has held a producer of a session does not make it anew after somebody has removed it."""
        try:
            removed = await self.store.tombstone(session) is not None
        except StoreError as exc:
            raise store_refusal(exc, session) from exc
        if removed:
            raise refusal("fenced", "the session was removed", session=session, details={"reason": "removed"})

    # -- observers

    async def subscribe(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync:
        """See `ports.Engine.subscribe`. Raises `Refusal`."""
        sync = self.subscribe_at_once(topic, generation, resume, subscriber)
        if sync is not None:
            return sync
        loaded = await self._load(topic)
        if self._nodes is not None and resume is not None and not self._nodes.judges(loaded, resume):
            loaded = await self._caught_up(self._nodes, loaded, resume)
        return self._sync(loaded, generation, resume, subscriber)

    def subscribe_at_once(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync | None:
        """See `ports.Engine.subscribe_at_once`."""
        if is_directory(topic):
            self._counters["syncs"] += 1
            feed = self._directory.view(topic, subscriber.claims.sessions)
            self._directory.detach(topic, subscriber)
            return TopicSync(
                feed, subscriber, generation, resume, page_size=self.limits.page_size, tell_reset=False
            )
        loaded = self._sessions.get(topic)
        if loaded is None or not self._judges(loaded, resume):
            return None
        return self._sync(loaded, generation, resume, subscriber)

    def _judges(self, loaded: LoadedSession, resume: Position | None) -> bool:
        """Whether nothing has to be read before it can be said where *resume* is."""
        return self._nodes is None or resume is None or self._nodes.judges(loaded, resume)

    def _sync(
        self, loaded: LoadedSession, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync:
        self._counters["syncs"] += 1
        sync = TopicSync(
            loaded.feed,
            subscriber,
            generation,
            resume,
            page_size=self.limits.page_size,
            absent=loaded.feed.state.seq == 0,
            on_attach=lambda: self._arm(loaded),
        )
        loaded.feed.keep_snapshot(self.clock.monotonic())
        self._arm(loaded)
        return sync

    async def _caught_up(self, nodes: Nodes, loaded: LoadedSession, resume: Position) -> LoadedSession:
        """The session, at least as far as the node knew it that told *resume*. Raises `Refusal`."""
        if not loaded.behind:
            async with self._commits.lock:  # while no commit of ours is under way
                nodes.moved(loaded)
        try:
            await nodes.caught_up(loaded, resume)
        except StoreError as exc:
            raise store_refusal(exc, loaded.id) from exc
        return await self._load(loaded.id) if loaded.removed else loaded

    def unsubscribe(self, topic: str, subscriber: Subscriber) -> None:
        """See `ports.Engine.unsubscribe`."""
        if is_directory(topic):
            self._directory.detach(topic, subscriber)
            self._directory.sweep(self.clock.monotonic())
            self._arm_directory()
        elif (loaded := self._sessions.get(topic)) is not None:
            loaded.feed.detach(subscriber)
            self._arm(loaded)

    def _feed(self, topic: str, patterns: tuple[str, ...]) -> Feed | None:
        if is_directory(topic):
            return self._directory.existing(topic, patterns)
        loaded = self._sessions.get(topic)
        return None if loaded is None else loaded.feed

    def heads(self, topics: Sequence[str], patterns: tuple[str, ...] = ()) -> dict[str, tuple[str, int, str]]:
        """See `ports.Engine.heads`."""
        feeds = ((topic, self._feed(topic, patterns)) for topic in topics)
        return {
            topic: (feed.state.epoch, feed.state.seq, feed.state.digest)
            for topic, feed in feeds
            if feed is not None
        }

    async def _existing(self, session: str) -> LoadedSession:
        self._allowed(session)
        loaded = await self._load(session)
        if loaded.feed.state.seq == 0:
            raise not_available(session)
        return loaded

    async def logs(self, session: str, step: str, first: int, limit: int, request: int) -> LogsPage:
        """See `ports.Engine.logs`. Raises `Refusal`."""
        loaded = await self._existing(session)
        entity = loaded.feed.state.steps.get(step)
        if entity is None:
            raise refusal("not_available", f"there is no step {step!r}", session=session)
        try:
            records, first_kept = await self.store.logs(session, step, first, limit)
        except StoreError as exc:
            raise store_refusal(exc, session) from exc
        return LogsPage(request=request, records=records, first_kept=first_kept, count=entity.log_count)

    async def history(self, session: str, first: int, limit: int, request: int) -> HistoryPage:
        """See `ports.Engine.history`. Raises `Refusal`."""
        feed = (await self._existing(session)).feed
        return feed.history_page(first, limit, self.limits.page_size, request)

    # -- commands

    async def command(self, message: CommandRequest, claims: Claims) -> CommandReply:
        """See `ports.Engine.command`: answers when the record is committed. Raises `Refusal`."""
        while True:
            try:
                return await self._command(message, claims)
            except Superseded:
                continue  # judged again, behind what another node has committed

    async def _command(self, message: CommandRequest, claims: Claims) -> CommandReply:
        self._allowed(message.session)
        loaded = await self._load(message.session)
        retired: Command | None = None
        if loaded.ledger.retired and loaded.authority.command(message.key) is None:
            try:
                retired = await self.store.retired_command(message.session, message.key)
            except StoreError as exc:
                raise store_refusal(exc, message.session) from exc
        try:
            command, repeated = commands.request(
                loaded.authority, message, claims.sub, self.clock.wall_ns(), self.limits, retired
            )
        except Rejection as rejection:
            raise rejected(rejection, message.session) from None
        self._changed(loaded)
        await loaded.barrier()
        committed = loaded.feed.state.commands.get(command.id, command)
        return CommandReply(request=message.request, command=committed, repeated=repeated)

    # -- large values

    async def value_begin(self, session: str, sha256: str, total: int) -> int:
        """See `ports.Engine.value_begin`. Raises `Refusal`."""
        await self._existing(session)
        return await self._values.begin(session, sha256, total)

    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        """See `ports.Engine.value_write`. Raises `Refusal`."""
        await self._existing(session)
        return await self._values.write(session, sha256, total, offset, data)

    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None:
        """See `ports.Engine.value_read`. Raises `Refusal`."""
        await self._existing(session)
        return await self._values.read(session, sha256, offset, length)

    def value_bytes(self, sessions: Collection[str], uploads: Mapping[tuple[str, str], int]) -> int:
        """See `ports.Engine.value_bytes`."""
        facts = {one: self._sessions[one].ledger.facts for one in sessions if one in self._sessions}
        waiting = sum(
            size
            for (session, sha256), size in uploads.items()
            if session not in facts or sha256 not in facts[session].references
        )
        return waiting + sum(one.value_bytes for one in facts.values())

    # -- removal, retention, revocation

    async def remove(self, session: str) -> None:
        """See `ports.Engine.remove`. Raises `Refusal`."""
        loaded = await self._existing(session)
        async with self._commits.lock:
            if loaded.removed:
                raise not_available(session)
            try:
                await self.store.remove(session, at=self.clock.wall_ns())
            except StoreError as exc:
                raise store_refusal(exc, session) from exc
            loaded.removed = True
            self._forget(loaded)

    def _forget(self, loaded: LoadedSession) -> None:
        session = loaded.id
        loaded.ledger.rollback()
        gone = refusal("not_available", "the session was removed", session=session)
        loaded.resolve(gone)
        for holder in list(loaded.holders.values()):
            self._producers.fence(holder, removed=True)
        self._commits.forget(loaded)
        self._known.discard(session)
        self._sessions.pop(session, None)
        self._agenda.set(session, None)
        self._values.forget(session)
        loaded.feed.remove()
        self._directory.remove(session, self.clock.wall_ns())
        self._arm_directory()

    async def _maintain(self) -> None:
        """Remove what is no longer to be kept."""
        now_ns = self.clock.wall_ns()
        now = self.clock.monotonic()
        self._values.sweep()
        self._directory.sweep(now)
        self._arm_directory()
        try:
            await self._maintenance.run(self.retention, now, now_ns)
        except StoreError as exc:
            log.error("maintenance failed: %s", exc)
        before = now_ns // 1_000_000_000
        self._revoked = {jti: at for jti, at in self._revoked.items() if at == 0 or at >= before}

    def _unused(self, session: str) -> bool:
        loaded = self._sessions.get(session)
        return loaded is None or loaded.evictable

    async def revoke(self, jti: str, expires: int) -> None:
        """See `ports.Engine.revoke`. Raises `Refusal`."""
        try:
            await self.store.revoke(jti, expires)
        except StoreError as exc:
            raise store_refusal(exc, "") from exc
        self._take_revocation(jti, expires)

    def _take_revocation(self, jti: str, expires: int) -> None:
        if jti not in self._revoked:
            self._revoked[jti] = expires
            for callback in self._revocation_callbacks:
                callback(jti)

    def revoked(self, jti: str) -> bool:
        """Whether the token with this id was revoked."""
        return jti in self._revoked

    def on_revocation(self, callback: Callable[[str], None]) -> None:
        """See `ports.Engine.on_revocation`."""
        self._revocation_callbacks.append(callback)

    # -- the server's own state

    @property
    def holding(self) -> bool:
        """See `ports.Engine.holding`."""
        return self._nodes is not None and not self._nodes.sure

    def _allowed(self, session: str) -> None:
        if self.holding:
            raise store_refusal(self._unsure(), session)

    def _unsure(self) -> StoreError:
        return unsure("" if self._nodes is None else self._nodes.trouble)

    def _doubtful(self) -> None:
        """Whether this node is sure has changed."""
        if self.holding:
            self._health.ailing(self._unsure())
        self._check_store_in(0.0)
        for callback in self._degraded_callbacks:
            callback()

    def _take_epoch(self, epoch: str) -> None:
        self.epoch = epoch

    async def ready(self) -> None:
        """Raise `StoreError` when the server could not take a write now."""
        try:
            if self.holding:
                raise self._unsure()
            await self.store.check(room=ROOM if self.degraded is not None else 0)
        except StoreError as exc:
            self._health.ailing(exc)
            raise
        self._health.well()

    @property
    def degraded(self) -> Degraded | None:
        """See `ports.Engine.degraded`."""
        return self._health.degraded

    def on_degraded(self, callback: Callable[[], None]) -> None:
        """See `ports.Engine.on_degraded`."""
        self._degraded_callbacks.append(callback)

    def _commit_ended(self, failure: StoreError | None) -> None:
        if failure is not None:
            self._health.refused(failure, self.clock.monotonic())
        elif self._health.committed(self.clock.monotonic()):
            self._check_store_in(0.0)

    def _health_changed(self) -> None:
        self._check_store_in(None if self.degraded is None else CHECK_EVERY)
        for callback in self._degraded_callbacks:
            callback()

    def _check_store_in(self, seconds: float | None) -> None:
        self._agenda.set(_STORE, None if seconds is None else self.clock.monotonic() + seconds)

    async def _check_store(self) -> None:
        try:
            await self.ready()
        except StoreError:
            self._check_store_in(CHECK_EVERY)

    def status(self) -> dict[str, Any]:
        """See `ports.Engine.status`."""
        return {
            "sessions": len(self._known),
            "sessions_loaded": len(self._sessions),
            "sessions_loading": len(self._loading),
            "degraded": "" if self.degraded is None else self.degraded.code,
            "directory_views": self._directory.view_count,
            "pending_commands": sum(len(one.ledger.facts.pending) for one in self._sessions.values()),
            "open_producers": sum(len(one.holders) for one in self._sessions.values()),
            "uploads": len(self._values),
            "queued_bytes": self._commits.queued,
            "commits": self._commits.commits,
            "conflicts": self._commits.conflicts,
            "failed_commits": self._commits.failures,
            "epoch": self.epoch,
            "store": self.store.info(),
            **self._counters,
        }

    def measures(self) -> dict[str, Value]:
        """See `ports.Engine.measures`."""
        degraded = dict.fromkeys(("store_failed", "read_only"), 0)
        if self.degraded is not None:
            degraded[self.degraded.code] = 1
        found: dict[str, Value] = {
            "sessions": len(self._known),
            "sessions_loaded": len(self._sessions),
            "sessions_loading": len(self._loading),
            "directory_views": self._directory.view_count,
            "commands_pending": sum(len(one.ledger.facts.pending) for one in self._sessions.values()),
            "uploads": len(self._values),
            "degraded": degraded,
            "degraded_seconds_total": self._health.seconds_down,
            **{f"{name}_total": number for name, number in self._counters.items()},
            **self._commits.measures(),
        }
        if isinstance(self.store, Measured):
            found |= self.store.measures()
        if self._nodes is not None:
            found |= self._nodes.measures()
            found["conflicts_total"] = self._commits.conflicts
        return found

    def busy(self) -> bool:
        """Whether a command or an upload is pending (the idle exit waits for them)."""
        pending = any(one.ledger.facts.pending for one in self._sessions.values())
        return pending or self._values.busy


def _all(node: str) -> bool:
    """Where there is one node, every producer is its own."""
    return True
