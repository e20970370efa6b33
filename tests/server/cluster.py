"""Several nodes with their engines over one store in memory, on one clock, and programs at them."""

from __future__ import annotations

import asyncio
from typing import Any

from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.entities import CommandSpec
from wsmonitor_server.engine import SessionEngine

from .shared_memory import MemoryNode, SharedMemory
from .support import Publisher, engine_on

S = "etl~1"


class Cluster:
    """Nodes with their engines."""

    def __init__(self) -> None:
        self.shared = SharedMemory()
        self.engines: dict[str, SessionEngine] = {}
        self.stores: dict[str, MemoryNode] = {}

    async def start(self, name: str) -> SessionEngine:
        store = self.shared.node(name)
        engine, _ = engine_on(store, clock=self.shared.clock, shared=store)  # type: ignore[arg-type]  # it delegates
        await engine.start()
        self.engines[name], self.stores[name] = engine, store
        return engine

    async def stop(self, name: str) -> None:
        await self.engines.pop(name).stop()

    async def settle(self) -> None:
        """Until nothing waits for a commit, and no message is on its way."""
        calm = 0
        while calm < 3:
            for engine in self.engines.values():
                await engine.settle()
            await asyncio.sleep(0)
            busy = any(store.waiting for store in self.stores.values()) or any(
                one.ledger.uncommitted or one.following.behind
                for engine in self.engines.values()
                for one in engine._sessions
            )
            calm = 0 if busy else calm + 1

    async def wait(self, seconds: float) -> None:
        """Let time pass, a quarter of a second at a time."""
        for _ in range(round(seconds * 4)):
            self.shared.clock.advance(0.25)
            for engine in self.engines.values():
                engine.handle_timeout()
            await asyncio.sleep(0)
        await self.settle()

    def agree(self, session: str = S) -> dict[str, tuple[str, int, str]]:
        """The heads at all nodes that have the session in memory; they must be the same."""
        heads = {name: engine.heads([session]) for name, engine in self.engines.items()}
        assert len({repr(head) for head in heads.values() if head}) == 1, heads
        return next(head for head in heads.values() if head)


def steps(publisher: Publisher, first: int, count: int, chain: str = "c") -> list[Any]:
    return [
        StepChange(id=f"{publisher.producer}-{number}", chain=chain, name=str(number), state="running")
        for number in range(first, first + count)
    ]


async def begin(engine: SessionEngine, producer: str = "p1") -> Publisher:
    publisher = await Publisher(engine, S, producer).open()
    spec = CommandSpec(name="pause", targets=("session",))
    await publisher.put(
        SessionChange(name="etl", state="running", commands=(spec,)), ChainChange(id="c", name="c")
    )
    return publisher


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
