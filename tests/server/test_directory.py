"""The list of sessions: filtered by patterns, numbered, conflated; and removal and retention."""

from __future__ import annotations

import pytest

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Listing
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.directory import UNUSED, Directory
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal
from wsmonitor_server.retention import Retention, expired
from wsmonitor_server.stores.memory import MemoryStore

from .support import Listener, Publisher, claims, counting_hex, engine_on
from .test_liveness import pass_time

Running = tuple[SessionEngine, ManualClock]


def only(*patterns: str) -> Claims:
    return claims(sessions=patterns)


def shown(listener: Listener) -> dict[str, str]:
    assert listener.replica is not None
    return {ident: one.state for ident, one in listener.replica.listings.items()}


async def test_sessions_appear_change_and_go(running: Running) -> None:
    engine, _ = running
    listener = Listener()
    await listener.sync(engine, "/directory")
    assert shown(listener) == {}
    publisher = await Publisher(engine, "a~1").open()
    await publisher.put(SessionChange(name="a", state="running"))
    assert shown(listener) == {"a~1": "running"}
    await publisher.put(SessionChange(state="failed", reason="broken"))
    assert listener.replica is not None
    line = listener.replica.listings["a~1"]
    assert (line.state, line.problem, line.run, line.liveness) == ("failed", "broken", 1, "live")
    await engine.remove("a~1")
    assert shown(listener) == {}
    assert listener.events[-1].drop == [("listing", "a~1")]
    heads = engine.heads(["/directory"], ("*",))
    assert heads["/directory"] == (listener.replica.epoch, listener.replica.seq, listener.replica.digest)


async def test_directory_never_shows_what_the_patterns_do_not_cover(running: Running) -> None:
    """ISOLATED: not in the sync, not live, not by its number, not when it is removed."""
    engine, _ = running
    mine, other = Listener("mine", only("mine*")), Listener("other", only("other*"))
    await mine.sync(engine, "/directory")
    for session in ("mine~1", "other~1"):
        await (await Publisher(engine, session).open()).put(SessionChange(name="same", state="running"))
    await other.sync(engine, "/directory")
    late = Listener("late", only("mine*"))
    await late.sync(engine, "/directory/same")
    assert (shown(mine), shown(other), shown(late)) == (
        {"mine~1": "running"},
        {"other~1": "running"},
        {"mine~1": "running"},
    )
    count = len(mine.events)
    await engine.remove("other~1")
    assert len(mine.events) == count
    assert all(b"other" not in bytes(event.entity) for event in mine.events)
    assert engine.heads(["/directory"], ("nobody",)) == {}


async def test_name_filter(running: Running) -> None:
    engine, _ = running
    listener = Listener()
    await listener.sync(engine, "/directory/etl")
    for session, name in (("x~1", "etl"), ("x~2", "etl/2"), ("x~3", "etl")):
        await (await Publisher(engine, session).open()).put(SessionChange(name=name))
    assert set(shown(listener)) == {"x~1", "x~3"}
    assert listener.replica is not None
    assert sorted(one.run for one in listener.replica.listings.values()) == [1, 2]


async def test_counts_are_told_at_most_once_a_second_and_news_at_once(running: Running) -> None:
    engine, clock = running
    listener = Listener()
    await listener.sync(engine, "/directory")
    publisher = await Publisher(engine, "a~1").open()
    await publisher.put(SessionChange(name="a", state="running"), ChainChange(id="c", name="c"))
    told = len(listener.events)
    for number in range(20):
        await publisher.put(StepChange(id=f"s{number}", chain="c", name="s", state="running"))
    assert len(listener.events) == told
    clock.advance(1.0)
    engine.handle_timeout()
    assert len(listener.events) == told + 1
    assert listener.replica is not None
    assert listener.replica.listings["a~1"].counts == {"running": 20}
    await publisher.put(SessionChange(state="paused"))
    assert len(listener.events) == told + 2


async def test_reconnecting_client_resumes_and_an_unused_view_goes(running: Running) -> None:
    engine, clock = running
    publisher = await Publisher(engine, "a~1").open()
    await publisher.put(SessionChange(name="a", state="running"))
    listener = Listener()
    await listener.sync(engine, "/directory")
    position = listener.position()
    engine.unsubscribe("/directory", listener)
    await publisher.put(SessionChange(state="paused"))
    sync = await listener.sync(engine, "/directory", position)
    assert (sync.begin.epoch, sync.begin.reset, len(listener.missed)) == (position.epoch, "", 1)
    engine.unsubscribe("/directory", listener)
    assert engine.status()["directory_views"] == 1
    clock.advance(UNUSED + 1)
    engine.handle_timeout()
    assert engine.status()["directory_views"] == 0


async def test_directory_is_there_after_a_restart_without_loading_every_session() -> None:
    store = MemoryStore(token_hex=counting_hex())
    engine, clock = engine_on(store)
    await engine.start()
    for number in range(5):
        publisher = await Publisher(engine, f"a~{number}").open()
        await publisher.put(SessionChange(name="a", state="succeeded"))
        await publisher.handle.close(goodbye=True)
    await engine.stop()
    again, _ = engine_on(store, clock=clock)
    await again.start()
    listener = Listener()
    await listener.sync(again, "/directory")
    assert len(shown(listener)) == 5
    assert again.status()["sessions_loaded"] == 0
    await again.stop()


