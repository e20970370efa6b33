"""The engine's one timer: many deadlines, a real loop, and time in which the server stood still."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.protocol.changes import SessionChange
from wsmonitor.protocol.defaults import Timing
from wsmonitor_server.clock import ManualClock, SystemClock
from wsmonitor_server.deadlines import Deadlines
from wsmonitor_server.engine import SessionEngine

from .support import Listener, Publisher, engine_on
from .test_liveness import state_of

KEYS = st.sampled_from("abcdef")


@given(st.lists(st.tuples(KEYS, st.none() | st.integers(0, 20)), max_size=300), st.integers(0, 20))
def test_deadlines_are_those_that_were_set_last(settings: list[tuple[str, float | None]], now: int) -> None:
    deadlines = Deadlines()
    model: dict[str, float] = {}
    for key, when in settings:
        deadlines.set(key, when)
        model.pop(key, None)
        if when is not None:
            model[key] = when
        assert deadlines.next() == min(model.values(), default=None)
    due = deadlines.due(now)
    assert sorted(due) == sorted(key for key, when in model.items() if when <= now)
    assert [model[key] for key in due] == sorted(model[key] for key in due)
    assert len(deadlines) == len(model) - len(due)
    assert deadlines.due(now) == []


class Waiting(Listener):
    """A listener that can be waited for."""

    def __init__(self) -> None:
        super().__init__("waiting")
        self.lost = asyncio.Event()

    def event(self, topic: str, seq: int, encoded: bytes) -> None:
        super().event(topic, seq, encoded)
        assert self.replica is not None
        if any(one.liveness == "lost" for one in self.replica.producers.values()):
            self.lost.set()


async def test_timer_fires_by_itself() -> None:
    timing = Timing(producer_stale=0.01, producer_lost=0.02, presence_interval=0.01)
    engine, _ = engine_on(clock=SystemClock(), timing=timing)
    await engine.start()
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    listener = Waiting()
    await listener.sync(engine, "s~1")
    async with asyncio.timeout(10):
        await listener.lost.wait()
    assert listener.present == [(1, ["waiting"])]
    await engine.stop()


async def test_time_in_which_the_server_stood_still_is_nobody_s_silence(
    running: tuple[SessionEngine, ManualClock],
) -> None:
    engine, clock = running
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    clock.advance(500.0)
    engine._timetable.agenda._tick()  # what the loop does when it goes on
    await engine.settle()
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "live"
    clock.advance(20.0)
    engine.handle_timeout()
    await engine.settle()
    assert (await state_of(engine, "s~1")).producers["p1"].liveness == "stale"


async def test_fault_in_one_session_s_time_does_not_stop_the_others(
    running: tuple[SessionEngine, ManualClock],
) -> None:
    engine, clock = running
    for session in ("bad~1", "good~1"):
        publisher = await Publisher(engine, session).open()
        await publisher.put(SessionChange(name="s", state="running"))
    engine._sessions["bad~1"].watch = None  # type: ignore[assignment]  # the planted fault
    clock.advance(21.0)
    engine.handle_timeout()
    await engine.settle()
    assert (await state_of(engine, "good~1")).producers["p1"].liveness == "stale"


async def test_nothing_is_left_after_stop() -> None:
    """CLEAN: no task, no timer."""
    before = asyncio.all_tasks()
    engine, _ = engine_on()
    await engine.start()
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    await Listener().sync(engine, "s~1")
    await engine.stop()
    assert asyncio.all_tasks() == before
    assert not engine._timetable.agenda.waiting
