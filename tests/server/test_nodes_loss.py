"""A store that has lost something, or all: a new epoch at all nodes, and nobody has removed anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wsmonitor.protocol.ids import directory_topic
from wsmonitor_server.ports import Refusal

from .cluster import Cluster, S, begin, steps
from .support import Listener, Publisher


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
