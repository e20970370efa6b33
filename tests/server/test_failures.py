"""When the store fails: nothing is told that did not happen, nothing is lost that was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal
from wsmonitor_server.stores.base import Commit, StoredSession, StoreError
from wsmonitor_server.stores.memory import MemoryStore

from .support import Listener, Publisher, engine_on
from .test_liveness import pass_time, state_of


class FailingStore(MemoryStore):
    """A store that fails when it is told to."""

    def __init__(self) -> None:
        super().__init__(token_hex=lambda size: "5" * 2 * size)
        self.before: BaseException | None = None  # raised instead of committing
        self.after: BaseException | None = None  # raised after committing
        self.loading: StoreError | None = None
        self.checking: StoreError | None = None
        self.small = False  # it takes small writes, and has no room

    async def commit(self, commits: Sequence[Commit]) -> None:
        if self.before is not None:
            raise self.before
        await super().commit(commits)
        if self.after is not None:
            raise self.after

    async def check(self, *, room: int = 0) -> None:
        if room and self.small:
            raise FULL
        if self.checking is not None:
            raise self.checking

    async def load(self, session: str) -> StoredSession | None:
        if self.loading is not None:
            raise self.loading
        return await super().load(session)


Parts = tuple[SessionEngine, ManualClock, FailingStore]

FULL = StoreError("the disk is full", code="read_only")


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    store = FailingStore()
    engine, clock = engine_on(store)
    await engine.start()
    yield engine, clock, store
    store.before = store.after = None
    await engine.stop()


async def test_known_failure_is_told_and_the_changes_come_again(parts: Parts) -> None:
    engine, clock, store = parts
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    listener = Listener()
    await listener.sync(engine, "s~1")
    store.before = FULL
    await publisher.put(ChainChange(id="c", name="c"))
    assert (publisher.acks[-1], [one.code for one in publisher.failures]) == (1, ["read_only"])
    assert listener.events == [], "nobody sees what was not committed"
    with pytest.raises(Refusal) as caught:
        await publisher.handle.publish(publisher.handle.epoch, 3, [ChainChange(id="d", name="d")])
    assert caught.value.info.code == "read_only"
    with pytest.raises(Refusal) as caught:
        await publisher.open()
    assert (caught.value.info.code, caught.value.info.retryable) == ("read_only", True)
    assert len(publisher.failures) == 1
    store.before = None
    await publisher.open()
    assert publisher.opened is not None
    assert publisher.opened.accepted == 1
    await publisher.put(ChainChange(id="c", name="c"))
    await pass_time((engine, clock), 5)
    assert publisher.acks[-1] == 2
    assert listener.replica is not None
    assert (listener.resets, set(listener.replica.chains)) == (0, {"c"})
    assert listener.replica.producers["p1"].liveness == "live"


async def test_what_the_server_has_to_say_is_said_when_the_store_is_back(parts: Parts) -> None:
    engine, clock, store = parts
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    store.before = FULL
    await publisher.handle.close(goodbye=False)
    await pass_time((engine, clock), 200)
    assert engine.status()["failed_commits"] < 30, "it is tried again with growing delays"
    store.before = None
    await pass_time((engine, clock), 31)
    state = await state_of(engine, "s~1")
    assert state.session is not None
    # The time in which nothing could be written was no producer's silence.
    assert (state.producers["p1"].liveness, state.session.state) == ("stale", "running")
    await pass_time((engine, clock), 35 + 120)
    state = await state_of(engine, "s~1")
    assert state.session is not None
    assert (state.producers["p1"].liveness, state.session.state) == ("lost", "crashed")


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize(
    "error", [StoreError("nobody knows", outcome_known=False), RuntimeError("a fault of the store")]
)
async def test_unknown_outcome_begins_a_new_epoch(parts: Parts, written: bool, error: Exception) -> None:
    engine, clock, store = parts
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    listener = Listener()
    await listener.sync(engine, "s~1")
    position = listener.position()
    if written:
        store.after = error
    else:
        store.before = error
    await publisher.put(ChainChange(id="c", name="c"))
    store.before = store.after = None
    assert (len(publisher.failures), listener.resets, listener.events) == (1, 1, [])
    sync = await listener.sync(engine, "s~1", position)
    assert (sync.begin.reset, sync.begin.epoch == position.epoch) == ("epoch", False)
    await publisher.open()
    assert publisher.opened is not None
    assert publisher.opened.accepted == (2 if written else 1)
    assert publisher.opened.epoch == sync.begin.epoch
    await pass_time((engine, clock), 2)
    kept = await store.load("s~1")
    assert kept is not None
    assert kept.state.epoch == sync.begin.epoch
    assert all(sync.begin.epoch.encode() in encoded for _, encoded in kept.history)


async def test_session_that_cannot_be_loaded_again_leaves_memory(parts: Parts) -> None:
    engine, clock, store = parts
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    epoch = engine.heads(["s~1"])["s~1"][0]
    store.before = StoreError("nobody knows", outcome_known=False)
    store.loading = StoreError("the disk is gone")
    await publisher.put(ChainChange(id="c", name="c"))
    assert engine.status()["sessions_loaded"] == 0
    with pytest.raises(Refusal) as caught:
        await Listener().sync(engine, "s~1")
    assert caught.value.info.code == "store_failed"
    store.before = store.loading = None
    await pass_time((engine, clock), 5)
    state = await state_of(engine, "s~1")
    assert (state.seq, state.epoch == epoch) == (2, False)


async def test_command_and_goodbye_are_refused_when_they_cannot_be_kept(parts: Parts) -> None:
    engine, clock, store = parts
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    store.before = FULL
    with pytest.raises(Refusal) as caught:
        await publisher.handle.close(goodbye=True)
    assert caught.value.info.code == "read_only"
    store.before = None
    await pass_time((engine, clock), 5)
    assert (await state_of(engine, "s~1")).producers["p1"].closed


async def test_a_failing_session_does_not_stop_the_others(parts: Parts) -> None:
    engine, _, store = parts
    other = await Publisher(engine, "other~1").open()
    publisher = await Publisher(engine, "s~1").open()
    store.before = FULL
    await publisher.put(SessionChange(name="s"))
    store.before = None
    await other.put(
        SessionChange(name="o"), ChainChange(id="c", name="c"), StepChange(id="x", chain="c", name="x")
    )
    assert other.acks[-1] == 3
    assert other.failures == []


async def test_publish_waits_when_too_much_is_uncommitted(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BOUNDED: what waits for the store has a limit; then the connection waits."""
    engine, _, store = parts
    monkeypatch.setattr("wsmonitor_server.commits.QUEUE_LIMIT", 1)
    publisher = await Publisher(engine, "s~1").open()
    for number in range(20):
        await publisher.handle.publish(1, number + 1, [SessionChange(name="s", reason=str(number))])
        assert engine.status()["queued_bytes"] < 10_000
    await engine.settle()
    assert publisher.acks[-1] == 20
    assert store.info()["sessions"] == 1


