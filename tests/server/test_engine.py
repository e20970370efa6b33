"""Publishing and observing through the engine: numbering, acknowledgement, sync, live events."""

from __future__ import annotations

import asyncio

import pytest

from wsmonitor.protocol.changes import ChainChange, SessionChange, SkippedChange, StepChange
from wsmonitor.protocol.messages import Position
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.hub import KEEP
from wsmonitor_server.ports import Refusal

from .support import Listener, Publisher

Running = tuple[SessionEngine, ManualClock]


async def test_published_changes_are_acknowledged_and_seen(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "etl~1").open()
    before = Listener("before")
    await before.sync(engine, "etl~1")
    await publisher.put(
        SessionChange(name="etl", state="running"),
        ChainChange(id="c", name="load"),
        StepChange(id="s", chain="c", name="read", state="running"),
    )
    assert publisher.acks[-1] == 3
    assert [event.seq for event in before.events] == [2, 3, 4]
    after = Listener("after")
    await after.sync(engine, "etl~1")
    assert before.replica is not None
    assert after.replica is not None
    assert before.replica.digest == after.replica.digest
    session = after.replica.session
    assert session is not None
    assert (session.run, session.state, session.started != "") == (1, "running", True)
    assert engine.heads(["etl~1"]) == {"etl~1": (engine.epoch, 4, after.replica.digest)}


async def test_absent_session_goes_live_when_it_appears(running: Running) -> None:
    engine, _ = running
    listener = Listener()
    sync = await listener.sync(engine, "later~1")
    assert (sync.begin.absent, sync.begin.base, sync.begin.epoch) == (True, 0, engine.epoch)
    publisher = await Publisher(engine, "later~1").open()
    await publisher.put(SessionChange(name="later"))
    assert [event.seq for event in listener.events] == [1, 2]


