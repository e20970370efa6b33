"""Three nodes, four programs, cuts, missed messages, lost answers, failovers, at random moments."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.scale import many
from wsmonitor.protocol.changes import ChainChange, LogChange, SessionChange, StepChange
from wsmonitor.protocol.entities import LogRecord
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal

from .cluster import Cluster, S, turns
from .support import Listener, Publisher


@pytest.mark.parametrize("seed", range(many(25)))
async def test_whatever_happens_all_nodes_agree_and_each_change_is_there_once(seed: int) -> None:
    rng = random.Random(seed)
    cluster = Cluster()
    cluster.shared.kept = rng.choice([2, 1_000])
    cluster.shared.turns = lambda: rng.choice([0, 1, 2, 5, 12])
    for name in "abc":
        await cluster.start(name)
    programs = [Program(f"p{number}", rng, cluster) for number in range(4)]
    watchers = [Watcher(engine) for engine in cluster.engines.values()]
    trouble = asyncio.create_task(havoc(rng, cluster))
    await asyncio.gather(
        *(program.run(40) for program in programs), *(watcher.run(rng, 40) for watcher in watchers)
    )
    trouble.cancel()
    for store in cluster.stores.values():
        store.lose_answers = 0
        if store.cut or store.deaf:
            store.heal()
    await cluster.wait(3)
    for program in programs:
        await program.finish()
    await cluster.wait(3)
    epoch, seq, digest = cluster.agree()[S]
    for watcher in watchers:
        await watcher.look(rng)
        replica = watcher.listener.replica
        assert replica is not None
        assert (replica.epoch, replica.seq, replica.digest) == (epoch, seq, digest)
        for program in programs:
            step = replica.steps.get(program.name)
            assert (0 if step is None else step.log_count) == program.made, f"{program.name}: each line once"
    assert not any(
        one.following.pending or one.following.news
        for node in cluster.engines.values()
        for one in node._sessions
    )
    for name in list(cluster.engines):
        await cluster.stop(name)


async def havoc(rng: random.Random, cluster: Cluster) -> None:
    """What may happen between nodes and store, until it is enough."""
    stores = list(cluster.stores.values())
    while True:
        await turns(rng.choice([1, 5, 20]))
        match rng.choices(["cut", "heal", "deaf", "answer", "fail", "time"], [3, 12, 3, 4, 1, 12])[0]:
            case "cut":
                rng.choice(stores).cut = True
            case "deaf":
                rng.choice(stores).deaf = True
            case "heal":
                for store in stores:
                    if store.cut or store.deaf:
                        store.heal()
            case "answer":
                rng.choice(stores).lose_answers = 1
            case "fail":
                if not any(store.cut or store.deaf for store in stores):
                    cluster.shared.lose()
            case _:
                cluster.shared.clock.advance(0.25)
                for engine in cluster.engines.values():
                    engine.handle_timeout()


class Watcher:
    """An observer of one node, whose replica takes nothing that does not follow."""

    def __init__(self, engine: SessionEngine) -> None:
        self.engine = engine
        self.listener = Listener()

    async def look(self, rng: random.Random) -> None:
        """Subscribe anew, from where it was; its state never goes back within an epoch."""
        resume = None if self.listener.replica is None else self.listener.position()
        self.engine.unsubscribe(S, self.listener)
        fresh = Listener()
        try:
            await fresh.sync(self.engine, S, resume)
        except Refusal:
            return
        assert fresh.replica is not None
        if resume is not None and fresh.replica.epoch == resume.epoch:
            assert fresh.replica.seq >= resume.seq
        self.listener = fresh

    async def run(self, rng: random.Random, count: int) -> None:
        for _ in range(count):
            await turns(rng.choice([1, 5, 20]))
            if self.listener.replica is None or self.listener.resets or rng.random() < 0.1:
                await self.look(rng)


class Program:
    """A publishing program as a real one is: it sends again what was not acknowledged, to any node."""

    def __init__(self, name: str, rng: random.Random, cluster: Cluster) -> None:
        self.name = name
        self.rng = rng
        self.cluster = cluster
        self.made = 0
        self.publisher: Publisher | None = None
        own = (
            SessionChange(name="etl", state="running")
            if name == "p0"
            else ChainChange(id=f"c-{name}", name="c")
        )
        self.changes: list[Any] = [
            own,
            ChainChange(id=f"k-{name}", name="k"),
            StepChange(id=name, chain=f"k-{name}", name=name, state="running"),
        ]

    async def _open(self) -> Publisher | None:
        one = self.publisher
        if one is not None and not one.failures and not one.fences:
            return one
        self.publisher = None
        fresh = Publisher(self.rng.choice(list(self.cluster.engines.values())), S, self.name)
        try:
            await fresh.open(holder=self.name)
        except Refusal:
            return None
        self.publisher = fresh
        return fresh

    async def publish(self) -> None:
        publisher = await self._open()
        if publisher is None:
            return
        for _ in range(self.rng.randrange(3)):
            self.made += 1
            self.changes.append(LogChange(step=self.name, records=[LogRecord(at="1", text=str(self.made))]))
        # Some of it may have been sent before.
        first = max(1, publisher.next - self.rng.choice([0, 0, 1, 2]))
        if not (waiting := self.changes[first - 1 :]):
            return
        publisher.next = len(self.changes) + 1
        try:
            await publisher.handle.publish(publisher.handle.epoch, first, waiting)
        except Refusal as refused:
            self.publisher = None
            if refused.info.code == "out_of_sequence":
                raise  # it sends in order

    async def run(self, count: int) -> None:
        for _ in range(count):
            await turns(self.rng.choice([0, 0, 1, 3, 10]))
            if self.rng.random() < 0.05:
                self.publisher = None  # to another node
            await self.publish()

    async def finish(self) -> None:
        for _ in range(50):
            self.publisher = None
            if (publisher := await self._open()) is not None:
                await self.publish()
                await self.cluster.settle()
                if publisher.acks and publisher.acks[-1] == len(self.changes):
                    return
            await self.cluster.wait(1)
        raise AssertionError(f"{self.name} cannot get rid of its changes")
