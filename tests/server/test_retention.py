"""What is no longer kept goes by age, by count, by size and by quota, and everybody who watches is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.retention import Retention
from wsmonitor_server.stores.base import Store
from wsmonitor_server.stores.memory import MemoryStore
from wsmonitor_server.stores.sqlite import SqliteStore

from .support import Listener, Publisher, counting_hex, engine_on

Running = tuple[SessionEngine, ManualClock]

NONE = {"max_age": 0.0, "max_sessions": 0, "max_session_size": 0, "max_total_size": 0, "interval": 60.0}
DAY = 86_400.0


@pytest.fixture(params=["memory", "sqlite"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    store: Store = MemoryStore(token_hex=counting_hex())
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "store.sqlite3", token_hex=counting_hex())
    engine, clock = engine_on(store, retention=Retention(**NONE))
    await engine.start()
    yield engine, clock
    await engine.stop()


async def session(running: Running, ident: str, *, steps: int = 5, end: bool = True) -> None:
    """A session; an ended one has ended now."""
    engine, clock = running
    publisher = await Publisher(engine, ident).open()
    await publisher.put(SessionChange(name="s", state="running"), ChainChange(id="c", name="c"))
    await publisher.put(
        *(StepChange(id=f"s{n}", chain="c", name="x" * 100, reason="y" * 500) for n in range(steps))
    )
    if end:
        await publisher.put(SessionChange(state="succeeded", ended=str(clock.wall_ns())))
        await publisher.handle.close(goodbye=True)


async def look(running: Running, seconds: float) -> None:
    """Let *seconds* pass, with the looks that are due."""
    engine, clock = running
    clock.advance(seconds)
    engine.handle_timeout()
    await engine.settle()


@pytest.mark.parametrize(
    "policy",
    [
        {"max_age": 2 * DAY},
        {"max_sessions": 1},
        {"max_session_size": 20_000},
        {"max_total_size": -1},
    ],
    ids=lambda policy: next(iter(policy)),
)
async def test_what_goes_is_told_to_all_who_watch_it(running: Running, policy: dict[str, float]) -> None:
    engine, _ = running
    await session(running, "old~1", steps=60)
    await look(running, 1.5 * DAY)
    await session(running, "new~1")
    await session(running, "open~1", end=False)
    watching = {ident: Listener() for ident in ("old~1", "new~1", "open~1")}
    for ident, listener in watching.items():
        await listener.sync(engine, ident)
    listing = Listener()
    await listing.sync(engine, "/directory")
    position = watching["old~1"].position()
    if "max_total_size" in policy:
        policy = {"max_total_size": await engine.store.size() - 1}
    engine.retention = Retention(**{**NONE, **policy})  # type: ignore[arg-type]  # numbers of either kind
    await look(running, 0.7 * DAY)
    assert {ident: one.removals for ident, one in watching.items()} == {
        "old~1": ["removed"],
        "new~1": [],
        "open~1": [],
    }
    assert listing.replica is not None
    assert set(listing.replica.listings) == {"new~1", "open~1"}
    assert await engine.store.tombstone("old~1") is not None
    assert await engine.store.load("old~1") is None
    # Another session under the same id is another one, and who comes with the old position is told so.
    await session(running, "old~1", end=False)
    sync = await Listener().sync(engine, "old~1", position)
    assert (sync.begin.reset, sync.begin.epoch == position.epoch) == ("epoch", False)


async def test_a_quota_that_only_what_runs_goes_beyond_is_told_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that runs is taken away; who runs the server can know."""
    engine, _ = running
    engine.retention = Retention(**{**NONE, "max_total_size": 20_000})  # type: ignore[arg-type]  # as above
    await session(running, "open~1", steps=60, end=False)
    await session(running, "ended~1")
    await look(running, 61)
    assert [listing.id for listing, _ in await engine.store.listings()] == ["open~1"]
    assert "more than max_total_size" in caplog.text
    assert "nothing that has ended is left" in caplog.text


async def test_a_session_that_nobody_ever_named_goes_with_its_age(running: Running) -> None:
    """A program opened it and was killed before it said what it is: it is in no list, and must not stay."""
    engine, _ = running
    publisher = await Publisher(engine, "nameless~1").open()
    await engine.settle()
    engine.retention = Retention(**{**NONE, "max_age": DAY})  # type: ignore[arg-type]  # as above
    await look(running, 2 * DAY)
    assert await engine.store.load("nameless~1") is not None, "its program is there"
    await publisher.handle.close(goodbye=False)
    await look(running, 3_600)
    assert await engine.store.load("nameless~1") is not None
    for _ in range(3):
        await look(running, 0.7 * DAY)
    assert await engine.store.load("nameless~1") is None
