"""Which of several nodes watches over a program, and what becomes of one whose node is gone."""

from __future__ import annotations

from wsmonitor.protocol.changes import SessionChange
from wsmonitor.protocol.defaults import Timing

from .cluster import Cluster, S, begin, steps
from .support import Listener, Publisher


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