async def test_what_is_sent_again_is_not_applied_again(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    changes = [SessionChange(name="s"), ChainChange(id="c", name="c")]
    await publisher.put(*changes)
    head = engine.heads(["s~1"])
    await publisher.handle.publish(1, 1, changes)
    await engine.settle()
    assert engine.heads(["s~1"]) == head
    assert publisher.acks[-1] == 2
    with pytest.raises(Refusal) as caught:
        await publisher.handle.publish(1, 5, changes)
    assert caught.value.info.code == "out_of_sequence"


async def test_rejected_change_uses_its_number_and_is_told(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(
        SessionChange(name="s", state="succeeded"),
        SessionChange(state="running"),
        ChainChange(id="late", name="late"),
        ChainChange(id="recorded", name="recorded", state="succeeded"),
    )
    assert publisher.rejections == [(2, "illegal_transition"), (3, "session_ended")]
    assert publisher.acks[-1] == 4


async def test_skipped_moves_the_next_number(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s"), SkippedChange(first=2, last=51, count=50))
    assert publisher.acks[-1] == 51
    await publisher.handle.publish(1, 52, [ChainChange(id="c", name="c")])
    await engine.settle()
    assert publisher.acks[-1] == 52
    listener = Listener()
    await listener.sync(engine, "s~1")
    assert listener.replica is not None
    (problem,) = listener.replica.problems.values()
    assert (problem.code, "50 changes" in problem.message) == ("skipped", True)


async def test_resume_brings_what_was_missed_once(running: Running) -> None:
    engine, clock = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s"))
    listener = Listener()
    await listener.sync(engine, "s~1")
    position = listener.position()
    engine.unsubscribe("s~1", listener)
    await publisher.put(ChainChange(id="a", name="a"), ChainChange(id="b", name="b"))
    clock.advance(KEEP)
    engine.handle_timeout()
    sync = await listener.sync(engine, "s~1", position)
    assert sync.begin.reset == ""
    assert [event.seq for event in listener.missed] == [3, 4]
    assert listener.events == []
    assert listener.gaps == []


async def test_a_snapshot_is_kept_for_those_who_come_next_and_then_let_go(running: Running) -> None:
    engine, clock = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s"))
    first = await Listener().sync(engine, "s~1")
    del first
    await publisher.put(ChainChange(id="a", name="a"))
    clock.advance(KEEP - 1)
    engine.handle_timeout()
    assert (await Listener().sync(engine, "s~1")).begin.base == 2, "of before"
    clock.advance(KEEP - 1)
    engine.handle_timeout()
    assert (await Listener().sync(engine, "s~1")).begin.base == 2, "kept for longer with each who comes"
    clock.advance(KEEP)
    engine.handle_timeout()
    assert (await Listener().sync(engine, "s~1")).begin.base == 3


@pytest.mark.parametrize(
    ("position", "reset"),
    [
        (Position(epoch="other", seq=1), "epoch"),
        (Position(epoch="other", seq=0), ""),
        (Position(epoch="", seq=99), "ahead"),
        (Position(epoch="", seq=2, digest="f" * 32), "diverged"),
    ],
)
async def test_position_that_cannot_be_resumed_is_reset(
    running: Running, position: Position, reset: str
) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s"))
    listener = Listener()
    offered = Position(epoch=position.epoch or engine.epoch, seq=position.seq, digest=position.digest)
    sync = await listener.sync(engine, "s~1", offered)
    assert sync.begin.reset == reset
    assert listener.missed == []


async def test_opening_again_fences_the_holder_before(running: Running) -> None:
    engine, _ = running
    old = await Publisher(engine, "s~1").open()
    await old.put(SessionChange(name="s"))
    new = await Publisher(engine, "s~1").open()
    assert (old.fences, old.removals) == (1, 0)
    assert new.opened is not None
    assert (new.opened.accepted, new.opened.producer_epoch, new.opened.known) == (1, 2, True)
    with pytest.raises(Refusal) as caught:
        await old.put(ChainChange(id="c", name="c"))
    assert caught.value.info.code == "fenced"


async def test_a_holder_that_was_away_is_fenced_when_it_comes_back_after_another(running: Running) -> None:
    engine, _ = running
    old = await Publisher(engine, "s~1").open(holder="old")
    await old.put(SessionChange(name="s"))
    # The same process may come back as often as it likes, also if it has not heard of its last opening.
    await Publisher(engine, "s~1").open(holder="old", held=1)
    await Publisher(engine, "s~1").open(holder="old", held=1)
    new = await Publisher(engine, "s~1").open(holder="new")
    await new.put(ChainChange(id="c", name="c"))
    with pytest.raises(Refusal) as caught:
        await Publisher(engine, "s~1").open(holder="old", held=3)
    assert caught.value.info.code == "fenced"
    assert not caught.value.info.retryable
    # Nobody was put out by that.
    await new.put(ChainChange(id="d", name="d"))
    assert new.acks[-1] == 3
    assert new.fences == 0


async def test_a_session_that_was_removed_is_not_made_anew_by_who_had_it(running: Running) -> None:
    engine, _ = running
    for other in (False, True):
        old = await Publisher(engine, "s~1").open(holder="old")
        await old.put(SessionChange(name="s"))
        await engine.remove("s~1")
        if other:  # somebody has begun it anew, under the same producer's id or another
            new = await Publisher(engine, "s~1").open(holder="new")
            await new.put(SessionChange(name="new"))
        with pytest.raises(Refusal) as caught:
            await Publisher(engine, "s~1").open(holder="old", held=1)
        assert caught.value.info.code == "fenced"
        if other:
            await new.put(ChainChange(id="c", name="c"))  # it is not put out by that
            assert (new.acks[-1], new.fences) == (2, 0)
        else:
            assert caught.value.info.details == {"reason": "removed"}
            # Who never had it may begin it, under another epoch.
            assert (await Publisher(engine, "s~1").open(holder="third")).opened is not None
            await engine.remove("s~1")


async def test_who_is_fenced_while_its_opening_is_committed_is_not_told_that_it_is_open(
    running: Running,
) -> None:
    """Seed 1456 of the simulation: it went on publishing, was refused each time, and did not notice."""
    engine, _ = running
    both = [Publisher(engine, "s~1").open(holder=name) for name in ("one", "two")]
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(first, Refusal)
    assert first.info.code == "fenced"
    assert isinstance(second, Publisher)
    await second.put(SessionChange(name="s"))
    assert (second.acks[-1], second.fences) == (1, 0)
    removed, opening = Publisher(engine, "s~2"), Publisher(engine, "s~2")
    await removed.open(holder="one")
    again = asyncio.ensure_future(opening.open(holder="one", held=1))
    await asyncio.sleep(0)
    await engine.remove("s~2")
    with pytest.raises(Refusal) as caught:
        await again
    assert (caught.value.info.code, caught.value.info.details) == ("fenced", {"reason": "removed"})


async def test_a_store_that_went_back_does_not_fence_who_came_later(running: Running) -> None:
    engine, _ = running
    await Publisher(engine, "s~1").open(holder="old")
    # It held the producer under an epoch that this store does not know any more.
    assert (await Publisher(engine, "s~1").open(holder="new", held=5)).opened is not None


async def test_producer_belongs_to_its_subject(running: Running) -> None:
    engine, _ = running
    await Publisher(engine, "s~1", sub="alice").open()
    with pytest.raises(Refusal) as caught:
        await Publisher(engine, "s~1", sub="mallory").open()
    assert caught.value.info.code == "forbidden"
