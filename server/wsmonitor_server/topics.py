"""What can be subscribed to, and asked for, by its topic: the sessions and their directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.ids import is_directory
from wsmonitor.protocol.messages import HistoryPage, LogsPage, Position

from .clock import Clock
from .commits import CommitPath
from .directory import Directory
from .hub import Feed
from .nodes import Nodes
from .ports import Subscriber
from .replies import refusal, store_refusal
from .session import LoadedSession
from .sessions import Sessions
from .stores.base import Store, StoreError
from .sync import TopicSync


class Topics:
    """See the module's text, and `ports.Engine` for what each method does.

    The asynchronous ones raise `Refusal`.

    Args:
        arm: to be called when a session may have other deadlines; ``listed``: when the directory may.
        counts: of ``syncs``.
    """

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        directory: Directory,
        commits: CommitPath,
        limits: Limits,
        clock: Clock,
        *,
        arm: Callable[[LoadedSession], None],
        listed: Callable[[], None],
        counts: Counter[str],
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._directory = directory
        self._commits = commits
        self._limits = limits
        self._clock = clock
        self._arm = arm
        self._listed = listed
        self._counts = counts

    async def subscribe(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync:
        sync = self.subscribe_at_once(topic, generation, resume, subscriber)
        if sync is not None:
            return sync
        loaded = await self._sessions.load(topic)
        nodes = self._sessions.nodes
        if nodes is not None and resume is not None and not nodes.judges(loaded, resume):
            loaded = await self._caught_up(nodes, loaded, resume)
        return self._sync(loaded, generation, resume, subscriber)

    def subscribe_at_once(
        self, topic: str, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync | None:
        if is_directory(topic):
            self._counts["syncs"] += 1
            feed = self._directory.view(topic, subscriber.claims.sessions)
            self._directory.detach(topic, subscriber)
            return TopicSync(
                feed, subscriber, generation, resume, page_size=self._limits.page_size, tell_reset=False
            )
        loaded, nodes = self._sessions.get(topic), self._sessions.nodes
        if loaded is None or not (nodes is None or nodes.judges(loaded, resume)):
            return None
        return self._sync(loaded, generation, resume, subscriber)

    def _sync(
        self, loaded: LoadedSession, generation: int, resume: Position | None, subscriber: Subscriber
    ) -> TopicSync:
        self._counts["syncs"] += 1
        sync = TopicSync(
            loaded.feed,
            subscriber,
            generation,
            resume,
            page_size=self._limits.page_size,
            absent=loaded.feed.state.seq == 0,
            on_attach=lambda: self._arm(loaded),
        )
        loaded.feed.keep_snapshot(self._clock.monotonic())
        self._arm(loaded)
        return sync

    async def _caught_up(self, nodes: Nodes, loaded: LoadedSession, resume: Position) -> LoadedSession:
        """The session, at least as far as the node knew it that told *resume*."""
        if not loaded.following.behind:
            async with self._commits.lock:  # while no commit of ours is under way
                nodes.moved(loaded)
        try:
            await nodes.caught_up(loaded, resume)
        except StoreError as exc:
            raise store_refusal(exc, loaded.id) from exc
        return await self._sessions.load(loaded.id) if loaded.removed else loaded

    def unsubscribe(self, topic: str, subscriber: Subscriber) -> None:
        if is_directory(topic):
            self._directory.detach(topic, subscriber)
            self._directory.sweep(self._clock.monotonic())
            self._listed()
        elif (loaded := self._sessions.get(topic)) is not None:
            loaded.feed.detach(subscriber)
            self._arm(loaded)

    def _feed(self, topic: str, patterns: tuple[str, ...]) -> Feed | None:
        if is_directory(topic):
            return self._directory.existing(topic, patterns)
        loaded = self._sessions.get(topic)
        return None if loaded is None else loaded.feed

    def heads(self, topics: Sequence[str], patterns: tuple[str, ...]) -> dict[str, tuple[str, int, str]]:
        feeds = ((topic, self._feed(topic, patterns)) for topic in topics)
        return {
            topic: (feed.state.epoch, feed.state.seq, feed.state.digest)
            for topic, feed in feeds
            if feed is not None
        }

    async def logs(self, session: str, step: str, first: int, limit: int, request: int) -> LogsPage:
        loaded = await self._sessions.existing(session)
        entity = loaded.feed.state.steps.get(step)
        if entity is None:
            raise refusal("not_available", f"there is no step {step!r}", session=session)
        try:
            records, first_kept = await self._store.logs(session, step, first, limit)
        except StoreError as exc:
            raise store_refusal(exc, session) from exc
        return LogsPage(request=request, records=records, first_kept=first_kept, count=entity.log_count)

    async def history(self, session: str, first: int, limit: int, request: int) -> HistoryPage:
        feed = (await self._sessions.existing(session)).feed
        return feed.history_page(first, limit, self._limits.page_size, request)
