"""Several nodes over one store: what is published at one is seen at all, once, in one order."""

from __future__ import annotations

import asyncio

import pytest

from wsmonitor.protocol.changes import ChainChange, CommandChange
from wsmonitor.protocol.ids import directory_topic
from wsmonitor.protocol.messages import CommandRequest
from wsmonitor_server.ports import Refusal

from .cluster import Cluster, S, begin, steps
from .support import Listener, Publisher, claims


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


async def test_a_session_of_which_the_store_has_nothing_any_more_is_removed_at_all_nodes(
    cluster: Cluster,
) -> None:
    publisher = await begin(cluster.engines["a"])
    watching = Listener()
    await watching.sync(cluster.engines["b"], S)
    await cluster.settle()
    # As when somebody deletes its keys.
    del cluster.shared.memory._sessions[S]
    cluster.shared.versions.pop(S)
    cluster.shared.commits.pop(S)
    await publisher.put(*steps(publisher, 0, 1))
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