async def test_who_floods_the_server_does_not_keep_the_others_waiting(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BOUNDED: room is given in the order in which it was asked for, one batch at a time."""
    engine, _, _ = parts
    monkeypatch.setattr("wsmonitor_server.commits.QUEUE_LIMIT", 1)
    flooding = await Publisher(engine, "flood~1").open()
    modest = await Publisher(engine, "modest~1").open()
    done = 0

    async def flood() -> None:
        nonlocal done
        for number in range(300):
            change = SessionChange(name="f", reason=str(number))
            await flooding.handle.publish(flooding.handle.epoch, number + 1, [change])
            done = number + 1

    task = asyncio.ensure_future(flood())
    for number in range(20):
        while done < 10 * (number + 1):  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0)
        before = done
        change = SessionChange(name="m", reason=str(number))
        await modest.handle.publish(modest.handle.epoch, number + 1, [change])
        assert done - before <= 3, "others were let in again and again before it"
    await task
    await engine.settle()
    assert (flooding.acks[-1], modest.acks[-1]) == (300, 20)


async def test_a_store_that_takes_writes_again_is_found_out_without_any(parts: Parts) -> None:
    engine, clock, store = parts
    told: list[str] = []
    engine.on_degraded(lambda: told.append(engine.degraded.code if engine.degraded else ""))
    publisher = await Publisher(engine, "s~1").open()
    store.before = store.checking = FULL
    await publisher.put(SessionChange(name="s", state="running"))
    assert engine.degraded is not None
    assert (engine.degraded.code, engine.degraded.since) == ("read_only", str(clock.wall_ns()))
    began = engine.degraded
    await pass_time((engine, clock), 12)
    assert (engine.degraded, told) == (began, ["read_only"]), "since when is not forgotten by asking again"
    store.before = store.checking = None
    await pass_time((engine, clock), 6)
    assert (engine.degraded, told) == (None, ["read_only", ""])


async def test_a_store_that_takes_no_writes_when_it_is_opened_is_told_from_the_start() -> None:
    store = FailingStore()
    store.checking = FULL
    engine, _ = engine_on(store)
    await engine.start()
    assert engine.degraded is not None
    assert engine.degraded.reason == "the disk is full"
    await engine.stop()


async def test_a_program_that_died_while_the_store_failed_is_missed_all_the_same(parts: Parts) -> None:
    """Found by the simulation (seed 1881): the store's failure excused its silence for ever."""
    engine, clock, store = parts
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(SessionChange(name="s", state="running"))
    await publisher.handle.close(goodbye=False)
    await engine.settle()
    store.before = FULL
    with pytest.raises(Refusal, match="the disk is full"):
        await Publisher(engine, "s~1").open()
    store.before = None
    await pass_time((engine, clock), 170)
    state = await state_of(engine, "s~1")
    assert state.producers["p1"].liveness == "lost"
    assert state.session is not None
    assert state.session.state == "crashed"


@pytest.mark.parametrize("room", [True, False])
async def test_a_small_commit_that_succeeds_does_not_make_a_full_store_look_well(
    parts: Parts, room: bool
) -> None:
    engine, clock, store = parts
    told: list[str] = []
    engine.on_degraded(lambda: told.append(engine.degraded.code if engine.degraded else ""))
    publisher = await Publisher(engine, "s~1").open()
    store.before, store.small = FULL, True
    await publisher.put(SessionChange(name="s", state="running"))
    store.before = None
    await publisher.open()
    await publisher.put(SessionChange(name="s", state="running"))
    await pass_time((engine, clock), 20)
    assert told == ["read_only"]
    if room:
        store.small = False
    else:
        # What it says of room is not the last word: nothing was refused for half a minute.
        await pass_time((engine, clock), 10)
    await publisher.put(SessionChange(state="succeeded"))
    await pass_time((engine, clock), 1)
    assert told == ["read_only", ""]
