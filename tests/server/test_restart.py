"""An engine on SQLite that dies and comes back: DURABLE, ONCE, and honest epochs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wsmonitor.protocol.changes import ChainChange, LogChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import LogRecord
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.stores.base import StoredSession
from wsmonitor_server.stores.sqlite import SqliteStore

from .support import Listener, Publisher, engine_on, large_value
from .test_liveness import pass_time, state_of
from .test_sqlite import abandon


async def start(path: Path, boot: str = "one") -> SessionEngine:
    engine, _ = engine_on(SqliteStore(path, boot_id=boot))
    await engine.start()
    await engine.attended()
    return engine


async def die(engine: SessionEngine) -> None:
    """What kill -9 leaves: nothing is said to anybody, nothing is closed properly."""
    assert isinstance(engine.store, SqliteStore)
    engine._timetable.agenda.stop()
    await engine._commits.stop()
    await abandon(engine.store)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


async def test_acknowledged_changes_survive_and_what_is_sent_again_is_not_applied_twice(path: Path) -> None:
    engine = await start(path)
    publisher = await Publisher(engine, "s~1").open()
    changes = [
        SessionChange(name="s", state="running"),
        ChainChange(id="c", name="c"),
        StepChange(id="a", chain="c", name="a", state="running"),
        LogChange(step="a", records=(LogRecord(n=0, at="1", text="hello"),)),
    ]
    await publisher.put(*changes)
    listener = Listener()
    await listener.sync(engine, "s~1")
    position = listener.position()
    await die(engine)
    again = await start(path)
    publisher.engine = again
    await publisher.open()
    assert publisher.opened is not None
    assert (publisher.opened.accepted, publisher.opened.known) == (4, True)
    await publisher.handle.publish(publisher.handle.epoch, 1, changes)
    await publisher.put(StepChange(id="a", state="succeeded"))
    sync = await listener.sync(again, "s~1", position)
    assert sync.begin.reset == ""
    kinds = [event.kind for event in listener.missed]
    assert kinds == ["producer", "producer", "step"], "stale, opened again, and the one new change"
    assert listener.replica is not None
    assert listener.replica.steps["a"].state == "succeeded"
    assert (await again.logs("s~1", "a", 1, 10, request=1)).records[0].text == "hello"
    await again.stop()


async def test_power_loss_is_seen_by_everybody(path: Path) -> None:
    engine = await start(path, boot="one")
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    listener = Listener()
    await listener.sync(engine, "s~1")
    position = listener.position()
    await die(engine)
    again = await start(path, boot="two")
    sync = await listener.sync(again, "s~1", position)
    assert (sync.begin.reset, sync.begin.epoch == position.epoch) == ("epoch", False)
    publisher.engine = again
    await publisher.open()
    assert publisher.opened is not None
    assert publisher.opened.epoch == again.epoch
    await publisher.put(SessionChange(name="s", state="paused"))
    assert listener.replica is not None
    session = listener.replica.session
    assert session is not None
    assert session.state == "paused"
    await again.stop()


async def test_values_stay_while_they_are_referred_to(path: Path) -> None:
    data = b"x" * 9000
    value = large_value(data)
    engine = await start(path)
    publisher = await Publisher(engine, "s~1").open()
    await engine.value_write("s~1", value.sha256, len(data), 0, data)
    await publisher.put(SessionChange(name="s", output=value))
    await engine.stop()
    again = await start(path)
    assert await again.store.value_sweep(older_than=-1) == 0
    assert await again.value_read("s~1", value.sha256, 0, 9000) == (data, 9000)
    await again.stop()


async def test_run_numbers_go_on(path: Path) -> None:
    for run in (1, 2):
        engine = await start(path)
        publisher = await Publisher(engine, f"s~{run}").open()
        await publisher.put(SessionChange(name="s", state="succeeded"))
        await publisher.handle.close(goodbye=True)
        listener = Listener()
        await listener.sync(engine, "/directory/s")
        assert listener.replica is not None
        assert listener.replica.listings[f"s~{run}"].run == run
        await engine.stop()


async def test_a_large_session_delays_neither_the_start_nor_the_others(path: Path) -> None:
    """A million steps take half a minute to load, which nobody else has to wait for."""

    class Slow(SqliteStore):
        async def load(self, session: str) -> StoredSession | None:
            if session == "large~1":
                await may_go_on.wait()
            return await super().load(session)

    may_go_on = asyncio.Event()
    engine = await start(path)
    for session, steps in (("large~1", 50), ("small~1", 2)):
        publisher = await Publisher(engine, session).open()
        changes = [StepChange(id=f"s{n}", chain="c", name="s", state="running") for n in range(steps)]
        await publisher.put(SessionChange(name="s", state="running"), ChainChange(id="c", name="c"), *changes)
    await die(engine)
    again, clock = engine_on(Slow(path, boot_id="one"))
    await again.start()
    small = Listener()
    await small.sync(again, "small~1")
    fresh = await Publisher(again, "other~1").open()
    await fresh.put(SessionChange(name="o", state="running"))
    assert again.status()["sessions_loading"] == 1
    may_go_on.set()
    await again.attended()
    assert again.status()["sessions_loading"] == 0
    # It is watched from now on: its producer, who does not come back, is missed.
    await pass_time((again, clock), Timing().producer_lost + 1)
    assert (await state_of(again, "large~1")).producers["p1"].liveness == "lost"
    await again.stop()


async def test_a_server_that_still_loads_can_be_stopped(path: Path) -> None:
    hanging = asyncio.Event()

    class Hanging(SqliteStore):
        async def load(self, session: str) -> StoredSession | None:
            hanging.set()
            return await asyncio.get_running_loop().create_future()

    engine = await start(path)
    await (await Publisher(engine, "s~1").open()).put(SessionChange(name="s", state="running"))
    await die(engine)
    again, _ = engine_on(Hanging(path, boot_id="one"))
    await again.start()
    await asyncio.wait_for(hanging.wait(), 30)
    assert again.status()["sessions_loading"] == 1
    await asyncio.wait_for(again.stop(), 30)
