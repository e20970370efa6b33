"""Check 6, Stale State Recovery (HIGH).

"After reconnection, client receives full session state sync to recover lost updates. Full state sync
includes all chains, steps, and metadata. Client state merged/replaced with server state without
conflicts. No duplicate events processed."
"""

from __future__ import annotations

from pathlib import Path

from tests.checks.harness import Observer, Publisher, proxy, scene, until
from wsmonitor.client import EventsReplayed, GapFound, SyncCompleted
from wsmonitor.protocol.changes import ChainChange, SessionChange
from wsmonitor.protocol.defaults import Limits
from wsmonitor_server.embedded import EmbeddedServer


async def _live_again(observer: Observer) -> None:
    observer.conn.reconnect_now()
    await until(lambda: observer.conn.status.phase == "live" and observer.sub.phase == "live")


def _work(publisher: Publisher, name: str) -> None:
    publisher.submit(ChainChange(id=name, name=name, state="running", attributes={"rows": 7}))
    publisher.step(f"{name} step", state="running", tags=("x",), metrics={"loss": 0.25})
    publisher.step(f"{name} step", state="succeeded")
    publisher.submit(SessionChange(attributes={"last": name}))


async def test_after_reconnection_the_client_receives_a_full_state_sync() -> None:
    """ "After reconnection, client receives full session state sync to recover lost updates." """
    async with scene() as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        syncs = len(observer.of(SyncCompleted))
        relay.cut()
        await until(lambda: observer.sub.phase == "waiting")
        _work(publisher, "while away")
        await publisher.flush()
        # Until the sync is complete what is shown is the old state, and is marked so.
        assert "while away" not in observer.state().chains
        assert observer.sub.phase != "live"
        await _live_again(observer)
        assert len(observer.of(SyncCompleted)) == syncs + 1
        assert observer.state().steps["while away step"].state == "succeeded"
        await stage.agreed(observer)


async def test_the_full_sync_includes_all_chains_steps_and_metadata() -> None:
    """ "Full state sync includes all chains, steps, and metadata.": also over many pages."""
    async with scene(limits=Limits(page_size=2_000)) as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        relay.cut()
        await until(lambda: observer.sub.phase == "waiting")
        for number in range(30):
            _work(publisher, f"chain {number}")
        await publisher.flush()
        await _live_again(observer)
        state = observer.state()
        assert set(state.chains) == {"load", *(f"chain {number}" for number in range(30))}
        assert set(state.steps) == {f"chain {number} step" for number in range(30)}
        assert all(step.metrics == {"loss": 0.25} and step.tags == ("x",) for step in state.steps.values())
        assert state.session is not None
        assert state.session.attributes == {"owner": "alice", "last": "chain 29"}
        assert state.session.tags == ("nightly",)
        assert len(state.producers) == 1
        await stage.agreed(observer)


async def test_state_is_replaced_without_conflicts() -> None:
    """ "Client state merged/replaced with server state without conflicts.": in one step, verified."""
    async with scene() as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("etl~1")
        _work(publisher, "first")
        await publisher.flush()
        observer = await stage.observe("etl~1", url=relay.url)
        for round_number in range(3):
            relay.cut()
            await until(lambda: observer.sub.phase == "waiting")
            _work(publisher, f"round {round_number}")
            publisher.submit(ChainChange(id="first", metrics={"round": round_number}))
            await publisher.flush()
            await _live_again(observer)
            await stage.agreed(observer)
            assert observer.state().chains["first"].metrics == {"round": round_number}
        # The position never went back (MONOTONE).
        positions = [update.seq for update in observer.of(SyncCompleted)]
        assert positions == sorted(positions)
        assert {update.reset for update in observer.of(SyncCompleted)} == {""}


async def test_no_duplicate_events_are_processed() -> None:
    """ "No duplicate events processed.": what was missed is told once, marked as replayed."""
    async with scene() as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        start = observer.sub.position
        assert start is not None
        for number in range(4):
            _work(publisher, f"live {number}")
            await publisher.flush()
            await observer.at(stage.head("etl~1")[1])
            relay.cut()
            await until(lambda: observer.sub.phase == "waiting")
            _work(publisher, f"missed {number}")
            await publisher.flush()
            await _live_again(observer)
        head = stage.head("etl~1")[1]
        await observer.at(head)
        assert observer.all_seqs == list(range(start[1] + 1, head + 1))
        assert sum(len(update.events) for update in observer.of(EventsReplayed)) >= 16
        assert observer.of(GapFound) == []
        await stage.agreed(observer)


async def test_what_history_no_longer_has_is_told_as_one_gap_and_the_state_is_complete() -> None:
    """ "… full session state sync to recover lost updates": nothing is silently missing."""
    async with scene(limits=Limits(history_events=5)) as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        away = observer.sub.position
        assert away is not None
        relay.cut()
        await until(lambda: observer.sub.phase == "waiting")
        for number in range(20):
            _work(publisher, f"chain {number}")
        await publisher.flush()
        await _live_again(observer)
        [gap] = observer.of(GapFound)
        assert gap.first == away[1] + 1
        assert observer.of(EventsReplayed) == []
        assert set(observer.state().chains) >= {f"chain {number}" for number in range(20)}
        await stage.agreed(observer)


async def test_a_restart_of_the_server_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """ "… to recover lost updates": also when the server was away, with its store on disk."""
    store = f"sqlite:{tmp_path / 'store.sqlite3'}"
    key = "k" * 32
    async with scene(store=store, key=key, data_dir=str(tmp_path)) as stage:
        port = stage.server.port
        publisher = await stage.publish("etl~1")
        _work(publisher, "before")
        await publisher.flush()
        observer = await stage.observe("etl~1")
        before = observer.state()
        await stage.server.drain()
        await until(lambda: observer.sub.phase == "waiting")
        async with EmbeddedServer(store=store, key=key, port=port, data_dir=str(tmp_path)) as again:
            await _live_again(observer)
            publisher.publication._connection.reconnect_now()
            _work(publisher, "after")
            await publisher.flush()
            epoch, seq, _ = again.engine.heads(["etl~1"])["etl~1"]
            await observer.at(seq)
            assert epoch == before.epoch
            assert set(observer.state().chains) == {"load", "before", "after"}
            assert observer.state().digest == again.engine.heads(["etl~1"])["etl~1"][2]
            assert len(observer.all_seqs) == len(set(observer.all_seqs))
            await stage.close()
            stage.connections.clear()
