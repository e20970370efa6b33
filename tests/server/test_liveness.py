"""Producer liveness: the pure watch, and what the engine makes of it, on a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.liveness import LivenessWatch
from wsmonitor_server.stores.memory import MemoryStore

from .support import Listener, Publisher, counting_hex, engine_on

Running = tuple[SessionEngine, ManualClock]


async def pass_time(running: Running, seconds: float) -> None:
    """Let time pass in steps of a second, as the engine's timer would see it."""
    engine, clock = running
    for _ in range(round(seconds)):
        clock.advance(1.0)
        engine.handle_timeout()
        await asyncio.sleep(0)
        await engine.settle()


async def state_of(engine: SessionEngine, session: str) -> SessionState:
    listener = Listener()
    await listener.sync(engine, session)
    engine.unsubscribe(session, listener)
    assert listener.replica is not None
    return listener.replica


def test_silent_producer_is_stale_then_lost_but_never_crashed_while_its_connection_stands() -> None:
    watch = LivenessWatch(Timing())
    watch.opened("p", 0.0)
    assert watch.next_deadline() == 20.0
    assert watch.handle_timeout(19.9) == []
    assert watch.handle_timeout(20.0) == [("p", "stale")]
    assert watch.handle_timeout(35.0) == [("p", "lost")]
    assert watch.handle_timeout(1000.0) == []
    assert watch.heard("p", 1001.0)
    assert not watch.heard("p", 1002.0)
    assert watch.next_deadline() == 1022.0


def test_disconnected_producer_is_stale_at_once_and_crashed_after_the_grace() -> None:
    watch = LivenessWatch(Timing())
    watch.opened("p", 0.0)
    assert watch.disconnected("p", 10.0) == "stale"
    assert watch.handle_timeout(45.0) == [("p", "lost")]
    assert watch.handle_timeout(164.9) == []
    assert watch.handle_timeout(165.0) == [("p", "crashed")]
    assert watch.next_deadline() is None


def test_time_in_which_the_server_stood_still_does_not_count() -> None:
    watch = LivenessWatch(Timing())
    watch.opened("p", 0.0)
    watch.begin_anew(500.0)
    assert watch.handle_timeout(510.0) == []
    assert watch.next_deadline() == 520.0


def test_goodbye_ends_the_watch() -> None:
    watch = LivenessWatch(Timing())
    watch.opened("p", 0.0)
    watch.closed("p")
    assert watch.handle_timeout(1e6) == []
    assert "p" not in watch


