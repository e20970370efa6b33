"""Another node was first: what is undone is taken again behind that, once, in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wsmonitor.protocol.changes import ChainChange
from wsmonitor_server.ports import Refusal

from .cluster import Cluster, S, begin, steps, turns
from .support import Listener, Publisher


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


async def test_who_opens_while_a_session_is_read_anew_is_open_afterwards(cluster: Cluster) -> None:
    first = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    cluster.shared.kept = 1  # so that what was missed is not read one by one
    for moment in range(12):  # at whatever moment of the reading it is opened
        cluster.stores["b"].deaf = True
        await first.put(*steps(first, 3 * moment, 2))
        await cluster.settle()
        cluster.stores["b"].deaf = False
        await first.put(*steps(first, 3 * moment + 2, 1))  # which shows that there is a hole
        for _ in range(moment):
            await asyncio.sleep(0)
        engine = cluster.engines["b"]
        opening = asyncio.create_task(Publisher(engine, S, f"p{moment + 2}").open())
        other = asyncio.create_task(Publisher(engine, S, f"q{moment + 2}").open())
        for opened in await asyncio.gather(opening, other):
            await opened.put(ChainChange(id=opened.producer, name="c"))
            assert opened.acks[-1] == 1
        await cluster.wait(1)
    cluster.agree()


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
