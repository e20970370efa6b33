"""The sessions in memory: read from the store when somebody asks for one, let go of when nobody uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import InvalidIdError
from wsmonitor.protocol.ids import check_session_id

from .clock import Clock
from .replies import not_available, refusal, store_refusal
from .session import LoadedSession
from .stores.base import Store, StoredSession, StoreError

if TYPE_CHECKING:
    from .nodes import Nodes

_LARGE: Final = 10_000
"""Entities of a session that is made ready in a thread of its own."""


class Sessions:
    """See the module's text.

    Args:
        token_hex: random hexadecimal digits, so many bytes, for epochs.
        came: called with each session that has come into memory.

    Attributes:
        known: the ids of all that there are, whether in memory or not.
        nodes: where other servers use the store, too.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        timing: Timing,
        clock: Clock,
        token_hex: Callable[[int], str],
        came: Callable[[LoadedSession], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._timing = timing
        self._clock = clock
        self._token_hex = token_hex
        self._came = came
        self._memory: dict[str, LoadedSession] = {}
        self._loading: dict[str, asyncio.Task[LoadedSession]] = {}
        self._anew: set[str] = set()  # those whose next load begins a new epoch
        self.known: set[str] = set()
        self.nodes: Nodes | None = None

    # -- those in memory

    def __len__(self) -> int:
        return len(self._memory)

    def __iter__(self) -> Iterator[LoadedSession]:
        """Over a copy: any may go meanwhile."""
        return iter(list(self._memory.values()))

    def __contains__(self, session: object) -> bool:
        return session in self._memory

    def __getitem__(self, session: str) -> LoadedSession:
        return self._memory[session]

    def get(self, session: str) -> LoadedSession | None:
        """The session, if it is in memory."""
        return self._memory.get(session)

    @property
    def loading(self) -> int:
        """How many are being read."""
        return len(self._loading)

    def let_go(self, loaded: LoadedSession) -> None:
        """*loaded* is no longer used: who asks for it next has it read again."""
        if self._memory.get(loaded.id) is loaded:
            del self._memory[loaded.id]

    def begin_anew(self, loaded: LoadedSession, failure: ErrorInfo) -> None:
        """What is in memory is not what the store has: it is read again, and begins a new epoch.

        Args:
            failure: what is told to those who want something of *loaded*.
        """
        self._anew.add(loaded.id)
        loaded.gone = failure
        self.let_go(loaded)

    def forget(self, loaded: LoadedSession, gone: ErrorInfo) -> None:
        """*loaded* was removed; *gone* is told to those who want something of it."""
        loaded.gone = gone
        self.known.discard(loaded.id)
        self.let_go(loaded)

    # -- reading

    async def load(self, session: str) -> LoadedSession:
        """The session, from memory or the store; an empty one where there is none yet. Raises `Refusal`."""
        loaded = self._memory.get(session)
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

    async def existing(self, session: str) -> LoadedSession:
        """The session, in which something has happened. Raises `Refusal`: ``not_available`` without."""
        loaded = await self.load(session)
        if loaded.feed.state.seq == 0:
            raise not_available(session)
        return loaded

    async def cancel(self) -> None:
        """End what is being read."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, session: str) -> LoadedSession:
        if self.nodes is None:
            stored = await self._store.load(session) if session in self.known else None
            return await self._make(session, stored)
        with self.nodes.arriving(session) as news:
            stored = await self._store.load(session)
            watching = await self.nodes.watching(session)
            loaded = await self._make(session, stored)
            loaded.feed.presence.elsewhere = watching
            loaded.following.news.extend(news)
        self.nodes.advance(loaded)
        return loaded

    async def _make(self, session: str, stored: StoredSession | None) -> LoadedSession:
        epoch = self._store.epoch if stored is None else stored.state.epoch
        if session in self._anew or (stored is None and await self._store.tombstone(session) is not None):
            # What was under this id before is not continued.
            epoch = self._token_hex(8)
            if stored is not None:
                stored.history.clear()
        self._anew.discard(session)
        make = partial(
            LoadedSession,
            session,
            epoch,
            stored,
            limits=self._limits,
            timing=self._timing,
            now=self._clock.monotonic(),
            node="" if self.nodes is None else self.nodes.node,
            ours=_all if self.nodes is None else self.nodes.ours,
        )
        if stored is not None and len(stored.state) > _LARGE:
            # What is counted of a million steps takes seconds, which are not the other sessions'.
            loaded = await asyncio.to_thread(make)
        else:
            loaded = make()
        self._memory[session] = loaded
        self._came(loaded)
        return loaded


def _all(node: str) -> bool:
    """Where there is one node, every producer is its own."""
    return True