async def test_lost_program_is_declared_crashed(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(
        SessionChange(name="s", state="running"),
        ChainChange(id="c", name="c", state="running"),
        StepChange(id="done", chain="c", name="done", state="succeeded"),
        StepChange(id="open", chain="c", name="open", state="running"),
    )
    await publisher.handle.close(goodbye=False)
    await engine.settle()
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "stale"
    await pass_time(running, 36)
    state = await state_of(engine, "s~1")
    assert (state.producers["p1"].liveness, state.steps["open"].state) == ("lost", "running")
    await pass_time(running, 121)
    state = await state_of(engine, "s~1")
    assert state.session is not None
    assert (state.session.state, state.chains["c"].state) == ("crashed", "crashed")
    assert {ident: step.state for ident, step in state.steps.items()} == {
        "done": "succeeded",
        "open": "crashed",
    }


async def test_a_program_that_left_very_much_open_is_declared_crashed_to_its_last_step(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsmonitor_server.authority._CRASH_AT_ONCE", 5)
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(
        SessionChange(name="s", state="running"), ChainChange(id="c", name="c", state="running")
    )
    await publisher.put(*(StepChange(id=f"s{n}", chain="c", name="n", state="running") for n in range(30)))
    await publisher.handle.close(goodbye=False)
    await pass_time(running, 36)
    await pass_time(running, 121)
    state = await state_of(engine, "s~1")
    assert state.session is not None
    assert {one.state for one in (state.session, *state.chains.values(), *state.steps.values())} == {
        "crashed"
    }
    assert engine.status()["commits"] > 6


async def test_crashed_is_superseded_by_its_own_producer_with_a_note(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    await publisher.handle.close(goodbye=False)
    await pass_time(running, 160)
    listener = Listener()
    await listener.sync(engine, "s~1")
    await publisher.open()
    assert publisher.opened is not None
    assert not publisher.opened.known, "it is asked to assert what it owns"
    await publisher.put(SessionChange(name="s", state="running"))
    assert publisher.rejections == []
    assert listener.events[-1].note == "crashed was superseded by running"
    assert listener.replica is not None
    session = listener.replica.session
    assert session is not None
    assert (session.state, session.ended) == ("running", "")


async def test_goodbye_is_not_silence(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    await publisher.handle.close(goodbye=True)
    await pass_time(running, 300)
    state = await state_of(engine, "s~1")
    assert state.session is not None
    assert (state.session.state, state.producers["p1"].closed) == ("running", True)


async def test_downtime_of_the_server_does_not_count() -> None:
    store = MemoryStore(token_hex=counting_hex())
    engine, clock = engine_on(store)
    await engine.start()
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    await engine.stop()
    clock.advance(10_000.0)
    again, _ = engine_on(store, clock=clock)
    await again.start()
    await pass_time((again, clock), 30)
    state = await state_of(again, "s~1")
    assert state.producers["p1"].liveness == "stale"
    publisher.engine = again
    await publisher.open()
    assert publisher.opened is not None
    assert (publisher.opened.accepted, publisher.opened.known) == (1, True)
    await pass_time((again, clock), 1)
    assert (await state_of(again, "s~1")).producers["p1"].liveness == "live"
    await again.stop()


async def test_heard_again_is_live_again(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s"))
    await pass_time(running, 21)
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "stale"
    publisher.handle.heard()
    await engine.settle()
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "live"


async def test_whose_connection_was_heard_is_not_silent(running: Running) -> None:
    engine, clock = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s"))
    for _ in range(6):
        await pass_time(running, 12)
        publisher.heard_at = clock.monotonic()
    await pass_time(running, 19)
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "live"
    assert publisher.silences == 0
    await pass_time(running, 2)
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "stale"
    assert publisher.silences == 1
    publisher.heard_at = clock.monotonic()
    await pass_time(running, 30)
    await publisher.handle.close(goodbye=False)
    publisher.heard_at = clock.monotonic() + 1_000
    await pass_time(running, 36)
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "lost", "who has gone is not asked"


async def test_settling_ends_when_a_task_is_done_and_nobody_has_taken_it_away_yet(running: Running) -> None:
    engine, _ = running

    async def work() -> None:
        return

    engine._background.spawn(work())
    await asyncio.sleep(0)  # the task has run; what removes it runs in the next turn
    assert [task.done() for task in engine._background._tasks] == [True]
    await engine.settle()
    assert not engine._background


def test_who_is_not_watched_changes_nothing() -> None:
    watch = LivenessWatch(Timing())
    assert not watch.heard("nobody", 1.0)
    assert watch.disconnected("nobody", 1.0) is None
    watch.opened("p", 0.0)
    assert watch.disconnected("p", 1.0) == "stale"
    assert watch.disconnected("p", 2.0) is None
    assert watch.heard("p", 3.0)
    assert not watch.heard("p", 4.0)
    assert "p" in watch
    assert "nobody" not in watch
    assert len(watch) == 1


def test_each_producer_has_its_own_time() -> None:
    """One that is not due, or is only waited for longer, does not keep others from being judged."""
    timing = Timing(producer_stale=1.0, producer_lost=2.0, producer_crashed=4.0)
    watch = LivenessWatch(timing)
    watch.opened("connected", 0.0)
    watch.opened("away", 0.0)
    watch.opened("heard", 0.0)
    assert watch.disconnected("away", 0.0) == "stale"
    watch.heard("heard", 100.0)
    assert watch.handle_timeout(1.0) == [("connected", "stale")]
    assert watch.handle_timeout(2.0) == [("connected", "lost"), ("away", "lost")]
    assert watch.handle_timeout(6.0) == [("away", "crashed")]
    assert "connected" in watch
    assert watch.next_deadline() == 10.0


def test_after_a_restart_the_time_of_who_was_lost_begins_anew() -> None:
    timing = Timing(producer_stale=1.0, producer_lost=2.0, producer_crashed=4.0)
    watch = LivenessWatch(timing)
    watch.loaded("p", "lost", 100.0)
    assert watch.next_deadline() == 104.0
    assert watch.handle_timeout(103.9) == []
    watch.begin_anew(103.9)
    assert watch.handle_timeout(104.0) == []
    assert watch.next_deadline() == 107.9
    assert watch.handle_timeout(107.9) == [("p", "crashed")]
    watch.loaded("q", "stale", 200.0)
    assert watch.handle_timeout(202.0) == [("q", "lost")]
    watch.loaded("r", "live", 300.0)
    assert watch.disconnected("r", 300.0) == "stale"