async def test_session_nobody_uses_leaves_memory_and_comes_back(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "a~1").open()
    await publisher.put(SessionChange(name="a", state="succeeded"))
    await publisher.handle.close(goodbye=True)
    before = engine.heads(["a~1"])
    await pass_time(running, 70)
    assert engine.status()["sessions_loaded"] == 0
    listener = Listener()
    await listener.sync(engine, "a~1")
    assert engine.heads(["a~1"]) == before


async def test_asking_for_what_is_not_there_fills_no_memory(running: Running) -> None:
    """BOUNDED: anybody may ask for any number of ids."""
    engine, _ = running
    listener = Listener()
    for number in range(50):
        await listener.sync(engine, f"none~{number}")
        engine.unsubscribe(f"none~{number}", listener)
    await listener.sync(engine, "none~kept")
    await pass_time(running, 2)
    assert engine.status()["sessions_loaded"] == 1
    assert set(engine.heads(["none~kept", "none~1"])) == {"none~kept"}


async def test_removed_session_is_told_and_comes_again_under_another_epoch(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "a~1").open()
    await publisher.put(SessionChange(name="a", state="running"))
    listener = Listener()
    await listener.sync(engine, "a~1")
    position = listener.position()
    await engine.remove("a~1")
    assert (listener.removals, publisher.fences, publisher.removals) == (["removed"], 1, 1)
    with pytest.raises(Refusal):
        await publisher.put(SessionChange(state="paused"))
    with pytest.raises(Refusal) as caught:
        await engine.remove("a~1")
    assert caught.value.info.code == "not_available"
    await (await Publisher(engine, "a~1").open()).put(SessionChange(name="a"))
    sync = await listener.sync(engine, "a~1", position)
    assert sync.begin.reset == "epoch"
    assert sync.begin.epoch != position.epoch


async def test_retention_removes_what_ended_longest_ago(running: Running) -> None:
    engine, clock = running
    engine.retention = Retention(max_sessions=1, interval=10)
    for number in range(3):
        publisher = await Publisher(engine, f"a~{number}").open()
        state = "succeeded" if number < 2 else "running"
        await publisher.put(SessionChange(name="a", state=state))
        await publisher.handle.close(goodbye=True)
        clock.advance(1.0)
    listener = Listener()
    await listener.sync(engine, "/directory")
    clock.advance(60.0)
    engine.handle_timeout()
    await engine.settle()
    assert set(shown(listener)) == {"a~1", "a~2"}


def test_what_retention_chooses() -> None:
    def ended(ident: str, at: int, size: int = 10, **more: str) -> Listing:
        fields = {"state": "succeeded", **more}
        return Listing(id=ident, name="n", ended=str(at * 10**9), size=size, **fields)  # type: ignore[arg-type]  # words of the table

    lines = [ended("new", 900), ended("old", 100), ended("heard", 50, liveness="live"), ended("mid", 500)]
    lines.append(Listing(id="open", name="n", state="running", size=10**6))
    now = 1000 * 10**9
    every = Retention(max_age=0, max_sessions=0, max_total_size=0)
    assert expired(lines, every, now, 0) == []
    assert expired(lines, Retention(max_age=600), now, 0) == ["old"]
    assert expired(lines, Retention(max_age=0, max_sessions=1), now, 0) == ["old", "mid"]
    assert expired(lines, Retention(max_age=0, max_total_size=100), now, 115) == ["old", "mid"]
    assert expired([ended("big", 900, 99)], Retention(max_age=0, max_session_size=50), now, 0) == ["big"]


def test_views_of_one_pattern_set_are_shared() -> None:
    directory = Directory(Limits(), lambda: "e")
    assert directory.view("/directory", ("a", "b")) is directory.view("/directory", ("b", "a", "a"))
    assert directory.view("/directory", ("a",)) is not directory.view("/directory", ("a", "b"))


def a_line(steps: int = 0) -> Listing:
    return Listing(id="s~1", name="s", state="running", counts={"running": steps} if steps else {})


def test_what_nobody_needs_to_hear_is_not_told() -> None:
    """A line that becomes again what it was, a session that was never there, a view that is used again."""
    directory = Directory(Limits(), lambda: "e")
    feed = directory.view("/directory", ("*",))
    directory.update(a_line(), 0.0, 1)
    assert (len(directory), feed.state.seq, directory.next_deadline()) == (1, 1, None)
    directory.update(a_line(1), 0.1, 2)
    waits = directory.next_deadline()
    assert waits is not None
    directory.update(a_line(), 0.2, 3)
    directory.handle_timeout(waits, 4)
    assert (feed.state.seq, directory.next_deadline()) == (1, None)
    directory.update(a_line(), 10.0, 5)
    directory.remove("never~1", 6)
    assert feed.state.seq == 1
    directory.sweep(10.0)
    assert directory.next_deadline() == 10.0 + UNUSED
    directory.sweep(11.0)
    assert directory.next_deadline() == 10.0 + UNUSED
    directory.view("/directory", ("*",))
    assert directory.next_deadline() is None
