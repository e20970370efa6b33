"""Several nodes over one store: what is published at one is seen at all, once, in one order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.scale import many
from wsmonitor.protocol.changes import ChainChange, CommandChange, LogChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import CommandSpec, LogRecord
from wsmonitor.protocol.ids import directory_topic
from wsmonitor.protocol.messages import CommandRequest
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal
from wsmonitor_server.stores.bus import Lost

from .shared_memory import MemoryNode, SharedMemory
from .support import Listener, Publisher, claims, engine_on

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
                one.ledger.uncommitted or one.behind
                for engine in self.engines.values()
                for one in engine._sessions.values()
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


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    await made.start("a")
    await made.start("b")
    yield made
    for store in made.stores.values():
        store.cut = False
        store.readable.set()
    for name in list(made.engines):
        await made.stop(name)


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


async def test_what_is_published_at_one_node_is_seen_at_the_other(cluster: Cluster) -> None:
    before = Listener("before")
    await before.sync(cluster.engines["b"], S)
    publisher = await begin(cluster.engines["a"])
    await publisher.put(*steps(publisher, 0, 5))
    await cluster.settle()
    assert [event.seq for event in before.events] == list(range(1, 9))
    after = Listener("after")
    await after.sync(cluster.engines["b"], S)
    assert before.replica is not None
    assert after.replica is not None
    head = cluster.agree()[S]
    assert (after.replica.seq, after.replica.digest) == head[1:]
    assert before.replica.digest == head[2]


async def test_two_programs_at_two_nodes_publish_into_one_session(cluster: Cluster) -> None:
    watching = [Listener(name) for name in ("a", "b")]
    for listener in watching:
        await listener.sync(cluster.engines[listener.name], S)
    one = await begin(cluster.engines["a"])
    await cluster.settle()
    two = await Publisher(cluster.engines["b"], S, "p2").open()
    for turn in range(20):
        for publisher in (one, two):
            await publisher.handle.publish(
                publisher.handle.epoch, publisher.next, steps(publisher, 3 * turn, 3)
            )
            publisher.next += 3
    await cluster.settle()
    cluster.agree()
    assert (one.acks[-1], two.acks[-1]) == (62, 60)
    assert one.failures == two.failures == []
    assert sum(engine.status()["conflicts"] for engine in cluster.engines.values()) > 0, "nothing was tried"
    for listener in watching:
        assert listener.replica is not None
        assert len(listener.replica.steps) == 120
        seqs = [event.seq for event in listener.events]
        assert seqs == list(range(1, len(seqs) + 1))
        written = [event.entity for event in listener.events if event.kind == "step"]
        assert len(written) == 120, "each change is one event"


async def test_who_opens_a_producer_at_another_node_fences_the_holder_before(cluster: Cluster) -> None:
    first = await begin(cluster.engines["a"])
    await cluster.settle()
    second = await Publisher(cluster.engines["b"], S).open(holder="other")
    await cluster.settle()
    assert first.fences == 1
    with pytest.raises(Refusal, match="another holder"):
        await first.put(*steps(first, 0, 1))
    await second.put(*steps(second, 0, 1))
    await cluster.settle()
    cluster.agree()


async def test_a_command_reaches_the_program_at_the_other_node_once(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    asked = CommandRequest(request=1, session=S, key="0" * 32, name="pause", deadline_ms=30_000)
    replies = await asyncio.gather(
        *(engine.command(asked, claims()) for engine in cluster.engines.values()),
        cluster.engines["b"].command(asked, claims()),
    )
    await cluster.settle()
    assert sorted(reply.repeated for reply in replies) == [False, True, True]
    assert [command.id for command in publisher.delivered] == ["0" * 32]
    await publisher.put(
        CommandChange(id="0" * 32, state="delivered"), CommandChange(id="0" * 32, state="accepted")
    )
    await publisher.put(CommandChange(id="0" * 32, state="applied"))
    await cluster.settle()
    cluster.agree()
    reply = await cluster.engines["b"].command(asked, claims())
    assert (reply.command.state, reply.repeated) == ("applied", True)


async def test_who_watches_is_counted_over_all_nodes(cluster: Cluster) -> None:
    await begin(cluster.engines["a"])
    await cluster.settle()
    here, there, again = Listener("ada"), Listener("bob"), Listener("ada")
    await here.sync(cluster.engines["a"], S)
    await there.sync(cluster.engines["b"], S)
    await again.sync(cluster.engines["b"], S)  # one program with connections to two nodes
    await cluster.wait(3)
    assert here.present[-1] == there.present[-1] == (2, ["ada", "bob"])
    cluster.engines["b"].unsubscribe(S, there)
    await cluster.wait(3)
    assert here.present[-1] == (1, ["ada"])
    cluster.stores["b"].leave()
    await cluster.wait(3)
    assert here.present[-1] == (1, ["ada"])


async def test_the_programs_of_a_node_that_is_gone_are_watched_by_another(cluster: Cluster) -> None:
    timing = Timing()
    publisher = await begin(cluster.engines["b"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["a"], S)
    cluster.stores["b"].leave()
    await cluster.settle()

    def liveness() -> tuple[str, str]:
        assert watching.replica is not None
        session = watching.replica.session
        assert session is not None
        return watching.replica.producers["p1"].liveness, session.state

    assert liveness() == ("stale", "running")
    await cluster.wait(timing.producer_lost + 1)
    assert liveness() == ("lost", "running")
    await cluster.wait(timing.producer_crashed + 1)
    assert liveness() == ("lost", "crashed")
    back = await Publisher(cluster.engines["a"], S).open(holder="")
    await back.put(SessionChange(state="running"))
    await cluster.settle()
    assert liveness() == ("live", "running")
    assert publisher.failures == []


async def test_a_program_that_comes_back_at_another_node_is_not_lost(cluster: Cluster) -> None:
    timing = Timing()
    publisher = await begin(cluster.engines["a"])
    await publisher.handle.close(goodbye=False)
    await cluster.settle()
    back = await Publisher(cluster.engines["b"], S).open()
    await cluster.settle()
    for _ in range(8):
        await cluster.wait(timing.producer_lost / 2)
        back.handle.heard()
    await cluster.settle()
    state = (await cluster.stores["a"].load(S)).state  # type: ignore[union-attr]
    assert (state.producers["p1"].liveness, state.session.state) == ("live", "running")


async def test_a_session_that_is_removed_is_removed_at_all_nodes(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    for engine in cluster.engines.values():
        lines = Listener()
        await lines.sync(engine, directory_topic())
        assert lines.replica is not None
        assert list(lines.replica.listings) == [S]
    await cluster.engines["b"].remove(S)
    await cluster.settle()
    assert (publisher.fences, publisher.removals) == (1, 1)
    assert watching.removals == ["removed"]
    for engine in cluster.engines.values():
        lines = Listener()
        await lines.sync(engine, directory_topic())
        assert lines.replica is not None
        assert not lines.replica.listings


async def test_a_revocation_is_known_at_all_nodes(cluster: Cluster) -> None:
    told: list[str] = []
    cluster.engines["b"].on_revocation(told.append)
    await cluster.engines["a"].revoke("badge", 2**40)
    await cluster.settle()
    assert told == ["badge"]
    assert all(engine.revoked("badge") for engine in cluster.engines.values())
    third = await cluster.start("c")
    assert third.revoked("badge")


async def test_a_node_that_cannot_know_of_revocations_says_so_and_holds_still(cluster: Cluster) -> None:
    engine = cluster.engines["b"]
    publisher = await begin(engine)
    await cluster.settle()
    told: list[str] = []
    engine.on_revocation(told.append)
    assert not engine.holding
    cluster.stores["b"].cut = True
    await cluster.engines["a"].revoke("badge", 2**40)
    await cluster.wait(1.5)
    assert engine.holding
    assert engine.degraded is not None
    assert "lost touch" in engine.degraded.reason
    for refused in (
        publisher.put(ChainChange(id="x", name="x")),
        Publisher(engine, S, "p2").open(),
        engine.command(
            CommandRequest(request=1, session=S, key="1" * 32, name="pause", deadline_ms=9), claims()
        ),
        engine.history(S, 1, 10, 1),
        engine.logs(S, "s", 1, 10, 1),
        engine.remove(S),
        engine.value_begin(S, "0" * 64, 1),
    ):
        with pytest.raises(Refusal, match="lost touch") as failure:
            await refused
        assert failure.value.info.retryable
    cluster.stores["b"].heal()
    await cluster.wait(0.5)
    assert told == ["badge"]
    assert not engine.holding
    await cluster.wait(6)
    assert engine.degraded is None


@pytest.mark.parametrize("kept", [1_000, 1])
async def test_a_node_that_missed_messages_makes_up_for_them(cluster: Cluster, kept: int) -> None:
    cluster.shared.kept = kept
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    seen = len(watching.events)
    cluster.stores["b"].deaf = True
    for turn in range(3):
        await publisher.put(*steps(publisher, 2 * turn, 2))
    await cluster.settle()
    assert len(watching.events) == seen
    cluster.stores["b"].heal()
    await cluster.wait(1)
    cluster.agree()
    if watching.resets:
        assert kept == 1, "events that are kept are told as events"
        await watching.sync(cluster.engines["b"], S, watching.position())
    assert watching.replica is not None
    assert len(watching.replica.steps) == 6


async def test_a_hole_in_what_is_told_is_found_without_being_told(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    cluster.stores["b"].deaf = True
    await publisher.put(*steps(publisher, 0, 2))
    cluster.stores["b"].deaf = False
    await publisher.put(*steps(publisher, 2, 2))
    await cluster.settle()
    assert [event.seq for event in watching.events] == [4, 5, 6, 7]
    cluster.agree()


async def test_a_commit_whose_answer_was_lost_is_neither_lost_nor_made_twice(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    cluster.stores["a"].lose_answers = 1
    await publisher.put(*steps(publisher, 0, 2))
    await cluster.settle()
    assert [one.code for one in publisher.failures] == ["store_failed"]
    before = publisher.next
    again = await Publisher(cluster.engines["a"], S).open(holder="", held=0)
    assert again.next == before, "it was made, and its publisher learns it"
    await cluster.settle()
    state = (await cluster.stores["b"].load(S)).state  # type: ignore[union-attr]
    assert sorted(state.steps) == ["p1-0", "p1-1"]


async def test_a_store_that_may_have_lost_something_begins_a_new_epoch_at_all_nodes(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    before = cluster.agree()[S][0]
    cluster.shared.lose()
    await cluster.settle()
    await cluster.wait(1)
    assert watching.resets == 1
    assert [one.code for one in publisher.failures] == ["store_failed"]
    await watching.sync(cluster.engines["b"], S, watching.position())
    again = await Publisher(cluster.engines["a"], S).open()
    assert again.opened is not None
    assert again.opened.epoch != before
    await again.put(*steps(again, 0, 1))
    await cluster.settle()
    assert watching.replica is not None
    assert (watching.replica.epoch, len(watching.replica.steps)) == (again.opened.epoch, 1)
    cluster.agree()


async def test_a_store_that_has_lost_everything_has_removed_nothing(cluster: Cluster) -> None:
    """Who publishes asserts what it owns, under a new epoch; nobody is told that somebody removed it."""
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    before = cluster.agree()[S][0]
    cluster.shared.forget()
    await cluster.settle()
    await cluster.wait(1)
    assert (watching.resets, watching.removals) == (1, [])
    assert (publisher.fences, publisher.removals) == (0, 0)
    assert [one.code for one in publisher.failures] == ["store_failed"]
    for engine in cluster.engines.values():
        lines = Listener()
        await lines.sync(engine, directory_topic())
        assert lines.replica is not None
        assert not lines.replica.listings
    await watching.sync(cluster.engines["b"], S, watching.position())
    again = await begin(cluster.engines["b"])
    assert again.opened is not None
    assert not again.opened.known
    assert again.opened.epoch != before
    await cluster.settle()
    assert watching.replica is not None
    assert (watching.replica.epoch, list(watching.replica.chains)) == (again.opened.epoch, ["c"])
    assert cluster.agree()[S][0] == again.opened.epoch


@pytest.mark.parametrize("turns", range(8))
async def test_who_opens_while_the_store_loses_something_may_come_again(cluster: Cluster, turns: int) -> None:
    await begin(cluster.engines["a"])
    await cluster.settle()
    opening = asyncio.create_task(Publisher(cluster.engines["a"], S, "p2").open())
    for _ in range(turns):
        await asyncio.sleep(0)
    cluster.shared.lose()
    await cluster.settle()
    await cluster.wait(1)
    [outcome] = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(outcome, Refusal):
        assert (outcome.info.code, outcome.info.retryable) == ("store_failed", True)
    else:
        assert isinstance(outcome, Publisher)
    again = await Publisher(cluster.engines["a"], S, "p2").open()
    assert again.opened is not None
    assert cluster.agree()[S][0] == again.opened.epoch


async def test_what_is_asserted_elsewhere_after_a_loss_comes_to_all_nodes(cluster: Cluster) -> None:
    await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    cluster.stores["b"].cut = True
    cluster.shared.forget()
    await cluster.settle()
    again = await begin(cluster.engines["a"])
    cluster.stores["b"].heal()
    await cluster.wait(3)
    assert again.opened is not None
    assert (watching.resets, watching.removals) == (1, [])
    await watching.sync(cluster.engines["b"], S, watching.position())
    await again.put(*steps(again, 0, 1))
    await cluster.settle()
    assert watching.replica is not None
    assert list(watching.replica.steps) == ["p1-0"]
    assert cluster.agree()[S][0] == again.opened.epoch


async def test_what_was_removed_while_a_node_was_cut_off_is_removed_there_too(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["a"], S)
    cluster.stores["a"].cut = True
    await cluster.engines["b"].remove(S)
    await cluster.settle()
    cluster.stores["a"].heal()
    await cluster.wait(3)
    assert watching.removals == ["removed"]
    assert publisher.removals == 1


async def test_an_observer_goes_on_at_another_node_where_it_was(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    cluster.stores["b"].leave()
    await cluster.engines.pop("b").stop()
    await publisher.put(*steps(publisher, 0, 3))
    position = watching.position()
    await watching.sync(cluster.engines["a"], S, position)
    assert [event.seq for event in watching.missed] == [position.seq + one for one in (1, 2, 3)]
    assert watching.gaps == []


async def test_what_is_committed_elsewhere_while_a_session_is_loaded_is_not_missed(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    slow = cluster.stores["b"].load

    async def load(session: str) -> Any:
        found = await slow(session)
        await publisher.put(*steps(publisher, 0, 1))
        await turns(20)  # the answer takes longer than the message
        return found

    cluster.stores["b"].load = load  # type: ignore[method-assign]
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    await cluster.settle()
    assert watching.replica is not None
    assert len(watching.replica.steps) == 1
    cluster.agree()


async def test_what_is_told_while_something_missed_is_read_is_not_missed(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    cluster.stores["b"].deaf = True
    await publisher.put(*steps(publisher, 0, 1))
    cluster.stores["b"].deaf = False
    slow = cluster.stores["b"].missed
    asked = asyncio.Event()

    async def missed(session: str, version: int) -> Any:
        found = await slow(session, version)
        asked.set()
        await turns(20)  # the answer takes longer than the next message
        return found

    cluster.stores["b"].missed = missed  # type: ignore[method-assign]
    await publisher.put(*steps(publisher, 1, 1))
    await asked.wait()
    await publisher.put(*steps(publisher, 2, 1))
    await cluster.settle()
    assert [event.seq for event in watching.events] == [4, 5, 6]
    cluster.agree()


async def test_what_is_sent_again_in_part_is_taken_again_behind_another_nodes_commit(
    cluster: Cluster,
) -> None:
    one = await begin(cluster.engines["a"])
    await cluster.settle()
    two = await Publisher(cluster.engines["b"], S, "p2").open()
    await one.put(*steps(one, 0, 3))
    await cluster.settle()
    commit = cluster.stores["a"].commit
    commits = 0

    async def second(made: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            await two.put(*steps(two, 0, 1))  # the other is quicker
        await commit(made)

    cluster.stores["a"].commit = second  # type: ignore[method-assign]
    await one.handle.publish(one.handle.epoch, 6, steps(one, 3, 1))
    await turns(2)  # that is on its way
    # Numbers 4 to 6 were sent before; 7 and 8 are new.
    await one.handle.publish(one.handle.epoch, 4, steps(one, 1, 5))
    await cluster.settle()
    assert cluster.engines["a"].status()["conflicts"] == 1
    assert one.acks[-1] == 8
    state = (await cluster.stores["b"].load(S)).state  # type: ignore[union-attr]
    assert sorted(state.steps) == [*(f"p1-{number}" for number in range(6)), "p2-0"]


async def test_counts_in_the_directory_come_to_all_nodes_without_a_further_change(cluster: Cluster) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    lists = [Listener(), Listener()]
    for listener, engine in zip(lists, cluster.engines.values(), strict=True):
        await listener.sync(engine, directory_topic())
    await publisher.put(*steps(publisher, 0, 3))
    await cluster.wait(3)
    for listener in lists:
        assert listener.replica is not None
        assert sum(listener.replica.listings[S].counts.values()) == 3


async def test_what_is_due_waits_while_the_store_cannot_be_read(cluster: Cluster) -> None:
    engine, store = cluster.engines["b"], cluster.stores["b"]
    await begin(engine)
    await cluster.settle()
    loaded = engine._sessions[S]
    store.cut = True
    engine._commit_moved(loaded)
    await turns(20)
    assert loaded.behind
    cluster.shared.clock.advance(30)  # its program's silence is due by now, and so is the next look
    engine.handle_timeout()
    await turns(20)
    for _ in range(3):
        engine.handle_timeout()
        due = engine._agenda.next()
        assert due is not None
        assert due > cluster.shared.clock.monotonic(), "nothing is looked at again and again"
    store.heal()
    await cluster.wait(3)
    assert not loaded.behind


async def test_one_program_at_two_nodes_at_once_has_one_holder(cluster: Cluster) -> None:
    await begin(cluster.engines["a"])
    await cluster.settle()
    both = await asyncio.gather(*(Publisher(engine, S, "p2").open() for engine in cluster.engines.values()))
    await cluster.settle()
    assert sorted(one.handle.epoch for one in both) == [1, 2]
    assert sorted((one.handle.epoch, one.fences) for one in both) == [(1, 1), (2, 0)]
    await max(both, key=lambda one: one.handle.epoch).put(ChainChange(id="d", name="d"))
    await cluster.settle()
    cluster.agree()


@pytest.mark.parametrize("seed", range(many(25)))
async def test_whatever_happens_all_nodes_agree_and_each_change_is_there_once(seed: int) -> None:
    """Three nodes, four programs, cuts, missed messages, lost answers, failovers, at random moments."""
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
        one.pending or one.news for node in cluster.engines.values() for one in node._sessions.values()
    )
    for name in list(cluster.engines):
        await cluster.stop(name)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


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


async def test_who_has_seen_more_at_another_node_is_not_told_that_it_was_never_there(
    cluster: Cluster,
) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["a"], S)
    cluster.stores["b"].deaf = True  # its messages are on their way
    elsewhere = Listener()
    await elsewhere.sync(cluster.engines["b"], S)
    await publisher.put(*steps(publisher, 0, 3))
    await cluster.settle()
    position = watching.position()
    cluster.engines["a"].unsubscribe(S, watching)
    assert cluster.engines["b"].heads([S])[S][1] < position.seq
    sync = await cluster.engines["b"].subscribe(S, 2, position, watching)
    assert (sync.begin.reset, sync.begin.base) == ("", position.seq)
    sync.close()
    cluster.stores["b"].cut = True
    beyond = msgspec.structs.replace(position, seq=position.seq + 1)
    with pytest.raises(Refusal) as failure:
        await cluster.engines["b"].subscribe(S, 3, beyond, watching)
    assert failure.value.info.retryable
    cluster.stores["b"].heal()
    await cluster.wait(2)
    cluster.agree()


async def test_of_an_epoch_that_is_over_the_store_is_asked_once(cluster: Cluster) -> None:
    await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["a"], S)
    before = watching.position()
    cluster.shared.lose()
    await cluster.wait(1)
    engine, reads = cluster.engines["b"], []
    load = cluster.stores["b"].load

    async def counted(session: str) -> Any:
        reads.append(session)
        return await load(session)

    cluster.stores["b"].load = counted  # type: ignore[method-assign]  # it counts, and does the same
    for generation in range(2, 6):
        sync = await engine.subscribe(S, generation, before, watching)
        assert sync.begin.reset == "epoch"
        sync.close()
    assert len(reads) <= 2, "once to have it, once because its epoch is another"


async def test_who_opens_while_the_store_loses_is_told_to_come_again(cluster: Cluster) -> None:
    first = await begin(cluster.engines["a"])
    await cluster.settle()
    await Listener().sync(cluster.engines["b"], S)
    refused = []
    for turns in range(1, 13):  # at whatever moment of the opening the loss comes
        opening = asyncio.create_task(Publisher(cluster.engines["b"], S, "p2").open())
        writing = asyncio.create_task(first.put(*steps(first, 0, 1)))
        for _ in range(turns):
            await asyncio.sleep(0)
        cluster.shared.lose()
        outcome, _ = await asyncio.gather(opening, writing, return_exceptions=True)
        if isinstance(outcome, Refusal):
            refused.append((outcome.info.code, outcome.info.retryable))
        await cluster.wait(1)
        first = await Publisher(cluster.engines["a"], S).open()
    assert set(refused) == {("store_failed", True)}


async def test_a_node_that_was_taken_for_gone_has_its_programs_back(cluster: Cluster) -> None:
    """Two servers that contradict each other about a program would do so for ever, once a second."""
    publisher = await begin(cluster.engines["b"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["a"], S)
    cluster.stores["b"].cut = True
    cluster.stores["b"].leave()
    await cluster.wait(2)
    assert watching.replica is not None
    assert watching.replica.producers["p1"].liveness == "stale"
    cluster.stores["b"].heal()
    await cluster.wait(2)
    publisher.handle.heard()
    await cluster.wait(2)
    assert watching.replica.producers["p1"].liveness == "live"
    told = len(watching.events)
    for _ in range(20):
        publisher.handle.heard()
        await cluster.wait(5)
    assert len(watching.events) == told
    assert watching.replica.producers["p1"].liveness == "live"
    cluster.agree()


async def test_a_program_that_dies_while_an_answer_is_lost_is_watched_all_the_same(cluster: Cluster) -> None:
    """Its own server reads its last commit as it reads those of others, and nobody else hears the program."""
    timing = Timing()
    publisher = await begin(cluster.engines["b"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["a"], S)
    cluster.stores["b"].lose_answers = 1
    await publisher.put(*steps(publisher, 0, 1))
    await cluster.settle()
    assert [one.code for one in publisher.failures] == ["store_failed"]
    await cluster.wait(timing.producer_lost + 2)
    await cluster.wait(timing.producer_crashed + 2)
    assert watching.replica is not None
    assert watching.replica.session is not None
    assert (watching.replica.session.state, watching.replica.steps["p1-0"].state) == ("crashed", "crashed")
    cluster.agree()


async def test_who_opens_while_a_session_is_read_anew_is_open_afterwards(cluster: Cluster) -> None:
    first = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    cluster.shared.kept = 1  # so that what was missed is not read one by one
    for turns in range(12):  # at whatever moment of the reading it is opened
        cluster.stores["b"].deaf = True
        await first.put(*steps(first, 3 * turns, 2))
        await cluster.settle()
        cluster.stores["b"].deaf = False
        await first.put(*steps(first, 3 * turns + 2, 1))  # which shows that there is a hole
        for _ in range(turns):
            await asyncio.sleep(0)
        engine = cluster.engines["b"]
        opening = asyncio.create_task(Publisher(engine, S, f"p{turns + 2}").open())
        other = asyncio.create_task(Publisher(engine, S, f"q{turns + 2}").open())
        for opened in await asyncio.gather(opening, other):
            await opened.put(ChainChange(id=opened.producer, name="c"))
            assert opened.acks[-1] == 1
        await cluster.wait(1)
    cluster.agree()


async def test_what_is_told_while_a_node_closes_leaves_nothing_behind(cluster: Cluster) -> None:
    await begin(cluster.engines["b"])
    await cluster.settle()
    engine, store = cluster.engines["b"], cluster.stores["b"]
    close = store.close

    async def late() -> None:
        store._tell(Lost())
        await close()

    store.close = late  # type: ignore[method-assign]  # it is told something at the last moment
    await cluster.stop("b")
    assert not engine._tasks


async def overtaken(cluster: Cluster) -> Publisher:
    """A program at b whose changes 1 to 3 another node's commit has overtaken, which b is reading now."""
    first = await begin(cluster.engines["a"])
    await cluster.settle()
    second = await Publisher(cluster.engines["b"], S, "p2").open()
    await cluster.settle()
    store = cluster.stores["b"]
    store.readable.clear()
    store.reads.clear()
    store.deaf = True
    await first.put(*steps(first, 0, 1))
    store.deaf = False
    await second.handle.publish(second.handle.epoch, 1, steps(second, 0, 3))
    await store.reads.wait()
    return second


