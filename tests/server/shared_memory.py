"""A store in memory that several nodes share, with what can happen between a node and such a store.

The twin of the real one for tests of what nodes do: the same contract (`bus.Shared`), messages that
arrive in later turns of the loop, and a node that can be cut off, miss messages, or lose an answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsmonitor_server.clock import ManualClock
from wsmonitor_server.stores.base import Commit, MovedError, StoredSession, StoreError
from wsmonitor_server.stores.bus import (
    Committed,
    Lost,
    Message,
    NodeGone,
    People,
    Regenerated,
    SessionRemoved,
    TokenRevoked,
    WardenChanged,
    Watching,
)
from wsmonitor_server.stores.memory import MemoryStore

from .support import counting_hex


@dataclass
class SharedMemory:
    """What the nodes share.

    Attributes:
        kept: how many commits of a session can be read one by one.
        turns: how many turns of the loop a way takes, there or back.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    kept: int = 1_000
    turns: Callable[[], int] = lambda: 2

    def __post_init__(self) -> None:
        self.token_hex = counting_hex()
        self.memory = MemoryStore(token_hex=self.token_hex)
        self.versions: dict[str, int] = {}
        self.commits: dict[str, list[Committed]] = {}
        self.people: dict[str, dict[str, People]] = {}
        self.nodes: list[MemoryNode] = []

    def node(self, name: str) -> MemoryNode:
        return MemoryNode(self, name)

    def tell(self, message: Message) -> None:
        for node in self.nodes:
            node.receive(message)

    def elect(self) -> None:
        """The first node that is open watches over what nobody else does."""
        for node in self.nodes:
            node.receive(WardenChanged(node is self.nodes[0]))

    def lose(self) -> None:
        """As after a failover: all is there, but something may have been lost, so nothing is continued."""
        epoch = self.token_hex(8)
        self.memory.epoch = epoch
        for session, kept in self.memory._sessions.items():
            kept.epoch = epoch
            kept.events.clear()
            self.versions[session] += 1
        self.commits.clear()
        self.tell(Regenerated(epoch))

    def forget(self) -> None:
        """As after a start without its data: nothing is there."""
        self.memory = MemoryStore(token_hex=self.token_hex)
        self.versions.clear()
        self.commits.clear()
        self.tell(Regenerated(self.memory.epoch))


