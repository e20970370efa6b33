"""The session side of the server: `ports.Engine` over a store.

Changes of all sessions that come in while a commit runs are committed together in the next one
(group commit). Only after a commit anything is told, in this order: events, rejections,
acknowledgements, deliveries of commands, the directory.

Here the parts are put together, each of which has its own module::

    sessions   those in memory      producers  who holds which          topics      what is watched and read
    commits    the one commit path  outcomes   what follows a commit    timetable   what is due when
    nodes      what other servers do           condition, revocations   attention, maintenance
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import Command
from wsmonitor.protocol.errors import ConfigurationError
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
from .attention import Attention
from .background import Background
from .clock import Clock, SystemClock
from .commits import CommitPath
from .condition import Condition
from .directory import Directory
from .following import Superseded, unsure
from .maintenance import Maintenance
from .merge import Rejection
from .metrics import Value
from .nodes import LOOK, Nodes
from .outcomes import Outcomes
from .ports import ProducerEvents, ProducerHandle, Subscriber
from .producers import ProducerDesk, rejected
from .replies import refusal, store_refusal
from .retention import Retention
from .revocations import Revocations
from .session import LoadedSession
from .sessions import Sessions
from .stores.base import Measured, Store, StoreError
from .stores.bus import Shared
from .sync import TopicSync
from .timetable import Timetable
from .topics import Topics
from .values import Values

log = logging.getLogger(__name__)

_DIRECTORY: Final = "/directory"
_MAINTENANCE: Final = "/maintenance"
_STORE: Final = "/store"
_NODES: Final = "/nodes"


class SessionEngine:
    """See the module's text. Everything runs on the loop that called `start`.

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
        self.node = "" if shared is None else shared.node
        self._counts: Counter[str] = Counter(events=0, rejected=0, deliveries=0, syncs=0)
        self._background = Background()
        self._directory = Directory(self.limits, lambda: token_hex(8))
        self._revocations = Revocations(store)
        self._values = Values(store, self.limits, self.clock)
        self._sessions = Sessions(
            store, self.limits, self.timing, self.clock, token_hex, lambda one: self._timetable.arm(one)
        )
        self._timetable = Timetable(
            self._sessions,
            self._background,
            self.clock,
            self.timing.presence_interval,
            self._changed,
            {
                _DIRECTORY: self._directory_due,
                _MAINTENANCE: self._maintenance_due,
                _STORE: self._store_due,
                _NODES: self._nodes_due,
            },
        )
        self._condition = Condition(
            store, self.clock, self._doubt, lambda when: self._timetable.set(_STORE, when)
        )
        self._commits = CommitPath(store, self.clock.monotonic)
        self._producers = ProducerDesk(
            store,
            self._commits,
            self.clock,
            self._changed,
            self._condition.allow,
            shared=shared is not None,
        )
        self._topics = Topics(
            store,
            self._sessions,
            self._directory,
            self._commits,
            self.limits,
            self.clock,
            arm=self._timetable.arm,
            listed=self._listed,
            counts=self._counts,
        )
        self._outcomes = Outcomes(
            store,
            self._sessions,
            self._commits,
            self._producers,
            self._directory,
            self._timetable,
            self._condition,
            self.clock,
            changed=self._changed,
            listed=self._listed,
            counts=self._counts,
            token_hex=token_hex,
        )
        self._attention = Attention(self._sessions, self.clock, self._changed)
        self._maintenance = Maintenance(
            store, self._directory, self._sessions.known, self._unused, self.remove
        )
        self._nodes: Nodes | None = None
        if shared is not None:
            self._nodes = self._sessions.nodes = Nodes(
                shared,
                self._directory,
                self._producers,
                self.clock,
                self._sessions,
                self._revocations,
                self._attention,
                self._background,
                changed=self._changed,
                listed=self._listed,
                forget=self._forget,
                doubtful=self._condition.doubted,
                counts=self._counts,
            )

    @property
    def epoch(self) -> str:
        """See `ports.Engine.epoch`."""
        return self.store.epoch

    # -- life

    async def start(self) -> None:
        """Open the store. Sessions whose producers were open are watched again, with fresh timers.

        They are loaded while others are served already, the smallest first.

        Raises:
            ConfigurationError: the store cannot be used.
        """
        await self.store.open()
        try:
            if self._nodes is not None:
                await self._nodes.opened()
            await self._revocations.load()
            listings = await self.store.listings()
        except StoreError as exc:
            await self.store.close()
            raise ConfigurationError(str(exc)) from exc
        for listing, _ in listings:
            self._sessions.known.add(listing.id)
            if listing.state != "absent":
                self._directory.load(listing)
        # What can only be read is served, and everybody is told so.
        await self._condition.check()
        self._commits.start(self._outcomes)
        if self._nodes is None:
            attention = sorted((listing for listing, wanted in listings if wanted), key=lambda one: one.size)
            self._attention.turn_to([one.id for one in attention])
        else:
            # Of several nodes one is told to watch over what nobody else does.
            self._timetable.set(_NODES, self.clock.monotonic() + LOOK)
        self._timetable.set(_MAINTENANCE, self.clock.monotonic() + self.retention.interval)

    async def attended(self) -> None:
        """Wait until every session whose producers were open at the start is watched again."""
        await self._attention.paid()

    async def stop(self) -> None:
        """Commit what was accepted, then close the store."""
        self._timetable.agenda.close()
        self._attention.turn_away()
        await self.settle()
        self._timetable.agenda.stop()
        await self._end_work()
        await self._commits.stop()
        await self.store.close()
        # Until now other nodes could tell something, and have work begun by it.
        await self._end_work()

    async def _end_work(self) -> None:
        await self._background.cancel()
        await self._sessions.cancel()

    async def settle(self) -> None:
        """Wait until nothing waits for a commit any more, and no maintenance is at work."""
        await self._commits.settle()
        while self._background:
            await self._background.finish()
            await self._commits.settle()

    def _changed(self, loaded: LoadedSession) -> None:
        """Something of *loaded* may wait for a commit, and its deadlines may be others."""
        if loaded.ledger.uncommitted and not loaded.removed:
            self._commits.mark(loaded)
        self._timetable.arm(loaded)

    def _listed(self) -> None:
        """The directory may have other deadlines."""
        self._timetable.set(_DIRECTORY, self._directory.next_deadline())

    # -- time

    def handle_timeout(self) -> None:
        """Do what is due by the clock that was given."""
        self._timetable.agenda.look()

    def _directory_due(self, now: float, now_ns: int) -> None:
        self._directory.handle_timeout(now, now_ns)
        self._listed()

    def _maintenance_due(self, now: float, now_ns: int) -> None:
        self._timetable.set(_MAINTENANCE, now + self.retention.interval)
        self._background.spawn(self._maintain())

    def _store_due(self, now: float, now_ns: int) -> None:
        self._background.spawn(self._condition.check())

    def _nodes_due(self, now: float, now_ns: int) -> None:
        assert self._nodes is not None  # who is alone has no such job
        self._timetable.set(_NODES, now + LOOK)
        self._nodes.look()

    # -- producers and commands

    async def open_producer(
        self, message: PublishOpen, claims: Claims, events: ProducerEvents
    ) -> tuple[PublishOpened, ProducerHandle]:
        """See `ports.Engine.open_producer`. Raises `Refusal`."""
        session, known = message.session, self._sessions.known
        self._condition.allow(session)
        while True:
            loaded = await self._sessions.load(session)
            if not message.producer_epoch or loaded.ledger.position(message.producer) is not None:
                break
            await self._refuse_removed(session)
            if self._sessions.get(session) is loaded:
                break  # else it was let go of, or removed, meanwhile
        if session not in known and len(known) >= self.limits.sessions:
            raise refusal(
                "limit_exceeded", f"this server keeps {self.limits.sessions:,} sessions", session=session
            )
        opened = await self._producers.open(message, loaded, claims, events)
        known.add(session)
        return opened

    async def _refuse_removed(self, session: str) -> None:
        """Who has held a producer of a session does not make it anew after somebody has removed it."""
        try:
            removed = await self.store.tombstone(session) is not None
        except StoreError as exc:
            raise store_refusal(exc, session) from exc
        if removed:
            raise refusal("fenced", "the session was removed", session=session, details={"reason": "removed"})

    async def command(self, message: CommandRequest, claims: Claims) -> CommandReply:
        """See `ports.Engine.command`: answers when the record is committed. Raises `Refusal`."""
        while True:
            try:
                return await self._command(message, claims)
            except Superseded:
                continue  # judged again, on what is there now

    async def _command(self, message: CommandRequest, claims: Claims) -> CommandReply:
        self._condition.allow(message.session)
        loaded = await self._sessions.load(message.session)
        retired: Command | None = None
        if loaded.ledger.retired and loaded.authority.command(message.key) is None:
            try:
                retired = await self.store.retired_command(message.session, message.key)
            except StoreError as exc:
                raise store_refusal(exc, message.session) from exc
            if self._sessions.get(loaded.id) is not loaded:
                raise Superseded  # it was let go of, or removed, meanwhile
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

    # -- observers

    async def subscribe(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync:
        """See `ports.Engine.subscribe`. Raises `Refusal`."""
        return await self._topics.subscribe(topic, generation, resume, subscriber)

    def subscribe_at_once(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync | None:
        """See `ports.Engine.subscribe_at_once`."""
        return self._topics.subscribe_at_once(topic, generation, resume, subscriber)

    def unsubscribe(self, topic: str, subscriber: Subscriber) -> None:
        """See `ports.Engine.unsubscribe`."""
        self._topics.unsubscribe(topic, subscriber)

    def heads(self, topics: Sequence[str], patterns: tuple[str, ...] = ()) -> dict[str, tuple[str, int, str]]:
        """See `ports.Engine.heads`."""
        return self._topics.heads(topics, patterns)

    async def logs(self, session: str, step: str, first: int, limit: int, request: int) -> LogsPage:
        """See `ports.Engine.logs`. Raises `Refusal`."""
        self._condition.allow(session)
        return await self._topics.logs(session, step, first, limit, request)

    async def history(self, session: str, first: int, limit: int, request: int) -> HistoryPage:
        """See `ports.Engine.history`. Raises `Refusal`."""
        self._condition.allow(session)
        return await self._topics.history(session, first, limit, request)

    # -- large values

    async def _existing(self, session: str) -> LoadedSession:
        self._condition.allow(session)
        return await self._sessions.existing(session)

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
        await self._existing(session)
        async with self._commits.lock:
            loaded = await self._existing(session)  # it may be another by now, or none
            try:
                await self.store.remove(session, at=self.clock.wall_ns())
            except StoreError as exc:
                raise store_refusal(exc, session) from exc
            self._forget(loaded)

    def _forget(self, loaded: LoadedSession) -> None:
        """*loaded* was removed: tell all who use it."""
        session = loaded.id
        gone = refusal("not_available", "the session was removed", session=session)
        self._sessions.forget(loaded, gone.info)
        loaded.ledger.rollback()
        loaded.resolve(gone)
        for holder in list(loaded.holders.values()):
            self._producers.fence(holder, removed=True)
        self._commits.forget(loaded)
        self._timetable.forget(loaded)
        self._values.forget(session)
        loaded.feed.remove()
        self._directory.remove(session, self.clock.wall_ns())
        self._listed()

    async def _maintain(self) -> None:
        """Remove what is no longer to be kept."""
        now_ns = self.clock.wall_ns()
        now = self.clock.monotonic()
        self._values.sweep()
        self._directory.sweep(now)
        self._listed()
        try:
            await self._maintenance.run(self.retention, now, now_ns)
        except StoreError as exc:
            log.error("maintenance failed: %s", exc)
        self._revocations.forget(before=now_ns // 1_000_000_000)

    def _unused(self, session: str) -> bool:
        loaded = self._sessions.get(session)
        return loaded is None or loaded.evictable

    async def revoke(self, jti: str, expires: int) -> None:
        """See `ports.Engine.revoke`. Raises `Refusal`."""
        await self._revocations.revoke(jti, expires)

    def revoked(self, jti: str) -> bool:
        """Whether the token with this id was revoked."""
        return jti in self._revocations

    def on_revocation(self, callback: Callable[[str], None]) -> None:
        """See `ports.Engine.on_revocation`."""
        self._revocations.listen(callback)

    # -- the server's own state

    @property
    def holding(self) -> bool:
        """See `ports.Engine.holding`."""
        return self._nodes is not None and not self._nodes.sure

    def _doubt(self) -> StoreError | None:
        """Why nothing of sessions may be taken or sent; None while it may."""
        return unsure(self._nodes.trouble) if self._nodes is not None and self.holding else None

    async def ready(self) -> None:
        """Raise `StoreError` when the server could not take a write now."""
        await self._condition.ready()

    @property
    def degraded(self) -> Degraded | None:
        """See `ports.Engine.degraded`."""
        return self._condition.degraded

    def on_degraded(self, callback: Callable[[], None]) -> None:
        """See `ports.Engine.on_degraded`."""
        self._condition.listen(callback)

    def status(self) -> dict[str, Any]:
        """See `ports.Engine.status`."""
        return {
            "sessions": len(self._sessions.known),
            "sessions_loaded": len(self._sessions),
            "sessions_loading": self._sessions.loading,
            "degraded": "" if self.degraded is None else self.degraded.code,
            "directory_views": self._directory.view_count,
            "pending_commands": sum(len(one.ledger.facts.pending) for one in self._sessions),
            "open_producers": sum(len(one.holders) for one in self._sessions),
            "uploads": len(self._values),
            "queued_bytes": self._commits.queued,
            "commits": self._commits.commits,
            "conflicts": self._commits.conflicts,
            "failed_commits": self._commits.failures,
            "epoch": self.epoch,
            "store": self.store.info(),
            **self._counts,
        }

    def measures(self) -> dict[str, Value]:
        """See `ports.Engine.measures`."""
        degraded = dict.fromkeys(("store_failed", "read_only"), 0)
        if self.degraded is not None:
            degraded[self.degraded.code] = 1
        found: dict[str, Value] = {
            "sessions": len(self._sessions.known),
            "sessions_loaded": len(self._sessions),
            "sessions_loading": self._sessions.loading,
            "directory_views": self._directory.view_count,
            "commands_pending": sum(len(one.ledger.facts.pending) for one in self._sessions),
            "uploads": len(self._values),
            "degraded": degraded,
            "degraded_seconds_total": self._condition.seconds_down,
            **{f"{name}_total": number for name, number in self._counts.items()},
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
        pending = any(one.ledger.facts.pending for one in self._sessions)
        return pending or self._values.busy
