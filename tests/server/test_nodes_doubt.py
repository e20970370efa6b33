"""A node that was cut off, or has missed something: it says so, holds still, and makes up for it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from wsmonitor.protocol.changes import ChainChange
from wsmonitor.protocol.messages import CommandRequest
from wsmonitor_server.ports import Refusal
from wsmonitor_server.stores.bus import Lost

from .cluster import Cluster, S, begin, steps, turns
from .support import Listener, Publisher, claims


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
    assert "lost touch with the others (there is no way to the store)" in engine.degraded.reason
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


async def test_what_is_due_waits_while_the_store_cannot_be_read(cluster: Cluster) -> None:
    engine, store = cluster.engines["b"], cluster.stores["b"]
    await begin(engine)
    await cluster.settle()
    loaded = engine._sessions[S]
    store.cut = True
    engine._outcomes.moved(loaded)
    await turns(20)
    assert loaded.following.behind
    cluster.shared.clock.advance(30)  # its program's silence is due by now, and so is the next look
    engine.handle_timeout()
    await turns(20)
    for _ in range(3):
        engine.handle_timeout()
        due = engine._timetable.agenda.next()
        assert due is not None
        assert due > cluster.shared.clock.monotonic(), "nothing is looked at again and again"
    store.heal()
    await cluster.wait(3)
    assert not loaded.following.behind


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
    assert not engine._background


async def test_who_waits_for_a_session_that_is_removed_meanwhile_is_not_left_with_what_was_there(
    cluster: Cluster,
) -> None:
    publisher = await begin(cluster.engines["a"])
    await cluster.settle()
    watching = Listener()
    await watching.sync(cluster.engines["a"], S)
    engine, store = cluster.engines["b"], cluster.stores["b"]
    await Listener().sync(engine, S)
    store.deaf = True
    await publisher.put(*steps(publisher, 0, 1))
    await cluster.settle()
    store.deaf = False
    store.readable.clear()
    cluster.engines["a"].unsubscribe(S, watching)
    subscribing = asyncio.create_task(engine.subscribe(S, 2, watching.position(), watching))
    await turns(20)
    await cluster.engines["a"].remove(S)
    await turns(20)  # b is told
    store.readable.set()
    sync = await subscribing
    assert (sync.begin.absent, sync.begin.base) == (True, 0)
    await watching.finish(sync)
    again = await begin(engine)
    await again.put(*steps(again, 0, 1))
    await cluster.settle()
    assert watching.replica is not None
    assert list(watching.replica.steps) == ["p1-0"], "it hears of the session that is there now"
    cluster.agree()