async def test_what_a_program_sends_while_its_session_is_read_anew_is_taken_behind_what_it_sent_before(
    cluster: Cluster,
) -> None:
    second = await overtaken(cluster)
    assert not second.handle.publish_now(second.handle.epoch, 4, steps(second, 3, 3))
    sending = asyncio.create_task(second.handle.publish(second.handle.epoch, 4, steps(second, 3, 3)))
    await turns(20)
    cluster.stores["b"].readable.set()
    await sending
    await second.handle.publish(second.handle.epoch, 7, steps(second, 6, 1))
    await cluster.settle()
    assert (second.acks[-1], second.failures, second.rejections) == (7, [], [])
    cluster.agree()


async def test_what_a_program_sends_while_its_session_cannot_be_read_is_for_another_time(
    cluster: Cluster,
) -> None:
    second = await overtaken(cluster)
    sending = asyncio.create_task(second.handle.publish(second.handle.epoch, 4, steps(second, 3, 1)))
    cluster.stores["b"].cut = True
    cluster.stores["b"].readable.set()
    with pytest.raises(Refusal) as refused:
        await sending
    assert (refused.value.info.code, refused.value.info.retryable) == ("store_failed", True)
    cluster.stores["b"].heal()
    await cluster.wait(2)
    assert second.acks[-1] == 3
    await second.handle.publish(second.handle.epoch, 4, steps(second, 3, 1))
    await cluster.settle()
    assert (second.acks[-1], second.failures) == (4, [])


async def test_what_was_sent_before_a_goodbye_is_kept_though_another_node_was_first(cluster: Cluster) -> None:
    second = await overtaken(cluster)
    leaving = asyncio.create_task(second.handle.close(goodbye=True))
    await turns(20)
    cluster.stores["b"].readable.set()
    await leaving
    await cluster.settle()
    stored = await cluster.stores["a"].load(S)
    assert stored is not None
    assert {"p2-0", "p2-1", "p2-2"} <= stored.state.steps.keys()
    assert stored.state.producers["p2"].closed
    cluster.agree()