class MemoryNode:
    """One node's way to it.

    Attributes:
        cut: whether it cannot be reached.
        deaf: whether messages are missed.
        lose_answers: how many of the next commits are made without the node's being told.
        readable: what others have committed is read only while it is set; ``reads``: somebody has begun to.
    """

    def __init__(self, shared: SharedMemory, node: str) -> None:
        self.shared = shared
        self.node = node
        self.cut = False
        self.deaf = False
        self.lose_answers = 0
        self.readable = asyncio.Event()
        self.readable.set()
        self.reads = asyncio.Event()
        self._tell: Callable[[Message], None] = lambda message: None
        self._sure = 0.0
        self._coming: deque[Message] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        self._reach()
        return getattr(self.shared.memory, name)

    @property
    def epoch(self) -> str:
        return self.shared.memory.epoch

    def _reach(self) -> None:
        if self.cut:
            raise StoreError("there is no way to the store")

    # -- life

    async def open(self) -> None:
        self._reach()
        self.shared.nodes.append(self)
        self.shared.elect()

    async def close(self) -> None:
        self.leave()

    def leave(self) -> None:
        """It is gone, without a word of its own."""
        if self in self.shared.nodes:
            self.shared.nodes.remove(self)
            for people in self.shared.people.values():
                people.pop(self.node, None)
            self.shared.tell(NodeGone(self.node))
            self.shared.elect()

    async def check(self, *, room: int = 0) -> None:
        self._reach()

    def info(self) -> dict[str, str | int]:
        return {"kind": "shared memory"}

    # -- the bus

    def listen(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell

    def sure(self) -> float:
        if not self.cut:
            self._sure = self.shared.clock.monotonic()
        return self._sure

    def trouble(self) -> str:
        return "there is no way to the store" if self.cut else ""

    def receive(self, message: Message) -> None:
        if not self.cut and not self.deaf:
            self._coming.append(message)
            if len(self._coming) == 1:
                task = asyncio.get_running_loop().create_task(self._bring())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _bring(self) -> None:
        while self._coming:
            await self._way()
            self._tell(self._coming.popleft())

    async def _way(self) -> None:
        for _ in range(self.shared.turns()):
            await asyncio.sleep(0)

    @property
    def waiting(self) -> int:
        """Messages on their way."""
        return len(self._coming)

    def heal(self) -> None:
        """It is reached again, and has missed what was told meanwhile."""
        self.cut = self.deaf = False
        if self not in self.shared.nodes:  # the others took it for gone
            self.shared.nodes.append(self)
        self.receive(Lost())
        self.receive(WardenChanged(self.shared.nodes[0] is self))

    async def nodes(self) -> frozenset[str]:
        self._reach()
        return frozenset(one.node for one in self.shared.nodes)

    async def watching(self, session: str) -> dict[str, People]:
        self._reach()
        people = self.shared.people.get(session, {})
        return {node: there for node, there in people.items() if there and node != self.node}

    async def tell_watching(self, session: str, people: People) -> None:
        self._reach()
        self.shared.people.setdefault(session, {})[self.node] = people
        self.shared.tell(Watching(session, self.node, people))

    # -- sessions

    async def load(self, session: str) -> StoredSession | None:
        await self._way()
        self._reach()
        stored = await self.shared.memory.load(session)
        if stored is not None:
            stored.version = self.shared.versions[session]
        await self._way()
        return stored

    async def commit(self, commits: Sequence[Commit]) -> None:
        self._reach()
        await self._way()
        self._reach()
        shared = self.shared
        moved = {one.session for one in commits if not self._follows(one)}
        for one in commits:
            if one.session not in moved:
                await shared.memory.commit([one])  # in one turn, as all that is done in memory
                self._made(one)
        await self._way()
        if self.lose_answers or self.cut:
            self.lose_answers = max(0, self.lose_answers - 1)
            raise StoreError("the answer was lost", outcome_known=False)
        if moved:
            raise MovedError(moved)

    def _follows(self, commit: Commit) -> bool:
        kept = self.shared.memory._sessions.get(commit.session)
        if kept is not None and kept.epoch != commit.epoch:
            return False
        return self.shared.versions.get(commit.session, 0) == commit.version

    def _made(self, commit: Commit) -> None:
        shared = self.shared
        version = shared.versions[commit.session] = commit.version + 1
        message = Committed(
            session=commit.session,
            epoch=commit.epoch,
            version=version,
            head=commit.expected_head,
            events=tuple(encoded for _, encoded in commit.events),
            producers=dict(commit.producers),
            released=frozenset(commit.released),
            retired=len(commit.retired),
            listing=commit.listing,
            attention=commit.attention,
            node=self.node,
        )
        told = shared.commits.setdefault(commit.session, [])
        told.append(message)
        del told[: -shared.kept]
        shared.tell(message)

    async def missed(self, session: str, version: int) -> list[Committed] | None:
        await self._way()
        self.reads.set()
        await self.readable.wait()
        self._reach()
        if session not in self.shared.versions:
            return None
        known = [one for one in self.shared.commits.get(session, ()) if one.version > version]
        return known if len(known) == self.shared.versions[session] - version else None

    async def remove(self, session: str, *, at: int) -> None:
        self._reach()
        await self.shared.memory.remove(session, at=at)
        self.shared.versions.pop(session, None)
        self.shared.commits.pop(session, None)
        self.shared.tell(SessionRemoved(session, at, self.node))

    async def revoke(self, jti: str, expires: int) -> None:
        self._reach()
        await self.shared.memory.revoke(jti, expires)
        self.shared.tell(TokenRevoked(jti, expires))
